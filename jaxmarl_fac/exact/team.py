"""The operators of Logical Team Q-learning (LTQL, Cassano and Sayed 2021), exactly.

For shapes, 64 bits and errors see `joint.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import PerAgent, backup, best_values, check_count, is_known, solver
from jaxmarl_fac.exact.projections import greedy


class TeamTrace(NamedTuple):
    """What repeated application of LTQL's operators leads to."""

    q: PerAgent  # n of (S, A_i), after the last application
    actions: jax.Array  # (T, S, n), the greedy joint action after each application


class TeamResiduals(NamedTuple):
    """How far factored q-functions are from LTQL's two equations; both are 0 at a team optimum."""

    consistency: jax.Array  # (), largest |q^k - B_I q^k|: equation (1)
    optimality: jax.Array  # (), largest |max q^k - max over joint actions of k's backup|: equation (2)


def greedy_joint(q: PerAgent) -> jax.Array:
    """Each agent's greedy action in each state, `(S, n)`, of q-functions `(S, A_i)`."""
    return jax.vmap(greedy)(q)


def _team_backups(model: TeamModel, discount: ArrayLike, q: PerAgent) -> list[jax.Array]:
    """For each agent `r + discount E max q^k(s')`, n of `(S, A_1, ..., A_n)`."""
    return [backup(model, discount, own.max(axis=-1)) for own in q]


def _answers(table: jax.Array, actions: jax.Array, agent: int) -> jax.Array:
    """`table (S, A_1, ..., A_n)` where all but `agent` play `actions (S, n)`: `(S, A_agent)`."""

    def row(cells: jax.Array, joint: jax.Array) -> jax.Array:
        return cells[(*joint[:agent], slice(None), *joint[agent + 1 :])]

    return jax.vmap(row)(table, actions)


@solver("in_turn")
def operator_b1(model: TeamModel, discount: ArrayLike, q: PerAgent, in_turn: bool = False) -> PerAgent:
    """B_I: what each action of agent k is worth if the others play their greedy ones.

    `B_I q^k(s, a^k) = r(s, a^k, â^{-k}) + discount E max q^k(s', .)` with `â^j = argmax q^j(s, .)`.

    Args:
        model: the game.
        discount: in [0, 1).
        q: n of `(S, A_i)`.
        in_turn: all agents answer the same greedy actions if False, as in the paper; if True agent k
            answers what agents 1 to k - 1 have just changed to, so that equally good optima are not
            mixed for ever (in [[0, 2], [2, 0]] the simultaneous answers are).
    """
    actions = greedy_joint(q)
    updated = []
    for agent, table in enumerate(_team_backups(model, discount, q)):
        updated.append(_answers(table, actions, agent))
        if in_turn:
            actions = actions.at[:, agent].set(updated[agent].argmax(axis=-1).astype(actions.dtype))
    return tuple(updated)


@solver()
def operator_b2(model: TeamModel, discount: ArrayLike, q: PerAgent) -> PerAgent:
    """B_II: raise each action of agent k to what it could be worth if the others played best.

    `B_II q^k(s, a^k) = max(q^k(s, a^k), max_{a^{-k}} [r(s, a) + discount E max q^k(s', .)])`.
    `q` is n of `(S, A_i)`.
    """
    hopes = [
        table.max(axis=tuple(axis for axis in range(1, table.ndim) if axis != agent + 1))
        for agent, table in enumerate(_team_backups(model, discount, q))
    ]
    return tuple(jnp.maximum(own, hope) for own, hope in zip(q, hopes, strict=True))


def btoo(
    model: TeamModel,
    discount: ArrayLike,
    q: PerAgent,
    key: jax.Array,
    applications: int,
    p: ArrayLike,
    *,
    in_turn: bool = False,
) -> TeamTrace:
    """The Bellman team optimality operator BTOO_p, applied `applications` times to `q`, n of `(S, A_i)`.

    Each application is B_I with probability `p` and B_II otherwise, for all agents and states alike.
    `optimality_gap` of `actions[t]` tells whether the team was optimal after application t + 1;
    `team_residuals` whether q solves LTQL's equations. For `in_turn` see `operator_b1`.

    Raises:
        BadInputError: for `p` outside [0, 1], fewer than one application, or as the module says.
    """
    check_count(applications, "applications")
    if is_known(p) and not (np.min(p) >= 0 and np.max(p) <= 1):
        raise BadInputError(f"p is the probability of B_I and must be in [0, 1], not {p}")
    return _btoo(model, discount, q, key, applications, p, in_turn)


@solver("applications", "in_turn")
def _btoo(
    model: TeamModel,
    discount: ArrayLike,
    q: PerAgent,
    key: jax.Array,
    applications: int,
    p: ArrayLike,
    in_turn: bool,
) -> TeamTrace:
    def apply(q: PerAgent, first: jax.Array) -> tuple[PerAgent, jax.Array]:
        one, two = operator_b1(model, discount, q, in_turn), operator_b2(model, discount, q)
        q = jax.tree.map(lambda a, b: jnp.where(first, a, b), one, two)
        return q, greedy_joint(q)

    q, actions = jax.lax.scan(apply, q, jax.random.bernoulli(key, p, (applications,)))
    return TeamTrace(q, actions)


@solver()
def team_residuals(model: TeamModel, discount: ArrayLike, q: PerAgent) -> TeamResiduals:
    """How far `q`, n of `(S, A_i)`, is from equations (1) and (2) of LTQL.

    If both residuals are 0, the greedy joint action is optimal in every state and `max q^k = V*` for
    every agent: by (2) the maxima are V*, and by (1) the greedy joint action earns them.
    """
    backups = _team_backups(model, discount, q)
    answers = operator_b1(model, discount, q)
    return TeamResiduals(
        consistency=jnp.stack([jnp.abs(a - own).max() for a, own in zip(answers, q, strict=True)]).max(),
        optimality=jnp.stack(
            [
                jnp.abs(best_values(table) - own.max(axis=-1)).max()
                for table, own in zip(backups, q, strict=True)
            ]
        ).max(),
    )
