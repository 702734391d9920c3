"""Finite stochastic games: team MDPs in which each agent has a reward of its own."""

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji import specs
from jumanji.types import TimeStep
from numpy.typing import ArrayLike

from envs.base import Observation
from envs.errors import BadInputError
from envs.matrix_games import MatrixGame
from envs.ranges import Count, Steps, checks_parameters
from envs.tables import numeric_array
from envs.team_mdp import (
    TeamMDP,
    TeamMDPState,
    TeamModel,
    draw_team_mdp,
    team_mdp,
)
from envs.team_mdp import from_matrix_game as team_from_matrix_game


class GameModel(NamedTuple):
    """A finite stochastic game as exact solvers use it; see `TeamModel` for its shapes.

    One table of rewards for each agent, in front.
    """

    transition: jax.Array  # (S, A_1, ..., A_n, S), each row of the last axis sums to 1
    reward: jax.Array  # (n, S, A_1, ..., A_n), expected
    terminal: jax.Array  # (S,) bool


@struct.dataclass(eq=False)
class StochasticGame(TeamMDP):
    """A `TeamMDP` in which agent i is paid `reward[s, u_1, ..., u_n, i]` (thesis, definition 7).

    These are the stochastic games of Shapley (1953). `reward` and `reward_noise` have a last axis `n`, and
    the rewards of a step are `(n,)`.
    """

    @cached_property
    def reward_spec(self) -> specs.Array:
        """`(n,)`."""
        return specs.Array((self.num_agents,), jnp.float32, "reward")

    def reset(self, key: jax.Array) -> tuple[TeamMDPState, TimeStep[Observation]]:
        state, timestep = super().reset(key)
        return state, timestep.replace(reward=self.reward_spec.generate_value())  # type: ignore[attr-defined]

    def model(self) -> TeamModel:
        """There is none with one reward.

        Raises:
            BadInputError: always.
        """
        raise BadInputError(
            "a stochastic game has a reward for each agent: take its `game_model()`, and `player_side` of it "
            "for the team MDP that one of the agents sees"
        )

    def game_model(self) -> GameModel:
        """The tables, in float64 inside `jax.enable_x64(True)` and in float32 otherwise."""
        return GameModel(
            jnp.asarray(self.transition, float),
            jnp.moveaxis(jnp.asarray(self.reward, float), -1, 0),
            jnp.asarray(self.terminal),
        )

    def return_lower_bound(self, gamma: float | jax.Array) -> jax.Array:
        """That of the agent for which it is lowest."""
        bounds = [self._of_agent(agent).return_lower_bound(gamma) for agent in range(self.num_agents)]
        return jnp.min(jnp.stack(bounds))

    def best_reward_of_worst_action(self, agent: int) -> jax.Array:
        return self._of_agent(agent).best_reward_of_worst_action(agent)

    def _of_agent(self, agent: int) -> TeamMDP:
        """The game as one of a team that is paid what the agent is."""
        fields = {name: getattr(self, name) for name in TeamMDP.__dataclass_fields__}  # type: ignore[attr-defined]
        noise = None if self.reward_noise is None else self.reward_noise[..., agent]
        return TeamMDP(**{**fields, "reward": self.reward[..., agent], "reward_noise": noise})


def _with_rewards(game: TeamMDP, reward: jax.Array) -> StochasticGame:
    """The team MDP with these rewards `(S, A_1, ..., A_n, n)`."""
    fields = {name: getattr(game, name) for name in TeamMDP.__dataclass_fields__}  # type: ignore[attr-defined]
    return StochasticGame(**{**fields, "reward": reward})


