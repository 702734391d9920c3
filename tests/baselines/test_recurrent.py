"""Recurrent agents: their networks, memory in the loop, losses along episodes, and what they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.q_learning import QLearning
from baselines.registry import ALGORITHMS, lookup, own_settings
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.networks import NO_ACTION
from jaxmarl_fac.program import Program
from jaxmarl_fac.settings import leaves
from tests.baselines.episodes import EPISODES, LONGEST, batch_of, only, padded
from tests.baselines.learners import GAMMA, STAGED, batch_loss, random_params
from tests.baselines.recall import Recall
from tests.helpers import but_slow, clock_at, flat, sets_but_slow
from tests.reference import q_learners, recurrent

RECURRENT = {"consumes": "episodes", "recurrent": True}
SMALL = {
    **RECURRENT,
    "hidden": (5, 4),
    "gamma": GAMMA,
    "mixer_embed": 3,
    "central_hidden": (6, 5),
    "kernels": 2,
    "kernel_hidden": (4,),
    "joint_hidden": (6, 5),
    "heads": 2,
    "head_embed": 3,
}
#: All that can have agents with a memory.
ALL = [name for name in ALGORITHMS if "recurrent" in leaves(lookup(name))]
#: Those that learn from rollouts, and those that need episodes for it.
FROM_ROLLOUTS = [name for name in ALL if "rollout_length" in leaves(lookup(name))]
LEARNERS = [name for name in ALL if name not in FROM_ROLLOUTS]
Q_LEARNERS = [name for name in LEARNERS if isinstance(lookup(name), QLearning)]


def small(algorithm_id, **settings):
    """A small recurrent algorithm, without the settings that it does not have."""
    return baselines.make(algorithm_id, **own_settings(algorithm_id, SMALL), **settings)


# The network


def test_an_unroll_is_the_formula():
    """Of a GRU between Dense layers, with last actions that start from nothing."""
    algorithm = small("vdn")
    params, network = random_params(algorithm, STAGED, 1), algorithm.network(GameSpec.of(STAGED))
    unroll = jax.jit(lambda params, trajectory: network.bind(params).unroll(trajectory))
    for episode in EPISODES[-2:]:
        expected = recurrent.utilities(params["params"]["agent"], episode)
        found = unroll(params, only(padded(episode, np.random.default_rng(0))))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_unroll_is_acting_step_by_step():
    """Along an episode that was played with exploration: the same greedy actions, utilities and memories."""
    algorithm = small("qmix", epsilon_start=0.7, epsilon_end=0.7)
    game, params = GameSpec.of(STAGED), random_params(algorithm, STAGED, 2)
    learner, trajectory = algorithm.bind(game), only(padded(EPISODES[-1], np.random.default_rng(0)))
    observations = trajectory.observation
    act, act_greedily = jax.jit(learner.act), jax.jit(learner.act_greedily)
    carry, played, hidden, greedy = None, [], [], []
    for t in range(LONGEST + 1):
        observation = jax.tree.map(lambda leaf, t=t: leaf[t], observations)
        if carry is None:
            carry = learner.begin(params, observation, jax.random.key(0))
            assert not carry.hidden.any()
            assert (carry.last_actions == NO_ACTION).all()
        best, after = act_greedily(params, carry, observation, jax.random.key(t))[:2]
        actions, carry = act(params, carry, observation, clock_at(), jax.random.key(t))[:2]
        np.testing.assert_array_equal(after.hidden, carry.hidden)  # both have seen the same
        np.testing.assert_array_equal(after.last_actions, best)
        np.testing.assert_array_equal(carry.last_actions, actions)
        hidden.append(carry.hidden)
        greedy.append(best)
        played.append(actions)
    agent = algorithm.network(game).bind(params).agent
    utilities, features = agent.unroll(trajectory._replace(actions=jnp.stack(played[:-1])))
    np.testing.assert_allclose(features, jnp.stack(hidden), rtol=1e-5, atol=1e-6)
    masked = jnp.where(observations.action_mask, utilities, -jnp.inf)
    np.testing.assert_array_equal(jnp.argmax(masked, axis=-1), jnp.stack(greedy))
    assert np.ptp(np.asarray(features), axis=0).min() > 1e-3  # everything moves


def test_an_unroll_may_begin_within_an_episode_and_run_into_the_next():
    """As a rollout does: from the memory that agents had there, which is fresh at the next beginning."""
    algorithm = small("vdn")
    game, params = GameSpec.of(STAGED), random_params(algorithm, STAGED, 3)
    network = algorithm.network(game)
    unroll = jax.jit(lambda trajectory: network.bind(params).agent.unroll(trajectory))
    one, other = (only(padded(episode, np.random.default_rng(0))) for episode in EPISODES[-2:])
    whole, features = unroll(one)
    learner = algorithm.bind(game)
    start = jax.tree.map(lambda leaf: leaf[0], one.observation)
    fresh = learner.begin(params, start, jax.random.key(0))
    second = fresh._replace(hidden=features[1], last_actions=one.actions[1])  # before observation 2

    # Observations 2 to 4 of the one episode, then the other from its start, and a row for the reset between.
    def joined(ours, theirs):
        return jnp.concatenate([ours[2:], theirs])

    rollout = Trajectory(
        observation=jax.tree.map(joined, one.observation, other.observation),
        first=jnp.arange(8) == 3,
        carry=second,
        actions=jnp.concatenate([one.actions[2:], jnp.full((1, 3), 2), other.actions]),
        extras=(),
        reward=jnp.zeros(7),
        discount=jnp.ones(7),
        mask=jnp.ones(7).at[2].set(0),
    )
    found, _ = unroll(rollout)
    np.testing.assert_allclose(found[:3], whole[2:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[3:], unroll(other)[0], rtol=1e-5, atol=1e-6)
    without, _ = unroll(rollout._replace(carry=fresh))
    assert np.abs(without[:3] - whole[2:]).max() > 0.01


# Losses along episodes


def losses_of(algorithm, online, target, batch):
    """Every step's loss by itself `(B, T)`, and what is logged of it."""
    network, gamma = algorithm.network(GameSpec.of(STAGED)), algorithm.gamma

    def losses(trajectory):
        return algorithm.method.losses(network.bind(online), network.bind(target), trajectory, gamma)

    return over_batch(losses, batch)


