"""QPLEX, Qatten, Weighted QMIX and ReMIX; and that learning from episodes is learning from their steps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.factored import mixer_inputs
from baselines.registry import own_settings
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.settings import replaced
from tests.baselines.learners import (
    COUNTS,
    GAMMA,
    ONE_SHOT,
    STAGED,
    batch_loss,
    concatenated,
    observation_at,
    plain_transition,
    random_params,
    staged_steps,
)
from tests.helpers import but_slow, first_observation
from tests.reference import weighted_qmix as reference

SMALL = {"hidden": (5, 4), "gamma": GAMMA, "mixer_embed": 3}
WEIGHTED = {**SMALL, "central_hidden": (6, 5)}
STEPS_ONLY = {"consumes": "transitions", "recent_fraction": 0.0}


def weighted(algorithm_id, **settings):
    """A small algorithm that learns from transitions."""
    steps_only = STEPS_ONLY if algorithm_id == "remix" else {}
    return baselines.make(algorithm_id, **{**WEIGHTED, **steps_only, **settings})


def loss_and_gradient(algorithm, params, target, batch):
    loss_of = jax.value_and_grad(batch_loss(algorithm, STAGED), has_aux=True)
    (loss, metrics), gradient = loss_of(params, target, batch)
    return loss, metrics, gradient["params"]


def all_terms(algorithm, params, target, batch):
    """The terms of a batch of Weighted QMIX's, `(B, T)`."""
    network, gamma = algorithm.network(GameSpec.of(STAGED)), algorithm.gamma
    online, target = network.bind(params), network.bind(target)
    return over_batch(lambda trajectory: algorithm.method.terms(online, target, trajectory, gamma), batch)


def greedy_actions(algorithm, params, observation):
    learner = algorithm.bind(GameSpec.of(STAGED))
    return learner.act_greedily(params, (), observation, jax.random.key(0)).actions


# Weighted QMIX


@pytest.mark.parametrize("algorithm_id", but_slow(["ow-qmix", "cw-qmix", "remix"], ["remix"]))
def test_losses_of_weighted_qmix(algorithm_id):
    """Batches of four transitions, against plain NumPy with numerical derivatives; all cases are met."""
    algorithm = weighted(algorithm_id)
    steps, met = staged_steps(), []
    loss_of = jax.jit(batch_loss(algorithm, STAGED))
    for seed in range(6):
        online, target = (random_params(algorithm, STAGED, 2 * seed + k) for k in (0, 1))
        loss, metrics = loss_of(online, target, concatenated(steps))
        numbers = [plain_transition(step) for step in steps]
        want = reference.batch_loss(algorithm_id, 0.1, online["params"], target["params"], numbers, GAMMA)
        assert float(loss) == pytest.approx(want["loss"], rel=2e-3)
        assert float(metrics["mean_weight"]) == pytest.approx(want["weights"].mean(), rel=2e-3)
        met.extend(want["weights"])
    assert min(met) == pytest.approx(0.1)
    assert max(met) == pytest.approx(1)  # the reference spreads them in float64, with its own rounding
    if algorithm_id == "remix":
        assert np.mean((np.asarray(met) > 0.11) & (np.asarray(met) < 0.99)) > 0.1


def test_the_central_factor_and_the_target_networks_argmax():
    """Against plain NumPy; without double-Q the greedy joint action of CW's weights stays the online one."""
    algorithm = weighted("cw-qmix", central_factor=1.0, double_q=False)
    steps, chosen_otherwise = staged_steps(), 0
    numbers = [plain_transition(step) for step in steps]
    loss_of = jax.jit(batch_loss(algorithm, STAGED))
    for seed in range(4):
        online, target = (random_params(algorithm, STAGED, 2 * seed + k) for k in (0, 1))
        loss, metrics = loss_of(online, target, concatenated(steps))
        plain = online["params"], target["params"], numbers, GAMMA
        want = reference.batch_loss("cw-qmix", 0.1, *plain, central_factor=1.0, double_q=False)
        assert float(loss) == pytest.approx(want["loss"], rel=2e-3)
        assert float(metrics["mean_weight"]) == pytest.approx(want["weights"].mean(), rel=2e-3)
        double = reference.batch_loss("cw-qmix", 0.1, *plain, central_factor=1.0)
        chosen_otherwise += abs(double["loss"] / want["loss"] - 1) > 0.02
    assert chosen_otherwise > 0


