"""Losses, steps and actions of the algorithms that learn from single transitions, against plain NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import baselines
import envs
from baselines.factored import VDN, Factored
from baselines.independent import Independent
from baselines.parts import Agents, EpsilonGreedy, Optimiser, Replay
from baselines.q_learning import QLearning
from baselines.registry import ALGORITHMS, own_settings
from envs.base import Observation
from envs.matrix_games import QTRAN_PAYOFF, MatrixGame, matrix_game
from jaxmarl_fac.experience import Step
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory.packing import plain_step
from jaxmarl_fac.targets import td_target
from tests.baselines.learners import (
    COUNTS,
    GAMMA,
    ONE_SHOT,
    REPEATED,
    STAGED,
    STEPS,
    batch_loss,
    concatenated,
    plain_transition,
    random_params,
    random_state,
    staged_steps,
)
from tests.helpers import but_slow, clock_at, first_observation, transitions
from tests.reference import q_learners as reference

SMALL = {"hidden": (5, 4), "gamma": GAMMA, "batch_size": 16}


def check(algorithm, expected, metrics=()):
    """The losses on STEPS, and what is logged of them, are what `expected(online, target, step)` says."""
    online, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    loss_of = jax.jit(batch_loss(algorithm, STAGED))
    found = []
    for step in staged_steps():
        loss, logged = loss_of(online, target, step)
        want = expected(online["params"], target["params"], plain_transition(step))
        np.testing.assert_allclose(loss, want["loss"], rtol=2e-4, atol=1e-5)
        for name in metrics:
            np.testing.assert_allclose(logged[name], want[name], rtol=2e-4, atol=1e-5, err_msg=name)
        found.append(float(loss))
    assert len({round(loss, 3) for loss in found}) == len(STEPS)


#: What the references read from the parameters' shapes.
ALONE = {"share_parameters": False, "agent_ids": False}


@pytest.mark.parametrize("double_q", but_slow([True, False], [True]))
@pytest.mark.parametrize("flags", [{}, ALONE], ids=["shared", "alone"])
def test_iql(flags, double_q):
    check(
        baselines.make("iql", **SMALL, **flags, double_q=double_q),
        lambda online, target, step: {"loss": reference.iql_loss(online, target, step, GAMMA, double_q)},
    )


@pytest.mark.parametrize(
    ("double_q", "values", "loss"), [(True, (1, 2), 11.125), (False, (6, 7), 33.625)], ids=["double", "plain"]
)
def test_the_two_targets_of_iql_by_hand(double_q, values, loss):
    """The third action, of highest values, is not available.

    The online network's best are the first action of agent 1 and the second of agent 2, the target network's
    are the others. A reward of 1 and gamma .5 make targets of (1.5, 2) and (4, 4.5); what was played has the
    values (-1, -2), so the mean squared errors are (2.5^2 + 4^2) / 2 and (5^2 + 6.5^2) / 2.
    """
    method = Independent(double_q=double_q)
    online, target = jnp.asarray([[[4.0, 2, 9], [0, 3, 5]], [[1, 6, 8], [7, 2, 8]]])
    following = Observation(
        agents_view=jnp.zeros((2, 1)),
        global_state=jnp.zeros(1),
        action_mask=jnp.asarray([[True, True, False]] * 2),
        step_count=jnp.int32(1),
    )
    found = method.next_value(None, online, target, following)
    np.testing.assert_array_equal(found, values)
    y = td_target(jnp.ones(2), jnp.ones(2), 0.5, found)
    played = jnp.asarray([[-1.0, 0, 0], [0, -2, 0]])
    assert method.step_loss(None, played, following, jnp.asarray([0, 1]), y)[0] == loss


@pytest.mark.parametrize("double_q", but_slow([True, False], [False]))
@pytest.mark.parametrize(
    ("algorithm_id", "mix", "settings"),
    [
        ("vdn", reference.vdn_mix, {}),
        pytest.param("qmix", reference.qmix_mix, {"mixer_embed": 3}, marks=pytest.mark.slow),
        ("qmix", reference.qmix_mix, {"mixer_embed": 3, "hypernet_hidden": (4,)}),
    ],
    ids=["vdn", "qmix", "qmix-2-layers"],
)
def test_mixed(algorithm_id, mix, settings, double_q):
    check(
        baselines.make(algorithm_id, **SMALL, **settings, double_q=double_q),
        lambda online, target, step: {
            "loss": reference.mixed_loss(mix, online, target, step, GAMMA, double_q)
        },
    )


WEIGHTS = {"opt_weight": 0.5, "nopt_weight": 0.25, "joint_hidden": (6, 5)}


def total(losses):
    loss = losses["td_loss"] + 0.5 * losses["opt_loss"] + 0.25 * losses["nopt_loss"]
    return {"loss": loss, **losses}


@pytest.mark.parametrize(
    ("aggregate", "state_value", "target", "double_q", "flags"),
    [
        ("sum", "on", "q_jt", False, {}),
        pytest.param("sum", "off", "q_prime", False, {"share_parameters": False}, marks=pytest.mark.slow),
        pytest.param("mean", "off", "q_jt", True, {"agent_ids": False}, marks=pytest.mark.slow),
        ("mean", "on", "q_prime", True, ALONE),
        ("sum", "on", "q_jt", True, {"global_state": True}),
        pytest.param("mean", "off", "q_jt", False, {"global_state": True}, marks=pytest.mark.slow),
    ],
)
def test_qtran_base(aggregate, state_value, target, double_q, flags):
    """Its joint networks build on the agents' features, whosever parameters these are from.

    With `global_state`, PyMARL's, on the state and on what two layers make of features and actions.
    """
    switches = {"aggregate": aggregate, "state_value": state_value, "target": target, "double_q": double_q}
    check(
        baselines.make("qtran-base", **SMALL, **WEIGHTS, **switches, **flags),
        lambda a, b, step: total(
            reference.qtran_base_losses(a, b, step, GAMMA, aggregate, state_value == "on", target, double_q)
        ),
        metrics=("td_loss", "opt_loss", "nopt_loss"),
    )


@pytest.mark.parametrize(
    ("aggregate", "state_value", "target", "nopt_min", "double_q", "flags"),
    [
        ("sum", "on", "q_jt", "signed", False, {}),
        pytest.param("sum", "off", "q_max", "signed", True, ALONE, marks=pytest.mark.slow),
        pytest.param("mean", "off", "q_prime", "printed", True, {}, marks=pytest.mark.slow),
        ("mean", "on", "q_max", "printed", False, {"share_parameters": False}),
        ("sum", "on", "q_jt", "signed", True, {"global_state": True}),
    ],
)
def test_qtran_alt(aggregate, state_value, target, nopt_min, double_q, flags):
    check(
        baselines.make(
            "qtran-alt",
            **SMALL,
            **WEIGHTS,
            aggregate=aggregate,
            state_value=state_value,
            target=target,
            nopt_min=nopt_min,
            double_q=double_q,
            **flags,
        ),
        lambda a, b, step: total(
            reference.qtran_alt_losses(
                a, b, step, GAMMA, aggregate, state_value == "on", target, nopt_min, double_q
            )
        ),
        metrics=("td_loss", "opt_loss", "nopt_loss"),
    )


def test_state_values_are_left_out_where_all_is_observed():
    """QTRAN's Theorem 1a; "auto" asks the environment."""

    @struct.dataclass(eq=False)
    class Foggy(MatrixGame):
        fully_observable = False

    foggy = Foggy(
        STAGED.payoff, STAGED.next_stage, STAGED.start, action_counts=STAGED.action_counts, time_limit=1
    )
    for env, state_value, there in (
        (STAGED, "auto", False),
        (STAGED, "on", True),
        (foggy, "auto", True),
        (foggy, "off", False),
    ):
        algorithm = baselines.make("qtran-base", **SMALL, state_value=state_value)
        assert ("value" in random_params(algorithm, env, 0)["params"]) == there


