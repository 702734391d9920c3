import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import best_values, optimal_q
from jaxmarl_fac.exact.policies import (
    action_values,
    advantages,
    agent_values,
    discounted_visits,
    greedy_policy,
    joint_policy,
    largest_divergence,
    performance,
    performance_difference,
    policy_gradient,
    policy_iteration,
    state_values,
    surrogate_performance,
    trust_region_bound,
)
from tests.engine.exact.models import GAMMA, SHAPES, random_model

pytestmark = pytest.mark.usefixtures("float64")

ONE_AGENT = (3, (3,))

# The worked MDP: action a leads to state a, r(0, .) = (0, 1), r(1, .) = (2, 0), γ = .9.
WORKED = TeamModel(
    transition=np.asarray([np.eye(2), np.eye(2)]),
    reward=np.asarray([[0.0, 1], [2, 0]]),
    terminal=np.zeros(2, bool),
)
UNIFORM, OTHER = np.full((2, 2), 0.5), np.asarray([[0.3, 0.7], [0.6, 0.4]])
FIRST = np.asarray([1.0, 0])


def random_policies(model, seed):
    rng = np.random.default_rng(100 + seed)
    return tuple(rng.dirichlet(np.ones(count), size=len(model.reward)) for count in model.reward.shape[1:])


def random_start(model, seed):
    return np.random.default_rng(200 + seed).dirichlet(np.ones(len(model.reward)))


def of_each(shape, terminal=False, seed=0):
    model = random_model(shape, seed, terminal)
    return model, random_policies(model, seed), random_start(model, seed)


every_shape = pytest.mark.parametrize("shape", [ONE_AGENT, *SHAPES])
with_and_without_end = pytest.mark.parametrize("terminal", [False, True])

# The worked MDP


def test_evaluation_of_the_worked_mdp():
    np.testing.assert_allclose(state_values(WORKED, 0.9, UNIFORM), [7.25, 7.75], atol=1e-12)
    np.testing.assert_allclose(
        action_values(WORKED, 0.9, UNIFORM), [[6.525, 7.975], [8.525, 6.975]], atol=1e-12
    )
    np.testing.assert_allclose(
        advantages(WORKED, 0.9, UNIFORM), [[-0.725, 0.725], [0.775, -0.775]], atol=1e-12
    )


