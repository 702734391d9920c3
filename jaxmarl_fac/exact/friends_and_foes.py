"""Friend-or-foe values of a stage with any number of players, some friends and the rest foes (Littman, 2001).

The value is the most that the friends can be sure of, whatever the foes do:
`max over the friends' policies of min over the foes' of E R(a_1, ..., a_n)` (thesis, equation 2.68, which
sums over states and has player k on both sides). Friends who share their randomness, as in Littman's
definition, play any distribution over their joint actions; friends as (2.68) prints them mix independently,
`π_1 ... π_k`. The minimum is the same over independent, correlated and pure joint actions of the foes.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from envs.errors import BadInputError
from jaxmarl_fac.exact.equilibria import max_min


class FriendValue(NamedTuple):
    """What the friends can be sure of, and the policy that makes sure of it."""

    value: jax.Array  # ()
    policy: jax.Array  # over the friends' joint actions, (A_1, ..., A_k)


def stage_of_friends(payoff: jax.Array, friends: Sequence[int]) -> jax.Array:
    """The stage `(A_1, ..., A_k, B)`: the friends' axes, then all joint actions of the foes as one.

    Args:
        payoff: `(A_1, ..., A_n)`, of each friend.
        friends: players that are friends, in ascending order; the others are foes.

    Raises:
        BadInputError: unless `friends` are some of the players, each once.
    """
    chosen, players = list(friends), payoff.ndim
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < players:
        raise BadInputError(
            f"friends must be some of the players 0 to {players - 1}, each once and in ascending order, not "
            f"{tuple(friends)}"
        )
    moved = jnp.moveaxis(payoff, chosen, range(len(chosen)))
    return moved.reshape(*moved.shape[: len(chosen)], -1)


def correlated_friends(payoff: jax.Array, friends: Sequence[int]) -> FriendValue:
    """The friends share their randomness: a linear program.

    Args:
        payoff: `(A_1, ..., A_n)`.
        friends: see `stage_of_friends`.

    Raises:
        BadInputError: for too many joint actions (`equilibria.MAX_VERTICES`); see `stage_of_friends`.
    """
    stage = stage_of_friends(payoff, friends)
    value, policy = max_min(stage.reshape(-1, stage.shape[-1]))
    return FriendValue(value, policy.reshape(stage.shape[:-1]))


def independent_friends(payoff: jax.Array, friends: Sequence[int]) -> FriendValue:
    """The friends mix independently: exact for two friends with two actions each, against any foes.

    With friend i's probability p_i of action 1, the payoff at a joint action of the foes is
    `c + l p_1 + m p_2 + q p_1 p_2`. Inside the square a lone such surface has no strict maximum (its Hessian
    is indefinite). So the best point is a corner, or on an edge where two surfaces meet, or on the
    curve where two meet and one of them is stationary along it, or where three meet. All of these are tried.

    Args:
        payoff: `(A_1, ..., A_n)`.
        friends: see `stage_of_friends`; one, or two with two actions each.

    Raises:
        BadInputError: for more friends or actions; see `stage_of_friends`.
    """
    stage = stage_of_friends(payoff, friends)
    if stage.ndim == 2:  # nobody to be correlated with
        return correlated_friends(payoff, friends)
    if stage.shape[:-1] != (2, 2):
        raise BadInputError(
            f"independent friends are exact for two friends with two actions each, and these have "
            f"{'x'.join(map(str, stage.shape[:-1]))}: use `correlated_friends`"
        )
    surfaces = jnp.stack(
        [
            stage[0, 0],
            stage[1, 0] - stage[0, 0],
            stage[0, 1] - stage[0, 0],
            stage[1, 1] - stage[1, 0] - stage[0, 1] + stage[0, 0],
        ],
        axis=-1,
    )  # (B, 4), coefficients of 1, p_1, p_2, p_1 p_2
    points = _candidates(surfaces)  # (N, 2)
    inside = jnp.all(jnp.isfinite(points) & (points >= 0) & (points <= 1), axis=1)
    points = jnp.where(inside[:, None], points, 0.0)  # (0, 0) is a candidate anyway
    monomials = jnp.stack(
        [jnp.ones(len(points)), points[:, 0], points[:, 1], points[:, 0] * points[:, 1]], axis=-1
    )
    worst = jnp.min(monomials @ surfaces.T, axis=1)  # (N,)
    best = points[jnp.argmax(worst)]
    first, second = (jnp.stack([1 - best[player], best[player]]) for player in range(2))
    return FriendValue(jnp.max(worst), jnp.outer(first, second))


def _candidates(surfaces: jax.Array) -> jax.Array:
    """Every point of the square at which the least of the surfaces may be largest, `(N, 2)`.

    Those outside the square, or not finite, are no solutions.
    """
    foes = range(len(surfaces))
    corners = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=2)))
    found = [corners]
    pairs = list(itertools.combinations(foes, 2))
    if pairs:
        gaps = jnp.stack([surfaces[b] - surfaces[c] for b, c in pairs])  # (P, 4)
        levels = jnp.stack([surfaces[b] for b, _ in pairs])
        found += [
            jax.vmap(_on_edges)(gaps).reshape(-1, 2),
            jax.vmap(_along_curve)(gaps, levels).reshape(-1, 2),
        ]
    triples = list(itertools.combinations(foes, 3))
    if triples:
        first = jnp.stack([surfaces[b] - surfaces[c] for b, c, _ in triples])
        second = jnp.stack([surfaces[b] - surfaces[d] for b, _, d in triples])
        found.append(jax.vmap(_crossings)(first, second).reshape(-1, 2))
    return jnp.concatenate(found)


def _on_edges(gap: jax.Array) -> jax.Array:
    """Where a surface `(4,)` is 0 on the square's edges, `(4, 2)`."""
    c, l, m, q = gap  # noqa: E741
    ends = jnp.asarray([0.0, 1.0])
    at_p1 = -(c + l * ends) / (m + q * ends)  # p_2 where p_1 is 0 or 1
    at_p2 = -(c + m * ends) / (l + q * ends)
    return jnp.concatenate([jnp.stack([ends, at_p1], -1), jnp.stack([at_p2, ends], -1)])


