"""Parts shared by grid worlds: cells and coordinates, moves that block each other, neighbours, empty cells.

A grid has `height` rows and `width` columns; x counts columns to the right and y rows downwards. A cell is
one number, `y * width + x`, so that a state has one small integer per entity. Everything here is
unbatched arithmetic without gathers or scatters, which vectorises well when callers vmap it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs.errors import BadInputError

#: The five moves, in the order of QTRAN's release.
UP, LEFT, STAY, RIGHT, DOWN = range(5)
NUM_MOVES = 5
#: A limit because all pairs of entities are compared, in unrolled code.
MAX_ENTITIES = 128


def check_grid(height: int, width: int, entities: int, least_cells: int) -> None:
    """Refuse a grid that is invalid or too small for its entities.

    Raises:
        BadInputError: for fewer than `least_cells` cells, more than int32 can index, or too many entities.
    """
    if height * width < least_cells:
        raise BadInputError(
            f"a grid of {height} x {width} is too small for {entities} agents and prey: it needs at least "
            f"{least_cells} cells"
        )
    if height * width > np.iinfo(np.int32).max:
        raise BadInputError(f"a grid of {height} x {width} has more cells than a 32-bit integer can index")
    if entities > MAX_ENTITIES:
        raise BadInputError(f"a grid holds at most {MAX_ENTITIES} agents and prey together, not {entities}")


def coordinates(cells: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """`(x, y)` of `cells`, each int32 of the same shape."""
    cells = cells.astype(jnp.int32)
    y = cells // width
    return cells - y * width, y


def destinations(cells: jax.Array, moves: jax.Array, height: int, width: int) -> jax.Array:
    """The cell that each entity would move to, int32 `(E,)`: its own if it stays or would leave the grid.

    Args:
        cells: `(E,)`.
        moves: `(E,)`, each one of UP, LEFT, STAY, RIGHT, DOWN.
        height: of the grid.
        width: of the grid.
    """
    x, y = coordinates(cells, width)
    x = jnp.clip(x + (moves == RIGHT) - (moves == LEFT), 0, width - 1)
    y = jnp.clip(y + (moves == DOWN) - (moves == UP), 0, height - 1)
    return y * width + x


def move_in_turn(cells: jax.Array, targets: jax.Array) -> jax.Array:
    """Move all entities in the order of their index, blockers first; the new cells, int32 `(E,)`.

    The rule (QTRAN's release): entities take turns by index. An entity whose target cell is occupied first
    lets the occupant take its turn, recursively, and then moves if the cell has become free. An entity that
    has had its turn, or is waiting for another one's, does not act again.

    So a turn follows a chain of blockers. If the chain ends at an empty cell, all of it advances by one; if
    it ends at an entity that stays, that runs into a wall or that has had its turn, or if it closes into a
    cycle (two that want to swap, or a ring), all of it stays.

    How it is computed: entity i takes its turn when the lowest index r(i) does from which the chain leads
    to i. Of all entities with the same target, the one with the lowest r comes first and gets the cell, if it
    becomes free. Two with the same r can only be part of a ring, which stays. Both r and "becomes free"
    propagate along a chain by one entity per round, hence the E - 1 rounds.

    Args:
        cells: `(E,)`, all different.
        targets: `(E,)`, the cell that each would move to; its own if it stays.
    """
    cells, targets = cells.astype(jnp.int32), targets.astype(jnp.int32)
    count = cells.shape[0]
    blocked_by = targets[:, None] == cells  # (E, E), j stands on the target of i
    turn = jnp.arange(count)  # r
    for _ in range(count - 1):
        turn = jnp.minimum(turn, jnp.where(blocked_by, turn[:, None], count).min(axis=0))
    rival = (targets[:, None] == targets) & (turn < turn[:, None])  # (E, E), j comes before i
    first = ~rival.any(axis=1)
    moves = first & ~blocked_by.any(axis=1)
    for _ in range(count - 1):
        moves |= first & (blocked_by & moves).any(axis=1)
    return jnp.where(moves, targets, cells)


def neighbours(cells: jax.Array, others: jax.Array, width: int) -> jax.Array:
    """Whether each of `cells (E,)` shares an edge with each of `others (F,)`: `(E, F)` bool."""
    (x, y), (other_x, other_y) = coordinates(cells, width), coordinates(others, width)
    return jnp.abs(x[:, None] - other_x) + jnp.abs(y[:, None] - other_y) == 1


def empty_cell(draw: jax.Array, taken: jax.Array) -> jax.Array:
    """The `draw`-th empty cell, counted from 0 in the order of cell numbers; int32.

    Args:
        draw: `()`, below the number of empty cells.
        taken: `(E,)`, all different.
    """
    # `taken` minus the taken cells below it is the number of empty cells below it.
    taken = taken.astype(jnp.int32)
    empty_below = taken - (taken < taken[:, None]).sum(axis=1, dtype=jnp.int32)  # (E,)
    return draw.astype(jnp.int32) + (empty_below <= draw).sum(dtype=jnp.int32)


def distinct_cells(draws: jax.Array) -> jax.Array:
    """One cell per draw, the `draw`-th of those still empty; int32 `(E,)`.

    Args:
        draws: `(E,)`, the i-th uniform below (number of cells - i) for uniformly random distinct cells.
    """
    cells: list[jax.Array] = []
    for draw in draws:
        cells.append(empty_cell(draw, jnp.stack(cells)) if cells else draw.astype(jnp.int32))
    return jnp.stack(cells)


def without_self(pairs: jax.Array) -> jax.Array:
    """`pairs (n, n, ...)` without its diagonal, `(n, n - 1, ...)`: row i loses column i."""
    count, rest = pairs.shape[0], pairs.shape[2:]
    flat = pairs.reshape(count * count, *rest)[1:]  # the diagonal is now the end of each row of n + 1
    return flat.reshape(count - 1, count + 1, *rest)[:, :-1].reshape(count, count - 1, *rest)
