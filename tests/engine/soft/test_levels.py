import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.soft import levels as gr2
from tests.engine.soft.games import both_ways, random_game

pytestmark = pytest.mark.usefixtures("float64")


# GR2.


@both_ways
def test_poisson_weights_of_the_levels(run):
    weights = run(lambda mean: gr2.poisson_level_weights(mean, 3), 1.5)
    np.testing.assert_allclose(weights, [0.470588, 0.352941, 0.176471], atol=1e-6)
    np.testing.assert_allclose(run(lambda mean: gr2.poisson_level_weights(mean, 3), 0.0), [1, 0, 0], atol=0)


def test_a_mixture_of_levels_leaves_out_level_0():
    policies = jnp.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(gr2.level_mixture(policies, jnp.array([0.7, 0.3])), [0.7, 0.3], rtol=1e-12)


levels = jax.jit(gr2.level_policies, static_argnames=("levels", "sampled"))


def test_greedy_levels_go_round_in_matching_pennies():
    pennies = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    biased = jnp.array([0.6, 0.4])
    own, other = levels(pennies, -pennies, jnp.inf, jnp.inf, 5, biased, biased)
    # Level 1 of the matcher answers heads with heads, of the other with tails; level 2 answers that.
    np.testing.assert_allclose(own[1:, 0], [1, 0, 0, 1, 1], atol=0)
    np.testing.assert_allclose(other[1:, 0], [0, 0, 1, 1, 0], atol=0)
    np.testing.assert_allclose(own[0], biased, atol=0)


@both_ways
def test_soft_levels_against_loops(run):
    def four_levels(q_own, q_other, beta_own, beta_other):
        return gr2.level_policies(q_own, q_other, beta_own, beta_other, levels=4)

    q_own, q_other = random_game(1, (2, 3), 1.0), random_game(2, (2, 3), 1.0)
    own, other = run(four_levels, q_own, q_other, 0.7, 1.3)
    policy, opponent = np.full(2, 1 / 2), np.full(3, 1 / 3)
    for level in range(1, 5):
        own_weights = [np.exp(0.7 * sum(opponent[b] * q_own[a, b] for b in range(3))) for a in range(2)]
        other_weights = [np.exp(1.3 * sum(policy[a] * q_other[a, b] for a in range(2))) for b in range(3)]
        policy = np.array(own_weights) / sum(own_weights)
        opponent = np.array(other_weights) / sum(other_weights)
        np.testing.assert_allclose(own[level], policy, rtol=1e-12)
        np.testing.assert_allclose(other[level], opponent, rtol=1e-12)


def test_levels_that_respond_to_samples():
    # Level 1 averages the replies to each of the other's actions, it does not reply to their average.
    q = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    own, other = levels(q, q, jnp.inf, jnp.inf, 2, sampled=True)
    np.testing.assert_allclose(own[1:], [[0.5, 0.5], [0.5, 0.5]], atol=1e-12)
    own, _ = levels(q, q, jnp.inf, jnp.inf, 2)
    np.testing.assert_allclose(own[1], [1, 0], atol=0)
    own, other = levels(q, q, 1.0, 1.0, 2, sampled=True)
    up = (1 / (1 + math.exp(-2)) + 1 / (1 + math.e)) / 2
    np.testing.assert_allclose(own[1], [up, 1 - up], rtol=1e-12)
    np.testing.assert_allclose(other[1], [up, 1 - up], rtol=1e-12)
