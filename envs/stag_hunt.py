"""DCG's predator-prey, the stag hunt: two agents catch a prey together, one that tries alone is punished."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji.types import TimeStep

from envs import grid
from envs.base import Observation, TeamEnvironment, compact_dtype
from envs.memory import check_fits
from envs.ranges import Constraint, Count, Steps, at_least, checks_parameters
from envs.stag_hunt_viewer import StagHuntViewer

#: The six actions, in the order of DCG's release; the moves in `grid` have QTRAN's order.
RIGHT, DOWN, LEFT, UP, STAY, CATCH = range(6)
NUM_ACTIONS = 6
#: What the four moves add to x and to y.
STEP_X = np.asarray([1, 0, -1, 0])
STEP_Y = np.asarray([0, 1, 0, -1])
#: Divisible by 1, 2, 3 and 4: a draw below it is uniform over any number of free cells beside a prey.
NUM_CHOICES = 12
#: Agents, stags, and DCG's hares, which these games do not have.
NUM_CHANNELS = 3


@struct.dataclass
class StagHuntState:
    """Positions of all entities. Cells are numbered `y * width + x`, in int8 on grids of up to 128 cells.

    An entity that has left the grid, a caught prey or a frozen agent, has `-1 - c`, where c was its last
    cell. With eight agents and eight prey this is 26 bytes without the key.
    """

    key: jax.Array | None
    agents: jax.Array  # (n,) cells
    prey: jax.Array  # (m,) cells
    catchers: jax.Array  # (m,) int8, agents that tried to catch each prey in the last step; 0 at the start
    step_count: jax.Array  # () int16 for 200 steps


@struct.dataclass(eq=False)
class StagHunt(TeamEnvironment):
    """`n` agents hunt `m` prey on a bounded grid. A catch takes two agents and freezes them.

    At the start all entities are on distinct, uniformly random cells. An agent has six actions:
    0 right (x + 1), 1 down (y + 1), 2 left, 3 up, 4 stay, 5 catch. Moves off the grid are not available, and
    catch is available only with a prey on one of the four neighbouring cells. Moves into occupied cells are
    available, but do nothing; with `mask_occupied` they are not available, as ReMIX's section D.1 says, where
    the release masks moves off the grid alone. A cell may still be taken before an agent's turn comes.

    A step has two halves. First the agents move, one after the other in a random order. Then the prey have
    their turns, in a random order: at its turn a prey counts the agents beside it that chose catch.

    - Two or more: it is caught. The team gets `capture_reward`, the prey leaves the grid, and all those
      agents are frozen and leave the grid too, so that they do not count for later prey.
    - One: the team gets `punishment`, and the prey moves. An agent alone between two prey is punished
      for both.
    - None: the prey moves, to one of the free cells beside it, uniformly at random. It stays only if there
      is none.

    A frozen agent can only stay. The episode terminates when all prey are caught or all agents are
    frozen, and is truncated after `time_limit` steps (discount 1). The best return with the paper's eight
    agents, eight prey and a reward of 10 is 40: four catches by two agents each.

    An agent sees the `view` by `view` cells around itself, row by row, with three numbers for each cell:
    whether an agent is there (itself included), whether a prey is, and 0 for DCG's hares. Cells off the
    grid and all of a frozen agent's are 0. Agent ids and last actions are left to the networks.
    The global state is the whole grid in the same form.

    Source: Böhmer et al., Deep Coordination Graphs (2020), section 6.1, and the order of moves from the
    authors' release; used by Weighted QMIX and ReMIX.

    Args:
        capture_reward: `()`, for the team. An array leaf: `jax.vmap` over it is a batch of games.
        punishment: `()`, the papers' p <= 0, added to the reward. Also an array leaf.
        num_agents: `n`.
        num_prey: `m`.
        height, width: of the grid, in cells.
        view: side of the square that an agent sees, in cells; odd.
        time_limit: in steps.
        mask_occupied: whether moves into cells that are occupied at the start of a step are unavailable.
    """

    capture_reward: jax.Array
    punishment: jax.Array
    num_agents: int = struct.field(pytree_node=False, default=8)
    num_prey: int = struct.field(pytree_node=False, default=8)
    height: int = struct.field(pytree_node=False, default=10)
    width: int = struct.field(pytree_node=False, default=10)
    view: int = struct.field(pytree_node=False, default=5)
    time_limit: int = struct.field(pytree_node=False, default=200)
    mask_occupied: bool = struct.field(pytree_node=False, default=False)

    num_actions = NUM_ACTIONS
    binary_discounts = True

    @property
    def num_entities(self) -> int:
        """`n + m`."""
        return self.num_agents + self.num_prey

    def reset(self, key: jax.Array) -> tuple[StagHuntState, TimeStep[Observation]]:
        """Place all entities on distinct, uniformly random cells."""
        key, draw = jax.random.split(key)
        free = self.height * self.width - np.arange(self.num_entities)  # cells left for each
        # The remainder of 32 random bits favours no cell by more than one part in 2^24.
        draws = jax.random.bits(draw, (self.num_entities,)) % jnp.asarray(free, jnp.uint32)
        state = self.place(grid.distinct_cells(draws.astype(jnp.int32)), key)
        return state, self.first_timestep(state)

    def place(self, cells: jax.Array, key: jax.Array | None = None) -> StagHuntState:
        """The initial state with entities on `cells (n + m,)`, agents first."""
        cells = cells.astype(compact_dtype(self.height * self.width - 1))
        return StagHuntState(
            key=key,
            agents=cells[: self.num_agents],
            prey=cells[self.num_agents :],
            catchers=jnp.zeros((self.num_prey,), jnp.int8),
            step_count=jnp.zeros((), compact_dtype(self.time_limit)),
        )

    def step(self, state: StagHuntState, actions: jax.Array) -> tuple[StagHuntState, TimeStep[Observation]]:
        """Play the joint action `actions (n,)`. An action that is not available does nothing."""
        key, draw = jax.random.split(state.key)  # type: ignore[arg-type]
        bits = jax.random.bits(draw, (self.num_entities + self.num_prey,))
        agent_turns, prey_turns = (
            random_ranks(bits[: self.num_agents]),
            random_ranks(bits[self.num_agents : -self.num_prey]),
        )
        choices = (bits[-self.num_prey :] % NUM_CHOICES).astype(jnp.int32)
        state, reward = self.move(state, actions, agent_turns, prey_turns, choices)
        state = state.replace(key=key)  # type: ignore[attr-defined]
        terminated = (state.prey < 0).all() | (state.agents < 0).all()
        return state, self.next_timestep(state, reward, terminated, state.step_count >= self.time_limit)

    def move(
        self,
        state: StagHuntState,
        actions: jax.Array,
        agent_turns: jax.Array,
        prey_turns: jax.Array,
        choices: jax.Array,
    ) -> tuple[StagHuntState, jax.Array]:
        """One step with given random choices: the next state, with an unchanged key, and the reward `()`.

        Args:
            state: the state before.
            actions: `(n,)`.
            agent_turns: `(n,)`, a permutation of 0 to n - 1: the turn at which each agent moves.
            prey_turns: `(m,)`, the same for the prey.
            choices: `(m,)` below `NUM_CHOICES`: a prey with f > 0 free cells beside it goes to the
                `choices[i] % f`-th of them, in the order right, down, left, up.
        """
        agents, prey = state.agents.astype(jnp.int32), state.prey.astype(jnp.int32)
        x, y = grid.coordinates(agents, self.width)
        x = jnp.clip(x + (actions == RIGHT) - (actions == LEFT), 0, self.width - 1)
        y = jnp.clip(y + (actions == DOWN) - (actions == UP), 0, self.height - 1)
        # An agent that stays targets its own cell, which is occupied, and so does a frozen one.
        targets = jnp.where(agents >= 0, y * self.width + x, agents)
        catching = actions == CATCH

        # Turns are masks rather than indices: no gathers and scatters, which are slow when vmapped.
        def agent_turn(turn: jax.Array, agents: jax.Array) -> jax.Array:
            mine = agent_turns == turn
            target = jnp.where(mine, targets, 0).sum(dtype=jnp.int32)
            taken = (agents == target).any() | (prey == target).any()
            return jnp.where(mine & ~taken, target, agents)

        def prey_turn(turn: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            agents, prey, catchers = carry
            mine = prey_turns == turn
            cell = jnp.where(mine, prey, 0).sum(dtype=jnp.int32)
            choice = jnp.where(mine, choices, 0).sum(dtype=jnp.int32)
            beside = catching & (agents >= 0) & grid.neighbours(cell[None], agents, self.width)[0]
            count = jnp.where(cell >= 0, beside.sum(dtype=jnp.int32), 0)
            caught = count >= 2
            agents = jnp.where(beside & caught, ~agents, agents)  # ~c is -1 - c
            moved = jnp.where(caught, ~cell, self._wander(cell, choice, jnp.concatenate([agents, prey])))
            prey = jnp.where(mine & (cell >= 0), moved, prey)
            return agents, prey, jnp.where(mine, count, catchers)

        agents = jax.lax.fori_loop(0, self.num_agents, agent_turn, agents)
        none = jnp.zeros((self.num_prey,), jnp.int32)
        agents, prey, catchers = jax.lax.fori_loop(0, self.num_prey, prey_turn, (agents, prey, none))
        reward = self.capture_reward * (catchers >= 2).sum() + self.punishment * (catchers == 1).sum()
        following = StagHuntState(
            key=state.key,
            agents=agents.astype(state.agents.dtype),
            prey=prey.astype(state.prey.dtype),
            catchers=catchers.astype(jnp.int8),
            step_count=state.step_count + jnp.ones((), state.step_count.dtype),
        )
        return following, reward

    def _wander(self, cell: jax.Array, choice: jax.Array, taken: jax.Array) -> jax.Array:
        """The cell `()` that a prey on `cell ()` moves to if the cells `taken (E,)` are occupied."""
        x, y = grid.coordinates(cell, self.width)
        x, y = x + STEP_X, y + STEP_Y
        beside = y * self.width + x  # (4,)
        inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        free = inside & ~(beside[:, None] == taken).any(axis=1)
        count = free.sum(dtype=jnp.int32)
        before = (free & np.tri(4, k=-1, dtype=bool)).sum(axis=1, dtype=jnp.int32)  # free cells before each
        chosen = free & (before == choice % jnp.maximum(count, 1))
        return jnp.where(count > 0, jnp.where(chosen, beside, 0).sum(dtype=jnp.int32), cell)

    def observe(self, state: StagHuntState) -> Observation:
        """Occupancy around each agent and of the whole grid; see the class."""
        agents, prey = state.agents.astype(jnp.int32), state.prey.astype(jnp.int32)
        (x, y), active = grid.coordinates(agents, self.width), agents >= 0
        around = []
        for others in (agents, prey):
            other_x, other_y = grid.coordinates(others, self.width)
            column = other_x - x[:, None] + self.view // 2  # (n, E), in the square around agent i
            row = other_y - y[:, None] + self.view // 2
            seen = (column >= 0) & (column < self.view) & (row >= 0) & (row < self.view)
            seen &= active[:, None] & (others >= 0)
            around.append(occupied(jnp.where(seen, row * self.view + column, -1), self.view**2))
        whole = [occupied(cells, self.height * self.width) for cells in (agents, prey)]
        open_moves = jnp.stack([x < self.width - 1, y < self.height - 1, x > 0, y > 0], axis=1)  # (n, 4)
        if self.mask_occupied:
            targets = agents[:, None] + STEP_X + self.width * STEP_Y  # (n, 4)
            entities = jnp.concatenate([agents, prey])  # those that have left are below 0
            # A target off the grid may be the number of another cell, but is not open in any case.
            open_moves &= ~(targets[:, :, None] == entities).any(axis=-1)
        near = (grid.neighbours(agents, prey, self.width) & (prey >= 0)).any(axis=1)
        always = jnp.ones((self.num_agents,), bool)
        active = active[:, None]
        return Observation(
            agents_view=channels(around).reshape(self.num_agents, -1),
            global_state=channels(whole).reshape(-1),
            action_mask=jnp.concatenate(
                [open_moves & active, always[:, None], near[:, None] & active], axis=1
            ),
            step_count=state.step_count.astype(jnp.int32),
        )

    def optimal_return(self) -> float | None:
        """Every prey that two agents can catch, and no punishment; None for a batch of games."""
        if np.ndim(self.capture_reward) or np.ndim(self.punishment) or float(self.punishment) > 0:
            return None
        return max(0.0, float(self.capture_reward)) * min(self.num_prey, self.num_agents // 2)

    def render(self, state: StagHuntState, save_path: str | None = None) -> Any:
        """Draw the grid, the prey caught in the last step, and the entities that have left."""
        return self._viewer().render(state, save_path)

    def animate(self, states: list[StagHuntState], interval: int = 300, save_path: str | None = None) -> Any:
        """Draw one frame for each state; `interval` in milliseconds; `save_path` may end in .gif."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> StagHuntViewer:
        return StagHuntViewer(self.height, self.width, float(self.capture_reward), float(self.punishment))


