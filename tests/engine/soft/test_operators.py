import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import BadInputError
from jaxmarl_fac.soft import operators
from tests.engine.soft.games import few, jitted, random_game, random_prior, seeds

pytestmark = pytest.mark.usefixtures("float64")


@few
@given(seeds, st.floats(1e-12, 1e-3), st.sampled_from([1, -1]))
def test_small_beta_is_close_to_the_mean(seed, size, sign):
    q, prior = random_game(seed, (6,)), random_prior(seed, (6,))
    mean = prior @ q
    value = jitted(operators.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), sign * size)
    # Hoeffding: 0 <= (log E e^{β (x - E x)}) / β <= β range² / 8 for β > 0.
    assert -1e-13 <= sign * (value - mean) <= size * np.ptp(q) ** 2 / 8 + 1e-13
    # The second order of the expansion, far below the first: nothing is lost to cancellation.
    variance = prior @ (q - mean) ** 2
    np.testing.assert_allclose(
        value, mean + sign * size * variance / 2, rtol=0, atol=size**2 * np.ptp(q) ** 3 + 1e-14
    )


@few
@given(seeds, st.floats(10, 1e12))
def test_large_beta_is_close_to_the_extremes(seed, size):
    q, prior = random_game(seed, (6,)), random_prior(seed, (6,))
    slack = -np.log(prior.min()) / size
    high = jitted(operators.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), size)
    low = jitted(operators.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), -size)
    assert q.max() - slack - 1e-12 <= high <= q.max() + 1e-12
    assert q.min() - 1e-12 <= low <= q.min() + slack + 1e-12


@few
@given(seeds)
def test_value_rises_with_beta_and_so_does_the_mean_of_the_policy(seed):
    q, prior = jnp.asarray(random_game(seed, (6,))), jnp.asarray(random_prior(seed, (6,)))
    grid = jnp.array([-jnp.inf, -1e6, -3.0, -0.2, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.2, 3.0, 1e6, jnp.inf])
    values = jax.vmap(jitted(operators.log_mean_exp), (None, None, 0))(q, prior, grid)
    policies = jax.vmap(jitted(operators.tilted_policy), (None, None, 0))(q, prior, grid)
    assert np.all(np.diff(values) >= -1e-12)
    assert np.all(np.diff(policies @ q) >= -1e-12)
    np.testing.assert_allclose(policies.sum(1), 1, rtol=1e-12)
    assert values[-1] - values[0] > 0.1


@pytest.mark.parametrize("beta", [0.0, 1e-30, -1e-20, 1e-9, 1e-4, 0.3, -20.0, 1e5, -1e30, np.inf])
def test_float32_is_as_exact_as_its_digits(beta):
    q, prior = random_game(3, (5,)), random_prior(3, (5,))
    exact = jitted(operators.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), beta)
    with jax.enable_x64(False):
        ours = jitted(operators.log_mean_exp)(
            jnp.asarray(q, jnp.float32), jnp.asarray(prior, jnp.float32), beta
        )
        assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, exact, rtol=0, atol=8 * 2**-24 * np.abs(q).max())


def test_ties_share_the_mass_as_their_priors_do():
    prior = jnp.array([0.2, 0.3, 0.1, 0.4])
    policy = jitted(operators.tilted_policy)(jnp.array([5.0, 5.0, 1.0, 1.0]), prior, jnp.inf)
    np.testing.assert_allclose(policy, [0.4, 0.6, 0, 0], atol=1e-12)
    policy = jitted(operators.tilted_policy)(jnp.array([5.0, 5.0, 1.0, 1.0]), prior, -jnp.inf)
    np.testing.assert_allclose(policy, [0, 0, 0.2, 0.8], atol=1e-12)


def test_priors_are_checked():
    np.testing.assert_allclose(operators.check_prior([0.25, 0.75], (2,)), [0.25, 0.75], atol=0)
    operators.check_prior([[0.25, 0.5], [0.75, 0.5]], (2, 2), axis=0)
    for prior, message in [
        ([0.3, 0.3], r"prior sums to 0.6: probabilities must sum to 1"),
        ([[0.5, 0.5], [0.9, 0.5]], r"prior has shape \(2, 2\): this game needs \(2,\)"),
        ([1.5, -0.5], "prior holds negative or non-finite entries: give probabilities"),
        ([np.nan, 1.0], "prior holds negative or non-finite entries: give probabilities"),
        (["a", "b"], "prior is ragged or not numeric: give plain numbers that sum to 1"),
    ]:
        with pytest.raises(BadInputError, match=f"^{message}$"):
            operators.check_prior(prior, (2,))
    with pytest.raises(BadInputError, match=r"^opponent prior sums to 1.4: "):
        operators.check_prior([[0.5, 0.5], [0.9, 0.5]], (2, 2), name="opponent prior")


def test_naive_variational_distribution():
    """The thesis's (3.44) on π = (.2, .8): β = 2 and -1."""
    policy = jnp.array([0.2, 0.8])
    np.testing.assert_allclose(operators.naive_variational(policy, 2.0), [1 / 3, 2 / 3], atol=1e-12)
    np.testing.assert_allclose(operators.naive_variational(policy, -1.0), [0.8, 0.2], atol=1e-12)
