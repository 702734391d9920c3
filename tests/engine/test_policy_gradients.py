import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmarl_fac.policy_gradients import (
    adapted_kl_coefficient,
    annealed,
    clipped_surrogate,
    counterfactual_advantage,
    decomposed_advantages,
    default_action_advantage,
    entropy,
    log_policy,
    score_loss,
    soft_value,
)
from jaxmarl_fac.soft.operators import log_mean_exp, tilted_policy
from jaxmarl_fac.targets import lambda_returns
from jaxmarl_fac.values import UNAVAILABLE

NUMBERS = st.floats(-50, 50, width=32, allow_subnormal=False)
SOME = jnp.asarray([True, False, True])
ALL = jnp.ones(3, bool)

# Policies


def test_log_policy_leaves_out_what_is_unavailable():
    log_probs = log_policy(jnp.log(jnp.asarray([2.0, 5.0, 6.0])), SOME)
    np.testing.assert_allclose(jnp.exp(log_probs), [0.25, 0, 0.75], rtol=1e-6)
    assert np.isfinite(log_probs).all()
    assert float(log_probs[1]) == pytest.approx(UNAVAILABLE, rel=1e-6)


def test_log_policy_is_log_softmax_of_what_is_available():
    logits = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32) * 10
    mask = np.random.default_rng(1).random((4, 3, 5)) < 0.5
    mask[..., 0] = True
    ours = np.asarray(log_policy(jnp.asarray(logits), jnp.asarray(mask)))
    for place in itertools.product(range(4), range(3)):
        available = logits[place][mask[place]].astype(float)
        np.testing.assert_allclose(
            ours[place][mask[place]], available - np.log(np.exp(available).sum()), atol=2e-5
        )


def test_a_coefficient_that_is_annealed():
    found = [float(annealed(2.0, 0.5, jnp.float32(progress))) for progress in (0.0, 0.25, 1.0)]
    assert found == [2.0, 1.625, 0.5]
    assert annealed(2.0, None, jnp.float32(0.25)) == 2.0


def test_entropy():
    thirds = log_policy(jnp.zeros(3), ALL)
    assert float(entropy(thirds, ALL)) == pytest.approx(np.log(3), abs=1e-6)
    halves = log_policy(jnp.zeros(3), SOME)
    assert float(entropy(halves, SOME)) == pytest.approx(np.log(2), abs=1e-6)
    quarters = log_policy(jnp.log(jnp.asarray([1.0, 100, 3])), SOME)
    assert float(entropy(quarters, SOME)) == pytest.approx(0.562335, abs=1e-6)
    only = jnp.asarray([False, True, False])
    assert float(entropy(log_policy(jnp.asarray([3.0, -2, 7]), only), only)) == 0


@pytest.mark.parametrize("mask", [ALL, SOME, jnp.asarray([False, True, False])])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_and_none_for_unavailable_actions(mask, scale):
    logits = scale * jnp.asarray([1.0, -2, 3])

    def objective(logits):
        log_probs = log_policy(logits, mask)
        return entropy(log_probs, mask) + jnp.sum(jnp.exp(log_probs) * log_probs) + log_probs[0]

    gradient = np.asarray(jax.grad(objective)(logits))
    assert np.isfinite(gradient).all()
    entropy_alone = np.asarray(jax.grad(lambda x: entropy(log_policy(x, mask), mask))(logits))
    assert np.isfinite(entropy_alone).all()
    assert (entropy_alone[~np.asarray(mask)] == 0).all()


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (4,), elements=st.floats(-5, 5, width=32, allow_subnormal=False)))
def test_gradient_of_the_entropy(logits):
    """`∂H/∂x_a = -π(a) (log π(a) + H)`, with one action of five unavailable."""
    mask = jnp.asarray([True, True, False, True, True])
    padded = np.insert(logits, 2, 4)
    gradient = jax.grad(lambda x: entropy(log_policy(x, mask), mask))(jnp.asarray(padded))
    log_probs = logits.astype(float) - np.log(np.exp(logits.astype(float)).sum())
    probs = np.exp(log_probs)
    expected = -probs * (log_probs - (probs * log_probs).sum())
    np.testing.assert_allclose(gradient, np.insert(expected, 2, 0), atol=1e-5)


# Losses


