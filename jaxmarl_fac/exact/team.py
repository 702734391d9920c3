"""The exact operators of Logical Team Q-learning (LTQL, Cassano and Sayed 2021).

For shapes, float64 and errors see `joint.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import PerAgent, bellman_backup, best_values, check_count, is_concrete, solver
from jaxmarl_fac.exact.projections import greedy_joint_action


class TeamTrace(NamedTuple):
    """The result of repeatedly applying LTQL's operators."""

    q: PerAgent  # n of (S, A_i), after the last application
    actions: jax.Array  # (T, S, n), the greedy joint action after each application


class TeamResiduals(NamedTuple):
    """The errors of factored q-functions in LTQL's two equations; both are 0 at a team optimum."""

    consistency: jax.Array  # (), largest |q^k - B_I q^k|: equation (1)
    optimality: jax.Array  # (), largest |max q^k - max over joint actions of k's backup|: equation (2)


def greedy_joint_actions(q: PerAgent) -> jax.Array:
    """Each agent's greedy action in each state, `(S, n)`, of q-functions `(S, A_i)`."""
    return jax.vmap(greedy_joint_action)(q)


def _team_backups(
    model: TeamModel, discount: ArrayLike, q: PerAgent, over_agents: bool = False
) -> list[jax.Array]:
    """For each agent `r + discount E max q^k(s')`, n of `(S, A_1, ..., A_n)`; or max over all q."""
    best = [own.max(axis=-1) for own in q]  # n of (S,)
    if over_agents:
        return [bellman_backup(model, discount, jnp.max(jnp.stack(best), axis=0))] * len(q)
    return [bellman_backup(model, discount, own) for own in best]


def _responses(table: jax.Array, actions: jax.Array, agent: int) -> jax.Array:
    """`table (S, A_1, ..., A_n)` where all but `agent` play `actions (S, n)`: `(S, A_agent)`."""

    def row(cells: jax.Array, joint: jax.Array) -> jax.Array:
        return cells[(*joint[:agent], slice(None), *joint[agent + 1 :])]

    return jax.vmap(row)(table, actions)


@solver("in_turn")
def operator_b1(model: TeamModel, discount: ArrayLike, q: PerAgent, in_turn: bool = False) -> PerAgent:
    """B_I: the value of each action of agent k if the others act greedily.

    `B_I q^k(s, a^k) = r(s, a^k, â^{-k}) + discount E max q^k(s', .)` with `â^j = argmax q^j(s, .)`.

    Args:
        model: the game.
        discount: in [0, 1).
        q: n of `(S, A_i)`.
        in_turn: if False, as in the paper, all agents respond to the same greedy actions; if True, agent k
            responds to the updated actions of agents 1 to k - 1, so that equally good optima are not mixed
            forever (as simultaneous responses do in [[0, 2], [2, 0]]).
    """
    actions = greedy_joint_actions(q)
    updated = []
    for agent, table in enumerate(_team_backups(model, discount, q)):
        updated.append(_responses(table, actions, agent))
        if in_turn:
            actions = actions.at[:, agent].set(updated[agent].argmax(axis=-1).astype(actions.dtype))
    return tuple(updated)


@solver("over_agents")
def operator_b2(model: TeamModel, discount: ArrayLike, q: PerAgent, over_agents: bool = False) -> PerAgent:
    """B_II: raise the value of each action of agent k to its best case over the others' actions.

    `B_II q^k(s, a^k) = max(q^k(s, a^k), max_{a^{-k}} [r(s, a) + discount E max q^k(s', .)])`.
    `q` is n of `(S, A_i)`. With `over_agents` the last maximum is over all agents' q, as in equation (2).
    """
    best_cases = [
        table.max(axis=tuple(axis for axis in range(1, table.ndim) if axis != agent + 1))
        for agent, table in enumerate(_team_backups(model, discount, q, over_agents))
    ]
    return tuple(jnp.maximum(own, best) for own, best in zip(q, best_cases, strict=True))


def btoo(
    model: TeamModel,
    discount: ArrayLike,
    q: PerAgent,
    key: jax.Array,
    applications: int,
    p: ArrayLike,
    *,
    in_turn: bool = False,
    over_agents: bool = False,
) -> TeamTrace:
    """The Bellman team optimality operator BTOO_p, applied `applications` times to `q`, n of `(S, A_i)`.

    Each application is B_I with probability `p` and B_II otherwise, for all agents and states alike.
    `optimality_gap` of `actions[t]` shows whether the team was optimal after application t + 1,
    `team_residuals` whether q solves LTQL's equations. For `in_turn` see `operator_b1`, for
    `over_agents` see `operator_b2`.

    Raises:
        BadInputError: for `p` outside [0, 1], fewer than one application, and the errors of all
            solvers (`joint.py`).
    """
    check_count(applications, "applications")
    if is_concrete(p) and not (np.min(p) >= 0 and np.max(p) <= 1):
        raise BadInputError(f"p is the probability of B_I and must be in [0, 1], not {p}")
    return _btoo(model, discount, q, key, applications, p, in_turn, over_agents)


@solver("applications", "in_turn", "over_agents")
def _btoo(
    model: TeamModel,
    discount: ArrayLike,
    q: PerAgent,
    key: jax.Array,
    applications: int,
    p: ArrayLike,
    in_turn: bool,
    over_agents: bool,
) -> TeamTrace:
    def apply(q: PerAgent, first: jax.Array) -> tuple[PerAgent, jax.Array]:
        one, two = operator_b1(model, discount, q, in_turn), operator_b2(model, discount, q, over_agents)
        q = jax.tree.map(lambda a, b: jnp.where(first, a, b), one, two)
        return q, greedy_joint_actions(q)

    q, actions = jax.lax.scan(apply, q, jax.random.bernoulli(key, p, (applications,)))
    return TeamTrace(q, actions)


@solver("over_agents")
def team_residuals(
    model: TeamModel, discount: ArrayLike, q: PerAgent, over_agents: bool = False
) -> TeamResiduals:
    """The errors of `q`, n of `(S, A_i)`, in equations (1) and (2) of LTQL.

    Equation (2) is printed with a maximum over a' and over agents, which `over_agents` takes. Without, it is
    over agent k's own a'. At a solution these are equal.

    If both residuals are 0, the greedy joint action is optimal in every state and `max q^k = V*` for
    every agent: by (2) the maxima are V*, and by (1) the greedy joint action attains them.
    """
    backups = _team_backups(model, discount, q, over_agents)
    responses = operator_b1(model, discount, q)
    return TeamResiduals(
        consistency=jnp.stack([jnp.abs(a - own).max() for a, own in zip(responses, q, strict=True)]).max(),
        optimality=jnp.stack(
            [
                jnp.abs(best_values(table) - own.max(axis=-1)).max()
                for table, own in zip(backups, q, strict=True)
            ]
        ).max(),
    )