def check(algorithm, expected):
    """On EPISODES, padded with nonsense: every step's loss, and their mean over all steps."""
    online, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    batch = batch_of(EPISODES, 0)

    @jax.jit
    def each_and_mean(online, target):
        mean, _ = batch_loss(algorithm, STAGED)(online, target, batch)
        return (*losses_of(algorithm, online, target, batch), mean)

    losses, metrics, mean = each_and_mean(online, target)
    total, steps = 0.0, 0
    for row, episode in enumerate(EPISODES):
        want = expected(online["params"], target["params"], episode)
        length = len(episode.actions)
        np.testing.assert_allclose(losses[row, :length], want["loss"], rtol=1e-3, atol=1e-4)
        for name in want.keys() - {"loss"}:
            logged = metrics[name][row, :length]
            np.testing.assert_allclose(logged, want[name], rtol=1e-3, atol=1e-4, err_msg=name)
        total, steps = total + want["loss"].sum(), steps + length
    assert float(mean) == pytest.approx(total / steps, rel=1e-4)


@pytest.mark.parametrize(
    ("algorithm_id", "mix", "lambda_", "double"),
    [
        ("vdn", q_learners.vdn_mix, 0.0, True),
        pytest.param("vdn", q_learners.vdn_mix, 1.0, False, marks=pytest.mark.slow),
        pytest.param("qmix", q_learners.qmix_mix, 0.6, True, marks=pytest.mark.slow),
        ("qmix", q_learners.qmix_mix, 0.6, False),
    ],
)
def test_mixed(algorithm_id, mix, lambda_, double):
    """Targets from the definition of TD(lambda), double or not, for ends of both kinds at every step."""
    check(
        small(algorithm_id, td_lambda=lambda_, double_q=double),
        lambda online, target, episode: {
            "loss": recurrent.mixed_losses(mix, online, target, episode, GAMMA, lambda_, double)
        },
    )