def test_score_loss_has_no_gradient_for_the_advantage():
    log_prob, advantage = jnp.asarray([-1.0, -2.0]), jnp.asarray([3.0, -4.0])
    np.testing.assert_allclose(score_loss(log_prob, advantage), [3, -8])
    by_log_prob, by_advantage = jax.grad(lambda p, a: score_loss(p, a).sum(), (0, 1))(log_prob, advantage)
    np.testing.assert_array_equal(by_log_prob, [-3, 4])
    np.testing.assert_array_equal(by_advantage, [0, 0])


@pytest.mark.parametrize("baseline", [0.0, 1.7, -20.0])
def test_expected_score_is_the_gradient_of_the_expected_reward(baseline):
    """By enumeration, whatever the baseline; probabilities π = (.2, .3, .5), one action unavailable."""
    mask = jnp.asarray([True, True, False, True])
    logits, reward = jnp.asarray([0.3, -1.0, 2.0, 0.9]), jnp.asarray([1.0, 2.0, 50.0, 3.0])
    expected = jax.grad(lambda x: jnp.sum(jnp.exp(log_policy(x, mask)) * reward))(logits)
    policy = jax.lax.stop_gradient(jnp.exp(log_policy(logits, mask)))
    loss = jax.grad(lambda x: jnp.sum(policy * score_loss(log_policy(x, mask), reward - baseline)))
    np.testing.assert_allclose(loss(logits), -expected, atol=1e-5)
    assert float(expected[2]) == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.5, 2.0, 2.4, 0.0),  # already likelier than 1 + ε allows
        (0.5, -1.0, -0.8, 0.0),  # already rarer than 1 - ε allows
        (0.5, 2.0, 1.0, 2.0),  # worse than before: the way back is open
        (1.5, -1.0, -1.5, -1.0),
        (1.0, 2.0, 2.0, 2.0),  # at the old policy it is the policy gradient
        (1.1, -1.0, -1.1, -1.0),
    ],
)
def test_clipped_surrogate(ratio, advantage, objective, slope):
    value, gradients = jax.value_and_grad(clipped_surrogate, (0, 1))(
        jnp.float32(ratio), jnp.float32(advantage), 0.2
    )
    assert float(value) == pytest.approx(objective, abs=1e-6)
    assert [float(gradient) for gradient in gradients] == [slope, 0]


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.float32, (6,), elements=st.floats(0, 5, width=32)), arrays(np.float32, (6,), elements=NUMBERS)
)
def test_the_clipped_surrogate_is_a_lower_bound(ratio, advantage):
    assert (np.asarray(clipped_surrogate(ratio, advantage, 0.2)) <= ratio * advantage).all()


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(0.0, 1.5), (0.0133, 1.5), (0.0134, 3.0), (0.02, 3.0), (0.0299, 3.0), (0.0301, 6.0), (1.0, 6.0)],
)
def test_adapted_kl_coefficient(kl, expected):
    assert float(adapted_kl_coefficient(jnp.float32(3), jnp.float32(kl), 0.02)) == expected


# Advantages


def test_counterfactual_advantage():
    q, policy = jnp.asarray([1.0, 2, 3]), jnp.asarray([0.2, 0.3, 0.5])
    advantages = jax.vmap(counterfactual_advantage, (None, None, 0))(q, policy, jnp.arange(3))
    np.testing.assert_allclose(advantages, [-1.3, -0.3, 0.7], atol=1e-6)
    assert float(jnp.sum(policy * advantages)) == pytest.approx(0, abs=1e-6)


def test_default_action_advantage():
    q = jnp.asarray([1.0, 2, 4])
    advantages = jax.vmap(default_action_advantage, (None, 0, None))(q, jnp.arange(3), jnp.int32(1))
    np.testing.assert_array_equal(advantages, [-1, 0, 2])


