"""Finite team MDPs: tables that can be played as a game and planned on as a model."""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji.types import TimeStep
from numpy.typing import ArrayLike

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.matrix_games import END, MatrixGame, worst_action_reward
from envs.memory import check_fits
from envs.ranges import Count, Seed, Steps, checks_parameters, from_to
from envs.tables import MAX_AXES, check_probabilities, numeric_array
from envs.team_mdp_viewer import TeamMDPViewer

#: State numbers are int16.
MAX_STATES = int(np.iinfo(np.int16).max)


class TeamModel(NamedTuple):
    """A finite team MDP as dynamic programming uses it.

    Shapes: `S` states, agent i has `A_i` actions. An episode ends when it enters a terminal state, so
    the rows of terminal states are never used.
    """

    transition: jax.Array  # (S, A_1, ..., A_n, S), each row of the last axis sums to 1
    reward: jax.Array  # (S, A_1, ..., A_n), expected
    terminal: jax.Array  # (S,) bool


class MoveDraws(NamedTuple):
    """The random choices of one move."""

    uniform: jax.Array  # (), in [0, 1), picks the next state
    normal: jax.Array  # (), standard normal, scaled by the reward noise


@struct.dataclass
class TeamMDPState:
    """The state of a team MDP, as a game."""

    key: jax.Array | None
    state: jax.Array  # () int16
    step_count: jax.Array  # () int16
    last_actions: jax.Array  # (n,), the joint action that led here, in int8 where it fits; -1 at the start