@pytest.mark.parametrize("global_state", [False, True])
@pytest.mark.parametrize("algorithm_id", ["qtran-base", "qtran-alt"])
def test_who_sees_the_global_state(algorithm_id, global_state):
    """Q_jt and V_jt do with `global_state`, by which the agents do not act in any case."""
    algorithm = baselines.make(algorithm_id, **SMALL, state_value="on", global_state=global_state)
    game, params = GameSpec.of(STAGED), random_params(algorithm, STAGED, 1)
    observation = first_observation(STAGED)
    other = observation._replace(global_state=observation.global_state + 1)
    values = jax.jit(
        lambda seen: algorithm.joint_values(game, params, seen, jnp.zeros(game.num_agents, jnp.int32))
    )
    before, after = values(observation), values(other)
    assert {name: bool(after[name] != before[name]) for name in before} == {
        "q_jt": global_state,
        "v_jt": global_state,
        "q_prime": False,
    }


def test_the_joint_networks_are_as_large_as_pymarls():
    """On the stag hunt: 300 numbers of state, 64 of each agent's memory, 6 actions, `network_size: small`."""
    algorithm, game = baselines.make("qtran-base", "stag-hunt"), envs.make("stag-hunt-p2")
    shapes = jax.eval_shape(lambda: random_params(algorithm, game, 0))["params"]
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()}
    encoder = sizes["q_feature"] + sizes["action_embedding"] + sizes["q_encoding"]
    assert encoder == 2 * (70 * 70 + 70)
    assert sizes["joint"] == (370 * 64 + 64) + (64 * 64 + 64) + (64 + 1)
    assert sizes["value"] == (300 * 64 + 64) + (64 * 64 + 64) + (64 + 1)


