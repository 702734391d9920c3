import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.soft.planning import TwoPlayerModel, soft_value_iteration
from jaxmarl_fac.soft.policy_iteration import (
    log_normaliser,
    soft_action_values,
    soft_bellman,
    soft_greedy_policy,
    soft_policy_iteration,
    soft_state_values,
)
from jaxmarl_fac.soft.stages import agent_first
from tests.engine.exact.models import random_model
from tests.engine.exact.test_policies import UNIFORM, WORKED

pytestmark = pytest.mark.usefixtures("float64")
GAMMA = 0.9


def test_theorem_6_on_the_worked_mdp():
    trace = soft_policy_iteration(WORKED, GAMMA, UNIFORM, UNIFORM, 8)
    np.testing.assert_allclose(trace.values[0], [7.25, 7.75], atol=1e-12)
    assert float(trace.policies[1, 0, 1]) == pytest.approx(0.809998, abs=1e-6)
    assert float(trace.policies[1, 1, 0]) == pytest.approx(0.824914, abs=1e-6)
    np.testing.assert_allclose(trace.values[1], [9.823066, 10.343273], atol=1e-6)
    np.testing.assert_allclose(trace.values[-1], [9.823313, 10.343519], atol=1e-6)
    assert (np.diff(trace.q, axis=0) >= -1e-12).all()
    np.testing.assert_allclose(soft_bellman(WORKED, GAMMA, trace.q[-1], UNIFORM), trace.q[-1], atol=1e-9)


@pytest.mark.parametrize(("shape", "terminal"), [((3, (3,)), False), ((2, (2, 3)), True)])
def test_evaluation_is_what_it_says(shape, terminal):
    """V = E[βr - log π/P + γV], and Q = βr + γ E V, of one agent and of two."""
    model = random_model(shape, 1, terminal)
    rng = np.random.default_rng(0)
    states, counts = shape
    policy, prior = (
        rng.dirichlet(np.ones(np.prod(counts)), states).reshape(states, *counts) for _ in range(2)
    )
    values = soft_state_values(model, GAMMA, policy, prior, 2.0)
    q = soft_action_values(model, GAMMA, policy, prior, 2.0)
    going = ~np.asarray(model.terminal)
    following = model.transition @ np.where(going, values, 0)
    shaped = going.reshape(-1, *(1,) * len(counts))
    np.testing.assert_allclose(q, np.where(shaped, 2 * model.reward + GAMMA * following, 0), atol=1e-9)
    expected = np.sum(policy * (q - np.log(policy / prior)), axis=tuple(range(1, 1 + len(counts))))
    np.testing.assert_allclose(values, np.where(going, expected, 0), atol=1e-9)


def test_a_policy_may_leave_actions_out():
    sure = np.asarray([[0.0, 1], [1, 0]])
    values = soft_state_values(WORKED, GAMMA, sure, UNIFORM)
    np.testing.assert_allclose(values, np.array([14.736842, 15.263158]) - np.log(2) / 0.1, atol=1e-6)


def test_the_target_of_an_improvement_is_a_distribution_only_with_exp_z():
    q = jnp.asarray([[0.0, 1.0]])
    prior = jnp.full((1, 2), 0.5)
    np.testing.assert_allclose(soft_greedy_policy(q, prior).sum(), 1, atol=1e-12)
    assert float(log_normaliser(q, prior)[0]) == pytest.approx(0.620115, abs=1e-6)
    assert float(jnp.sum(prior * jnp.exp(q)) / 0.5) == pytest.approx(
        3.718282, abs=1e-6
    )  # V of the uniform policy


def test_the_limit_is_soft_value_iteration():
    model = random_model((3, (3, 2)), 5)
    beta = 0.7
    prior = np.full((3, 3, 2), 1 / 6)
    trace = soft_policy_iteration(model, GAMMA, prior, prior, 10, beta)
    two = TwoPlayerModel(*(jnp.asarray(part) for part in (model.reward, model.transition, GAMMA)))
    _, backup = jax.jit(lambda: soft_value_iteration(two, lambda q: agent_first(q, beta, beta)))()
    np.testing.assert_allclose(trace.values[-1], beta * backup.value, atol=1e-7)
    np.testing.assert_allclose(trace.policies[-1], backup.joint, atol=1e-7)


def test_what_is_refused(bad_input):
    with bad_input("the discount must be in [0, 1), not 1"):
        soft_policy_iteration(WORKED, 1, UNIFORM, UNIFORM, 1)
