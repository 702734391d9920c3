"""Steps in rows of 128 numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.memory import rows as rows_module
from jaxmarl_fac.memory.rows import Rows
from tests.helpers import but_slow

#: Bytes of a step, the type of its rows, steps in a row, rows of a step.
SHAPES = [
    (5, jnp.uint8, 25, 1),
    (17, jnp.uint8, 7, 1),
    (65, jnp.uint32, 7, 1),  # one to a row of bytes would waste half of it
    (117, jnp.uint8, 1, 1),
    (128, jnp.uint8, 1, 1),
    (200, jnp.uint8, 1, 2),
    (257, jnp.uint8, 1, 3),
    (700, jnp.uint8, 1, 6),
]


def steps_of(size, *shape):
    """Random steps of so many bytes."""
    draws = np.random.default_rng(size).integers(256, size=(*shape, size), dtype=np.uint8)
    return {"code": draws[..., 0], "rest": draws[..., 1:]}


def rows_of(size):
    return Rows(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, steps_of(size))))


@pytest.mark.parametrize(("size", "dtype", "per_row", "height"), SHAPES)
def test_how_steps_lie_in_rows(size, dtype, per_row, height):
    rows = rows_of(size)
    assert (rows.step_bytes, rows.dtype, rows.per_row, rows.height) == (size, dtype, per_row, height)
    assert rows.count(1) == height and rows.count(per_row) == height
    assert rows.count(per_row + 1) == 2 * height
    assert rows.init(2, steps=1).shape == (2, height, 128)
    large = jax.eval_shape(lambda: rows.init(steps=100_000))
    assert large.shape[0] % 32 == 0 and large.dtype == dtype
    assert 0 <= large.shape[0] - rows.count(100_000) < 32


@pytest.mark.parametrize("one_by_one", but_slow([False, True], [True]))
@pytest.mark.parametrize("size", but_slow([size for size, *_ in SHAPES], [65, 200]))
def test_steps_are_read_as_they_were_written(monkeypatch, size, one_by_one):
    """Also as a TPU reads them, and as buffers with more numbers than 32 bits count are read."""
    if one_by_one:
        monkeypatch.setattr(rows_module, "MAX_FLAT", 0)
    rows = rows_of(size)
    first, count = 3 * rows.per_row, 3 * rows.per_row + 5
    steps, each = steps_of(size, 2, count), jnp.arange(2)  # of two environments

    @jax.jit
    def there_and_back(steps):
        def write(place, buffer):
            step = jax.tree.map(lambda leaf: leaf[:, place], steps)
            return jax.vmap(rows.write, (0, None, 0))(buffer, place, step)

        buffer = jax.lax.fori_loop(0, count, write, rows.init(2, steps=count))
        read = jax.vmap(jax.vmap(rows.read, (None, None, 0)), (None, 0, None))
        some = jax.vmap(lambda each: rows.read_range(buffer, each, jnp.int32(first), 5))(each)
        return read(buffer, each, jnp.arange(count)), some

    back, some = there_and_back(steps)
    for name, leaf in steps.items():
        np.testing.assert_array_equal(back[name], leaf)
        np.testing.assert_array_equal(some[name], leaf[:, first:])