def test_decomposed_advantages():
    """With k = (.6, .4), Q_1 = (1, 2), Q_2 = (0, 3), π_1 = (.3, .7), π_2 = (.8, .2)."""
    weights, utilities = jnp.asarray([0.6, 0.4]), jnp.asarray([[1.0, 2], [0, 3]])
    policy = jnp.asarray([[0.3, 0.7], [0.8, 0.2]])
    taken = decomposed_advantages(weights, utilities, policy, jnp.asarray([0, 1]))
    np.testing.assert_allclose(taken, [0.6 * (1 - 1.7), 0.4 * (3 - 0.6)], atol=1e-6)

    def expected_q_tot(logits):
        return 0.5 + jnp.sum(weights[:, None] * jax.nn.softmax(logits) * utilities)

    logits = jnp.log(policy)
    assert float(expected_q_tot(logits)) == pytest.approx(1.76, abs=1e-6)
    exact = jax.grad(expected_q_tot)(logits)
    np.testing.assert_allclose(exact, [[-0.126, 0.126], [-0.192, 0.192]], atol=1e-6)

    def loss(logits):  # the mean over all joint actions
        log_probs = log_policy(logits, jnp.ones((2, 2), bool))
        return sum(
            policy[0, a]
            * policy[1, b]
            * jnp.sum(
                score_loss(
                    jnp.stack([log_probs[0, a], log_probs[1, b]]),
                    decomposed_advantages(weights, utilities, policy, jnp.asarray([a, b])),
                )
            )
            for a, b in itertools.product(range(2), repeat=2)
        )

    np.testing.assert_allclose(jax.grad(loss)(logits), -exact, atol=1e-6)


def test_one_advantage_for_all_of_vdac():
    """V_tot = V_1 + V_2 = 1 + 2 and a return of 4: the same advantage 1 for both agents."""
    advantage = jnp.float32(4) - jnp.sum(jnp.asarray([1.0, 2.0]))
    log_probs = jnp.asarray([-0.5, -0.25])
    np.testing.assert_array_equal(score_loss(log_probs, jnp.full(2, advantage)), -log_probs)


def test_lambda_1_gives_the_n_step_advantage():
    """γ = .9, r = (1, 0, 2), V(s_t) = 3, V(s_{t+3}) = 4: 1 + .81 * 2 + .729 * 4 - 3 = 2.536."""
    values = jnp.asarray([3.0, -7.0, 11.0, 4.0])  # those in between count for nothing
    ones = jnp.ones(3)
    returns = lambda_returns(jnp.asarray([1.0, 0, 2]), ones, values[1:], ones, 0.9, 1.0)
    assert float(returns[0] - values[0]) == pytest.approx(2.536, abs=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95, 1.0])
def test_lambda_returns_minus_values_are_generalised_advantages(lambda_):
    """`Σ_k (γλ)^k δ_{t+k}` with `δ_t = r_t + γ d_t V_{t+1} - V_t`, across a termination."""
    rng = np.random.default_rng(2)
    rewards, values = rng.normal(size=6), rng.normal(size=7)
    discounts = np.asarray([1.0, 1, 0, 1, 1, 1])
    deltas = rewards + 0.9 * discounts * values[1:] - values[:-1]
    expected, following = np.zeros(6), 0.0
    for t in reversed(range(6)):
        following = deltas[t] + 0.9 * lambda_ * discounts[t] * following
        expected[t] = following
    arguments = (jnp.asarray(x, jnp.float32) for x in (rewards, discounts, values[1:], np.ones(6)))
    returns = lambda_returns(*arguments, 0.9, lambda_)
    np.testing.assert_allclose(returns - values[:-1], expected, atol=1e-5)


# Soft values


def test_soft_value():
    q = jnp.asarray([1.0, 2, 9])
    mask = jnp.asarray([True, True, False])
    assert float(soft_value(q, 1.0, mask)) == pytest.approx(2.313262, abs=1e-6)
    np.testing.assert_allclose(jnp.exp(log_policy(q, mask)), [0.268941, 0.731059, 0], atol=1e-6)
    assert float(soft_value(q, 1e-6, mask)) == pytest.approx(2, abs=1e-5)
    gradient = jax.grad(soft_value)(q, 1e-6, mask)
    np.testing.assert_array_equal(gradient, [0, 1, 0])


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (4,), elements=NUMBERS), st.floats(0.5, 10))
def test_boltzmann_policies_satisfy_alpha_log_pi_equals_q_minus_v(q, alpha):
    mask = jnp.asarray([True, True, False, True])
    value = soft_value(q, alpha, mask)
    log_probs = log_policy(q / np.float32(alpha), mask)
    kept = np.asarray(mask)
    np.testing.assert_allclose((alpha * log_probs)[kept], (q - value)[kept], atol=1e-4)
    # The operators of soft backups, with a uniform prior over the three available actions, agree.
    prior = mask / 3
    np.testing.assert_allclose(value, log_mean_exp(q, prior, 1 / alpha) + alpha * np.log(3), atol=1e-4)
    np.testing.assert_allclose(jnp.exp(log_probs), tilted_policy(q, prior, 1 / alpha), atol=1e-5)
