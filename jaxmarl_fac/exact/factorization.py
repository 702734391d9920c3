"""QTRAN's conditions on a sum of utilities that shall have the greedy joint action of a joint value, exactly.

Son et al. (2019), section 3.1 and supplement B. Throughout `Q'_jt(u) = sum_i Q_i(u_i)`, ū are the agents'
greedy actions, and the slack is `D(u) = Q'_jt(u) - Q_jt(u) + V_jt`:

* condition (4): `D(ū) = 0` and `D >= 0` elsewhere; (9) is the same with `V_jt = 0`;
* condition (7): moreover, for each agent i and all actions of the others, some u_i has `D(u_i, u_-i) = 0`.

Utilities are tuples of n arrays `(A_i,)`, joint values `(A_1, ..., A_n)`. The functions of JAX arrays can be
jitted and vmapped over games; ties in every argmax go to the lowest index.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy import optimize

from envs.errors import BadInputError
from jaxmarl_fac.exact.joint import PerAgent
from jaxmarl_fac.exact.projections import sum_utilities

#: `tight_utilities` decides for each joint action whether its slack is 0.
MAX_JOINT_ACTIONS = 100


def slack(utilities: PerAgent, q_jt: jax.Array, v_jt: ArrayLike = 0.0) -> jax.Array:
    """`D (A_1, ..., A_n)` of every joint action, for a state value `v_jt ()`."""
    return sum_utilities(utilities) - q_jt + v_jt


def least_slacks(slack: jax.Array) -> PerAgent:
    """The least slack over the own actions of each agent, given the others' `(A_1, ..., 1, ..., A_n)`.

    Condition (7) wants all of them to be 0.
    """
    return tuple(jnp.min(slack, axis=agent, keepdims=True) for agent in range(slack.ndim))


def state_value(utilities: PerAgent, q_jt: jax.Array) -> jax.Array:
    """`V_jt = max_u Q_jt(u) - sum_i max Q_i`, `()` (equation 5)."""
    return jnp.max(q_jt) - jnp.sum(jnp.stack([jnp.max(utility) for utility in utilities]))


def largest_scale(utilities: PerAgent, q_jt: jax.Array) -> jax.Array:
    """The largest alpha, `()`, for which `alpha Q_i` meet condition (4) (proposition 1).

    0 if there is none above 0, infinite if all of them do. The utilities must have the greedy joint action of
    `q_jt` for there to be one.
    """
    q_prime = sum_utilities(utilities)
    below, wanted = jnp.max(q_prime) - q_prime, jnp.max(q_jt) - q_jt
    greedy = jnp.argmax(q_prime)  # of the flattened tables
    worse = jnp.where(below > 0, below, 1.0)
    scales = jnp.where(below > 0, wanted / worse, jnp.inf)
    return jnp.where(wanted.ravel()[greedy] == 0, jnp.min(scales), 0.0)


def shifted(utilities: PerAgent, q_jt: jax.Array) -> PerAgent:
    """`phi'_i(Q_i) = Q_i - Q_i(ū_i) + max_u Q_jt(u) / n`, with which V_jt is 0 (proposition 1a)."""
    share = jnp.max(q_jt) / len(utilities)
    return tuple(utility - jnp.max(utility) + share for utility in utilities)


def tighten(utilities: PerAgent, q_jt: jax.Array) -> PerAgent:
    """Utilities of two agents that meet condition (7), from ones that meet condition (9) (supplement B.4.1).

    For each action in turn, agent 1's first, the least slack over the other agent's actions is taken off its
    utility, so that every row and every column of the slack holds a zero. The greedy actions stay, as their
    slack is zero already.

    Args:
        utilities: `(A_1,)` and `(A_2,)`.
        q_jt: `(A_1, A_2)`.

    Raises:
        BadInputError: for another number of agents. With three or more, condition (7) may have no solution at
            all: see `tight_utilities`.
    """
    if len(utilities) != 2:
        raise BadInputError(
            f"the construction is for two agents, not {len(utilities)}: `tight_utilities` finds out whether "
            "condition (7) can be met at all"
        )
    first, second = utilities
    first = first - jnp.min(first[:, None] + second - q_jt, axis=1)
    second = second - jnp.min(first[:, None] + second - q_jt, axis=0)
    return first, second


def tight_utilities(q_jt: ArrayLike) -> tuple[np.ndarray, ...] | None:
    """Utilities with `Q_jt`'s greedy joint action that meet condition (7) with `V_jt = 0`, or None.

    Theorem 2 says that there always are some, which holds for two agents only. A state value other than 0
    makes no difference: it can be shared among the utilities.

    An integer program (HiGHS) chooses the joint actions with a slack of 0, of which each line along an
    agent's actions must hold one. Of several solutions it finds one that sets the greedy actions apart from
    all others by as much as possible, up to the range of `q_jt`.

    Args:
        q_jt: `(A_1, ..., A_n)`.

    Returns:
        float64 `(A_i,)` of each agent, the sum of whose maxima is the maximum of `q_jt`. Where condition (7)
        leaves nothing else, other actions are as good as the greedy ones.

    Raises:
        BadInputError: for values that are not finite, no agent, or more than 100 joint actions.
    """
    values = np.asarray(q_jt, np.float64)
    if not values.ndim or not values.size or not np.isfinite(values).all():
        raise BadInputError("joint values must be finite, with one axis for each agent's actions")
    if values.size > MAX_JOINT_ACTIONS:
        raise BadInputError(
            f"{values.size:,} joint actions are too many to find utilities that meet condition (7): "
            f"at most {MAX_JOINT_ACTIONS}"
        )
    scale = float(np.ptp(values)) or 1.0
    below = ((values.max() - values) / scale).ravel()  # (J,), at most 1
    greedy = np.unravel_index(int(np.argmax(values)), values.shape)
    offsets = np.concatenate([[0], np.cumsum(values.shape)])
    count, cells = int(offsets[-1]), values.size
    best = np.asarray(offsets[:-1] + greedy)  # (n,), of all utilities in a row the greedy actions'
    # Unknown is by how much each action is worse than the greedy one, `worse (count,)`, and the gap, the
    # least of that over other actions. `used` adds up a joint action's: its slack is `below - used @ worse`.
    joints = np.indices(values.shape).reshape(values.ndim, -1) + offsets[:-1, None]  # (n, J)
    used = np.zeros((cells, count + 1))
    used[np.arange(cells), joints] = 1
    others = np.setdiff1d(np.arange(count), best)
    gap = np.zeros((len(others), count + 1))
    gap[np.arange(len(others)), others], gap[:, -1] = -1, 1
    upper = np.ones(count + 1)
    upper[:-1] = np.where(np.isin(np.arange(count), best), 0, np.inf)
    lines = list(_lines(values.shape, greedy))
    on_line = np.zeros((len(lines), cells))
    for row, line in enumerate(lines):
        on_line[row, line] = 1
    # With `zero (J,)`, 0 or 1: 0 <= slack <= below (1 - zero), and a zero on each line.
    wanted = np.zeros(count + 1 + cells)
    wanted[count] = -1
    found = optimize.milp(
        wanted,
        integrality=np.repeat([0, 1], [count + 1, cells]),
        bounds=optimize.Bounds(0, np.concatenate([upper, np.ones(cells)])),
        constraints=[
            optimize.LinearConstraint(np.hstack([used, np.zeros((cells, cells))]), ub=below),
            optimize.LinearConstraint(np.hstack([used, -np.diag(below)]), lb=0),
            optimize.LinearConstraint(np.hstack([gap, np.zeros((len(others), cells))]), ub=0),
            optimize.LinearConstraint(np.hstack([np.zeros((len(lines), count + 1)), on_line]), lb=1),
        ],
    )
    if found.x is None:
        return None
    zero = found.x[count + 1 :] > 0.5
    exact = optimize.linprog(  # with the same zeros, and without the tolerance of integers
        wanted[: count + 1],
        A_ub=np.concatenate([used[~zero], gap]),
        b_ub=np.concatenate([below[~zero], np.zeros(len(others))]),
        A_eq=used[zero],
        b_eq=below[zero],
        bounds=np.stack([np.zeros(count + 1), upper], axis=1),
    )
    if exact.x is None:
        raise RuntimeError(f"the linear program with these zeros has no solution: {exact.message}")
    share = values.max() / values.ndim
    return tuple(share - scale * part for part in np.split(exact.x[:count], offsets[1:-1]))


def _lines(shape: tuple[int, ...], greedy: tuple[np.intp, ...]) -> Iterator[np.ndarray]:
    """The flat joint actions on each line along an agent's actions, but for those through the greedy one."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    for agent, actions in enumerate(shape):
        for line in np.moveaxis(flat, agent, -1).reshape(-1, actions):
            if line[greedy[agent]] != flat[greedy]:
                yield line