@pytest.mark.parametrize(
    ("lambda_", "double"), sets_but_slow([(0.0, True), (0.6, True), (0.6, False)], [(0.6, True)])
)
def test_iql(lambda_, double):
    algorithm = small("iql", td_lambda=lambda_, double_q=double)
    online, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    losses, _ = jax.jit(functools.partial(losses_of, algorithm))(online, target, batch_of(EPISODES, 0))
    for row, episode in zip(losses, EPISODES, strict=True):
        want = recurrent.iql_losses(online["params"], target["params"], episode, GAMMA, lambda_, double)
        np.testing.assert_allclose(row[: len(want)], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("algorithm_id", "lambda_", "double", "flags"),
    [
        pytest.param("qtran-base", 0.0, True, {}, marks=pytest.mark.slow),
        ("qtran-base", 0.6, False, {"share_parameters": False}),
        ("qtran-base", 0.6, True, {"global_state": True, "state_value": "on"}),
        pytest.param("qtran-alt", 0.6, False, {}, marks=pytest.mark.slow),
        ("qtran-alt", 0.6, True, {"global_state": True, "state_value": "on"}),
    ],
)
def test_qtran(algorithm_id, lambda_, double, flags):
    """Features from the hidden states, whosever parameters these are from; TD(lambda) of the joint value."""
    state_value, alt = "state_value" in flags, algorithm_id == "qtran-alt"

    def expected(online, target, episode):
        losses = recurrent.qtran_losses(online, target, episode, GAMMA, lambda_, double, state_value, alt)
        return {"loss": losses["td_loss"] + losses["opt_loss"] + 0.1 * losses["nopt_loss"], **losses}

    check(small(algorithm_id, td_lambda=lambda_, double_q=double, nopt_weight=0.1, **flags), expected)


@pytest.mark.parametrize("algorithm_id", but_slow(["iql", "qmix", "remix", "qtran-alt"], ["remix"]))
def test_what_comes_after_an_episodes_end_changes_nothing(algorithm_id):
    """Neither the loss nor its gradient, to the bit."""
    algorithm = small(algorithm_id, td_lambda=0.6)
    params, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    loss_and_gradient = jax.jit(jax.value_and_grad(batch_loss(algorithm, STAGED), has_aux=True))
    batches = batch_of(EPISODES, 0), batch_of(EPISODES, 1)
    assert (batches[0].reward != batches[1].reward).any()
    one, other = (loss_and_gradient(params, target, batch) for batch in batches)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert any(leaf.any() for leaf in jax.tree.leaves(one[1]))


@pytest.mark.slow
def test_recurrent_ow_with_alpha_1_has_qmixs_loss_bit_for_bit():
    """Where both have the same target: nothing to bootstrap from."""
    ow, qmix = small("ow-qmix", alpha=1.0), small("qmix")
    batch = batch_of(EPISODES, 0)
    batch = batch._replace(discount=jnp.zeros_like(batch.discount))
    params, target = random_params(ow, STAGED, 1), random_params(ow, STAGED, 2)

    def of_qmix(params):
        return {"params": {name: params["params"][name] for name in ("agent", "mixer")}}

    network = ow.network(GameSpec.of(STAGED))
    parts = network.bind(params), network.bind(target)
    terms = over_batch(lambda one: ow.method.terms(*parts, one, ow.gamma), batch)
    silent = terms._replace(other=jnp.zeros_like(terms.other))
    plain, _ = batch_loss(qmix, STAGED)(of_qmix(params), of_qmix(target), batch)
    np.testing.assert_array_equal(ow.method.combined(silent, batch.mask)[0], plain)
    assert (terms.weight == 1).all()