# Batches


def batch_of(env, count=16):
    """Random transitions of a game that shows the same always, whose samples share the observation."""
    rng = np.random.default_rng(3)
    actions = np.stack([rng.integers(n, size=count) for n in COUNTS], axis=1)
    reward = jnp.asarray(rng.normal(size=count), jnp.float32)
    discount = jnp.asarray(rng.integers(2, size=count), jnp.float32)
    return transitions(first_observation(env), actions, reward, discount, first_observation(env))


@pytest.mark.parametrize(
    "algorithm_id",
    but_slow(["iql", "qmix", "qtran-base", "qtran-alt", "qplex", "cw-qmix"], ["qtran-base"]),
)
def test_one_observation_for_all_samples_equals_one_for_each(algorithm_id):
    """The same losses and gradients, and the same step, to float tolerance (sums in another order)."""
    extra = {"max_grad_norm": 1.0, "learning_rate": 0.1, "adam_eps": 0.1}
    algorithm = baselines.make(algorithm_id, **{**SMALL, **extra, "batch_size": 32})
    state = random_state(algorithm, ONE_SHOT, 5, target_seed=6)
    params = state.params
    batch = batch_of(ONE_SHOT, count=32)
    each = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (32, *leaf.shape)), batch.observation)
    explicit = batch._replace(observation=each)

    def update(env, batch):
        learner = algorithm.bind(GameSpec.of(env))
        return jax.jit(learner.update)(state, batch, clock_at(), jax.random.key(0))

    (shared, metrics), (single, other_metrics) = update(ONE_SHOT, batch), update(REPEATED, explicit)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, other_metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)
    moved = 0.0
    for a, b, before in zip(*map(jax.tree.leaves, (shared.params, single.params, params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        moved = max(moved, np.abs(np.subtract(a, before)).max())
    assert moved > 0.01


def test_qtran_of_all_joint_actions_at_once_equals_one_at_a_time():
    """With more samples than joint actions (18), QTRAN computes all joint values and picks."""
    game, observation = GameSpec.of(ONE_SHOT), first_observation(ONE_SHOT)
    for algorithm_id, seen in itertools.product(("qtran-base", "qtran-alt"), (False, True)):
        settings = {**SMALL, "global_state": seen}
        few, many = (baselines.make(algorithm_id, **{**settings, "batch_size": size}) for size in (8, 64))
        params = random_params(few, ONE_SHOT, 4)

        def all_values(algorithm, params=params):
            of_each = jax.vmap(lambda joint: algorithm.joint_values(game, params, observation, joint))
            return jax.jit(of_each)(jnp.asarray(list(itertools.product(*map(range, COUNTS)))))

        tables = all_values(few), all_values(many)
        for name, table in tables[0].items():
            np.testing.assert_allclose(table, tables[1][name], rtol=1e-5, atol=1e-6)
        assert np.ptp(tables[0]["q_jt"]) > 0.1


# Steps


def test_an_update_is_adam_on_the_mean_loss():
    """One step against optax's own Adam, on gradients of the mean of the single losses."""
    algorithm = baselines.make("vdn", **{**SMALL, "batch_size": 4}, learning_rate=0.01, adam_eps=1e-4)
    state = random_state(algorithm, STAGED, 1, target_seed=2)
    params, target = state.params, state.target_params
    loss_of, steps = batch_loss(algorithm, STAGED), staged_steps()

    def mean_loss(params):
        return sum(loss_of(params, target, step)[0] for step in steps) / len(steps)

    adam = optax.adam(0.01, eps=1e-4)
    adam_state, expected = jax.jit(adam.init)(params), params

    @jax.jit
    def step(params, adam_state):
        directions, adam_state = adam.update(jax.grad(mean_loss)(params), adam_state)
        return optax.apply_updates(params, directions), adam_state

    update = jax.jit(algorithm.bind(GameSpec.of(STAGED)).update)
    for _ in range(3):
        expected, adam_state = step(expected, adam_state)
        state, _ = update(state, concatenated(steps), clock_at(), jax.random.key(0))
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(state.target_params), jax.tree.leaves(target), strict=True):
        np.testing.assert_array_equal(a, b)  # only the loop copies


def test_rmsprop_is_pymarls():
    """`v = .9 v + .1 g^2`, then a step of `rate g / (sqrt(v) + eps)`: epsilon outside the root."""
    settings = {"optimiser": "rmsprop", "rmsprop_decay": 0.9, "rmsprop_eps": 0.05, "learning_rate": 0.01}
    algorithm = baselines.make("vdn", **SMALL, **settings)
    state = random_state(algorithm, STAGED, 1, target_seed=2)
    batch = concatenated(staged_steps())
    update = jax.jit(algorithm.bind(GameSpec.of(STAGED)).update)
    loss_of = batch_loss(algorithm, STAGED)
    gradient_of = jax.jit(jax.grad(lambda params: loss_of(params, state.target_params, batch)[0]))
    squares = [np.zeros(leaf.shape) for leaf in jax.tree.leaves(state.params)]
    for _ in range(2):
        gradients = list(map(np.asarray, jax.tree.leaves(gradient_of(state.params))))
        squares = [0.9 * v + 0.1 * np.square(g) for v, g in zip(squares, gradients, strict=True)]
        before = jax.tree.leaves(state.params)
        state, _ = update(state, batch, clock_at(), jax.random.key(0))
        for a, b, g, v in zip(jax.tree.leaves(state.params), before, gradients, squares, strict=True):
            np.testing.assert_allclose(a, b - 0.01 * g / (np.sqrt(v) + 0.05), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "progress", "share"),
    [
        ("constant", 0.0, 1),
        ("constant", 0.75, 1),
        ("linear", 0.0, 1),
        ("linear", 0.75, 0.25),
        ("linear", 1.0, 0),
    ],
)
def test_learning_rate_schedules(schedule, progress, share):
    """Adam's first step is the learning rate's size in every direction, whatever the gradient's."""
    algorithm = baselines.make("vdn", **SMALL, learning_rate=0.01, learning_rate_schedule=schedule)
    moved = step_from_random(algorithm, progress)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved))
    assert largest == pytest.approx(0.01 * share, rel=1e-3)