def test_the_greedy_joint_action_always_counts_in_cw():
    """And others only if their target lies above its value."""
    algorithm = weighted("cw-qmix")
    step = staged_steps()[0]
    params = random_params(algorithm, STAGED, 3)
    greedy = greedy_actions(algorithm, params, observation_at(step, 0))
    other = (greedy + 1) % 2
    loss_of = jax.jit(batch_loss(algorithm, STAGED))
    for actions, reward, weight in ((greedy, -1e6, 1.0), (other, -1e6, 0.1), (other, 1e6, 1.0)):
        played = step._replace(actions=actions[None, None], reward=jnp.full((1, 1), reward, jnp.float32))
        _, metrics = loss_of(params, params, played)
        assert float(metrics["mean_weight"]) == pytest.approx(weight)


@pytest.mark.slow
def test_ow_with_alpha_1_has_qmixs_loss_bit_for_bit():
    """And its gradient, where both have the same target: after terminations."""
    ow, qmix = weighted("ow-qmix", alpha=1.0), baselines.make("qmix", **SMALL)
    batch = concatenated(staged_steps())
    batch = batch._replace(discount=jnp.zeros_like(batch.discount))
    params, target = random_params(ow, STAGED, 1), random_params(ow, STAGED, 2)

    def of_qmix(params):
        return {"params": {name: params["params"][name] for name in ("agent", "mixer")}}

    plain_loss, _ = batch_loss(qmix, STAGED)(of_qmix(params), of_qmix(target), batch)
    terms = all_terms(ow, params, target, batch)
    silent = terms._replace(other=jnp.zeros_like(terms.other))
    np.testing.assert_array_equal(ow.method.combined(silent, batch.mask)[0], plain_loss)

    def compiled(algorithm, *params):
        return jax.jit(functools.partial(loss_and_gradient, algorithm))(*params, batch)

    loss, metrics, gradient = compiled(ow, params, target)
    assert float(metrics["mean_weight"]) == 1
    assert float(metrics["central_loss"]) > 0
    assert float(loss) == pytest.approx(float(plain_loss + metrics["central_loss"]), rel=1e-6)
    _, _, plain_gradient = compiled(qmix, of_qmix(params), of_qmix(target))
    for name, expected in plain_gradient.items():
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
        jax.tree.map(close, gradient[name], expected)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_remix_without_factors_is_ow_bit_for_bit(alpha):
    ow = weighted("ow-qmix", alpha=alpha)
    bare = weighted("remix", w_min=alpha, bellman=False, underestimation=False, gradient=False)
    batch = concatenated(staged_steps())
    seen_weights = set()
    for seed in range(4):
        params, target = random_params(ow, STAGED, seed), random_params(ow, STAGED, seed + 1)
        (one, one_metrics), (other, other_metrics) = (
            batch_loss(algorithm, STAGED)(params, target, batch) for algorithm in (ow, bare)
        )
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one_metrics["mean_weight"], other_metrics["mean_weight"])
        seen_weights.add(round(float(one_metrics["mean_weight"]), 3))
    assert len(seen_weights) > 1


@pytest.mark.slow
def test_remix_with_least_weight_1_is_unweighted():
    batch = concatenated(staged_steps())
    ow, flat = weighted("ow-qmix", alpha=1.0), weighted("remix", w_min=1.0)
    params, target = random_params(ow, STAGED, 1), random_params(ow, STAGED, 2)
    losses = [batch_loss(algorithm, STAGED)(params, target, batch)[0] for algorithm in (ow, flat)]
    np.testing.assert_array_equal(*losses)


def test_remix_can_keep_the_mean_weight_at_1():
    batch = concatenated(staged_steps())
    scaled, spread = weighted("remix", unit_mean=True), weighted("remix")
    params, target = random_params(scaled, STAGED, 1), random_params(scaled, STAGED, 2)
    (loss, metrics), (small, small_metrics) = (
        jax.jit(batch_loss(algorithm, STAGED))(params, target, batch) for algorithm in (scaled, spread)
    )
    assert float(metrics["mean_weight"]) == pytest.approx(1, abs=1e-6)
    others = float(metrics["central_loss"])
    times = 1 / float(small_metrics["mean_weight"])
    assert times > 1.05
    assert float(loss) - others == pytest.approx(times * (float(small) - others), rel=1e-4)


@pytest.mark.slow
def test_weights_pull_on_nothing():
    """ReMIX's gradient is that of the weighted errors with constant weights: halving errors halves it."""
    algorithm = weighted("remix")
    batch = concatenated(staged_steps())
    params, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    raw = all_terms(algorithm, params, target, batch).weight
    weights = algorithm.method.weighting.batch_weights(raw, batch.mask)

    def by_hand(params):
        terms = all_terms(algorithm, params, target, batch)
        return jnp.mean(weights * jnp.square(terms.q_tot - terms.target) + terms.other)

    by_hand_gradient = jax.grad(by_hand)(params)["params"]
    _, _, gradient = loss_and_gradient(algorithm, params, target, batch)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradient, by_hand_gradient
    )


