"""Small linear systems, solved in large batches."""

import chex
import jax
import jax.numpy as jnp


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The x `(k,)` with `matrix (k, k) @ x = right (k,)`, by Gauss-Jordan elimination with pivoting.

    Meant to be vmapped over many systems of up to about ten unknowns. There it is as fast as
    `jnp.linalg.solve`, which on CPU calls LAPACK once per system, and two such batches that XLA runs at the
    same time can deadlock (jax 0.10.2, two cores, 70,000 6x6 systems each). Entries of x that a singular
    matrix leaves undetermined are not finite, or arbitrary where rounding hides the singularity.
    """
    chex.assert_rank([matrix, right], [2, 1])
    size = matrix.shape[0]
    rows = jnp.arange(size)

    def eliminate(column: jax.Array, table: jax.Array) -> jax.Array:
        pivot = jnp.argmax(jnp.where(rows >= column, jnp.abs(table[:, column]), -1))
        # A masked sum instead of an index: a gather per system is slow when vmapped.
        pivot_row = jnp.sum(jnp.where((rows == pivot)[:, None], table, 0), axis=0)
        table = jnp.where((rows == pivot)[:, None], table[column], table)
        pivot_row = pivot_row / pivot_row[column]
        table = table - table[:, column, None] * pivot_row
        return jnp.where((rows == column)[:, None], pivot_row, table)

    return jax.lax.fori_loop(0, size, eliminate, jnp.column_stack([matrix, right]))[:, -1]


def differentiable_solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """`solve` with the derivative of the solution, itself a linear solve, in place of the elimination's."""
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x,
        right,
        solve=lambda _, b: solve(matrix, b),
        transpose_solve=lambda _, b: solve(matrix.T, b),
    )