@functools.cache
def compiled_update(algorithm):
    return jax.jit(algorithm.bind(GameSpec.of(ONE_SHOT)).update)


def step_from_random(algorithm, progress=0.0, scale=1.0):
    state = random_state(algorithm, ONE_SHOT, 5)
    batch = batch_of(ONE_SHOT)
    batch = batch._replace(reward=batch.reward * scale)
    after, _ = compiled_update(algorithm)(state, batch, clock_at(progress=progress), jax.random.key(0))
    return jax.tree.map(np.subtract, after.params, state.params)


def test_gradients_are_clipped_by_their_global_norm():
    """Adam's first step is `rate g / (|g| + eps)`: with both at 1000, about the gradient itself."""
    free, clipped = (
        baselines.make("vdn", **SMALL, learning_rate=1000.0, adam_eps=1000.0, max_grad_norm=norm)
        for norm in (0.0, 0.5)
    )

    def norm(algorithm, scale):
        leaves = jax.tree.leaves(step_from_random(algorithm, scale=scale))
        return np.sqrt(sum(np.square(leaf).sum() for leaf in leaves))

    assert norm(clipped, 1.0) == pytest.approx(0.5, rel=0.01)
    assert norm(clipped, 100.0) == pytest.approx(0.5, rel=0.01)
    assert norm(free, 1.0) > 1
    assert norm(free, 100.0) > 10