# QPLEX


def test_the_attention_penalty_of_qplex_is_added_to_the_loss():
    """So many times the squared logits, of the joint action that was played."""
    small = {"kernels": 2, "kernel_hidden": (4,), "attention_heads": 2, "attention_embed": 3}
    without, with_penalty = (
        baselines.make("qplex", hidden=(5, 4), gamma=GAMMA, **small, attention_penalty=weight)
        for weight in (0.0, 0.5)
    )
    params, target = random_params(without, STAGED, 1), random_params(without, STAGED, 2)
    step = staged_steps()[0]
    (plain, _, plain_gradient), (more, _, gradient) = (
        jax.jit(functools.partial(loss_and_gradient, algorithm))(params, target, step)
        for algorithm in (without, with_penalty)
    )
    network = without.network(GameSpec.of(STAGED)).bind(params)
    seen = observation_at(step, 0)
    actions = step.actions[0, 0]
    squared = jax.jit(
        lambda: network.mixer.squared_logits(mixer_inputs(network.utilities(seen), actions, seen))
    )()
    assert squared > 0.1
    assert float(more - plain) == pytest.approx(0.5 * float(squared), rel=1e-4)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), gradient, plain_gradient)
    assert moved["mixer"]["attention"]["key"]["kernel"] > 0.01
    assert max(jax.tree.leaves(moved["agent"])) < 1e-4


# Individual-global-max, of whole learners: with masked actions, through the agents' own networks


@pytest.mark.parametrize("algorithm_id", but_slow(["vdn", "qmix", "qatten", "qplex", "ow-qmix"], ["qmix"]))
def test_greedy_play_is_the_best_joint_action(algorithm_id):
    """Of 40 random learners; an action that is not there counts for nothing."""
    settings = {"kernels": 2, "kernel_hidden": (4,)} if algorithm_id == "qplex" else {}
    algorithm = baselines.make(algorithm_id, hidden=(5, 4), **settings)
    game, observation = GameSpec.of(ONE_SHOT), first_observation(ONE_SHOT)
    learner = algorithm.bind(game)
    joints = jnp.asarray(list(itertools.product(*map(range, COUNTS))))
    several = [jax.tree.map(np.array, random_params(algorithm, ONE_SHOT, seed)) for seed in range(40)]
    for params in several[::2]:  # half of them would like the action that agent 1 has not
        params["params"]["agent"]["Dense_0"]["bias"][2] += 5.0

    @jax.jit
    @jax.vmap
    def values_and_reached(params):
        values = jax.vmap(lambda joint: algorithm.joint_values(game, params, observation, joint))(joints)
        greedy = learner.act_greedily(params, (), observation, jax.random.key(0)).actions
        place = jnp.argmax(jnp.all(joints == greedy, axis=1))
        return values, values["q_tot"][place]

    values, reached = values_and_reached(jax.tree.map(lambda *leaves: np.stack(leaves), *several))
    q_tot = np.asarray(values["q_tot"])  # (40, 18)
    scale = 1 + np.abs(q_tot).max(axis=1)
    np.testing.assert_array_less(q_tot.max(axis=1) - np.asarray(reached), 1e-5 * scale)
    assert (np.ptp(q_tot, axis=1) > 0).all()
    if algorithm_id == "ow-qmix":  # the unrestricted value has its maximum anywhere
        assert (np.asarray(values["q_jt"]).argmax(axis=1) != q_tot.argmax(axis=1)).mean() > 0.5


# Episodes


def episode_of(steps, length):
    """A batch of one episode of these transitions, padded with nonsense up to `length` steps."""
    missing = length - len(steps)
    nonsense = steps[0]._replace(reward=jnp.full((1, 1), 1e3), mask=jnp.zeros((1, 1)))
    every = [*steps, *[nonsense] * missing]

    def side_by_side(*leaves):
        return jnp.concatenate(leaves, axis=1)

    after = [jax.tree.map(lambda leaf: leaf[:, 1:], step.observation) for step in every]
    joined = jax.tree.map(side_by_side, *every)
    return Trajectory(
        observation=jax.tree.map(
            side_by_side, jax.tree.map(lambda leaf: leaf[:, :1], every[0].observation), *after
        ),
        first=jnp.arange(length + 1)[None] == 0,
        carry=(),
        actions=joined.actions,
        extras=(),
        reward=joined.reward,
        discount=joined.discount,
        mask=joined.mask,
    )


#: STEPS go from stage to stage: 0 to 1, 1 to 2, and 2 ends the game.
CHAIN = staged_steps()[:3]


