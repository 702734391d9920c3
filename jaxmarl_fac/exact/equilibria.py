"""Equilibria of two-player matrix games.

All solvers are exact up to rounding, jittable and vmappable: they try every candidate vertex of a
polytope, and the candidates depend on the shapes only, so the work is a fixed batch of small linear systems.
Their number grows fast (231 systems at 5x5), hence `MAX_VERTICES`; for larger games scipy.optimize.linprog is
the better tool.

A game is `payoffs (2, A, B)`: player 1 picks the row a, player 2 the column b.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from envs.errors import BadInputError
from jaxmarl_fac.exact.linear_systems import solve

#: Games with more candidate vertices are refused: 6x6 has 893, 2x40 has 782.
MAX_VERTICES = 1000


def check_bimatrix(payoffs: Sequence[ArrayLike]) -> np.ndarray:
    """One payoff table per player as an array `(2, A, B)`.

    Raises:
        BadInputError: unless there are two, both numeric and finite, of one shape with two axes.
    """
    if len(payoffs) != 2:
        raise BadInputError(
            f"got {len(payoffs)} payoff tables: this method is for two players, one table each"
        )
    try:
        first, second = (np.asarray(payoff, dtype=float) for payoff in payoffs)
    except (ValueError, TypeError) as error:
        raise BadInputError(
            "a payoff table is ragged or not numeric: every row needs the same number of plain numbers"
        ) from error
    for table in (first, second):
        if table.ndim != 2:
            raise BadInputError(
                f"a payoff table has {table.ndim} axis/axes: this method is for two players, one axis each"
            )
    if first.shape != second.shape:
        raise BadInputError(
            f"the payoff tables have shapes {first.shape} and {second.shape}: both players need the same"
        )
    if first.size == 0:
        raise BadInputError(f"the payoff tables are empty (shape {first.shape}): each player needs an action")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise BadInputError(
            "a payoff table holds NaN or infinite entries: every entry must be a finite number"
        )
    return np.stack([first, second])


# Vertices: every candidate for an equilibrium strategy.


@functools.cache
def _tight_constraints(actions: int, columns: int) -> np.ndarray:
    """Which constraints hold with equality at each vertex, `(N, A + 1)` row numbers; see `_vertices`.

    Smaller supports first, then in lexicographic order.

    Raises:
        BadInputError: if there are too many.
    """
    choices: list[list[int]] = []
    for size in range(1, min(actions, columns) + 1):
        for support in itertools.combinations(range(actions), size):
            unplayed = [columns + action for action in range(actions) if action not in support]
            # A pure strategy does not depend on the column: list it once.
            equal = itertools.combinations(range(columns), size) if size > 1 else [(0,)]
            choices.extend([*tight, *unplayed, columns + actions] for tight in equal)
            if len(choices) > MAX_VERTICES:
                raise BadInputError(
                    f"a {actions}x{columns} game is too large to enumerate its equilibria: "
                    "use at most 6x6, or scipy.optimize.linprog"
                )
    return np.array(choices, np.int32)


def _vertices(payoff: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All strategies over the rows that equalise as many columns as they mix rows.

    They are the vertices of {(x, v): x in the simplex, x·payoff[:, b] <= v}, and some points outside it: at a
    vertex as many constraints hold with equality as there are unknowns. With `>= v` the set is that of
    max-min, with the same candidates.

    Args:
        payoff: `(A, B)`.

    Returns:
        Strategies `(N, A)`, all of them distributions, and whether each solves its system `(N,)`.
    """
    chex.assert_rank(payoff, 2)
    actions, columns = payoff.shape
    dtype = payoff.dtype
    # Shifting and scaling leave the vertices unchanged and keep the systems well conditioned.
    spread = jnp.ptp(payoff)
    unit = (payoff - jnp.min(payoff)) / jnp.where(spread > 0, spread, 1)
    constraints = jnp.concatenate(  # unknowns (x, v)
        [
            jnp.hstack([unit.T, -jnp.ones((columns, 1), dtype)]),  # x·payoff[:, b] = v
            jnp.eye(actions, actions + 1, dtype=dtype),  # x_a = 0
            jnp.ones((1, actions + 1), dtype).at[0, -1].set(0),  # Σ x = 1
        ]
    )
    systems = constraints[_tight_constraints(actions, columns)]  # (N, A + 1, A + 1)
    right = jnp.zeros((actions + 1,), dtype).at[-1].set(1)
    found = jax.vmap(solve, (0, None))(systems, right)[:, :actions]
    found = jnp.where(jnp.isfinite(found), found, -1)  # singular systems
    valid = jnp.all(found >= -_tolerance(dtype), axis=-1)
    strategies = jnp.maximum(found, 0)
    total = jnp.sum(strategies, axis=-1, keepdims=True)
    return jnp.where(total > 0, strategies / jnp.where(total > 0, total, 1), 1 / actions), valid


def _tolerance(dtype: jnp.dtype) -> float:
    return float(jnp.finfo(dtype).eps) ** 0.5


# Zero-sum: friend and foe.


