"""Weights of TD errors, by hand and by brute force."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.error_weights import hysteretic_weights, logical_weights, others_greedy, played_greedily
from jaxmarl_fac.losses import UNAVAILABLE


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