def test_polyak_targets_by_hand():
    """They go a quarter of the way to the parameters in every update: from 0 to 8 is 2, from 2 to 6 is 3."""
    settings = {
        **SMALL,
        "target_period": 0,
        "target_rate": 0.25,
        "learning_rate": 1e-6,
    }  # as good as constant
    algorithm = baselines.make("vdn", **settings)
    state, batch = random_state(algorithm, ONE_SHOT, 5), batch_of(ONE_SHOT)
    update = jax.jit(algorithm.bind(GameSpec.of(ONE_SHOT)).update)

    def filled(value):
        return jax.tree.map(lambda leaf: np.full_like(leaf, value), state.params)

    target = filled(0.0)
    for value, expected in ((8.0, 2.0), (6.0, 3.0)):
        started = state.replace(params=filled(value), target_params=target)
        target = update(started, batch, clock_at(), jax.random.key(0))[0].target_params
        for leaf in jax.tree.leaves(target):
            np.testing.assert_allclose(leaf, expected, rtol=1e-5)


#: MAVEN's batches are of other things, see its own tests.
Q_LEARNERS = [
    name for name, entry in ALGORITHMS.items() if isinstance(entry.algorithm, QLearning) and name != "maven"
]


@pytest.mark.parametrize("algorithm_id", but_slow(Q_LEARNERS, ["iql"]))
def test_targets_move_or_are_copied(algorithm_id):
    """Towards the parameters after the step; the loop copies those that do not move."""
    game, key = GameSpec.of(ONE_SHOT), jax.random.key(0)
    settings = {"initial_value": 0.0, "consumes": "transitions", "recent_fraction": 0.0, "learning_rate": 0.1}
    small = {**SMALL, **own_settings(algorithm_id, settings)}
    for moved in ({}, {"target_period": 0, "target_rate": 0.3}):
        algorithm = baselines.make(algorithm_id, **small, **moved)
        learner = algorithm.bind(game)
        assert learner.periods.target_every == algorithm.target_period
        before = random_state(algorithm, ONE_SHOT, 5, target_seed=6)
        after, _ = jax.jit(learner.update)(before, batch_of(ONE_SHOT), clock_at(), key)
        rate = moved.get("target_rate", 0.0)
        trees = before.target_params, after.params, after.target_params
        for old, params, new in zip(*map(jax.tree.leaves, trees), strict=True):
            old, params = np.asarray(old), np.asarray(params)
            np.testing.assert_allclose(new, (1 - rate) * old + rate * params, rtol=1e-5, atol=1e-6)
        different = jax.tree.map(
            lambda a, b: np.not_equal(a, b).any(), before.target_params, after.target_params
        )
        assert all(jax.tree.leaves(different)) == bool(moved)


