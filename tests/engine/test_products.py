"""Dense layers whose products stay products of two matrices."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.products import Dense, rows_dot

KEYS = jax.random.split(jax.random.key(0), 3)
ROWS, MATRIX, WEIGHTS = (
    jax.random.normal(key, shape)
    for key, shape in zip(KEYS, [(5, 4, 3, 7), (7, 6), (5, 4, 3, 6)], strict=True)
)


def weighted_sum(rows, matrix, weights):
    return jnp.sum(weights * rows_dot(rows, matrix))


@pytest.mark.parametrize(
    "of_batch",
    [
        lambda function: function,
        lambda function: lambda *arguments: jnp.sum(jax.vmap(function, (0, None, 0))(*arguments)),
        lambda function: (
            lambda *arguments: jnp.sum(jax.vmap(jax.vmap(function, (1, None, 1)), (0, None, 0))(*arguments))
        ),
    ],
)
def test_values_and_gradients_are_those_of_sums_in_numpy(of_batch):
    value, (to_rows, to_matrix) = jax.jit(jax.value_and_grad(of_batch(weighted_sum), (0, 1)))(
        ROWS, MATRIX, WEIGHTS
    )
    rows, matrix, weights = (np.asarray(each, np.float64) for each in (ROWS, MATRIX, WEIGHTS))
    np.testing.assert_allclose(value, np.einsum("abri,io,abro->", rows, matrix, weights), rtol=1e-5)
    np.testing.assert_allclose(to_rows, np.einsum("io,abro->abri", matrix, weights), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_matrix, np.einsum("abri,abro->io", rows, weights), rtol=1e-4, atol=1e-4)


def test_with_a_matrix_for_each_lane():
    """As where several seeds train together, inside and outside of the gradient."""
    matrices = jnp.stack([MATRIX, 2 * MATRIX, 0 * MATRIX, -MATRIX, MATRIX])
    gradient = jax.jit(jax.vmap(jax.grad(weighted_sum, (0, 1))))
    to_rows, to_matrices = gradient(ROWS, matrices, WEIGHTS)
    np.testing.assert_allclose(to_rows, np.einsum("aio,abro->abri", matrices, WEIGHTS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_matrices, np.einsum("abri,abro->aio", ROWS, WEIGHTS), rtol=1e-4, atol=1e-4)


def test_no_product_sums_over_two_axes():
    """The gradient of a vmapped layer, where the ordinary one does."""

    def products(layer):
        params = layer.init(jax.random.key(0), ROWS[0, 0])
        loss = lambda params, rows: jnp.sum(jax.vmap(layer.apply, (None, 0))(params, rows) ** 2)  # noqa: E731
        text = jax.jit(jax.grad(loss, (0, 1))).lower(params, ROWS[0]).as_text()
        return re.findall(r"contracting_dims = (\[[\d, ]*\])", text)

    assert "[0, 1]" in products(nn.Dense(6)) and "[0, 1]" not in products(Dense(6))


def test_the_layer_is_flax_s():
    ours, theirs = Dense(6), nn.Dense(6)
    params = ours.init(jax.random.key(1), ROWS)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(1), ROWS))
    np.testing.assert_allclose(ours.apply(params, ROWS), theirs.apply(params, ROWS), rtol=1e-6)


def test_precision_is_that_of_where_it_is_called():
    def text():
        return jax.jit(lambda *arguments: rows_dot(*arguments)).lower(ROWS, MATRIX).as_text()

    assert "HIGHEST" not in text()
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in text()