@checks_parameters
def stochastic_game(
    transition: ArrayLike,
    rewards: ArrayLike,
    *,
    start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    time_limit: Steps = 100,
    layout: tuple[tuple[float, float], ...] | None = None,
    labels: tuple[str, ...] | None = None,
) -> StochasticGame:
    """A `StochasticGame` from checked tables; all agents see the state.

    Args:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        rewards: `(n, S, A_1, ..., A_n)`, for each agent a table.
        start: see `team_mdp`, as for the others.
        terminal: `(S,)` bool.
        time_limit: steps until truncation.
        layout: `(x, y)` of each state for the viewer.
        labels: the viewer's label of each state.

    Raises:
        BadInputError: unless there is one table of rewards for each agent; see `team_mdp`.

    Example:
        >>> pennies = np.array([[1.0, -1.0], [-1.0, 1.0]])[None]  # one state that never ends
        >>> game = stochastic_game(np.ones((1, 2, 2, 1)), [pennies, -pennies])
        >>> state, timestep = game.reset(jax.random.key(0))
        >>> state, timestep = game.step(state, jnp.array([0, 1]))
        >>> timestep.reward.tolist()
        [-1.0, 1.0]
    """
    shape = numeric_array(transition, "transition").shape
    agents, tables = len(shape) - 2, numeric_array(rewards, "rewards")
    if agents < 1 or tables.shape != (agents, *shape[:-1]):
        raise BadInputError(
            f"rewards has shape {tables.shape} and transition {shape}: give rewards of shape "
            f"{(max(agents, 1), *shape[:-1])}, one table for each agent"
        )
    team = team_mdp(
        transition,
        tables[0],
        start=start,
        terminal=terminal,
        time_limit=time_limit,
        layout=layout,
        labels=labels,
    )
    return _with_rewards(team, np.moveaxis(tables, 0, -1))  # type: ignore[arg-type]


def from_general_sum_game(game: MatrixGame) -> StochasticGame:
    """A (staged) matrix game with a reward per agent: its stages are states, its end is a terminal state.

    Raises:
        BadInputError: for a game with a team payoff.
    """
    if not game.general_sum:
        raise BadInputError(
            "this matrix game pays a team: `team_mdp.from_matrix_game` makes a team MDP of it"
        )
    team = team_from_matrix_game(game.replace(payoff=game.payoff[..., 0], general_sum=False))  # type: ignore[attr-defined]
    payoff = jnp.asarray(game.payoff, float)  # (K, A_1, ..., A_n, n)
    return _with_rewards(team, jnp.concatenate([payoff, jnp.zeros_like(payoff[:1])]))


@checks_parameters
def draw_stochastic_game(
    key: jax.Array,
    num_states: Count,
    action_counts: tuple[Count, ...],
    zero_sum: bool = False,
    time_limit: Steps = 100,
) -> StochasticGame:
    """A random game: transitions as in `draw_team_mdp`, each agent's rewards uniform in [0, 1).

    With `zero_sum`, for two agents, agent 2 is paid minus what agent 1 is.

    Raises:
        BadInputError: for a zero-sum game without exactly two agents; see `draw_team_mdp`.
    """
    if zero_sum and len(action_counts) != 2:
        raise BadInputError(f"a zero-sum game is for two agents, not {len(action_counts)}")
    team = draw_team_mdp(key, num_states, action_counts, time_limit)
    if zero_sum:
        return _with_rewards(team, jnp.stack([team.reward, -team.reward], axis=-1))
    shape = (num_states, *action_counts, len(action_counts))
    return _with_rewards(team, jax.random.uniform(jax.random.fold_in(key, 1), shape))


@checks_parameters
def two_state_zero_sum(time_limit: Steps = 50) -> StochasticGame:
    """A zero-sum game of two states in which both agents have to mix, with the suite's own payoffs.

    In state 0 agent 1 is paid [[2, -1], [-1, 1]], in state 1 [[0, 3], [1, -2]]; agent 2 is paid minus that.
    Equal actions stay in the state, unequal ones change it. With a discount of .9 the states are worth
    3.315931 and 3.622126 to agent 1.

    Raises:
        BadInputError: for an invalid time limit.
    """
    payoff = np.array([[[2.0, -1], [-1, 1]], [[0, 3], [1, -2]]])
    stays = np.eye(2, dtype=bool)
    following = np.stack([np.where(stays, state, 1 - state) for state in range(2)])  # (S, A, B)
    return stochastic_game(
        np.eye(2)[following],
        [payoff, 0 - payoff],
        start=[0.5, 0.5],
        time_limit=time_limit,
        layout=((0, 0), (1, 0)),
    )