@struct.dataclass(eq=False)
class TeamMDP(TeamEnvironment):
    """A team MDP with `S` states; the joint action sets the reward and the odds of the next state.

    In state s all agents act at the same time, agent i with one of A_i actions. The team's reward is
    `reward[s, u_1, ..., u_n]`, plus normal noise with standard deviation `reward_noise[s, u_1, ..., u_n]`
    if there is any, and the next state is drawn from `transition[s, u_1, ..., u_n]`. The episode
    terminates on entering a terminal state, and is truncated after `time_limit` steps.

    Agent i sees the number `observation[i, s]` as a one-hot vector, `agents_view (n, num_observations)`;
    the learner sees the state, `global_state (S,)`. Agents with fewer actions than the others have the
    rest masked; playing a masked action is the same as playing the agent's last one.

    All tables are array leaves: `jax.vmap` over them is a batch of games. The builders of this module
    keep fixed tables as NumPy float64, so that the same object is a game in float32 and a float64 model
    inside `jax.enable_x64(True)`.

    Args:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        reward: `(S, A_1, ..., A_n)`.
        reward_noise: `(S, A_1, ..., A_n)` standard deviations, or None for a deterministic reward.
        observation: `(n, S)` integers from 0 to `num_observations - 1`.
        start: `(S,)` probabilities of the first state.
        terminal: `(S,)` bool.
        action_counts: `(A_1, ..., A_n)`.
        num_observations: the largest number of different observations of an agent.
        fully_observable: whether every agent's observation identifies the state.
        time_limit: steps until truncation.
        layout: where the viewer draws each state, `(x, y)`; on a circle if None.
        labels: the viewer's label of each state; its number if None.
    """

    transition: jax.Array
    reward: jax.Array
    reward_noise: jax.Array | None
    observation: jax.Array
    start: jax.Array
    terminal: jax.Array
    action_counts: tuple[int, ...] = struct.field(pytree_node=False)
    num_observations: int = struct.field(pytree_node=False)
    fully_observable: bool = struct.field(pytree_node=False, default=False)
    time_limit: int = struct.field(pytree_node=False, default=100)
    layout: tuple[tuple[float, float], ...] | None = struct.field(pytree_node=False, default=None)
    labels: tuple[str, ...] | None = struct.field(pytree_node=False, default=None)

    one_hot_views = True
    binary_discounts = True

    @property
    def num_agents(self) -> int:  # type: ignore[override]
        """`n`."""
        return len(self.action_counts)

    @property
    def num_actions(self) -> int:  # type: ignore[override]
        """`A`, the largest A_i."""
        return max(self.action_counts)

    @property
    def num_states(self) -> int:
        """`S`."""
        return self.start.shape[-1]

    def reset(self, key: jax.Array) -> tuple[TeamMDPState, TimeStep[Observation]]:
        """Draw the first state."""
        key, draw = jax.random.split(key)
        state = TeamMDPState(
            key=key,
            state=sample_index(jnp.asarray(self.start), jax.random.uniform(draw)),
            step_count=jnp.zeros((), jnp.int16),
            last_actions=jnp.full((self.num_agents,), -1, self.action_dtype),
        )
        return state, self.first_timestep(state)

    def step(self, state: TeamMDPState, actions: jax.Array) -> tuple[TeamMDPState, TimeStep[Observation]]:
        """Play the joint action `actions (n,)`."""
        key, draw = jax.random.split(state.key)  # type: ignore[arg-type]
        return self.move(state.replace(key=key), actions, self.draw(draw))  # type: ignore[attr-defined]

    def draw(self, key: jax.Array) -> MoveDraws:
        """The random choices of one move."""
        state_key, reward_key = jax.random.split(key)
        noisy = self.reward_noise is not None
        return MoveDraws(
            uniform=jax.random.uniform(state_key),
            normal=jax.random.normal(reward_key) if noisy else jnp.zeros(()),
        )

    def move(
        self, state: TeamMDPState, actions: jax.Array, draws: MoveDraws
    ) -> tuple[TeamMDPState, TimeStep[Observation]]:
        """Play `actions (n,)` with given random choices; the deterministic part of `step`."""
        actions = jnp.clip(actions, 0, jnp.asarray(self.action_counts) - 1)
        cell = (state.state, *actions)
        reward = jnp.asarray(self.reward)[cell]
        if self.reward_noise is not None:
            reward += jnp.asarray(self.reward_noise)[cell] * draws.normal
        following = sample_index(jnp.asarray(self.transition)[cell], draws.uniform)
        step_count = state.step_count + jnp.int16(1)
        state = state.replace(  # type: ignore[attr-defined]
            state=following, step_count=step_count, last_actions=actions.astype(state.last_actions.dtype)
        )
        terminated = jnp.asarray(self.terminal)[following]
        return state, self.next_timestep(state, reward, terminated, step_count >= self.time_limit)

    def observe(self, state: TeamMDPState) -> Observation:
        """Each agent's observation and the state, as one-hot vectors."""
        mask = jnp.arange(self.num_actions) < jnp.asarray(self.action_counts)[:, None]  # (n, A)
        seen = jnp.asarray(self.observation)[:, state.state]  # (n,)
        return Observation(
            agents_view=jax.nn.one_hot(seen, self.num_observations, dtype=jnp.float32),
            global_state=jax.nn.one_hot(state.state, self.num_states, dtype=jnp.float32),
            action_mask=mask,
            step_count=state.step_count.astype(jnp.int32),
        )

    def model(self) -> TeamModel:
        """The tables, in float64 inside `jax.enable_x64(True)` and in float32 otherwise."""
        return TeamModel(
            jnp.asarray(self.transition, float), jnp.asarray(self.reward, float), jnp.asarray(self.terminal)
        )

    def return_lower_bound(self, gamma: float | jax.Array) -> jax.Array:
        """The expected return of the worst joint policy from its worst state, or 0.

        With a `gamma` of 1 it is that of `time_limit` steps.
        """
        transition, reward, terminal = (jnp.asarray(table, jnp.float32) for table in self.model())
        # Value iteration until gamma^steps <= 1e-3; the factor 1.01 below covers the rest.
        steps = self.time_limit if gamma == 1 else math.ceil(math.log(1e-3) / math.log(gamma)) if gamma else 1
        joint_axes = tuple(range(1, reward.ndim))

        def worse(values: jax.Array) -> jax.Array:
            following = transition @ (gamma * (1 - terminal) * values)
            return jnp.minimum(jnp.min(reward + following, axis=joint_axes), 0)  # (S,)

        values = jax.lax.fori_loop(0, steps, lambda _, values: worse(values), jnp.zeros(self.num_states))
        return 1.01 * jnp.min(values)

    def optimal_return(self) -> float | None:
        """By backward induction over the steps of an episode; None for a batch of games."""
        tables = self.transition, self.reward, self.terminal
        transition, reward, terminal = (np.asarray(table, np.float64) for table in tables)
        if reward.ndim != 1 + self.num_agents:
            return None
        values = np.zeros(self.num_states)  # (S,), of the steps that are left
        for _ in range(self.time_limit):
            values = (reward + transition @ ((1 - terminal) * values)).reshape(len(values), -1).max(axis=1)
        return float(np.asarray(self.start, np.float64) @ values)

    def best_reward_of_worst_action(self, agent: int) -> jax.Array:
        """The best reward of the agent's worst action in any non-terminal state, or 0 if positive."""
        never_paid = jnp.expand_dims(jnp.asarray(self.terminal), tuple(range(-self.num_agents, 0)))
        rewards = jnp.where(never_paid, jnp.inf, jnp.asarray(self.reward, jnp.float32))
        return worst_action_reward(rewards, agent, self.num_agents)

    def without_noise(self) -> "TeamMDP":
        """The same game with deterministic rewards, for evaluation."""
        return self.replace(reward_noise=None)  # type: ignore[attr-defined, no-any-return]

    def render(self, state: TeamMDPState, save_path: str | None = None) -> Any:
        """Draw the states and the transitions between them, the current state marked."""
        return self._viewer().render(state, save_path)

    def animate(self, states: list[TeamMDPState], interval: int = 400, save_path: str | None = None) -> Any:
        """Draw one frame for each state; `interval` in milliseconds."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> TeamMDPViewer:
        return TeamMDPViewer(np.asarray(self.transition), np.asarray(self.terminal), self.layout, self.labels)


def sample_index(probabilities: jax.Array, uniform: jax.Array) -> jax.Array:
    """The index () int16 that `uniform` in [0, 1) selects from `probabilities (S,)`, never one of 0."""
    cumulative = jnp.cumsum(probabilities)
    # Rounding may leave the last sum below 1.
    return jnp.sum(cumulative <= uniform * cumulative[-1], dtype=jnp.int16)


@checks_parameters
def team_mdp(
    transition: ArrayLike,
    reward: ArrayLike,
    *,
    start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    observation: ArrayLike | None = None,
    reward_noise: ArrayLike | None = None,
    time_limit: Steps = 100,
    layout: tuple[tuple[float, float], ...] | None = None,
    labels: tuple[str, ...] | None = None,
) -> TeamMDP:
    """A `TeamMDP` from checked tables.

    Args:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        reward: `(S, A_1, ..., A_n)`.
        start: `(S,)` probabilities of the first state; state 0 if None.
        terminal: `(S,)` bool; none if None.
        observation: `(n, S)` integers >= 0; every agent sees the state if None.
        reward_noise: `(S, A_1, ..., A_n)` standard deviations; none if None.
        time_limit: steps until truncation.
        layout: `(x, y)` of each state for the viewer.
        labels: the viewer's label of each state.

    Raises:
        BadInputError: for tables of inconsistent shapes, entries that are not finite, probabilities
            that are negative or do not sum to 1, negative noise, an invalid time limit, or no agent.
    """
    transition = numeric_array(transition, "transition")
    if transition.ndim < 3:
        raise BadInputError(
            f"transition has shape {transition.shape}, which leaves no agent: "
            "give (states, actions of agent 1, ..., actions of agent n, states)"
        )
    shape, states, counts = transition.shape[:-1], transition.shape[0], transition.shape[1:-1]
    if transition.shape[-1] != states or transition.size == 0:
        raise BadInputError(
            f"transition has shape {transition.shape}: its first and last axes must both be the number of "
            "states, and every agent needs at least one action"
        )
    _check_shape(states, counts)
    check_probabilities(transition, "transition")
    first = np.eye(states)[0] if start is None else _shaped(start, (states,), "start")
    check_probabilities(first, "start")
    noise = None if reward_noise is None else _shaped(reward_noise, shape, "reward_noise")
    if noise is not None and noise.min() < 0:
        raise BadInputError(f"reward_noise has a standard deviation of {noise.min():g}: give 0 or more")
    ends = np.zeros(states) if terminal is None else _shaped(terminal, (states,), "terminal", booleans=True)
    agents = len(counts)
    if observation is None:
        seen = np.tile(np.arange(states), (agents, 1))
    else:
        seen = _shaped(observation, (agents, states), "observation")
        if seen.min() < 0 or seen.max() >= MAX_STATES or (seen != np.floor(seen)).any():
            raise BadInputError(
                f"observation must hold whole numbers from 0 to {MAX_STATES - 1}, one per agent and state"
            )
    for name, drawn in (("layout", layout), ("labels", labels)):
        if drawn is not None and len(drawn) != states:
            raise BadInputError(f"{name} has {len(drawn)} entries: give one for each of {states} states")
    return TeamMDP(
        transition=transition,  # type: ignore[arg-type]
        reward=_shaped(reward, shape, "reward"),  # type: ignore[arg-type]
        reward_noise=noise,  # type: ignore[arg-type]
        observation=seen.astype(np.int32),  # type: ignore[arg-type]
        start=first,  # type: ignore[arg-type]
        terminal=ends.astype(bool),  # type: ignore[arg-type]
        action_counts=counts,
        num_observations=int(seen.max()) + 1,
        fully_observable=all(len(np.unique(row)) == states for row in seen),
        time_limit=time_limit,
        layout=layout,
        labels=labels,
    )


def _shaped(table: ArrayLike, shape: tuple[int, ...], name: str, *, booleans: bool = False) -> np.ndarray:
    """`table` in float64, of this shape."""
    array = numeric_array(table, name, booleans=booleans)
    if array.shape != shape:
        raise BadInputError(f"{name} has shape {array.shape}: give {shape}, to fit the transition table")
    return array


def from_matrix_game(game: MatrixGame) -> TeamMDP:
    """A (staged) matrix game as a team MDP: its stages are states, its end is a terminal state.

    Pure: it can be vmapped over games. The state is the stage, and the last state is the end.

    Raises:
        BadInputError: for a game with a reward per agent, or with more stages than `MAX_STATES`.
    """
    if game.general_sum:
        raise BadInputError("a team MDP has one team reward: give a matrix game with a team payoff")
    stages, agents = game.num_stages, game.num_agents
    _check_shape(stages + 1, game.action_counts)
    # (K, A_1, ..., A_n); `next_stage` itself may be in an integer that has no room for the end
    following = jnp.where(game.next_stage == END, stages, game.next_stage.astype(jnp.int16))
    after = jnp.full((1, *game.action_counts), stages, following.dtype)
    payoff = jnp.asarray(game.payoff, float)
    return TeamMDP(
        transition=jax.nn.one_hot(jnp.concatenate([following, after]), stages + 1, dtype=float),
        reward=jnp.concatenate([payoff, jnp.zeros((1, *game.action_counts), payoff.dtype)]),
        reward_noise=None,
        observation=jnp.broadcast_to(jnp.arange(stages + 1), (agents, stages + 1)),
        start=jnp.append(jnp.asarray(game.start, float), 0.0),
        terminal=jnp.arange(stages + 1) == stages,
        action_counts=game.action_counts,
        num_observations=stages + 1,
        fully_observable=True,
        time_limit=game.time_limit,
        labels=(*(f"stage {stage}" for stage in range(stages)), "end"),
    )


@checks_parameters
def draw_team_mdp(
    key: jax.Array, num_states: Count, action_counts: tuple[Count, ...], time_limit: Steps = 100
) -> TeamMDP:
    """A random fully observable team MDP without terminal states.

    Every row of the transition table is uniform on the simplex (a flat Dirichlet), every reward uniform
    in [0, 1), and the first state is uniformly random. Pure: thousands of games are
    `jax.vmap(lambda key: draw_team_mdp(key, 5, (3, 3)))(keys)`. In float64 inside
    `jax.enable_x64(True)`.

    Raises:
        BadInputError: for sizes out of range, or that do not fit into memory.
    """
    _check_shape(num_states, action_counts)
    transition_key, reward_key = jax.random.split(key)
    shape = (num_states, *action_counts)
    # Exponential variables divided by their sum are a flat Dirichlet draw.
    waits = jax.random.exponential(transition_key, (*shape, num_states))
    return TeamMDP(
        transition=waits / waits.sum(axis=-1, keepdims=True),
        reward=jax.random.uniform(reward_key, shape),
        reward_noise=None,
        observation=jnp.broadcast_to(jnp.arange(num_states), (len(action_counts), num_states)),
        start=jnp.full((num_states,), 1 / num_states),
        terminal=jnp.zeros((num_states,), bool),
        action_counts=action_counts,
        num_observations=num_states,
        fully_observable=True,
        time_limit=time_limit,
    )


def _check_shape(states: int, action_counts: tuple[int, ...]) -> None:
    """Refuse a transition table, in float32, that is too large."""
    if states > MAX_STATES:
        raise BadInputError(f"a team MDP may have at most {MAX_STATES} states, not {states}")
    if len(action_counts) > MAX_AXES:
        raise BadInputError(f"a team MDP may have at most {MAX_AXES} agents, not {len(action_counts)}")
    entries = states**2 * math.prod(action_counts)
    check_fits(4 * entries, f"the transition table of {states} states and actions {action_counts}")


@checks_parameters
def random_team_mdp(
    mdp_seed: Seed = 0,
    states: Annotated[int, from_to(1, MAX_STATES)] = 5,
    agents: Annotated[int, from_to(1, MAX_AXES)] = 2,
    actions: Count = 3,
) -> TeamMDP:
    """One game of `draw_team_mdp`, drawn from `mdp_seed`.

    Raises:
        BadInputError: for no agent, state or action, or more than fit into memory.
    """
    table = 4 * states**2 * actions**agents
    check_fits(3 * table, f"a random team MDP of {states} states, {agents} agents and {actions} actions")
    draw = jax.jit(draw_team_mdp, static_argnames=("num_states", "action_counts"))
    return draw(jax.random.key(np.uint32(mdp_seed)), num_states=states, action_counts=(actions,) * agents)


@checks_parameters
def divergence_mmdp(time_limit: Steps = 100) -> TeamMDP:
    """The two-state game on which fitted Q-iteration with additive values diverges.

    (Wang et al. 2021, "Towards Understanding Cooperative Multi-Agent Q-Learning with Value
    Factorization"; `mmdp_game_1` of QPLEX's release.) In state 0, (0, 0) pays 1 and stays, (0, 1) and
    (1, 0) pay nothing and stay, and (1, 1) pays nothing and leads to state 1, which is absorbing and pays
    nothing. The true value of state 0 is 1 / (1 - gamma). The time limit is a truncation here, and a
    termination in the release.

    Raises:
        BadInputError: for an invalid time limit.
    """
    transition = np.zeros((2, 2, 2, 2))
    transition[0, :, :, 0] = 1
    transition[0, 1, 1] = [0, 1]
    transition[1, :, :, 1] = 1
    reward = np.zeros((2, 2, 2))
    reward[0, 0, 0] = 1
    return team_mdp(
        transition, reward, time_limit=time_limit, layout=((0, 0), (1, 0)), labels=("play", "lost")
    )


#: The line world: cells 0 to 3, the prize at cell 0, and as many steps as it takes to get it.
LINE_CELLS = LINE_STEPS = 4


@checks_parameters
def line_world(noise: bool = True) -> TeamMDP:
    """The "team MDP" of Logical Team Q-learning: a walk of four cells with a button at its end.

    Cells 0 to 3 lie in a line. Agent 2 walks from cell 3 (actions 0 stay, 1 left, 2 right); agent 1
    holds a button (0 leave it, 1 press). At cell 0, press and stay pays +10 and ends the episode, leave and
    stay pays -30 and ends it. Walking left while agent 1 presses pays -30, and the walk happens. Everything
    else pays nothing. The episode ends after four steps, the least that the prize takes.

    With `noise` every reward carries N(0, 1), or N(0, 3^2) when agent 2 walks into a wall.

    A state is a cell and the time left, `4 * time_left + cell`; time left 0 is terminal, also for an episode
    that ends early. Agent 1 sees whether agent 2 is at cell 0 and
    whether there is time, agent 2 sees its cell and whether there is time; "time" means more steps left than
    cells to go. (Cassano and Sayed 2021, and their release, `finite_tmdp`.)
    """
    times = LINE_STEPS + 1
    shape = (times, LINE_CELLS, 2, 3)
    following = np.zeros(shape, int)  # the next state
    reward = np.zeros(shape)
    wall = np.zeros(shape, bool)
    for left, cell, press, walk in np.ndindex(shape):
        here = (left, cell, press, walk)
        to = int(np.clip(cell + (0, -1, 1)[walk], 0, LINE_CELLS - 1))
        wall[here] = walk != 0 and to == cell
        following[here] = LINE_CELLS * max(left - 1, 0) + to
        if left == 0:  # terminal: no move and no reward
            following[here] = cell
        elif cell == 0 and walk == 0:
            reward[here] = 10 if press else -30
            following[here] = 0
        elif to < cell and press:
            reward[here] = -30
    states = times * LINE_CELLS
    left, cell = np.divmod(np.arange(states), LINE_CELLS)  # of each state
    in_time = left > cell
    return team_mdp(
        np.eye(states)[following.reshape(states, 2, 3)],
        reward.reshape(states, 2, 3),
        start=np.eye(states)[LINE_STEPS * LINE_CELLS + LINE_CELLS - 1],
        terminal=left == 0,
        observation=np.stack([2 * (cell == 0) + in_time, 2 * cell + in_time]),
        reward_noise=np.where(wall, 3.0, 1.0).reshape(states, 2, 3) if noise else None,
        time_limit=LINE_STEPS,
        layout=tuple((float(x), float(y)) for x, y in zip(cell, left, strict=True)),
        labels=tuple(f"cell {x}\n{y} left" for x, y in zip(cell, left, strict=True)),
    )
