"""A dense layer whose products stay products of two matrices under `vmap`.

A layer is applied to the rows of one sample, `(n, I)`, and vmapped over samples. `jax.vmap` turns its product
into one of an array `(B, n, I)`, whose gradient sums over two axes: XLA on CPU transposes both of its factors
for that first, and PQN's update on MPE takes 1.3 times as long. Here `vmap` joins the axes of samples and of
rows. The values are the same.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_rows_dot = Primitive("rows_dot")


def rows_dot(rows: jax.Array, matrix: jax.Array, dimension_numbers: Any = None, precision: Any = None) -> Any:
    """`rows (..., I)` times `matrix (I, O)`: `(..., O)`.

    Args:
        rows: any number of them.
        matrix: the same for all rows.
        dimension_numbers: those of this product, which `nn.Dense` gives; not read.
        precision: see `jax.lax.dot_general`; None for JAX's setting where this is called.
    """
    if precision is None:
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    product = _rows_dot.bind(rows.reshape(-1, rows.shape[-1]), matrix, precision=precision)
    return product.reshape(*rows.shape[:-1], matrix.shape[-1])


class Dense(nn.Dense):
    """flax's dense layer with the product above."""

    dot_general: Callable[..., Any] | None = rows_dot


# The primitive takes matrices `(R, I)` and `(I, O)`.


def _product(rows: jax.Array, matrix: jax.Array, *, precision: Any) -> jax.Array:
    return jax.lax.dot(rows, matrix, precision=precision)


def _shape(rows: Any, matrix: Any, *, precision: Any) -> Any:
    return jax.core.ShapedArray((rows.shape[0], matrix.shape[1]), rows.dtype)


def _batched(arguments: Any, axes: Any, *, precision: Any) -> tuple[jax.Array, int]:
    rows, matrix = (
        each if axis is None else jnp.moveaxis(each, axis, 0)
        for each, axis in zip(arguments, axes, strict=True)
    )
    of_rows, of_matrix = (None if axis is None else 0 for axis in axes)
    if of_matrix is None:
        return rows_dot(rows, matrix, precision=precision), 0
    each = jax.vmap(lambda rows, matrix: _product(rows, matrix, precision=precision), (of_rows, of_matrix))
    return each(rows, matrix), 0


def _rows_cotangent(cotangent: jax.Array, rows: Any, matrix: jax.Array, *, precision: Any) -> jax.Array:
    return rows_dot(cotangent, matrix.T, precision=precision)  # type: ignore[no-any-return]


def _matrix_cotangent(cotangent: jax.Array, rows: jax.Array, matrix: Any, *, precision: Any) -> jax.Array:
    return jax.lax.dot_general(rows, cotangent, (((0,), (0,)), ((), ())), precision=precision)


_rows_dot.def_impl(jax.jit(_product, static_argnames="precision"))
_rows_dot.def_abstract_eval(_shape)
batching.primitive_batchers[_rows_dot] = _batched
mlir.register_lowering(_rows_dot, mlir.lower_fun(_product, multiple_results=False))
ad.defbilinear(_rows_dot, _rows_cotangent, _matrix_cotangent)
