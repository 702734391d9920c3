"""Steps in rows of 128 numbers: the shape in which replay fits a TPU, and the CPU's cache.

A TPU pads the last axis of an array to a multiple of 128, and XLA chooses the order of the axes for each loop
of a program. With the 17 bytes of a step in the last axis every loop of a chunk chose another order, and made
a padded copy: 6.2 GB of scratch for 1.2 GB of replay (QTRAN-alt on predator-prey-2, 64 seeds). Rows of the
width of a tile, in an order that is fixed wherever something is added, are never copied.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from jaxmarl_fac.memory.packing import from_bytes, to_bytes, tree_bytes

#: Numbers in a row: the width of a TPU's tiles.
WIDTH = 128
#: Rows of the largest tile, in which long buffers end, so that they too are the same in all tilings.
HEIGHT = 32
#: Numbers in an array that one int32 can index.
MAX_FLAT = 2**31 - 1


class Rows:
    """How steps lie in an array `(R, 128)`: as many as fit in a row, or one in several rows.

    The array is of uint8 or, where that wastes less of a row, of uint32.

    Args:
        example: shapes and dtypes of one step.

    Attributes:
        step_bytes: bytes of one step.
        dtype: of the array.
        per_row: steps in a row.
        height: rows of a step.
    """

    def __init__(self, example: Any):
        self._example = example
        self.step_bytes = tree_bytes(example)

        def bytes_taken(dtype: Any) -> float:
            words = self._words(dtype)
            return jnp.dtype(dtype).itemsize * WIDTH * -(-words // WIDTH) / max(1, WIDTH // words)

        self.dtype: Any = min((jnp.uint8, jnp.uint32), key=bytes_taken)
        words = self._words(self.dtype)
        self.per_row, self.height = max(1, WIDTH // words), -(-words // WIDTH)
        self._window = (self.height, words if self.height == 1 else WIDTH)

    def count(self, steps: int) -> int:
        """Rows that hold so many steps."""
        return -(-steps // self.per_row) * self.height

    def init(self, *shape: int, steps: int) -> jax.Array:
        """Room for so many steps, `(*shape, R, 128)`."""
        rows = self.count(steps)
        if rows > HEIGHT:
            rows = -(-rows // HEIGHT) * HEIGHT
        return jnp.zeros((*shape, rows, WIDTH), self.dtype)

    def write(self, rows: jax.Array, place: jax.Array, step: Any) -> jax.Array:
        """Put a step in the place `()` of `rows (R, 128)`."""
        row = jnp.pad(to_bytes(step), (0, self._padded_bytes - self.step_bytes))
        words = jax.lax.bitcast_convert_type(row.reshape(*self._window, -1), self.dtype)
        return jax.lax.dynamic_update_slice(rows, words.reshape(self._window), self._start(place))

    def read(self, rows: jax.Array, each: jax.Array, place: jax.Array) -> Any:
        """The step in the place `()` of environment `each`, of `rows (E, R, 128)`."""
        return self._step(_cut(rows, each, *self._start(place), self._window))

    def read_range(self, rows: jax.Array, each: jax.Array, first: jax.Array, steps: int) -> Any:
        """The steps, `(steps, ...)`, from a place `first` on that begins a row, of `rows (E, R, 128)`."""
        row, _ = self._start(first)
        part = _cut(rows, each, row, jnp.zeros_like(row), (self.count(steps), WIDTH))
        if self.height == 1:
            width = self._window[1]
            part = part[:, : self.per_row * width]
        return jax.vmap(self._step)(part.reshape(-1, *self._window)[:steps])

    def _words(self, dtype: Any) -> int:
        return -(-self.step_bytes // jnp.dtype(dtype).itemsize)

    @property
    def _padded_bytes(self) -> int:
        height, width = self._window
        return height * width * int(jnp.dtype(self.dtype).itemsize)

    def _start(self, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        row = jax.lax.div(place, self.per_row)  # not `//`: places are not negative
        return row * self.height, (place - row * self.per_row) * self._window[1]

    def _step(self, window: jax.Array) -> Any:
        row = jax.lax.bitcast_convert_type(window, jnp.uint8).reshape(-1)
        return from_bytes(row[: self.step_bytes], self._example)


def _cut(
    rows: jax.Array, each: jax.Array, row: jax.Array, column: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Part of a row, or whole rows, of environment `each`, of `rows (E, R, 128)`."""
    height, width = shape

    def one_by_one(rows: jax.Array) -> jax.Array:
        # For a slice of several rows, which may begin within a tile, a TPU would copy all of `rows`.
        cut = lambda row: jax.lax.dynamic_slice(rows, (each, row, column), (1, 1, width))  # noqa: E731
        return jax.vmap(cut)(row + jnp.arange(height)).reshape(shape)

    def flat(rows: jax.Array) -> jax.Array:
        # One index in place of three: XLA computes them anew for every number that a CPU gathers.
        start = (each * rows.shape[1] + row) * WIDTH + column
        return jax.lax.dynamic_slice(rows.reshape(-1), (start,), (height * width,)).reshape(shape)

    if rows.size > MAX_FLAT:
        return one_by_one(rows)
    part: jax.Array = jax.lax.platform_dependent(rows, tpu=one_by_one, default=flat)
    return part


def in_place(rows: jax.Array) -> jax.Array:
    """The same array, with its axes in their own order on a TPU, so that no loop copies it into another."""

    def ordered(rows: jax.Array) -> jax.Array:
        fixed: jax.Array = with_layout_constraint(rows, Layout(tuple(range(rows.ndim))))
        return fixed

    same: jax.Array = jax.lax.platform_dependent(rows, tpu=ordered, default=lambda rows: rows)
    return same