@pytest.mark.parametrize(
    ("settings", "which"),
    [({"target_rate": 0.01}, "both"), ({"target_period": 0}, "neither")],
)
def test_targets_either_move_or_are_copied(bad_input, settings, which):
    says = f"targets are copied every target_period updates or move by target_rate in each, not {which}: set"
    with bad_input(says):
        baselines.make("qmix", **settings)


# Acting


def test_all_weights_start_normal_with_the_given_standard_deviation():
    """The release's start: N(0, .1) for every matrix, 0 for every bias, each its own numbers."""
    algorithm = baselines.make("qtran-alt", hidden=(64, 64), joint_hidden=(64, 64), weight_std=0.1)
    state = jax.jit(algorithm.bind(GameSpec.of(STAGED)).init)(jax.random.key(3))
    params = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, state.params))
    kernels = {jax.tree_util.keystr(path): leaf for path, leaf in params if leaf.ndim == 2}
    large = np.stack([np.ravel(leaf)[:1000] for leaf in kernels.values() if leaf.size >= 1000])
    assert len(large) >= 5
    # 1,000 draws: the standard deviation's own error is .1 / sqrt(2,000), the correlations' 1 / sqrt(1,000)
    np.testing.assert_allclose(large.std(axis=1), 0.1, atol=5 * 0.1 / np.sqrt(2000))
    np.testing.assert_allclose(large.mean(axis=1), 0, atol=5 * 0.1 / np.sqrt(1000))
    np.testing.assert_allclose(np.corrcoef(large), np.eye(len(large)), atol=5 / np.sqrt(1000))
    assert all(not leaf.any() for _, leaf in params if leaf.ndim == 1)


@pytest.mark.parametrize("algorithm_id", ["vdn", "qtran-base"])
def test_masked_actions_are_never_played(algorithm_id):
    """Agent 1's third action, whatever the utilities; greedily and by chance."""
    learner = baselines.make(algorithm_id, **SMALL, epsilon_end=0.5).bind(GameSpec.of(ONE_SHOT))
    observation, half = first_observation(ONE_SHOT), clock_at(env_steps=1)
    params = random_params(baselines.make(algorithm_id, **SMALL), ONE_SHOT, 7)
    bias = params["params"]["agent"]["Dense_0"]["bias"]
    params["params"]["agent"]["Dense_0"]["bias"] = bias.at[2].set(1e6)  # by far the best, were it there
    act = jax.jit(jax.vmap(lambda key: learner.act(params, (), observation, half, key).actions))
    actions = np.asarray(act(jax.random.split(jax.random.key(0), 2000)))
    assert set(actions[:, 0]) == {0, 1}
    assert (actions[:, 1:] == 2).mean() > 0.6  # the others' best
    greedy = learner.act_greedily(params, (), observation, jax.random.key(0)).actions.tolist()
    assert greedy[0] < 2
    assert greedy[1:] == [2, 2]


def test_exploration_falls_with_the_clock():
    """Epsilon 1 at the start, .5 half-way and 0 at the end: so often a random one of three actions."""
    settings = {**SMALL, "epsilon_start": 1.0, "epsilon_end": 0.0, "epsilon_steps": 100}
    algorithm = baselines.make("vdn", **settings)
    learner, observation = algorithm.bind(GameSpec.of(ONE_SHOT)), first_observation(ONE_SHOT)
    params, keys = random_params(algorithm, ONE_SHOT, 7), jax.random.split(jax.random.key(2), 3000)
    greedy = learner.act_greedily(params, (), observation, keys[0]).actions

    @jax.jit
    def actions_at(env_steps):
        clock = clock_at()._replace(env_steps=env_steps)
        return jax.vmap(lambda key: learner.act(params, (), observation, clock, key).actions)(keys)

    for env_steps, epsilon in ((0, 1.0), (50, 0.5), (100, 0.0), (10_000, 0.0)):
        best = np.asarray(actions_at(jnp.int32(env_steps)) == greedy)[:, 1:].mean()
        assert best == pytest.approx(1 - epsilon * 2 / 3, abs=5 * 0.5 / np.sqrt(6000))