@pytest.mark.parametrize(
    "algorithm_id",
    but_slow(["vdn", "qmix", "qplex", "ow-qmix", "iql", "qtran-base", "qtran-alt"], ["qmix"]),
)
def test_an_episodes_loss_is_the_mean_of_its_steps(algorithm_id):
    """With one-step targets; no step is masked by its neighbour's end, and padding counts for nothing."""
    by_step = baselines.make(algorithm_id, **own_settings(algorithm_id, WEIGHTED))
    by_episode = replaced(by_step, consumes="episodes")
    params, target = random_params(by_step, STAGED, 1), random_params(by_step, STAGED, 2)
    short = CHAIN[:1]
    episodes = concatenated([episode_of(CHAIN, 5), episode_of(short, 5)])
    whole, _, gradient = jax.jit(functools.partial(loss_and_gradient, by_episode))(params, target, episodes)
    single = concatenated([*CHAIN, *short])
    steps, _, step_gradient = jax.jit(functools.partial(loss_and_gradient, by_step))(params, target, single)
    assert float(whole) == pytest.approx(float(steps), rel=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), gradient, step_gradient)


@pytest.mark.parametrize("terminates", but_slow([True, False], [True]))
def test_targets_of_an_episode(terminates):
    """TD(lambda) by hand, from the target network's values of the online network's greedy joint actions."""
    algorithm = baselines.make("vdn", hidden=(5, 4), gamma=GAMMA, consumes="episodes", td_lambda=0.6)
    params, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    chain = CHAIN if terminates else [*CHAIN[:2], CHAIN[2]._replace(discount=jnp.ones((1, 1)))]
    network = algorithm.network(GameSpec.of(STAGED))
    online, older = network.bind(params), network.bind(target)

    def targets_of(trajectory):
        features = online.unroll(trajectory), older.unroll(trajectory)
        return algorithm.method.returns(older, *features, trajectory, GAMMA)

    found = over_batch(targets_of, episode_of(chain, 6))
    values = []
    for step in chain:
        following = observation_at(step, 1)
        greedy = greedy_actions(algorithm, params, following)
        utilities = algorithm.utilities(GameSpec.of(STAGED), target, following)
        values.append(float(utilities[jnp.arange(3), greedy].sum()))
    rewards = [float(step.reward[0, 0]) for step in chain]
    third = rewards[2] + (0 if terminates else GAMMA * values[2])
    second = rewards[1] + GAMMA * (0.4 * values[1] + 0.6 * third)
    first = rewards[0] + GAMMA * (0.4 * values[0] + 0.6 * second)
    np.testing.assert_allclose(found[0, :3], [first, second, third], rtol=1e-5)


# Settings


@pytest.mark.parametrize(
    ("algorithm_id", "settings", "says"),
    [
        ("vdn", {"td_lambda": 1.5}, "td_lambda must be in [0, 1], not 1.5"),
        ("vdn", {"td_lambda": 0.5}, "td_lambda above 0 looks further than one transition: consume episodes"),
        ("vdn", {"consumes": "latest"}, "consumes must be transitions or episodes, not latest"),
        (
            "qplex",
            {"attention_heads": 4, "weighted_head": False},
            "attention_heads make w_i, which is left out without weighted_head: set one of them",
        ),
        ("qplex", {"attention_heads": -1}, "attention_heads must be 0 (no attention) or above, not -1"),
        ("qplex", {"attention_penalty": -1.0}, "attention_penalty must be 0 or above, not -1.0"),
        ("qplex", {"kernels": 0}, "kernels must be at least 1, not 0"),
        ("qplex", {"kernel_hidden": (0,)}, "kernel_hidden must be widths, each at least 1, not (0,)"),
        ("qatten", {"heads": 0}, "heads must be at least 1, not 0"),
        ("qatten", {"head_embed": -1}, "head_embed must be at least 1, not -1"),
        ("cw-qmix", {"alpha": 0.0}, "alpha must be in (0, 1], not 0.0"),
        ("ow-qmix", {"alpha": 1.5}, "alpha must be in (0, 1], not 1.5"),
        ("ow-qmix", {"central_hidden": ()}, "central_hidden must be one or more widths"),
        ("ow-qmix", {"mixer_embed": 0}, "mixer_embed"),
        ("remix", {"w_min": -0.1}, "w_min must be in [0, 1], not -0.1"),
        ("remix", {"recent_fraction": 2.0}, "recent_fraction must be in [0, 1], not 2.0"),
        ("remix", {"recent_episodes": 0}, "recent_episodes must be at least 1, not 0"),
        ("remix", {"consumes": "transitions"}, "recent_fraction above 0 draws whole episodes"),
    ],
)
def test_settings_that_cannot_be(bad_input, algorithm_id, settings, says):
    with bad_input(says):
        baselines.make(algorithm_id, **settings)