@pytest.mark.slow
def test_recurrent_remix_without_factors_is_ow_bit_for_bit():
    ow = small("ow-qmix", alpha=0.3, td_lambda=0.6)
    bare = small("remix", w_min=0.3, td_lambda=0.6, bellman=False, underestimation=False, gradient=False)
    batch = batch_of(EPISODES, 0)
    params, target = random_params(ow, STAGED, 1), random_params(ow, STAGED, 2)
    (one, metrics), (other, other_metrics) = (
        batch_loss(algorithm, STAGED)(params, target, batch) for algorithm in (ow, bare)
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(metrics["mean_weight"], other_metrics["mean_weight"])
    assert 0.3 < float(metrics["mean_weight"]) < 1


def test_the_unrestricted_value_has_recurrent_agents_of_its_own():
    algorithm = small("ow-qmix")
    params = random_params(algorithm, STAGED, 1)["params"]
    assert set(params["central_agent"]) == set(params["agent"]) == {"encoder", "cell", "head"}
    batch = batch_of(EPISODES, 0)
    loss_of = batch_loss(algorithm, STAGED)
    gradient = jax.jit(jax.grad(lambda params: loss_of({"params": params}, {"params": params}, batch)[0]))(
        params
    )
    for agent in ("agent", "central_agent"):  # through every gate
        assert all(leaf.any() for leaf in jax.tree.leaves(gradient[agent]["cell"]))


# Games that must be remembered


@pytest.mark.slow
def test_agents_forget_between_episodes_and_never_within():
    """The loop's carries after every step, beside states that tell the time and what was played."""
    env = Recall(shortest=2, longest=4)
    algorithm = small("vdn", learning_starts=10_000, batch_size=2, replay_size=4)
    experiment = Experiment(
        algorithm=algorithm, environment=env, seeds=(0, 1), env_steps=60, num_envs=5, evaluations=1
    )
    program = Program(experiment)
    lanes = program.initial_lanes()

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0))
    def remembered(params, state, hidden):
        """The hidden states after seeing the state, of one lane."""
        agent = algorithm.network(GameSpec.of(env)).bind(params).agent
        views = jax.vmap(env.observe)(state).agents_view
        return jax.vmap(lambda view, h, last: agent(view, (h, last))[1])(
            views, hidden, state.played.astype(jnp.int32)
        )

    started = 0
    for iteration in range(12):
        params = lanes.learner.params
        before = jax.tree.map(jnp.copy, (lanes.env_states, lanes.carries.hidden))
        expected = np.asarray(remembered(params, *before))
        lanes, _ = program.chunk(lanes, iteration, iteration + 1)
        fresh = np.asarray(lanes.env_states.step_count == 0)  # (lanes, E)
        carries = jax.tree.map(np.asarray, lanes.carries)
        np.testing.assert_array_equal(carries.last_actions, np.asarray(lanes.env_states.played))
        assert (carries.last_actions[fresh] == NO_ACTION).all()
        assert (carries.hidden[fresh] == 0).all()
        assert (carries.hidden[~fresh] != 0).any(axis=(-1, -2)).all()
        np.testing.assert_allclose(carries.hidden[~fresh], expected[~fresh], rtol=1e-5, atol=1e-6)
        started += int(fresh.sum())
    assert 30 <= started <= 60  # 120 steps in episodes of 2 to 4


@pytest.mark.slow
@pytest.mark.parametrize("algorithm_id", ["vdn", "qmix"])
def test_only_recurrent_agents_repeat_what_they_saw(algorithm_id):
    """8 seeds: with memory all greedy episodes are right on at least 7; without none gets above .6.

    Without memory the best is to name the same cue always, right in a third of 64 episodes.
    """
    settings = {
        "consumes": "episodes",
        "hidden": (16,),
        "learning_rate": 5e-3,
        "batch_size": 32,
        "replay_size": 1000,
        "learning_starts": 200,
        "target_period": 50,
        "epsilon_end": 0.1,
        "epsilon_steps": 2000,
    }

    def returns(recurrent):
        experiment = Experiment(
            algorithm=baselines.make(algorithm_id, **settings, recurrent=recurrent),
            environment=Recall(),
            seeds=tuple(range(8)),
            env_steps=6000,
            num_envs=8,
            evaluations=1,
            evaluation_episodes=64,
        )
        return train(experiment).history.last["episode_return"]

    assert (returns(True) == 1).sum() >= 7
    assert (returns(False) < 0.6).all()


