import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.exact.linear_systems import solve

pytestmark = pytest.mark.usefixtures("float64")


# Linear systems.


def test_solve_with_zeros_on_the_diagonal():
    # Without exchanging rows the first pivot would be 0.
    ours = solve(jnp.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 1.0, 0.0]]), jnp.array([7.0, 3.0, 3.0]))
    np.testing.assert_allclose(ours, [1, 2, 3], rtol=1e-12)


def test_solve_against_lapack():
    rng = np.random.default_rng(0)
    matrices, right = rng.normal(size=(500, 6, 6)), rng.normal(size=(500, 6))
    ours = jax.jit(jax.vmap(solve))(jnp.asarray(matrices), jnp.asarray(right))
    expected = np.linalg.solve(matrices, right[..., None])[..., 0]
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-9)