def max_min(payoff: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The foe value `max_x min_b x·payoff[:, b]` and the policy x that attains it, `()` and `(A,)`.

    An optimal strategy lies on a vertex (Shapley and Snow, 1950), and the worst case of any
    strategy is a lower bound, so the best candidate is exact. Ties go to the smallest support, then to the
    lowest actions. The other player's strategy is that of
    `max_min(-payoff.T)`.

    Args:
        payoff: `(A, B)`, of the player that picks the row.

    Raises:
        BadInputError: if the game is too large (`MAX_VERTICES`).
    """
    strategies, _ = _vertices(payoff)
    worst = jnp.min(strategies @ payoff, axis=-1)  # (N,)
    rounding = 64 * jnp.finfo(payoff.dtype).eps * jnp.max(jnp.abs(payoff))
    best = jnp.argmax(worst >= jnp.max(worst) - rounding)
    return worst[best], strategies[best]


def friend(payoff: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The friend value, the maximum over the joint action, and that action: `(A, B)` to `()` and `(2,)`.

    Ties go to the lowest action of player 1, then of player 2.
    """
    chex.assert_rank(payoff, 2)
    best = jnp.argmax(payoff)
    return jnp.ravel(payoff)[best], jnp.stack(jnp.unravel_index(best, payoff.shape))


# General-sum: Nash.


def best_response_gaps(payoffs: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Each player's gain from its best response, `(2,)`; both are 0 in a Nash equilibrium.

    Args:
        payoffs: `(2, A, B)`.
        row: player 1's strategy, `(A,)`.
        column: player 2's strategy, `(B,)`.
    """
    chex.assert_rank([payoffs, row, column], [3, 1, 1])
    own, other = payoffs[0] @ column, row @ payoffs[1]  # (A,), (B,)
    return jnp.stack([jnp.max(own) - row @ own, jnp.max(other) - other @ column])


def pure_equilibria(payoffs: jax.Array) -> jax.Array:
    """Which joint actions of `payoffs (2, A, B)` are pure Nash equilibria, `(A, B)` bool."""
    chex.assert_rank(payoffs, 3)
    first, second = payoffs
    return (first >= jnp.max(first, axis=0)) & (second >= jnp.max(second, axis=1, keepdims=True))


class Enumeration(NamedTuple):
    """All candidates for an equilibrium; a strategy may be listed more than once."""

    rows: jax.Array  # (N, A), strategies of player 1
    columns: jax.Array  # (M, B), strategies of player 2
    regrets: jax.Array  # (N, M), the larger best-response gap over the payoff's range; inf if no candidate


def support_enumeration(payoffs: jax.Array) -> Enumeration:
    """All pairs of strategies that each equalise as many of the other's actions as they mix.

    They include every extreme equilibrium, of degenerate games too, with regret 0 up to rounding; every game
    has one.

    Args:
        payoffs: `(2, A, B)`.

    Raises:
        BadInputError: if the game is too large (`MAX_VERTICES`).
    """
    chex.assert_rank(payoffs, 3)
    rows, rows_valid = _vertices(payoffs[1])  # player 1 mixes to equalise player 2's columns
    columns, columns_valid = _vertices(payoffs[0].T)
    first, second = payoffs[0] @ columns.T, rows @ payoffs[1]  # (A, M), (N, B)
    gains = jnp.stack(
        [jnp.max(first, axis=0) - rows @ first, jnp.max(second, axis=1, keepdims=True) - second @ columns.T]
    )  # (2, N, M)
    spread = jnp.ptp(payoffs, axis=(1, 2))
    regrets = jnp.max(gains / jnp.where(spread > 0, spread, 1)[:, None, None], axis=0)
    valid = rows_valid[:, None] & columns_valid
    return Enumeration(rows, columns, jnp.where(valid, regrets, jnp.inf))


class Equilibrium(NamedTuple):
    """One Nash equilibrium of a two-player game."""

    row: jax.Array  # (A,)
    column: jax.Array  # (B,)
    values: jax.Array  # (2,), each player's expected payoff


def nash_equilibrium(payoffs: jax.Array) -> Equilibrium:
    """One Nash equilibrium, selected by a fixed rule, so that both players find the same one.

    Pure equilibria come before mixed ones. Among several the one with the largest sum of payoffs is
    taken, which selects a global optimum if one is an equilibrium (all saddle points have the same value);
    among equal sums the first: of pure ones in row-major order, of mixed ones in that of
    `support_enumeration`, smaller supports first. Sums within a relative 1.5e-8 (float64; 3.5e-4 in
    float32) count as equal for mixed ones.

    Args:
        payoffs: `(2, A, B)`.

    Raises:
        BadInputError: if the game is too large (`MAX_VERTICES`).
    """
    chex.assert_rank(payoffs, 3)
    _, actions, others = payoffs.shape
    tolerance = _tolerance(payoffs.dtype)

    pure = pure_equilibria(payoffs)
    total = jnp.sum(payoffs, axis=0)  # (A, B)
    action, other = jnp.unravel_index(jnp.argmax(jnp.where(pure, total, -jnp.inf)), pure.shape)

    rows, columns, regrets = support_enumeration(payoffs)
    # Never empty, even for badly conditioned games.
    equilibria = regrets <= jnp.maximum(tolerance**1.5, jnp.min(regrets))
    totals = jnp.where(equilibria, rows @ total @ columns.T, -jnp.inf)  # (N, M)
    enough = jnp.max(totals) - tolerance * jnp.ptp(total)
    mixed_row, mixed_column = jnp.unravel_index(jnp.argmax(totals >= enough), totals.shape)

    any_pure = jnp.any(pure)
    one_hot = functools.partial(jax.nn.one_hot, dtype=payoffs.dtype)
    row = jnp.where(any_pure, one_hot(action, actions), rows[mixed_row])
    column = jnp.where(any_pure, one_hot(other, others), columns[mixed_column])
    return Equilibrium(row, column, jnp.einsum("a,kab,b->k", row, payoffs, column))