# Settings


def test_who_can_be_recurrent():
    assert {"iql", "vdn", "qmix", "qtran-base", "qtran-alt", "qplex", "qatten", "cw-qmix", "ow-qmix"} < {
        *LEARNERS
    }
    assert {"reinforce", "a2c", "ippo", "mappo", "ppo", "central-pg", "coma", "vdac-sum", "vdac-mix"} < {
        *FROM_ROLLOUTS
    }


@pytest.mark.parametrize("algorithm_id", FROM_ROLLOUTS)
def test_learners_from_rollouts_may_have_a_memory_at_once(algorithm_id):
    """In the stag hunt's family they have, like all others."""
    assert not baselines.make(algorithm_id).recurrent
    assert baselines.make(algorithm_id, recurrent=True).recurrent
    algorithm = flat(baselines.make(algorithm_id, "stag-hunt"))
    assert (algorithm.recurrent, algorithm.hidden, algorithm.optimiser) == (True, (64,), "rmsprop")


@pytest.mark.parametrize("algorithm_id", LEARNERS)
def test_recurrent_agents_take_episodes(bad_input, algorithm_id):
    assert not flat(baselines.make(algorithm_id)).recurrent
    assert flat(baselines.make(algorithm_id, **RECURRENT)).recurrent
    steps_only = own_settings(algorithm_id, {"recent_fraction": 0.0, "td_lambda": 0.0})
    with bad_input("recurrent agents learn from what came before: consume episodes"):
        baselines.make(algorithm_id, recurrent=True, consumes="transitions", **steps_only)


@pytest.mark.parametrize("algorithm_id", [name for name in Q_LEARNERS if name != "remix"])
def test_weighted_qmixs_release_on_the_stag_hunt(algorithm_id):
    """Its code's settings (arXiv 2006.10800)."""
    assert baselines.make(algorithm_id, "stag-hunt").recurrent
    algorithm = flat(baselines.make(algorithm_id, "stag-hunt"))
    assert (algorithm.consumes, algorithm.recurrent, algorithm.hidden) == ("episodes", True, (64,))
    assert (algorithm.optimiser, algorithm.learning_rate) == ("rmsprop", 5e-4)
    assert (algorithm.rmsprop_decay, algorithm.rmsprop_eps, algorithm.max_grad_norm) == (0.99, 1e-5, 10)
    assert (algorithm.batch_size, algorithm.replay_size, algorithm.target_period) == (32, 5000, 200)
    assert (algorithm.epsilon_start, algorithm.epsilon_end, algorithm.epsilon_steps) == (1, 0.05, 50_000)
    assert (algorithm.gamma, algorithm.td_lambda) == (0.99, 0)
    if algorithm_id in ("cw-qmix", "ow-qmix"):
        assert algorithm.alpha == 0.1
        assert (algorithm.mixer_embed, algorithm.hypernet_hidden) == (32, (64,))
        assert algorithm.central_hidden == (256, 256, 256)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"update_period": 0}, "update_period must be at least 1, not 0"),
        ({"td_lambda": -0.1}, "td_lambda must be in [0, 1], not -0.1"),
        ({"td_lambda": 0.5}, "td_lambda above 0 looks further than one transition: consume episodes"),
        ({"optimiser": "sgd"}, "optimiser must be adam or rmsprop or radam, not sgd"),
        ({"rmsprop_decay": 1.0}, "rmsprop_decay must be at least 0 and below 1, not 1.0"),
        ({"rmsprop_eps": 0.0}, "rmsprop_eps must be above 0, not 0.0"),
    ],
)
def test_settings_that_cannot_be(bad_input, settings, says):
    with bad_input(says):
        baselines.make("iql", **settings)
