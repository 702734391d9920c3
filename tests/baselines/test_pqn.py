"""PQN: updates from rollouts beside plain NumPy, and what it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.factored import VDN, Factored
from baselines.independent import Independent
from baselines.pqn import PQN
from baselines.registry import ALGORITHMS
from envs.base import Observation
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.networks import NO_ACTION, AgentMemory
from tests.baselines.learners import COUNTS, GAMMA, ONE_SHOT, REPEATED, STAGED, at_stage, random_state
from tests.helpers import clock_at, flat
from tests.reference import pqn as reference
from tests.reference import q_learners

IDS = [name for name, entry in ALGORITHMS.items() if isinstance(entry.algorithm, PQN)]
E, T = 3, 5
SMALL = {
    "hidden": (3, 3),
    "gamma": GAMMA,
    "td_lambda": 0.6,
    "rollout_length": T,
    "epochs": 2,
    "minibatches": 3,
    "optimiser": "adam",
    "learning_rate": 0.05,
    "adam_eps": 0.1,
    "max_grad_norm": 0.5,
}
#: Where rollouts of 5 steps are being reset, and where they terminate an episode.
MASKS = np.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 0, 1]], np.float32)
DISCOUNTS = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], np.float32)


def with_utilities(algorithm, game, state, rollouts):
    """Rollouts with what agents without a memory store: the utilities by which they act."""
    if algorithm.recurrent:
        return rollouts
    network = algorithm.network(GameSpec.of(game)).bind(state.params)
    utilities = over_batch(lambda trajectory: network.unroll(trajectory)[:-1], rollouts)
    return rollouts._replace(extras=utilities)


def random_rollouts(seed, recurrent=False):
    """`(E, T)` of STAGED's shape with borders of episodes: one terminates, one is cut off, others go on.

    Actions that are not available are never taken. Recurrent agents begin amid an episode in all but one.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.tree.map(lambda leaf: (E, T + 1, *leaf.shape), at_stage(STAGED, 0))
    masks = rng.random(shapes.action_mask) < 0.6
    actions = np.stack([rng.integers(count, size=(E, T)) for count in COUNTS], axis=-1)
    np.put_along_axis(masks[:, :-1], actions[..., None], True, axis=-1)
    masks[:, -1, :, 0] |= ~masks[:, -1].any(axis=-1)
    first = np.concatenate([np.zeros((E, 1), bool), MASKS == 0], axis=1)
    first[1, 0] = True
    hidden = np.where(first[:, :1, None], 0, rng.normal(size=(E, len(COUNTS), SMALL["hidden"][-1])))
    last_actions = np.where(first[:, :1], NO_ACTION, rng.integers(2, size=(E, len(COUNTS))))
    return Trajectory(
        observation=Observation(
            agents_view=rng.normal(size=shapes.agents_view).astype(np.float32),
            global_state=rng.normal(size=shapes.global_state).astype(np.float32),
            action_mask=masks,
            step_count=np.zeros((E, T + 1), np.int32),
        ),
        first=first,
        carry=AgentMemory(hidden.astype(np.float32), last_actions.astype(np.int32)) if recurrent else (),
        actions=actions.astype(np.int32),
        extras=(),
        reward=np.where(MASKS > 0, rng.normal(size=(E, T)), 1e3).astype(np.float32),  # nonsense at resets
        discount=DISCOUNTS,
        mask=MASKS,
    )


def minibatches_of(key, algorithm):
    """The places of the steps in every minibatch, in the order in which they are learned from."""
    samples = E if algorithm.recurrent else E * T
    parts = []
    for order in jax.random.split(key, algorithm.epochs):
        rows = np.asarray(jax.random.permutation(order, samples)).reshape(algorithm.minibatches, -1)
        for each in rows.tolist():
            places = {(e, t) for e in each for t in range(T)} if algorithm.recurrent else set()
            parts.append(places or {divmod(row, T) for row in each})
    return parts


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, np.float64), tree)


