"""Finite games with options: the tables of a team MDP, and a prior over actions for each option."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from envs.base import Observation
from envs.errors import BadInputError
from envs.memory import check_fits
from envs.ranges import Count, Seed, Steps, at_least, checks_parameters, from_to
from envs.tables import MAX_AXES, check_probabilities, numeric_array
from envs.team_mdp import MAX_STATES, TeamMDP, draw_team_mdp, team_mdp


@struct.dataclass(eq=False, kw_only=True)
class OptionMDP(TeamMDP):
    """A team MDP whose agents have m options each: an option is a prior over the agent's actions.

    Options are no part of the state: which one an agent follows is its own affair, and the game only says
    what each of them means. The agents see the whole state.

    Args:
        option_prior: `(n, S, m, A)`, P(a_i | s, z_i); 0 for actions that an agent has not.
    """

    option_prior: jax.Array

    @property
    def num_options(self) -> int:  # type: ignore[override]
        """`m`."""
        return self.option_prior.shape[-2]

    def option_priors(self, observation: Observation) -> jax.Array:
        """P(a_i | s, z_i) of the observed state, `(n, m, A)`."""
        priors = jnp.asarray(self.option_prior, jnp.float32)
        return jnp.einsum("s,nsma->nma", observation.global_state, priors)

    @property
    def action_priors(self) -> tuple[jax.Array, ...]:
        """For each agent P(a_i | s, z_i), `(S, m, A_i)`, as exact solutions take them beside `model()`."""
        return tuple(
            self.option_prior[..., agent, :, :, :count] for agent, count in enumerate(self.action_counts)
        )


@checks_parameters
def option_mdp(
    transition: ArrayLike,
    reward: ArrayLike,
    option_priors: Sequence[ArrayLike],
    *,
    start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    time_limit: Steps = 100,
    layout: tuple[tuple[float, float], ...] | None = None,
    labels: tuple[str, ...] | None = None,
) -> OptionMDP:
    """An `OptionMDP` from checked tables.

    Args:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        reward: `(S, A_1, ..., A_n)`.
        option_priors: for each agent P(a | s, z), `(S, m, A_i)`; m is the same for all and at least 2.
        start: `(S,)` probabilities of the first state; state 0 if None.
        terminal: `(S,)` bool; none if None.
        time_limit: steps until truncation.
        layout: `(x, y)` of each state for the viewer.
        labels: the viewer's label of each state.

    Raises:
        BadInputError: for tables of inconsistent shapes, fewer than two options, entries that are not finite,
            or probabilities that are negative or do not sum to 1.
    """
    game = team_mdp(
        transition,
        reward,
        start=start,
        terminal=terminal,
        time_limit=time_limit,
        layout=layout,
        labels=labels,
    )
    return with_options(game, option_priors)


def with_options(game: TeamMDP, option_priors: Sequence[ArrayLike]) -> OptionMDP:
    """A fully observable team MDP with options.

    Args:
        game: the tables.
        option_priors: see `option_mdp`.

    Raises:
        BadInputError: see `option_mdp`.
    """
    counts, states = game.action_counts, game.num_states
    if len(option_priors) != len(counts):
        raise BadInputError(
            f"option_priors has {len(option_priors)} tables: give one for each of {len(counts)} agents"
        )
    padded = []
    for agent, (table, count) in enumerate(zip(option_priors, counts, strict=True)):
        name = f"option_priors[{agent}]"
        prior = numeric_array(table, name)
        if prior.ndim != 3 or (prior.shape[0], prior.shape[2]) != (states, count):
            raise BadInputError(f"{name} has shape {prior.shape}: give ({states}, options, {count})")
        check_probabilities(prior, name)
        padded.append(np.pad(prior, ((0, 0), (0, 0), (0, game.num_actions - count))))
    options = {prior.shape[1] for prior in padded}
    if len(options) > 1:
        raise BadInputError(f"all agents need the same number of options, not {sorted(options)}")
    if options == {1}:
        raise BadInputError("a game with options needs at least 2 of them, not 1")
    return OptionMDP(**fields_of(game), option_prior=np.stack(padded))  # type: ignore[arg-type]


def fields_of(game: TeamMDP) -> dict[str, Any]:
    """The fields of a game by name, to make one of a subclass with them."""
    fields = dataclasses.fields(game)  # type: ignore[arg-type]
    return {field.name: getattr(game, field.name) for field in fields}


@checks_parameters
def draw_option_mdp(
    key: jax.Array,
    num_states: Count,
    action_counts: tuple[Count, ...],
    num_options: Annotated[int, at_least(2)] = 2,
    time_limit: Steps = 100,
) -> OptionMDP:
    """A random game with options: `draw_team_mdp`, and every row of the priors uniform on the simplex.

    Pure: thousands of games are `jax.vmap(lambda key: draw_option_mdp(key, 3, (2, 2)))(keys)`. In float64
    inside `jax.enable_x64(True)`.

    Raises:
        BadInputError: for sizes out of range, or that do not fit into memory.
    """
    game_key, prior_key = jax.random.split(key)
    game = draw_team_mdp(game_key, num_states, action_counts, time_limit)
    agents, actions = len(action_counts), max(action_counts)
    waits = jax.random.exponential(prior_key, (agents, num_states, num_options, actions))
    has = jnp.arange(actions) < jnp.asarray(action_counts)[:, None]  # (n, A)
    waits = waits * has[:, None, None]
    return OptionMDP(**fields_of(game), option_prior=waits / waits.sum(axis=-1, keepdims=True))


@checks_parameters
def random_option_mdp(
    mdp_seed: Seed = 0,
    states: Annotated[int, from_to(1, MAX_STATES)] = 3,
    agents: Annotated[int, from_to(1, MAX_AXES)] = 2,
    actions: Count = 2,
    options: Annotated[int, at_least(2)] = 2,
) -> OptionMDP:
    """One game of `draw_option_mdp`, drawn from `mdp_seed`.

    Raises:
        BadInputError: for no agent, state or action, fewer than two options, or more than fit into memory.
    """
    table = 4 * states**2 * actions**agents + 4 * agents * states * options * actions
    check_fits(
        3 * table, f"a random game of {states} states, {agents} agents, {actions} actions, {options} options"
    )
    draw = jax.jit(draw_option_mdp, static_argnames=("num_states", "action_counts", "num_options"))
    key = jax.random.key(np.uint32(mdp_seed))
    return draw(key, num_states=states, action_counts=(actions,) * agents, num_options=options)


def leaning(num_states: int, num_actions: int, probability: float = 0.9) -> np.ndarray:
    """Priors `(S, A, A)` of as many options as actions: option z takes action z with this probability.

    The rest is shared by the other actions.
    """
    rest = (1 - probability) / max(1, num_actions - 1)
    prior = np.where(np.eye(num_actions, dtype=bool), probability, rest)
    return np.broadcast_to(prior, (num_states, num_actions, num_actions))


@checks_parameters
def two_state_options(time_limit: Steps = 100) -> OptionMDP:
    """One agent and two states: action a leads to state a, r(0, .) = (0, 1) and r(1, .) = (2, 0).

    Option z takes action z with probability .9.

    Raises:
        BadInputError: for an invalid time limit.
    """
    moves = np.broadcast_to(np.eye(2), (2, 2, 2))
    return option_mdp(
        moves,
        [[0, 1], [2, 0]],
        [leaning(2, 2)],
        start=[0.5, 0.5],
        time_limit=time_limit,
        layout=((0, 0), (1, 0)),
    )


@checks_parameters
def coordination_options(time_limit: Steps = 100) -> OptionMDP:
    """Two agents and one state: both taking action 0 pays 2, both taking 1 pays 1, anything else nothing.

    Option z takes action z with probability .9.

    Raises:
        BadInputError: for an invalid time limit.
    """
    return option_mdp(np.ones((1, 2, 2, 1)), [[[2, 0], [0, 1]]], [leaning(1, 2)] * 2, time_limit=time_limit)
