"""QTRAN's modified predator-prey: two predators beside a prey are paid for it, a lone one is fined."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji.types import TimeStep

from envs import grid
from envs.base import Observation, TeamEnvironment, compact_dtype
from envs.errors import BadInputError
from envs.grid_viewer import PredatorPreyViewer
from envs.ranges import Count, Steps, at_least, checks_parameters


@struct.dataclass
class PredatorPreyState:
    """Positions of all entities. Cells are numbered `y * width + x`, in int8 on grids of up to 128 cells.

    With four predators and two prey this is 9 bytes without the key.
    """

    key: jax.Array | None
    predators: jax.Array  # (n,) cells
    prey: jax.Array  # (m,) cells
    hunters: jax.Array  # (m,) int8, predators beside each prey at the last reward; 0 at the start
    step_count: jax.Array  # () int8


@struct.dataclass(eq=False)
class PredatorPrey(TeamEnvironment):
    """`n` predators hunt `m` randomly moving prey on a bounded grid, for `time_limit` steps.

    At the start all entities are on distinct, uniformly random cells. Every predator picks one of five moves,
    0 up (y - 1), 1 left (x - 1), 2 stay, 3 right (x + 1), 4 down (y + 1), all of which are always
    available; every prey takes one of the five, uniformly at random. All entities then move in turn,
    predators first, in the order of their index. No two share a cell: an entity whose way is blocked lets the
    blocker take its turn first, and stays if that does not free the cell (`grid.move_in_turn` has the full
    rule; two that want to swap both stay).

    Then the predators that share an edge with each prey are counted, for all prey at once. With two or more
    the prey is caught: the team gets 1, and the prey is moved to a uniformly random empty cell. With exactly
    one the team loses `penalty`. Caught prey are moved in the order of their index; a cell is empty if no
    entity is on it at that moment, the prey itself included. The reward is the sum over the prey.

    Episodes never terminate; they are truncated after `time_limit` steps (discount 1).

    A predator sees its own position, ((x - width / 2) / width, (y - height / 2) / height), and the prey in a
    square of `view` by `view` cells around it, as section C.1 has it: a slot for each prey, by index, is
    (seen, dx / width, dy / height), all 0 for a prey outside the square: `2 + 3 m` features. With
    `sees_predators` there is such a slot for each other predator too, before those of the prey:
    `2 + 3 (n + m - 1)` features. With `full_view`, as in the authors' release, all entities are seen, and a
    slot is (dx / width, dy / height): `2 (n + m)` features (without the release's slot for the predator
    itself, which is always 0). Agent ids are left to the networks. The global state is all own positions,
    predators first, `2 (n + m)` features.

    Source: QTRAN, sections 4.1 and C.1, and the order of moves from the authors' release.

    Args:
        penalty: `()`, P >= 0. An array leaf: `jax.vmap` over it is a batch of games.
        num_agents: `n`.
        num_prey: `m`.
        height, width: of the grid, in cells.
        view: side of the square that a predator sees, in cells; odd.
        full_view: whether every predator sees all entities, as in the authors' release.
        sees_predators: whether a predator sees the other predators; section C.1 lists its own coordinates and
            id and the relative positions of prey alone. True with `full_view`.
        time_limit: in steps.
    """

    penalty: jax.Array
    num_agents: int = struct.field(pytree_node=False, default=2)
    num_prey: int = struct.field(pytree_node=False, default=1)
    height: int = struct.field(pytree_node=False, default=5)
    width: int = struct.field(pytree_node=False, default=5)
    view: int = struct.field(pytree_node=False, default=5)
    full_view: bool = struct.field(pytree_node=False, default=False)
    #: True in runs that were saved before there was this field.
    sees_predators: bool = struct.field(pytree_node=False, default=True)
    time_limit: int = struct.field(pytree_node=False, default=100)

    num_actions = grid.NUM_MOVES
    binary_discounts = True

    @property
    def fully_observable(self) -> bool:  # type: ignore[override]
        """True with `full_view` of all entities."""
        return self.full_view and self.sees_predators

    @property
    def num_entities(self) -> int:
        """`n + m`."""
        return self.num_agents + self.num_prey

    def reset(self, key: jax.Array) -> tuple[PredatorPreyState, TimeStep[Observation]]:
        """Place all entities on distinct, uniformly random cells."""
        key, draw = jax.random.split(key)
        free = self.height * self.width - np.arange(self.num_entities)  # cells left for each
        # The remainder of 32 random bits favours no cell by more than one part in 2^24.
        draws = jax.random.bits(draw, (self.num_entities,)) % jnp.asarray(free, jnp.uint32)
        state = self.place(grid.distinct_cells(draws.astype(jnp.int32)), key)
        return state, self.first_timestep(state)

    def place(self, cells: jax.Array, key: jax.Array | None = None) -> PredatorPreyState:
        """The initial state with entities on `cells (n + m,)`, predators first."""
        cells = cells.astype(compact_dtype(self.height * self.width - 1))
        return PredatorPreyState(
            key=key,
            predators=cells[: self.num_agents],
            prey=cells[self.num_agents :],
            hunters=jnp.zeros((self.num_prey,), jnp.int8),
            step_count=jnp.zeros((), compact_dtype(self.time_limit)),
        )

    def step(
        self, state: PredatorPreyState, actions: jax.Array
    ) -> tuple[PredatorPreyState, TimeStep[Observation]]:
        """Play the joint action `actions (n,)`."""
        key, draw = jax.random.split(state.key)  # type: ignore[arg-type]
        bits = jax.random.bits(draw, (2, self.num_prey))
        prey_moves = (bits[0] % grid.NUM_MOVES).astype(jnp.int32)
        places = (bits[1] % (self.height * self.width - self.num_entities)).astype(jnp.int32)
        state, reward = self.move(state, actions, prey_moves, places)
        state = state.replace(key=key)  # type: ignore[attr-defined]
        truncated = state.step_count >= self.time_limit
        return state, self.next_timestep(state, reward, jnp.asarray(False), truncated)

    def move(
        self, state: PredatorPreyState, actions: jax.Array, prey_moves: jax.Array, places: jax.Array
    ) -> tuple[PredatorPreyState, jax.Array]:
        """One step with given random choices: the next state, with an unchanged key, and the reward `()`.

        Args:
            state: the state before.
            actions: `(n,)`, the predators' moves.
            prey_moves: `(m,)`, the prey's moves.
            places: `(m,)`; a caught prey is moved to the `places[i]`-th empty cell, counted from 0 by cell
                number, so these are uniform below `height * width - n - m`.
        """
        cells = self._cells(state)
        moves = jnp.concatenate([actions.astype(jnp.int32), prey_moves.astype(jnp.int32)])
        targets = grid.destinations(cells, moves, self.height, self.width)
        cells = grid.move_in_turn(cells, targets)
        predators, prey = cells[: self.num_agents], cells[self.num_agents :]

        hunters = grid.neighbours(prey, predators, self.width).sum(axis=1, dtype=jnp.int32)  # (m,)
        caught = hunters >= 2
        reward = jnp.where(caught, 1.0, jnp.where(hunters == 1, -self.penalty, 0.0)).sum()

        for i in range(self.num_prey):
            place = grid.empty_cell(places[i], jnp.concatenate([predators, prey]))
            prey = jnp.where((jnp.arange(self.num_prey) == i) & caught, place, prey)

        following = PredatorPreyState(
            key=state.key,
            predators=predators.astype(state.predators.dtype),
            prey=prey.astype(state.prey.dtype),
            hunters=hunters.astype(jnp.int8),
            step_count=state.step_count + jnp.ones((), state.step_count.dtype),
        )
        return following, reward

    def observe(self, state: PredatorPreyState) -> Observation:
        """Positions, own and relative; see the class."""
        size = jnp.asarray([self.width, self.height], jnp.float32)
        position = jnp.stack(grid.coordinates(self._cells(state), self.width), axis=-1)  # (n + m, 2)
        offset = position[None, :] - position[: self.num_agents, None]  # (n, n + m, 2), of j as seen by i
        slots = offset / size
        if not self.full_view:
            seen = (jnp.abs(offset) <= self.view // 2).all(axis=-1, keepdims=True)
            slots = jnp.concatenate([seen, jnp.where(seen, slots, 0.0)], axis=-1)  # (n, n + m, 3)
        own = (position - size / 2) / size  # (n + m, 2)
        parts = [own[: self.num_agents], slots[:, self.num_agents :]]
        if self.sees_predators:
            parts.insert(1, grid.without_self(slots[:, : self.num_agents]))
        flat = [part.reshape(self.num_agents, -1) for part in parts]
        return Observation(
            agents_view=jnp.concatenate(flat, axis=1),
            global_state=own.reshape(-1),
            action_mask=jnp.ones((self.num_agents, self.num_actions), bool),
            step_count=state.step_count.astype(jnp.int32),
        )

    def _cells(self, state: PredatorPreyState) -> jax.Array:
        """The cells of all entities, int32 `(n + m,)`, predators first."""
        # Cast before concatenating: in the other order XLA's CPU code took twice as long for a step.
        return jnp.concatenate([state.predators.astype(jnp.int32), state.prey.astype(jnp.int32)])

    def render(self, state: PredatorPreyState, save_path: str | None = None) -> Any:
        """Draw the grid and the predators beside each prey."""
        return self._viewer().render(state, save_path)

    def animate(
        self, states: list[PredatorPreyState], interval: int = 300, save_path: str | None = None
    ) -> Any:
        """Draw one frame for each state; `interval` in milliseconds; `save_path` may end in .gif."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> PredatorPreyViewer:
        return PredatorPreyViewer(self.height, self.width, float(self.penalty))