def random_ranks(draws: jax.Array) -> jax.Array:
    """The rank of each draw, int32 `(E,)`: a random permutation for random draws; ties by index."""
    index = np.arange(draws.shape[0])
    before = (draws < draws[:, None]) | ((draws == draws[:, None]) & (index < index[:, None]))
    return before.sum(axis=1, dtype=jnp.int32)


def occupied(cells: jax.Array, count: int) -> jax.Array:
    """Which of the cells 0 to `count` - 1 are among `cells (..., E)`: `(..., count)` bool."""
    return (jnp.arange(count)[:, None] == cells[..., None, :]).any(axis=-1)


def channels(layers: list[jax.Array]) -> jax.Array:
    """Layers `(..., C)` of agents and of prey as float32 `(..., C, NUM_CHANNELS)`, the last channel 0."""
    return jnp.stack([*layers, jnp.zeros_like(layers[0])], axis=-1).astype(jnp.float32)


@checks_parameters
def stag_hunt(
    agents: Annotated[int, at_least(2, "at least 2 (a catch takes two)")] = 8,
    prey: Count = 8,
    height: Count = 10,
    width: Count = 10,
    punishment: Annotated[float, Constraint("at most 0 (it is added)", lambda number: number <= 0)] = -2.0,
    capture_reward: float = 10.0,
    view: Annotated[int, Constraint("an odd number of cells", lambda side: side >= 1 and side % 2 == 1)] = 5,
    time_limit: Steps = 200,
    mask_occupied: bool = False,
) -> StagHunt:
    """A stag hunt; see `StagHunt`.

    Raises:
        BadInputError: for fewer than two agents or one prey, a grid that is too small for them, a
            punishment above 0 or a reward that is not a number, an even view, an invalid time limit, or
            observations that do not fit into memory.
    """
    grid.check_grid(height, width, agents + prey, agents + prey)
    cells = height * width + agents * view**2  # each compared with every entity
    check_fits(cells * (agents + prey), f"observations of {height} x {width} cells with a view of {view}")
    return StagHunt(
        capture_reward=jnp.asarray(capture_reward, jnp.float32),
        punishment=jnp.asarray(punishment, jnp.float32),
        num_agents=agents,
        num_prey=prey,
        height=height,
        width=width,
        view=view,
        time_limit=time_limit,
        mask_occupied=mask_occupied,
    )
