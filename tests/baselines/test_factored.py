"""QPLEX, Qatten, Weighted QMIX and ReMIX; and that learning from episodes is learning from their steps."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.factored import as_trajectory
from jaxmarl_fac.algorithm import Trajectory
from tests.baselines.test_q_learners import (
    COUNTS,
    GAMMA,
    ONE_SHOT,
    STAGED,
    plain,
    random_params,
    seen,
    transitions,
)
from tests.reference import weighted_qmix as reference

SMALL = {"hidden": (5, 4), "gamma": GAMMA, "mixer_embed": 3}
WEIGHTED = {**SMALL, "central_hidden": (6, 5)}
STEPS_ONLY = {"consumes": "transitions", "recent_fraction": 0.0}


def weighted(algorithm_id, **settings):
    """A small algorithm that learns from transitions."""
    steps_only = STEPS_ONLY if algorithm_id == "remix" else {}
    return baselines.make(algorithm_id, **{**WEIGHTED, **steps_only, **settings})


def stacked(steps):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)


def loss_and_gradient(algorithm, params, target, batch):
    (loss, metrics), gradient = jax.value_and_grad(
        lambda params: algorithm.batch_loss(STAGED, params, target, batch), has_aux=True
    )(params)
    return loss, metrics, gradient["params"]


def all_terms(algorithm, params, target, batch):
    """The terms of a batch of transitions, `(B, 1)`."""
    network = algorithm.network(STAGED)

    def terms_of(step):
        return algorithm.terms(network.bind(params), network.bind(target), as_trajectory(step))

    return jax.vmap(terms_of)(batch)


# Weighted QMIX


def in_plain_numbers(step):
    return (
        plain(step.observation),
        step.actions.tolist(),
        float(step.reward),
        float(step.discount),
        plain(step.next_observation),
    )


@pytest.mark.parametrize("algorithm_id", ["ow-qmix", "cw-qmix", "remix"])
def test_losses_of_weighted_qmix(algorithm_id):
    """Batches of four transitions, against plain NumPy with numerical derivatives; all cases are met."""
    algorithm = weighted(algorithm_id)
    steps = list(transitions(STAGED))
    look = jax.jit(lambda *params: algorithm.batch_loss(STAGED, *params, stacked(steps)))
    met = []
    for seed in range(6):
        online, target = (random_params(algorithm, STAGED, 2 * seed + k) for k in (0, 1))
        loss, metrics = look(online, target)
        numbers = [in_plain_numbers(step) for step in steps]
        want = reference.batch_loss(algorithm_id, 0.1, online["params"], target["params"], numbers, GAMMA)
        assert float(loss) == pytest.approx(want["loss"], rel=2e-3)
        assert float(metrics["mean_weight"]) == pytest.approx(want["weights"].mean(), rel=2e-3)
        met.extend(want["weights"])
    assert min(met) == pytest.approx(0.1)
    assert max(met) == pytest.approx(1)  # the reference spreads them in float64, with its own rounding
    if algorithm_id == "remix":
        assert np.mean((np.asarray(met) > 0.11) & (np.asarray(met) < 0.99)) > 0.1


def test_the_greedy_joint_action_always_counts_in_cw():
    """And others only if their target lies above its value."""
    algorithm = weighted("cw-qmix")
    step = next(transitions(STAGED))
    params = random_params(algorithm, STAGED, 3)
    greedy = algorithm.act_greedily(STAGED, params, (), step.observation)[0]
    other = (greedy + 1) % 2
    look = jax.jit(functools.partial(algorithm.batch_loss, STAGED))
    for actions, reward, weight in ((greedy, -1e6, 1.0), (other, -1e6, 0.1), (other, 1e6, 1.0)):
        played = step._replace(actions=actions, reward=jnp.float32(reward))
        _, metrics = look(params, params, stacked([played]))
        assert float(metrics["mean_weight"]) == pytest.approx(weight)


def test_ow_with_alpha_1_has_qmixs_loss_bit_for_bit():
    """And its gradient, where both have the same target: after terminations."""
    ow, qmix = weighted("ow-qmix", alpha=1.0), baselines.make("qmix", **SMALL)
    batch = stacked([step._replace(discount=jnp.float32(0)) for step in transitions(STAGED)])
    params, target = random_params(ow, STAGED, 1), random_params(ow, STAGED, 2)

    def of_qmix(params):
        return {"params": {name: params["params"][name] for name in ("agent", "mixer")}}

    plain_loss, _ = qmix.batch_loss(STAGED, of_qmix(params), of_qmix(target), batch)
    terms = all_terms(ow, params, target, batch)
    silent = terms._replace(other=jnp.zeros_like(terms.other))
    np.testing.assert_array_equal(ow.combined(silent, jnp.ones((4, 1)))[0], plain_loss)

    def look(algorithm, *params):
        return jax.jit(functools.partial(loss_and_gradient, algorithm))(*params, batch)

    loss, metrics, gradient = look(ow, params, target)
    assert float(metrics["mean_weight"]) == 1
    assert float(metrics["central_loss"]) > 0
    assert float(loss) == pytest.approx(float(plain_loss + metrics["central_loss"]), rel=1e-6)
    _, _, plain_gradient = look(qmix, of_qmix(params), of_qmix(target))
    for name, expected in plain_gradient.items():
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
        jax.tree.map(close, gradient[name], expected)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_remix_without_factors_is_ow_bit_for_bit(alpha):
    ow = weighted("ow-qmix", alpha=alpha)
    bare = weighted("remix", w_min=alpha, bellman=False, underestimation=False, gradient=False)
    batch = stacked(list(transitions(STAGED)))
    seen_weights = set()
    for seed in range(4):
        params, target = random_params(ow, STAGED, seed), random_params(ow, STAGED, seed + 1)
        (one, one_metrics), (other, other_metrics) = (
            algorithm.batch_loss(STAGED, params, target, batch) for algorithm in (ow, bare)
        )
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one_metrics["mean_weight"], other_metrics["mean_weight"])
        seen_weights.add(round(float(one_metrics["mean_weight"]), 3))
    assert len(seen_weights) > 1


def test_remix_with_least_weight_1_is_unweighted():
    batch = stacked(list(transitions(STAGED)))
    ow, flat = weighted("ow-qmix", alpha=1.0), weighted("remix", w_min=1.0)
    params, target = random_params(ow, STAGED, 1), random_params(ow, STAGED, 2)
    losses = [algorithm.batch_loss(STAGED, params, target, batch)[0] for algorithm in (ow, flat)]
    np.testing.assert_array_equal(*losses)


def test_remix_can_keep_the_mean_weight_at_1():
    batch = stacked(list(transitions(STAGED)))
    scaled, spread = weighted("remix", unit_mean=True), weighted("remix")
    params, target = random_params(scaled, STAGED, 1), random_params(scaled, STAGED, 2)
    (loss, metrics), (small, small_metrics) = (
        algorithm.batch_loss(STAGED, params, target, batch) for algorithm in (scaled, spread)
    )
    assert float(metrics["mean_weight"]) == pytest.approx(1, abs=1e-6)
    others = float(metrics["central_loss"])
    times = 1 / float(small_metrics["mean_weight"])
    assert times > 1.05
    assert float(loss) - others == pytest.approx(times * (float(small) - others), rel=1e-4)


def test_weights_pull_on_nothing():
    """ReMIX's gradient is that of the weighted errors with constant weights: halving errors halves it."""
    algorithm = weighted("remix")
    batch = stacked(list(transitions(STAGED)))
    params, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    weights = algorithm.batch_weights(all_terms(algorithm, params, target, batch).weight, jnp.ones((4, 1)))

    def by_hand(params):
        terms = all_terms(algorithm, params, target, batch)
        return jnp.mean(weights * jnp.square(terms.q_tot - terms.target) + terms.other)

    by_hand_gradient = jax.grad(by_hand)(params)["params"]
    _, _, gradient = loss_and_gradient(algorithm, params, target, batch)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradient, by_hand_gradient
    )


