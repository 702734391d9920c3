"""Finite stochastic games with a reward per agent: Nash-Q's operator, minimax, best replies.

Shapes: `n` agents, `S` states, agent i has `A_i` actions, and two agents have A and B. As in `joint`,
the precision is that of the model, every function of `(model, discount, ...)` raises `BadInputError` for a
discount outside [0, 1), and nothing follows a terminal state.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.stochastic_games import GameModel
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.equilibria import friend, max_min, nash_equilibrium
from jaxmarl_fac.exact.joint import PerAgent, bellman_backup, best_values, optimal_q, solver, with_start
from jaxmarl_fac.exact.policies import agent_values, joint_policy, state_values


def player_side(model: GameModel, player: int) -> TeamModel:
    """The game as a team MDP that pays what agent `player` is paid; its own axis stays where it is."""
    return TeamModel(model.transition, model.reward[player], model.terminal)


def check_players(model: GameModel, players: int = 2) -> None:
    """Refuse a game of another number of agents.

    Raises:
        BadInputError: for any other number than `players`, or rewards that do not fit the transitions.
    """
    shape = model.transition.shape[:-1]
    if model.reward.shape != (len(shape) - 1, *shape):
        raise BadInputError(
            f"a game with transition {model.transition.shape} and reward {model.reward.shape} does not fit "
            "together: use `stochastic_game(...).game_model()`, and jax.vmap for a batch of games"
        )
    if len(shape) - 1 != players:
        raise BadInputError(
            f"equilibria are exact for games of {players} agents with up to 6 actions each and any number of "
            f"states, and this one has {len(shape) - 1}: for more agents evaluate policies with "
            "`best_reply_gains`"
        )


def game_backup(model: GameModel, discount: ArrayLike, values: jax.Array) -> jax.Array:
    """`r_i(s, u) + discount E values_i(s')`: `(n, S)` to `(n, S, A_1, ..., A_n)`."""
    sides = [player_side(model, player) for player in range(len(model.reward))]
    return jnp.stack([bellman_backup(side, discount, own) for side, own in zip(sides, values, strict=True)])


# The operators of Q-learning


def nash_backup(model: GameModel, discount: ArrayLike, q: jax.Array) -> jax.Array:
    """Nash-Q's operator, `r_i + discount E Nash_i(q(s'))`, on `q (2, S, A, B)` (thesis, equation 2.67).

    Nash_i is player i's payoff in the equilibrium that `nash_equilibrium` selects in the stage game q(s'). No
    contraction in general, as the equilibrium may jump; one if all stage games that it meets have a common
    payoff or a sum of 0 (Hu and Wellman, 2003, need a global optimum or a saddle point in each).

    Raises:
        BadInputError: unless there are two players, with not too many actions (`MAX_VERTICES`).
    """
    check_players(model)
    values = jax.vmap(lambda stage: nash_equilibrium(stage).values, in_axes=1, out_axes=1)(q)  # (2, S)
    return game_backup(model, discount, values)


def foe_backup(model: TeamModel, discount: ArrayLike, q: jax.Array) -> jax.Array:
    """Minimax-Q's operator, `r + discount E max_π min_b q(s')`, on `q (S, A, B)` (Littman, 1994).

    A contraction by `discount`. The player whose side of the game `model` is picks the row.

    Raises:
        BadInputError: for too many actions (`MAX_VERTICES`).
    """
    return bellman_backup(model, discount, jax.vmap(lambda stage: max_min(stage)[0])(q))


def friend_backup(model: TeamModel, discount: ArrayLike, q: jax.Array) -> jax.Array:
    """Friend-Q's operator, `r + discount E max_(a,b) q(s')`, on `q (S, A, B)`: that of value iteration."""
    return bellman_backup(model, discount, jax.vmap(lambda stage: friend(stage)[0])(q))


def iterate_backup(backup: Callable[[jax.Array], jax.Array], start: jax.Array, sweeps: int) -> jax.Array:
    """The iterates `(sweeps + 1, ...)` of an operator from `start`, which comes first."""

    def sweep(q: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        q = backup(q)
        return q, q

    return with_start(start, jax.lax.scan(sweep, start, length=sweeps)[1])  # type: ignore[no-any-return]


# Solutions


class Minimax(NamedTuple):
    """The solution of a zero-sum stochastic game, unique but for the policies."""

    q: jax.Array  # (S, A, B), of player 1
    values: jax.Array  # (S,), of player 1; player 2's are minus that
    row: jax.Array  # (S, A)
    column: jax.Array  # (S, B)


@solver()
def minimax_solution(model: TeamModel, discount: ArrayLike, tolerance: ArrayLike = 1e-10) -> Minimax:
    """Minimax value iteration (Shapley, 1953) until the error is below `tolerance` or at rounding level.

    Args:
        model: player 1's side of a zero-sum game of two players, `player_side(game, 0)`.
        discount: in [0, 1).
        tolerance: the largest error of a value.

    Raises:
        BadInputError: unless there are two players, with not too many actions (`MAX_VERTICES`).
    """
    if model.reward.ndim != 3:
        raise BadInputError(
            "minimax values are exact for two players with up to 6 actions each and any number of states, "
            f"and this game has {model.reward.ndim - 1}: let players that act as one be one player"
        )
    epsilon = jnp.finfo(model.reward.dtype).eps

    def unfinished(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        q, change = carry
        wanted = tolerance * (1 - discount) / jnp.maximum(discount, epsilon)
        return change > jnp.maximum(wanted, 8 * epsilon * jnp.abs(q).max())

    def sweep(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        q = foe_backup(model, discount, carry[0])
        return q, jnp.abs(q - carry[0]).max()

    first = bellman_backup(model, discount, jnp.zeros_like(model.reward[:, 0, 0]))
    q, _ = jax.lax.while_loop(unfinished, sweep, (first, jnp.full((), jnp.inf, first.dtype)))
    values, row = jax.vmap(max_min)(q)
    _, column = jax.vmap(max_min)(-jnp.swapaxes(q, 1, 2))
    return Minimax(q, values, row, column)


# Given policies


def induced_mdp(model: GameModel, player: int, policies: PerAgent) -> TeamModel:
    """The MDP of one agent that `player` faces while the others play `policies`, n of `(S, A_i)`.

    (Thesis, section 2.5.1: a fixed opponent makes a problem of a single agent, equation 2.63.)
    """

    def averaged(table: jax.Array) -> jax.Array:  # (S, A_1, ..., A_n) to (S, A_player)
        return agent_values(table, policies)[player]

    transition = jax.vmap(averaged, in_axes=-1, out_axes=-1)(model.transition)
    return TeamModel(transition, averaged(model.reward[player]), model.terminal)


def game_values(model: GameModel, discount: ArrayLike, policies: PerAgent) -> jax.Array:
    """Every agent's value of independent policies, `(n, S)`; they are n of `(S, A_i)`."""
    joint = joint_policy(policies)
    sides = [player_side(model, player) for player in range(len(model.reward))]
    return jnp.stack([state_values(side, discount, joint) for side in sides])


def best_reply_gains(model: GameModel, discount: ArrayLike, policies: PerAgent) -> jax.Array:
    """What each agent gains in each state by its best reply, `(n, S)`, 0 in an equilibrium (thesis, 2.64).

    For any number of agents: the best reply is optimal in the `induced_mdp`.
    """
    best = [
        best_values(optimal_q(induced_mdp(model, player, policies), discount))
        for player in range(len(model.reward))
    ]
    return jnp.stack(best) - game_values(model, discount, policies)


def stage_policies(q: jax.Array) -> PerAgent:
    """Each player's policies `(S, A)` and `(S, B)` in the selected equilibria of `q (2, S, A, B)`."""
    found = jax.vmap(nash_equilibrium, in_axes=1)(q)
    return found.row, found.column
