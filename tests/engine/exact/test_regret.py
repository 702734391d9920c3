"""Boltzmann policies, visits and regret, against worked numbers and slow sums over time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.policies import action_values, performance_difference
from jaxmarl_fac.exact.regret import (
    boltzmann_gap,
    boltzmann_policy,
    boltzmann_team,
    boltzmann_values,
    largest_boltzmann_gap,
    regret,
    regret_bounds,
    revisits,
    state_distribution,
)
from tests.engine.exact.models import GAMMA, random_model, random_q

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (3, (2, 3))
WORKED = TeamModel(
    transition=np.asarray([np.eye(2), np.eye(2)]),
    reward=np.asarray([[0.0, 1], [2, 0]]),
    terminal=np.zeros(2, bool),
)
UNIFORM, OTHER, FIRST = np.full((2, 2), 0.5), np.asarray([[0.3, 0.7], [0.6, 0.4]]), np.asarray([1.0, 0])


def one_state(q_star, q_k):
    q_star, q_k = (np.asarray(q, float)[None] for q in (q_star, q_k))
    model = TeamModel(np.ones((*q_star.shape, 1)), q_star, np.zeros(1, bool))
    return regret_bounds(model, 0.0, q_star, q_k, boltzmann_policy(jnp.asarray(q_k)), np.ones(1))


def test_the_largest_gap_is_lamberts_w():
    expected = [0, 0.278465, 0.603546, 0.973139, 1.040113, 1.908848]
    np.testing.assert_allclose(largest_boltzmann_gap([1, 2, 4, 8, 9, 36]), expected, rtol=0, atol=5e-7)
    assert float(largest_boltzmann_gap(6**8)) == pytest.approx(10.9415, abs=5e-5)


@pytest.mark.parametrize("count", [2, 9, 36])
def test_no_table_has_a_larger_gap(count):
    """It is attained by one better action, and by none of 2,000 random tables exceeded."""
    largest = float(largest_boltzmann_gap(count))
    one_better = np.zeros((1, count))
    one_better[0, 0] = 1 + largest
    np.testing.assert_allclose(boltzmann_gap(jnp.asarray(one_better)), largest, rtol=1e-12)
    draw = np.random.default_rng(count)
    q = draw.normal(size=(2000, count)) * draw.exponential(3, (2000, 1))
    found = np.asarray(boltzmann_gap(jnp.asarray(q)))
    chances = np.exp(q) / np.exp(q).sum(1, keepdims=True)
    np.testing.assert_allclose(found, q.max(1) - (chances * q).sum(1), atol=1e-10)
    assert found.max() <= largest


def test_a_policy_needs_an_action():
    with pytest.raises(BadInputError, match="a policy has at least one action, not 0"):
        largest_boltzmann_gap([2, 0])


def test_the_team_plays_the_boltzmann_policy_of_the_sum():
    utilities = random_q(random_model(SHAPE, 0), 0)
    total = utilities[0][:, :, None] + utilities[1][:, None]
    np.testing.assert_allclose(boltzmann_team(utilities), boltzmann_policy(jnp.asarray(total)), atol=1e-12)


@pytest.mark.parametrize("terminal", [False, True])
def test_boltzmann_values_are_those_of_their_policy(terminal):
    model = random_model(SHAPE, 1, terminal)
    q = boltzmann_values(model, GAMMA)
    np.testing.assert_allclose(q, action_values(model, GAMMA, boltzmann_policy(q)), atol=1e-9)
    with pytest.raises(BadInputError, match="sweeps must be at least 1, not 0"):
        boltzmann_values(model, GAMMA, 0)


def test_the_performance_difference_of_the_worked_mdp():
    d = state_distribution(WORKED, 0.9, OTHER, FIRST)
    np.testing.assert_allclose(d, [0.503937, 0.496063], atol=5e-7)
    for left in (
        -regret(WORKED, 0.9, OTHER, UNIFORM, FIRST),
        performance_difference(WORKED, 0.9, UNIFORM, OTHER, FIRST),
    ):
        assert float(left) == pytest.approx(2.230315, abs=5e-7)


def slow_revisits(model, policy, start, steps=300):
    """First visits and returns by following the probability of not having been there yet."""
    states, counts = len(model.terminal), model.reward.shape[1:]
    chances = np.zeros((states, states))
    for s in range(states):
        for u in itertools.product(*map(range, counts)):
            if not model.terminal[s]:
                chances[s] += policy[(s, *u)] * model.transition[(s, *u)]

    def until(here, s):
        total, discount = 0.0, 1.0
        for _ in range(steps):
            total += discount * here[s]
            here = np.where(np.arange(states) == s, 0, here) @ chances
            discount *= GAMMA
        return total

    first, again = np.zeros(states), np.zeros(model.reward.shape)
    for s in np.flatnonzero(~model.terminal):
        first[s] = (1 - GAMMA) * until(start, s)
        for u in itertools.product(*map(range, counts)):
            again[(s, *u)] = GAMMA * until(model.transition[(s, *u)], s)
    return first, again


@pytest.mark.parametrize("terminal", [False, True])
def test_first_visits_and_returns(terminal):
    model = random_model(SHAPE, 2, terminal)
    draw = np.random.default_rng(0)
    start = draw.dirichlet(np.ones(3))
    policy = np.asarray(boltzmann_policy(jnp.asarray(draw.normal(size=model.reward.shape))))
    found = revisits(model, GAMMA, policy, start)
    first, again = slow_revisits(model, policy, start)
    np.testing.assert_allclose(found.first, first, atol=1e-10)
    np.testing.assert_allclose(found.again, again, atol=1e-10)
    # The distribution and its derivative by the state's own probabilities, in closed form.
    returns = (policy * again).sum((1, 2))
    np.testing.assert_allclose(
        state_distribution(model, GAMMA, policy, start), first / (1 - returns), atol=1e-10
    )
    by_policy = jax.jacrev(lambda each: state_distribution(model, GAMMA, each, start))(jnp.asarray(policy))
    own = np.stack([by_policy[s, s] for s in range(3)])
    np.testing.assert_allclose(own, (first / (1 - returns) ** 2)[:, None, None] * again, atol=1e-9)


def test_equation_5_is_false_for_two_actions_and_18_for_nine():
    two = one_state([20, 0], [1.278465, 0])
    assert [float(two.regret), float(two.without_one)] == pytest.approx([4.356233, 4.077768], abs=5e-7)
    nine = one_state([20] + [0] * 8, [2.040113] + [0] * 8)
    assert [float(nine.regret), float(nine.with_one)] == pytest.approx([10.196617, 10.156504], abs=5e-7)


def test_the_bounds_by_loops():
    model = random_model(SHAPE, 3)
    draw = np.random.default_rng(1)
    start, q_k = draw.dirichlet(np.ones(3)), draw.normal(size=model.reward.shape)
    q_star = np.asarray(boltzmann_values(model, GAMMA))
    best, policy = (np.asarray(boltzmann_policy(jnp.asarray(q))) for q in (q_star, q_k))
    found = regret_bounds(model, GAMMA, q_star, q_k, policy, start)
    d = np.asarray(state_distribution(model, GAMMA, policy, start))
    bound, first, second, ahead = 0.0, 0.0, 0.0, 0.0
    for cell in np.ndindex(*q_k.shape):
        s, below = cell[0], q_star[cell] - q_k[cell]
        bound += d[s] * (best[cell] - policy[cell]) * below
        first += d[s] * best[cell] * np.exp(-below)
        second += d[s] * policy[cell] * np.exp(below)
        ahead += d[s] * (best[cell] - policy[cell]) * q_k[cell]
    assert float(found.without_one) == pytest.approx(bound, abs=1e-10)
    assert float(found.with_one) == pytest.approx((bound + 1) / (1 - GAMMA), abs=1e-9)
    assert float(found.jensen) == pytest.approx(-np.log(first) - np.log(second), abs=1e-10)
    # Lemma 5 without lemma 4: what (18) replaces by 1 is how much more Q_k expects of the best policy.
    assert (1 - GAMMA) * float(found.regret) == pytest.approx(bound + ahead, abs=1e-9)
    assert float(found.jensen) <= float(found.without_one)


def test_games_can_be_batched():
    models = [random_model(SHAPE, seed) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    found = jax.vmap(lambda model: boltzmann_values(model, GAMMA, 50))(batch)
    for model, each in zip(models, found, strict=True):
        np.testing.assert_allclose(each, boltzmann_values(model, GAMMA, 50), atol=1e-12)


def test_bad_input():
    with pytest.raises(BadInputError, match=r"the discount must be in \[0, 1\), not 1"):
        regret(WORKED, 1.0, UNIFORM, OTHER, FIRST)