# Individual-global-max, of whole learners: with masked actions, through the agents' own networks


@pytest.mark.parametrize("algorithm_id", ["vdn", "qmix", "qatten", "qplex", "ow-qmix"])
def test_greedy_play_is_the_best_joint_action(algorithm_id):
    """Of 40 random learners; an action that is not there counts for nothing."""
    settings = {"kernels": 2, "kernel_hidden": (4,)} if algorithm_id == "qplex" else {}
    algorithm = baselines.make(algorithm_id, hidden=(5, 4), **settings)
    observation = seen(ONE_SHOT, 0)
    joints = jnp.asarray(list(itertools.product(*map(range, COUNTS))))
    several = [random_params(algorithm, ONE_SHOT, seed) for seed in range(40)]
    for params in several[::2]:  # half of them would like the action that agent 1 has not
        bias = params["params"]["agent"]["Dense_0"]["bias"]
        params["params"]["agent"]["Dense_0"]["bias"] = bias.at[2].add(5.0)

    @jax.jit
    @jax.vmap
    def look(params):
        values = jax.vmap(lambda joint: algorithm.joint_values(ONE_SHOT, params, observation, joint))(joints)
        greedy = algorithm.act_greedily(ONE_SHOT, params, (), observation)[0]
        place = jnp.argmax(jnp.all(joints == greedy, axis=1))
        return values, values["q_tot"][place]

    values, reached = look(stacked(several))
    q_tot = np.asarray(values["q_tot"])  # (40, 18)
    scale = 1 + np.abs(q_tot).max(axis=1)
    np.testing.assert_array_less(q_tot.max(axis=1) - np.asarray(reached), 1e-5 * scale)
    assert (np.ptp(q_tot, axis=1) > 0).all()
    if algorithm_id == "ow-qmix":  # the unrestricted value has its maximum anywhere
        assert (np.asarray(values["q_jt"]).argmax(axis=1) != q_tot.argmax(axis=1)).mean() > 0.5


