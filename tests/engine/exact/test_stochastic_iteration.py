import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import optimal_q
from jaxmarl_fac.exact.stochastic_iteration import polynomial_steps, stochastic_q_iteration
from tests.engine.exact.models import random_model

pytestmark = pytest.mark.usefixtures("float64")
GAMMA = 0.9
ONE = TeamModel(np.ones((1, 1, 1)), np.ones((1, 1)), np.zeros(1, bool))


def run(model, steps, noise=1.0, seed=0, discount=GAMMA):
    start = jnp.zeros(model.reward.shape)
    optimum = optimal_q(model, discount)
    return stochastic_q_iteration(model, discount, start, steps, noise, jax.random.key(seed), optimum)


def test_step_sizes():
    np.testing.assert_allclose(polynomial_steps(4, 1), [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(polynomial_steps(3, 0.5, 0.8), [0.8, 0.8 / 2**0.5, 0.8 / 3**0.5])
    np.testing.assert_allclose(polynomial_steps(3, 0, 0.1), [0.1] * 3)


def test_without_noise_constant_steps_converge():
    """Σ α² is infinite: the condition of theorem 3 is not necessary. 1/(1-γ) from 0 by (1 - α(1-γ))^t."""
    q, errors = run(ONE, polynomial_steps(600, 0, 0.5), noise=0.0)
    np.testing.assert_allclose(errors, 10 * 0.95 ** np.arange(1, 601), rtol=1e-9, atol=1e-9)
    assert float(q[0, 0]) == pytest.approx(10, abs=1e-9)


def test_sum_of_steps_that_is_finite_leaves_an_error():
    """Steps 1/(t+1)²: the product of 1 - α_t (1-γ) stays above 0."""
    steps = polynomial_steps(1001, 2)[1:]
    _, errors = run(ONE, steps, noise=0.0)
    np.testing.assert_allclose(errors[-1], 10 * np.prod(1 - 0.1 * np.asarray(steps)), rtol=1e-9)
    assert errors[-1] > 9


def test_constant_steps_keep_a_spread():
    """γ = 0, one pair: the variance settles at α σ² / (2 - α)."""
    _, errors = run(ONE, polynomial_steps(40_000, 0, 0.1), discount=0.0)
    assert float(np.sqrt(np.mean(np.square(errors[1000:])))) == pytest.approx(np.sqrt(0.1 / 1.9), rel=0.03)


@pytest.mark.slow
def test_steps_of_theorem_3_lead_to_the_optimum_with_noise_and_random_moves():
    model = random_model((3, (2, 2)), 4, terminal=True)
    q, errors = run(model, polynomial_steps(20_000, 0.7))
    assert errors[-1] < 0.1 < errors[10]
    np.testing.assert_array_equal(q[-1], 0)  # nothing follows the end
    assert float(errors[-1]) == pytest.approx(float(jnp.abs(q - optimal_q(model, GAMMA)).max()), abs=1e-12)


def test_what_is_refused(bad_input):
    with bad_input("count must be at least 1"):
        polynomial_steps(0, 1)
    with bad_input("power must be 0 or above, not -1"):
        polynomial_steps(3, -1)
    with bad_input("the first step size must be in (0, 1], not 2"):
        polynomial_steps(3, 1, 2)