def test_one_improvement_of_the_worked_mdp_is_optimal():
    trace = policy_iteration(WORKED, 0.9, UNIFORM, 2)
    np.testing.assert_array_equal(trace.policies[1], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(trace.policies[2], trace.policies[1])
    np.testing.assert_allclose(trace.values[1], [14.736842, 15.263158], atol=1e-6)
    np.testing.assert_allclose(trace.values[1], best_values(optimal_q(WORKED, 0.9)), atol=1e-9)


def test_bounds_of_the_worked_mdp():
    pair = (UNIFORM, OTHER)
    assert float(performance(WORKED, 0.9, UNIFORM, FIRST)) == pytest.approx(7.25, abs=1e-12)
    assert float(performance(WORKED, 0.9, OTHER, FIRST)) == pytest.approx(9.480315, abs=1e-6)
    assert float(surrogate_performance(WORKED, 0.9, *pair, FIRST)) == pytest.approx(9.5425, abs=1e-12)
    assert float(largest_divergence(WORKED, *pair)) == pytest.approx(0.0871767, abs=1e-7)
    assert np.abs(advantages(WORKED, 0.9, UNIFORM)).max() == pytest.approx(0.775, abs=1e-12)
    assert float(trust_region_bound(WORKED, 0.9, *pair, FIRST)) == pytest.approx(-14.779798, abs=1e-6)
    assert float(performance_difference(WORKED, 0.9, *pair, FIRST)) == pytest.approx(2.230315, abs=1e-6)
    visits = 0.1 * discounted_visits(WORKED, 0.9, OTHER, FIRST)
    np.testing.assert_allclose(visits, [0.503937, 0.496063], atol=1e-6)


# Against slow references


def simulated(model, policies, start, steps=400):
    """V and ρ by summing over time, state by state and joint action by joint action."""
    states, counts = len(model.terminal), model.reward.shape[1:]
    chances, rewards = np.zeros((states, states)), np.zeros(states)
    for s in range(states):
        for u in itertools.product(*map(range, counts)):
            if not model.terminal[s]:
                p = np.prod([policy[s, a] for policy, a in zip(policies, u, strict=True)])
                chances[s] += p * model.transition[(s, *u)]
                rewards[s] += p * model.reward[(s, *u)]
    values, visits, here, discount = np.zeros(states), np.zeros(states), start.copy(), 1.0
    onward = np.eye(states)
    for _ in range(steps):
        values += discount * onward @ rewards
        visits += discount * here * ~model.terminal
        onward, here, discount = onward @ chances, here @ chances, GAMMA * discount
    return values, visits


@every_shape
@with_and_without_end
def test_values_and_visits_are_sums_over_time(shape, terminal):
    model, policies, start = of_each(shape, terminal)
    joint = joint_policy(policies)
    values, visits = simulated(model, policies, start)
    np.testing.assert_allclose(state_values(model, GAMMA, joint), values, atol=1e-12)
    np.testing.assert_allclose(discounted_visits(model, GAMMA, joint, start), visits, atol=1e-12)
    assert float(performance(model, GAMMA, joint, start)) == pytest.approx(start @ values, abs=1e-12)
    if not terminal:
        assert visits.sum() == pytest.approx(1 / (1 - GAMMA), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_joint_policies_and_what_an_agent_may_expect(shape):
    model, policies, _ = of_each(shape)
    joint, counts = np.asarray(joint_policy(policies)), shape[1]
    expected = [np.zeros_like(policy) for policy in policies]
    for s, u in itertools.product(range(shape[0]), itertools.product(*map(range, counts))):
        each = [policy[s, a] for policy, a in zip(policies, u, strict=True)]
        assert joint[(s, *u)] == pytest.approx(np.prod(each), abs=1e-15)
        for agent, a in enumerate(u):
            others = np.prod(each[:agent] + each[agent + 1 :])
            expected[agent][s, a] += others * model.reward[(s, *u)]
    for ours, theirs in zip(agent_values(jnp.asarray(model.reward), policies), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-14)


# Improvement


@every_shape
@with_and_without_end
def test_policy_iteration_never_falls_and_ends_at_the_optimum(shape, terminal):
    for seed in range(3):
        model, policies, _ = of_each(shape, terminal, seed)
        start = joint_policy(policies)
        most = min(12, np.prod(shape[1]) ** shape[0])
        trace = policy_iteration(model, GAMMA, start, int(most))
        assert np.diff(trace.values, axis=0).min() >= -1e-12
        best = best_values(optimal_q(model, GAMMA))
        np.testing.assert_allclose(trace.values[-1], best, atol=1e-8)


def test_greedy_policies_break_ties_by_the_lowest_index():
    q = jnp.asarray([[[1.0, 3], [3, 0]], [[2, 2], [2, 2]]])
    np.testing.assert_array_equal(greedy_policy(q), [[[0, 1], [0, 0]], [[1, 0], [0, 0]]])


# Gradients


@every_shape
def test_policy_gradient_is_the_derivative_of_the_performance(shape):
    model, policies, start = of_each(shape, terminal=len(shape[1]) > 1)
    logits = tuple(jnp.log(policy) for policy in policies)

    @jax.jit
    def objective(logits):
        joint = joint_policy(tuple(jax.nn.softmax(x, axis=-1) for x in logits))
        return performance(model, GAMMA, joint, start)

    ours = policy_gradient(model, GAMMA, policies, start)
    for exact, gradient in zip(jax.grad(objective)(logits), ours, strict=True):
        np.testing.assert_allclose(gradient, exact, atol=1e-12)
    step = 1e-6  # and of differences
    moved = (logits[0].at[0, 1].add(step), *logits[1:])
    slope = (objective(moved) - objective(logits)) / step
    assert float(slope) == pytest.approx(float(ours[0][0, 1]), abs=1e-5)


# One policy seen from another


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.01, 0.3, 1.0]), terminal=st.booleans())
def test_the_bound_and_the_difference_lemma(seed, size, terminal):
    """For policies close to each other and far apart; correlated joint policies too."""
    model = random_model((3, (2, 3)), seed % 7, terminal)
    rng = np.random.default_rng(seed)
    policy, other = rng.dirichlet(np.ones(6), size=(2, 3)).reshape(2, 3, 2, 3)
    new, start = (1 - size) * policy + size * other, random_start(model, seed)
    pair = (policy, new, start)
    gain = performance(model, GAMMA, new, start) - performance(model, GAMMA, policy, start)
    assert float(performance_difference(model, GAMMA, *pair)) == pytest.approx(float(gain), abs=1e-11)
    assert (
        float(trust_region_bound(model, GAMMA, *pair)) <= float(performance(model, GAMMA, new, start)) + 1e-12
    )
    divergence = np.sum(policy * np.log(policy / new), axis=(1, 2))
    assert float(largest_divergence(model, policy, new)) == pytest.approx(
        divergence[~model.terminal].max(), abs=1e-12
    )


@every_shape
def test_the_surrogate_agrees_to_first_order(shape):
    model, policies, start = of_each(shape)
    joint = joint_policy(policies)

    def surrogate(new):
        return surrogate_performance(model, GAMMA, joint, new, start)

    assert float(surrogate(joint)) == pytest.approx(float(performance(model, GAMMA, joint, start)), abs=1e-12)
    direction = np.random.default_rng(5).normal(size=joint.shape)
    direction -= direction.reshape(len(joint), -1).mean(1).reshape(-1, *(1,) * (joint.ndim - 1))
    slopes = [
        jax.jvp(function, (joint,), (direction,))[1]
        for function in (surrogate, lambda new: performance(model, GAMMA, new, start))
    ]
    assert float(slopes[0]) == pytest.approx(float(slopes[1]), abs=1e-11)


def test_divergence_from_a_policy_that_leaves_an_action_out():
    assert np.isinf(largest_divergence(WORKED, UNIFORM, np.eye(2)))
    assert float(largest_divergence(WORKED, np.eye(2), UNIFORM)) == pytest.approx(np.log(2), abs=1e-12)


def test_everything_can_be_vmapped_over_games():
    models = jax.tree.map(lambda *leaves: np.stack(leaves), *[random_model(ONE_AGENT, k) for k in range(4)])
    policy, start = np.full((3, 3), 1 / 3), np.full(3, 1 / 3)
    bounds = jax.vmap(trust_region_bound, (0, None, None, None, None))(models, GAMMA, policy, policy, start)
    values = jax.vmap(performance, (0, None, None, None))(models, GAMMA, policy, start)
    np.testing.assert_allclose(bounds, values, atol=1e-12)


@pytest.mark.parametrize("discount", [-0.1, 1.0, float("nan")])
def test_discounts_outside_0_1(discount):
    for solve in (
        lambda: state_values(WORKED, discount, UNIFORM),
        lambda: policy_iteration(WORKED, discount, UNIFORM, 1),
        lambda: policy_gradient(WORKED, discount, (UNIFORM,), FIRST),
        lambda: trust_region_bound(WORKED, discount, UNIFORM, OTHER, FIRST),
    ):
        with pytest.raises(BadInputError, match=r"discount must be in \[0, 1\), not"):
            solve()