def test_exploring_all_the_time_looks_at_no_utilities():
    """With epsilon constantly 1 actions are uniform over what is available, and utilities may be anything."""
    algorithm = baselines.make("vdn", **SMALL)
    learner, observation = algorithm.bind(GameSpec.of(ONE_SHOT)), first_observation(ONE_SHOT)
    nothing = jax.tree.map(lambda leaf: leaf * jnp.nan, random_params(algorithm, ONE_SHOT, 0))
    act = jax.jit(jax.vmap(lambda key: learner.act(nothing, (), observation, clock_at(), key).actions))
    actions = np.asarray(act(jax.random.split(jax.random.key(1), 9000)))
    for agent, count in enumerate(COUNTS):
        shares = np.bincount(actions[:, agent], minlength=3) / 9000
        np.testing.assert_allclose(shares[:count], 1 / count, atol=5 * np.sqrt(0.25 / 9000))
        assert (shares[count:] == 0).all()


# Settings that are known only when they run


def trained_vdn(rate, key):
    """Parameters and every action of 60 steps on QTRAN's game, by a loop of our own around the learner."""
    env = matrix_game(QTRAN_PAYOFF)
    algorithm = QLearning(
        method=Factored(mixing=VDN()),
        agents=Agents(hidden=(8,)),
        replay=Replay(batch_size=16, replay_size=64),
        optimiser=Optimiser(learning_rate=rate),
        exploration=EpsilonGreedy(epsilon_end=0.2, epsilon_steps=40),
        gamma=GAMMA,
    )
    learner = algorithm.bind(GameSpec.of(env))
    store = learner.memory.bind(env, plain_step(env), 1, 60)
    init_key, reset_key, loop_key = jax.random.split(key, 3)

    def iteration(carry, number):
        state, buffer, env_state = carry
        act_key, reset_key, sample_key = jax.random.split(jax.random.fold_in(loop_key, number), 3)
        clock = clock_at(progress=number / 60)._replace(env_steps=number, updates=number)
        observation = env.observe(env_state)
        memory = learner.begin(state.params, observation, reset_key)
        decision = learner.act(state.params, memory, observation, clock, act_key)
        after, timestep = env.step(env_state, decision.actions)
        last = timestep.last()
        step = Step(
            state=env_state,
            carry=memory,
            actions=decision.actions,
            extras=decision.extras,
            reward=timestep.reward,
            discount=timestep.discount,
            last=last,
            mask=jnp.ones_like(last),
            next_state=after,
        )
        buffer = store.add(buffer, number, jax.tree.map(lambda leaf: leaf[None], step))
        batch = store.sample(buffer, number + 1, sample_key)
        state, metrics = learner.update(state, batch, clock, sample_key)
        return (state, buffer, env.reset(reset_key)[0]), (decision.actions, metrics["loss"])

    start = learner.init(init_key), store.init(), env.reset(reset_key)[0]
    (state, _, _), (actions, losses) = jax.lax.scan(iteration, start, jnp.arange(60))
    return {"params": state.params, "actions": actions, "losses": losses}


@pytest.mark.slow
def test_learning_rates_side_by_side():
    """VDN, bound inside a vmap over 16 learning rates, is 16 runs with one rate each."""
    rates, key = np.geomspace(1e-4, 0.1, 16).astype(np.float32), jax.random.key(4)
    together = jax.jit(jax.vmap(trained_vdn, (0, None)))(jnp.asarray(rates), key)
    alone = jax.jit(trained_vdn)
    for place, rate in enumerate(rates):
        found, want = jax.tree.map(lambda leaf, place=place: leaf[place], together), alone(rate, key)
        np.testing.assert_array_equal(found["actions"], want["actions"])
        # A batch of matrix products is added up in another order than a single one.
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, want)
        if place in (5, 15):  # and bit for bit what a plain number gives
            plain = jax.jit(functools.partial(trained_vdn, float(rate)))(key)
            jax.tree.map(np.testing.assert_array_equal, plain, want)
    last = np.asarray(together["losses"])[:, -1]
    assert len({round(float(loss), 3) for loss in last}) == 16  # each learns at a pace of its own