@pytest.mark.parametrize(
    ("algorithm_id", "recurrent", "settings"),
    [
        pytest.param("pqn-vdn", False, {}, marks=pytest.mark.slow),
        pytest.param("pqn-vdn", True, {}, marks=pytest.mark.slow),
        pytest.param("pqn-iql", False, {"td_lambda": 1.0, "share_parameters": False}, marks=pytest.mark.slow),
        pytest.param("pqn-iql", True, {"td_lambda": 0.3}, marks=pytest.mark.slow),
        ("pqn-qmix", False, {"td_lambda": 0.0, "epochs": 1, "minibatches": 5, "mixer_embed": 2}),
        pytest.param(
            "pqn-qmix", True, {"epochs": 1, "minibatches": 1, "mixer_embed": 2}, marks=pytest.mark.slow
        ),
    ],
)
def test_an_update_is_that_of_a_slow_reference(algorithm_id, recurrent, settings):
    """Targets by the parameters before it, through the borders of episodes, and every step of each epoch."""
    algorithm = baselines.make(algorithm_id, **{**SMALL, **settings}, recurrent=recurrent)
    state, rollouts, key = (
        random_state(algorithm, STAGED, 1, num_envs=E),
        random_rollouts(2, recurrent),
        jax.random.key(3),
    )
    update = jax.jit(algorithm.bind(GameSpec.of(STAGED), E).update)
    stored = with_utilities(algorithm, STAGED, state, jax.tree.map(jnp.asarray, rollouts))
    after, metrics = update(state, stored, clock_at(), key)
    params = as_float64(state.params["params"])
    mixes = {"pqn-iql": None, "pqn-vdn": q_learners.vdn_mix, "pqn-qmix": q_learners.qmix_mix}
    losses = reference.update(
        params,
        rollouts,
        minibatches_of(key, algorithm),
        mixes[algorithm_id],
        recurrent=recurrent,
        gamma=GAMMA,
        lambda_=algorithm.method.td_lambda,
        rate=0.05,
        eps=0.1,
        max_grad_norm=0.5,
    )
    assert len(losses) == algorithm.epochs * algorithm.minibatches
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-3)
    moved = 0.0
    for found, expected, before in zip(
        *map(jax.tree.leaves, (after.params["params"], params, state.params["params"])), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)
        moved = max(moved, np.abs(expected - before).max())
    assert moved > 0.02


def test_returns_bootstrap_through_resets_by_hand():
    """An episode that is cut off, the reset after it, and one that ends within the rollout.

    Gamma and lambda are .5. Backwards: 4; 3 + .5 (15 + 2) = 11.5; the reset; 2 + .5 * 20 = 12 from the value
    where it was cut off; 1 + .5 (5 + 6) = 6.5.
    """
    shown = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), random_rollouts(0))
    trajectory = shown._replace(
        reward=jnp.asarray([1.0, 2.0, 99.0, 3.0, 4.0]),
        discount=jnp.asarray([1.0, 1.0, 1.0, 1.0, 0.0]),
        mask=jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0]),
    )
    values = jnp.asarray([10.0, 20.0, 77.0, 30.0, 40.0])
    expected = np.array([6.5, 12.0, 0.0, 11.5, 4.0])
    for method in (Factored(mixing=VDN(), td_lambda=0.5), Independent(td_lambda=0.5)):
        per_agent = isinstance(method, Independent)
        next_values = jnp.stack([values, 2 * values, 0 * values], axis=1) if per_agent else values
        found = np.asarray(method.targets(trajectory, next_values, 0.5))
        steps = np.asarray(trajectory.mask) > 0
        np.testing.assert_allclose((found[:, 0] if per_agent else found)[steps], expected[steps])
    with_zeros = np.array([1 + 0.25 * 2, 2.0, 3 + 0.25 * 4, 4.0])
    np.testing.assert_allclose(found[steps, 2], with_zeros)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm_id", IDS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_one_observation_for_all_steps_equals_one_for_each(algorithm_id, recurrent):
    """In a stateless game observations have no axis of environments."""
    settings = {**SMALL, "rollout_length": 96, "minibatches": 3, "kernels": 2, "kernel_hidden": (4,)}
    algorithm = baselines.make(
        algorithm_id, **baselines.registry.own_settings(algorithm_id, settings), recurrent=recurrent
    )
    rng = np.random.default_rng(0)
    mask = (np.arange(96) % 2 == 0).astype(np.float32)
    observation = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (97, *leaf.shape)),
        ONE_SHOT.observe(ONE_SHOT.reset(jax.random.key(0))[0]),
    )
    hidden = rng.normal(size=(E, len(COUNTS), SMALL["hidden"][-1]))
    shared = Trajectory(
        observation=observation,
        first=jnp.broadcast_to(jnp.arange(97) % 2 == 0, (E, 97)),
        carry=AgentMemory(jnp.asarray(hidden, jnp.float32), jnp.zeros((E, 3), jnp.int32))
        if recurrent
        else (),
        actions=jnp.asarray(
            np.stack([rng.integers(count, size=(E, 96)) for count in COUNTS], axis=-1), jnp.int32
        ),
        extras=(),
        reward=jnp.asarray(rng.normal(size=(E, 96)), jnp.float32),
        discount=jnp.zeros((E, 96)),
        mask=jnp.broadcast_to(mask, (E, 96)),
    )
    explicit = shared._replace(
        observation=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (E, *leaf.shape)), observation)
    )
    state, key = random_state(algorithm, ONE_SHOT, 5, num_envs=E), jax.random.key(0)
    assert algorithm.few_joint_actions(GameSpec.of(ONE_SHOT)) == (not recurrent)

    def update(env, batch):
        stored = with_utilities(algorithm, env, state, batch)
        return jax.jit(algorithm.bind(GameSpec.of(env), E).update)(state, stored, clock_at(), key)

    (one, metrics), (each, other_metrics) = update(ONE_SHOT, shared), update(REPEATED, explicit)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, other_metrics[name], rtol=1e-4, atol=1e-5, err_msg=name)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one.params, each.params)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one.params, state.params)
    assert max(jax.tree.leaves(moved)) > 0.02