# Episodes


def trajectory_of(steps, length=None):
    """An episode of these transitions, padded with nonsense up to `length` steps."""
    steps = list(steps)
    length = length or len(steps)
    padding = [steps[0]._replace(reward=jnp.float32(1e3), discount=jnp.float32(1))] * (length - len(steps))
    observations = [steps[0].observation, *(step.next_observation for step in (*steps, *padding))]
    every = stacked([*steps, *padding])
    mask = (jnp.arange(length) < len(steps)).astype(jnp.float32)
    return Trajectory(stacked(observations), every.actions, every.reward, every.discount, mask)


#: STEPS go from stage to stage: 0 to 1, 1 to 2, and 2 ends the game.
CHAIN = list(transitions(STAGED))[:3]


@pytest.mark.parametrize(
    "algorithm_id", ["vdn", "qmix", "qplex", "ow-qmix", "iql", "qtran-base", "qtran-alt"]
)
def test_an_episodes_loss_is_the_mean_of_its_steps(algorithm_id):
    """With one-step targets; no step is masked by its neighbour's end, and padding counts for nothing."""
    settings = {k: v for k, v in WEIGHTED.items() if k in {f.name for f in fields(algorithm_id)}}
    by_step = baselines.make(algorithm_id, **settings)
    by_episode = dataclasses.replace(by_step, consumes="episodes")
    params, target = random_params(by_step, STAGED, 1), random_params(by_step, STAGED, 2)
    short = CHAIN[:1]
    episodes = stacked([trajectory_of(CHAIN, 5), trajectory_of(short, 5)])
    whole, _, gradient = jax.jit(functools.partial(loss_and_gradient, by_episode))(params, target, episodes)
    single = stacked([*CHAIN, *short])
    steps, _, step_gradient = jax.jit(functools.partial(loss_and_gradient, by_step))(params, target, single)
    assert float(whole) == pytest.approx(float(steps), rel=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), gradient, step_gradient)


def fields(algorithm_id):
    return dataclasses.fields(baselines.registry.lookup(algorithm_id))


@pytest.mark.parametrize("terminates", [True, False])
def test_targets_of_an_episode(terminates):
    """TD(lambda) by hand, from the target network's values of the online network's greedy joint actions."""
    algorithm = baselines.make("vdn", hidden=(5, 4), gamma=GAMMA, consumes="episodes", td_lambda=0.6)
    params, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    chain = CHAIN if terminates else [*CHAIN[:2], CHAIN[2]._replace(discount=jnp.float32(1))]
    network = algorithm.network(STAGED)
    terms = algorithm.terms(network.bind(params), network.bind(target), trajectory_of(chain, 6))

    values = []
    for step in chain:
        greedy = algorithm.act_greedily(STAGED, params, (), step.next_observation)[0]
        utilities = algorithm.utilities(STAGED, target, step.next_observation)
        values.append(float(utilities[jnp.arange(3), greedy].sum()))
    rewards = [float(step.reward) for step in chain]
    third = rewards[2] + (0 if terminates else GAMMA * values[2])
    second = rewards[1] + GAMMA * (0.4 * values[1] + 0.6 * third)
    first = rewards[0] + GAMMA * (0.4 * values[0] + 0.6 * second)
    np.testing.assert_allclose(terms.target[:3], [first, second, third], rtol=1e-5)


# Settings


@pytest.mark.parametrize(
    ("algorithm_id", "settings", "says"),
    [
        ("vdn", {"td_lambda": 1.5}, "td_lambda must be in [0, 1], not 1.5"),
        ("vdn", {"td_lambda": 0.5}, "td_lambda above 0 looks further than one transition: consume episodes"),
        ("vdn", {"consumes": "latest"}, "consumes must be transitions or episodes, not latest"),
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