@checks_parameters
def predator_prey(
    predators: Annotated[int, at_least(2, "at least 2 (a single one can only ever be fined)")] = 2,
    prey: Count = 1,
    height: Count = 5,
    width: Count = 5,
    penalty: Annotated[float, at_least(0, "at least 0 (it is subtracted)")] = 0.5,
    view: Count = 5,
    full_view: bool = False,
    sees_predators: bool = False,
    time_limit: Steps = 100,
) -> PredatorPrey:
    """Modified predator-prey; see `PredatorPrey`. `full_view` includes `sees_predators`.

    Raises:
        BadInputError: for fewer than two predators or one prey, a grid without an empty cell for a caught
            prey, a penalty that is negative or not a number, a view that is even or larger than the grid, or
            an invalid time limit.
    """
    grid.check_grid(height, width, predators + prey, predators + prey + 1)
    if not full_view and (view % 2 == 0 or view > min(height, width)):
        raise BadInputError(
            f"the view must be an odd number of cells from 1 to {min(height, width)} on a grid of "
            f"{height} x {width}, not {view}; full_view shows everything"
        )
    return PredatorPrey(
        penalty=jnp.asarray(penalty, jnp.float32),
        num_agents=predators,
        num_prey=prey,
        height=height,
        width=width,
        view=view,
        full_view=full_view,
        sees_predators=sees_predators or full_view,
        time_limit=time_limit,
    )