@pytest.mark.slow
def test_minibatches_without_a_step_teach_nothing():
    """Half the rows of a one-shot game are resets, which may fill a minibatch of one or two."""
    experiment = Experiment(
        algorithm=baselines.make("pqn-vdn", hidden=(4,), minibatches=8),
        environment=ONE_SHOT,
        seeds=(0, 1),
        env_steps=640,
        evaluations=1,
        evaluation_episodes=1,
    )
    result = train(experiment)  # raises DivergedError if anything becomes NaN
    assert np.isfinite(result.history.last["loss"]).all()


def test_agents_store_the_utilities_by_which_they_act():
    """Those of the network at what they see, whatever actions are available."""
    algorithm = baselines.make("pqn-qmix", hidden=(4,))
    learner, observation = algorithm.bind(GameSpec.of(STAGED)), at_stage(STAGED, 1)
    observation = observation._replace(action_mask=observation.action_mask.at[:, 1:].set(False))
    params = learner.init(jax.random.key(0)).params
    decision = learner.act(params, (), observation, clock_at(), jax.random.key(1))
    expected = algorithm.network(GameSpec.of(STAGED)).bind(params).utilities(observation)
    np.testing.assert_allclose(decision.extras, expected, rtol=1e-6)
    assert not decision.actions.any()
    recurrent = baselines.make("pqn-qmix", hidden=(4,), recurrent=True).bind(GameSpec.of(STAGED), 4)
    params = recurrent.init(jax.random.key(0)).params
    carry = recurrent.begin(params, observation, jax.random.key(0))
    assert recurrent.act(params, carry, observation, clock_at(), jax.random.key(1)).extras == ()


def test_updates_come_after_whole_rollouts():
    learner = baselines.make("pqn-vdn", rollout_length=5).bind(GameSpec.of(STAGED), 4)
    assert learner.periods == (4, 5, 0)  # nothing is copied
    assert learner.memory.resets_take_a_row
    state = learner.init(jax.random.key(0))
    assert state.target_params == ()


# Settings


@pytest.mark.parametrize("algorithm_id", IDS)
def test_jaxmarls_settings_on_mpe(algorithm_id):
    """`pqn_vdn_ff_mpe.yaml`."""
    found = flat(baselines.make(algorithm_id, "mpe"))
    assert (found.hidden, found.layer_norm, found.recurrent) == ((256, 256), True, False)
    assert (found.rollout_length, found.epochs, found.minibatches) == (16, 4, 16)
    assert (found.optimiser, found.learning_rate, found.max_grad_norm) == ("radam", 5e-4, 1)
    assert (found.gamma, found.td_lambda) == (0.9, 0.3)
    assert (found.epsilon_start, found.epsilon_end, found.epsilon_steps) == (1, 0.1, 200_000)


@pytest.mark.parametrize(
    ("settings", "num_envs", "says"),
    [
        (
            {},
            3,
            "minibatches must divide the 15 steps of its rollouts, which 4 does not: change it or num_envs",
        ),
        (
            {"recurrent": True},
            3,
            "minibatches must divide the 3 rollouts of its environments, as agents are recurrent, which 4",
        ),
    ],
)
def test_parts_that_do_not_fit(bad_input, settings, num_envs, says):
    algorithm = baselines.make("pqn-qmix", rollout_length=5, **settings)
    with bad_input(says):
        algorithm.bind(GameSpec.of(STAGED), num_envs)
    algorithm.bind(GameSpec.of(STAGED), 4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rollout_length": 0}, "rollout_length must be at least 1, not 0"),
        (
            {"rollout_length": 1},
            "td_lambda above 0 looks further than one step: raise rollout_length above 1",
        ),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"minibatches": -1}, "minibatches must be at least 1, not -1"),
        ({"td_lambda": 1.5}, "td_lambda must be in [0, 1], not 1.5"),
    ],
)
def test_settings_that_cannot_be(bad_input, settings, says):
    with bad_input(says):
        baselines.make("pqn-vdn", **settings)
    baselines.make("pqn-vdn", rollout_length=1, td_lambda=0.0)


def test_games_that_it_cannot_play(bad_input):
    differential = GameSpec.of(envs.make("differential"))
    with bad_input("the algorithm needs discrete actions"):
        baselines.make("pqn-vdn").bind(differential)
    with bad_input("the algorithm learns from a reward of the whole team"):
        baselines.make("pqn-vdn").bind(GameSpec.of(envs.make("matrix-pr2")))
    baselines.make("pqn-iql").bind(GameSpec.of(envs.make("matrix-pr2")))


def test_a_rollout_longer_than_training_is_refused(bad_input):
    experiment = Experiment(
        algorithm=baselines.make("pqn-vdn"),
        environment=STAGED,
        seeds=(0,),
        env_steps=60,
        num_envs=4,
        evaluations=1,
    )
    says = "no update is due within 15 iterations of 4 environment(s), the first one comes after 15: raise "
    with bad_input(f"nothing would be learned: {says}env_steps above 60, or lower rollout_length"):
        train(experiment)