def _along_curve(gap: jax.Array, level: jax.Array) -> jax.Array:
    """Where `level (4,)` is stationary along the curve on which `gap (4,)` is 0, `(4, 2)`.

    On the curve p_2 = -(c + l p_1) / (m + q p_1), and the slope of the level by p_1, times (m + q p_1)², is a
    quadratic. A curve on which m + q p_1 is 0 is a line of constant p_1, on which the level is linear in p_2.
    """
    c, l, m, q = gap  # noqa: E741
    _, l1, m1, q1 = level
    # d/dp [l1 p + (m1 + q1 p) p2(p)], p2 = -(c + l p)/(m + q p), p2' = -(l m - c q)/(m + q p)²
    turn = l * m - c * q
    quadratic = l1 * q * q - q1 * l * q
    linear = 2 * l1 * m * q - q1 * (c * q + l * m) - q1 * turn
    constant = l1 * m * m - q1 * c * m - m1 * turn
    roots = _roots(quadratic, linear, constant)
    points = jnp.stack([roots, -(c + l * roots) / (m + q * roots)], axis=-1)  # (2, 2)
    # The mirror image: p_1 as a function of p_2, for curves of constant p_2.
    quadratic = m1 * q * q - q1 * m * q
    linear = 2 * m1 * l * q - q1 * (c * q + l * m) - q1 * turn
    constant = m1 * l * l - q1 * c * l - l1 * turn
    roots = _roots(quadratic, linear, constant)
    mirrored = jnp.stack([-(c + m * roots) / (l + q * roots), roots], axis=-1)
    return jnp.concatenate([points, mirrored])


def _crossings(first: jax.Array, second: jax.Array) -> jax.Array:
    """Where two surfaces `(4,)` are both 0, `(2, 2)`."""
    c, l, m, q = first  # noqa: E741
    c2, l2, m2, q2 = second
    # (c2 + l2 p)(m + q p) = (c + l p)(m2 + q2 p)
    roots = _roots(l2 * q - l * q2, c2 * q + l2 * m - c * q2 - l * m2, c2 * m - c * m2)
    p2 = functools.reduce(
        lambda chosen, other: jnp.where(jnp.isfinite(chosen), chosen, other),
        [-(c + l * roots) / (m + q * roots), -(c2 + l2 * roots) / (m2 + q2 * roots)],
    )
    return jnp.stack([roots, p2], axis=-1)


def _roots(quadratic: jax.Array, linear: jax.Array, constant: jax.Array) -> jax.Array:
    """The real roots of a quadratic or linear polynomial, `(2,)`, NaN or infinite where there is none."""
    root = jnp.sqrt(linear * linear - 4 * quadratic * constant)
    # The stable form: neither subtracts numbers of one sign.
    half = -0.5 * (linear + jnp.where(linear < 0, -1.0, 1.0) * root)
    return jnp.stack([half / quadratic, constant / half])


def foes_bound(payoff: jax.Array, friends: Sequence[int]) -> jax.Array:
    """`min over the foes' mixtures of max over the friends' joint actions`, `()`: the foes' guarantee.

    Equal to the value of `correlated_friends` if the foes too share their randomness, and not less than that
    of `independent_friends`.
    """
    stage = stage_of_friends(payoff, friends)
    chex.assert_rank(stage, len(friends) + 1)
    return -max_min(-stage.reshape(-1, stage.shape[-1]).T)[0]
