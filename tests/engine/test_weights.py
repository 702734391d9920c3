"""Weights of errors, by hand and by brute force."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxmarl_fac.targets import lambda_returns
from jaxmarl_fac.values import UNAVAILABLE
from jaxmarl_fac.weights import (
    central_weight,
    hysteretic_weights,
    logical_weights,
    min_max_weights,
    optimistic_weight,
    others_greedy,
    played_greedily,
    remix_weight,
    shares_of_bins,
)


def test_hysteretic_weights():
    errors = jnp.array([2.0, -3.0, 0.0, 1e-6])
    np.testing.assert_allclose(hysteretic_weights(errors, 0.1), [1, 0.1, 0.1, 1])
    np.testing.assert_allclose(hysteretic_weights(errors, 0.0), [1, 0, 0, 1])


def test_all_of_equally_good_actions_are_greedy():
    values = jnp.array([[1.0, 3.0, 3.0], [-2.0, UNAVAILABLE, -1.0], [0.0, 0.0, 0.0]])
    for actions, expected in (
        ((1, 2, 0), (True, True, True)),
        ((2, 0, 2), (True, False, True)),
        ((0, 1, 1), (False, False, True)),
    ):
        np.testing.assert_array_equal(played_greedily(values, jnp.array(actions)), expected)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_others_greedy(n):
    for greedy in itertools.product([False, True], repeat=n):
        expected = [all(g for j, g in enumerate(greedy) if j != k) for k in range(n)]
        np.testing.assert_array_equal(others_greedy(jnp.array(greedy)), expected)


def test_logical_weights():
    errors = jnp.array([1.0, -1.0, 1.0, -1.0, 0.0])
    useful = jnp.array([True, True, False, False, False])
    np.testing.assert_allclose(logical_weights(errors, useful, 0.5), [1, 1, 0.5, 0, 0])
    # The slide's reading, where both losses are summed: a useful good surprise counts 1 + alpha times.
    np.testing.assert_allclose(logical_weights(errors, useful, 0.5, True), [1.5, 1, 0.5, 0, 0])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("rate", [0.025, 0.3, 1.0])
def test_the_slides_two_steps_in_one(alpha, rate):
    """Two `if`s one after the other on the same table, as the slide prints them."""
    for target, useful in itertools.product([-1.0, 0.7, 2.0], [False, True]):
        q = 0.5
        once = logical_weights(jnp.array([target - q]), jnp.array([useful]), alpha, True, rate)
        if useful:
            q += rate * (target - q)
        if target > q + 1e-12:
            q += rate * alpha * (target - q)
        assert 0.5 + rate * float(once[0]) * (target - 0.5) == pytest.approx(q, abs=1e-6)


# Weights


class WeightsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((1, 2, 1.0), (2, 1, 0.25), (1, 1, 0.25))
    def test_optimistic_weight(self, q_tot, target, expected):
        weight = self.variant(optimistic_weight)
        assert float(weight(jnp.float32(q_tot), jnp.float32(target), 0.25)) == expected

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # The greedy joint action; another that seems better; another that does not.
        (1, 2, (0, 1), 1.0),
        (3, 2, (0, 0), 1.0),
        (1, 2, (0, 0), 0.1),
        (2, 2, (1, 1), 0.1),
        (3, 2, (0, 1), 1.0),
    )
    def test_central_weight(self, target, greedy_value, actions, expected):
        weight = self.variant(central_weight)(
            jnp.float32(target), jnp.float32(greedy_value), jnp.asarray(actions), jnp.asarray([0, 1]), 0.1
        )
        assert float(weight) == pytest.approx(expected)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # By hand; the bracket of the second is negative, the third overestimates
        (1.0, 2.0, (0.5, 0.25), (0.5, 2), 0.618270),
        (1.0, 2.0, (0.9, 0.9), (1, 1), 0.0),
        (1.0, 0.5, (0.5, 0.25), (0.5, 2), 0.0),
        # half the error: y - Q is .5
        (1.0, 1.5, (0.5, 0.25), (0.5, 2), 0.309135),
    )
    def test_remix_weight(self, q_tot, target, policy, slopes, expected):
        numbers = [jnp.asarray(x, jnp.float32) for x in (q_tot, target, 1.5, policy, slopes)]
        assert float(self.variant(remix_weight)(*numbers)) == pytest.approx(expected, abs=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # Of (2 - 1) exp(1.5 - 1) .375, the first case above, with y = 3: one factor after the other is 1.
        ("bellman", 0.618270),
        ("underestimation", 2 * 0.375),
        ("gradient", 2 * 1.648721),
    )
    def test_remix_weight_without_a_factor(self, factor, expected):
        numbers = [jnp.asarray(x, jnp.float32) for x in (1.0, 3.0, 1.5, (0.5, 0.25), (0.5, 2))]
        weight = self.variant(lambda *x: remix_weight(*x, **{factor: False}))(*numbers)
        assert float(weight) == pytest.approx(expected, abs=1e-5)


def test_remix_weights_factors_are_cut_off():
    def weight(central_value, slope):
        numbers = [jnp.asarray(x, jnp.float32) for x in (0.0, 1.0, central_value, (0.0,), (slope,))]
        return float(remix_weight(*numbers))

    assert weight(50.0, 0.5) == pytest.approx(np.exp(10), rel=1e-5)
    assert weight(-50.0, 0.5) == pytest.approx(np.exp(-10), rel=1e-5)
    assert weight(0.0, 0.0) == pytest.approx(999, rel=1e-5)
    assert weight(0.0, 0.9) == pytest.approx(1 / 0.9 - 1, rel=1e-5)


def test_min_max_weights():
    raws = jnp.asarray([0, 0.61827, 1.2, 3.0])
    expected = [0.1, 0.285481, 0.46, 1]  # .1 + .9 raw / 3
    np.testing.assert_allclose(min_max_weights(raws, jnp.ones(4), 0.1), expected, atol=1e-6)
    # Steps after an episode's end count for nothing, however large or small their weights.
    padded = jnp.asarray([[0, 0.61827, 9], [1.2, 3.0, 0]])
    mask = jnp.asarray([[1.0, 1, 0], [1, 1, 0]])
    spread = np.asarray(min_max_weights(padded, mask, 0.1))
    np.testing.assert_allclose(spread[np.asarray(mask) > 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("raws", "expected"),
    [([0.0, 0, 0], [0.25, 0.25, 0.25]), ([2.0, 2, 2], [1, 1, 1]), ([0.0, 2, 2], [0.25, 1, 1])],
)
def test_min_max_weights_of_alike_steps(raws, expected):
    np.testing.assert_array_equal(min_max_weights(jnp.asarray(raws), jnp.ones(3), 0.25), expected)


def test_targets_and_weights_have_no_gradient():
    numbers = [jnp.asarray(x, jnp.float32) for x in (1.0, 2.0, 1.5, (0.5, 0.25), (0.5, 2))]
    for slope in jax.grad(lambda *x: remix_weight(*x), argnums=(0, 1, 2, 3, 4))(*numbers):
        np.testing.assert_array_equal(slope, 0)
    assert jax.grad(lambda q: optimistic_weight(q, jnp.float32(2), 0.1))(jnp.float32(1)) == 0
    steps = [jnp.ones(3)] * 4
    for slope in jax.grad(lambda *x: jnp.sum(lambda_returns(*x, 0.9, 0.5)), argnums=(0, 2))(*steps):
        np.testing.assert_array_equal(slope, 0)


def test_shares_of_bins():
    values = jnp.asarray([[0.1, 0.15, 0.149, 1.0], [0.0, 1.3, -0.1, 0.5]])
    mask = jnp.asarray([[1.0, 1, 1, 1], [1, 1, 1, 0]])
    shares = np.asarray(shares_of_bins(values, mask, 20))
    expected = np.zeros(20)
    expected[[0, 2, 3, 19]] = np.asarray([2, 2, 1, 2]) / 7
    np.testing.assert_allclose(shares, expected, atol=1e-6)
