"""Predators surround a faster prey on the open plane ("cowboys and bull")."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jumanji.types import TimeStep

from envs.base import Observation, TeamEnvironment
from envs.memory import check_fits
from envs.pursuit_viewer import PursuitViewer
from envs.ranges import above, at_least, checks_parameters

STAY, TOWARDS, COUNTER_CLOCKWISE, AWAY, CLOCKWISE = range(5)

#: The prey is alarmed when a predator is nearer than this; also the unit of distance in observations.
ALARM_DISTANCE = 10.0
#: The prey runs from the nearest predator if the farthest is this much farther away.
LAG_MARGIN = 5.0
#: The prey runs through a gap between neighbouring predators that is at least this wide: 108 degrees.
GAP_MARGIN = 1.2 * jnp.pi / 2
#: Probabilities of a random step: of a calm prey and of a surrounded one.
STROLL_CHANCE, PANIC_CHANCE = 0.1, 0.3
STROLL_SPEED = 1.0
TURN = 2 * jnp.pi


class PreyDraws(NamedTuple):
    """The random choices of one step."""

    chance: jax.Array  # (), uniform in [0, 1), decides whether the prey makes a random step
    heading: jax.Array  # (), uniform in [0, 2 pi), where to


@struct.dataclass
class CatchPreyState:
    """Positions of the prey and the predators."""

    key: jax.Array | None
    prey: jax.Array  # (2,) float32, x and y
    predators: jax.Array  # (n, 2) float32
    step_count: jax.Array  # () int16


@struct.dataclass(eq=False)
class CatchPrey(TeamEnvironment):
    """`n` predators hunt one prey that outruns them, on a plane without borders.

    The prey starts at the origin, each predator in a random direction at a distance uniform in [11, 19).
    In a step a predator may stay (0), or make a step of length 1: towards the prey (1), counter-clockwise
    around it (2), away from it (3) or clockwise (4). Directions are those before the prey moves. The prey
    moves first, according to the same positions:

    - with no predator nearer than 10 it is calm: with probability .1 it makes a step of length 1 in a
      random direction, else it stays;
    - otherwise, if the widest gap between neighbouring predators, as it sees them, is 108 degrees or more,
      it runs `prey_speed` through the middle of the gap;
    - otherwise, if the farthest predator is more than 5 farther than the nearest, it runs `prey_speed`
      straight away from the nearest;
    - otherwise it is surrounded: with probability .3 it runs `prey_speed` in a random direction, else it
      stays.

    The prey is caught, and the episode terminates with a reward of 1, when a predator is nearer than
    `catch_distance` after both have moved. Every action but stay costs 1 / (75 n). After 75 steps
    the episode is truncated; in the released code it terminates, as with `time_limit_terminates`.
    An episode is won if and only if its undiscounted return is positive.

    Agent i sees 7 features, `agents_view (n, 7)`: its distance d_i from the prey / 10, (d_i - min d) / 5,
    (max d - d_i) / 5; as fractions of a turn, seen from the prey, the gaps to its right and to its left
    neighbour and the widest gap of all; and the elapsed fraction of the time limit. Facing the prey, the
    neighbour on the right is the next one counter-clockwise. `global_state (7 n,)` is the views of all
    agents, concatenated; like them it is invariant to translation and rotation. All actions are always
    available. (Cassano and Sayed 2021, "Logical Team Q-learning", and their release.)

    Ties between angles, distances or gaps go to the predator with the lowest index.

    Args:
        num_agents: `n`, at least 2. A policy for one number of predators can play with any.
        prey_speed: how far the prey runs in a step. An array leaf.
        catch_distance: radius within which the prey is caught. An array leaf.
        time_limit: maximum number of steps.
        time_limit_terminates: whether the time limit is a termination; a truncation if False.
    """

    num_agents: int = struct.field(pytree_node=False, default=4)
    prey_speed: jax.Array | float = 1.2
    catch_distance: jax.Array | float = 3.0
    time_limit: int = struct.field(pytree_node=False, default=75)
    time_limit_terminates: bool = struct.field(pytree_node=False, default=False)

    num_actions = 5
    binary_discounts = True

    def reset(self, key: jax.Array) -> tuple[CatchPreyState, TimeStep[Observation]]:
        """Place the prey at the origin and the predators around it."""
        key, angle_key, distance_key = jax.random.split(key, 3)
        angle = jax.random.uniform(angle_key, (self.num_agents,), maxval=TURN)
        distance = jax.random.uniform(
            distance_key, (self.num_agents,), minval=1.1 * ALARM_DISTANCE, maxval=1.9 * ALARM_DISTANCE
        )
        state = CatchPreyState(
            key=key,
            prey=jnp.zeros((2,)),
            predators=distance[:, None] * _heading(angle),
            step_count=jnp.zeros((), jnp.int16),
        )
        return state, self.first_timestep(state)

    def step(self, state: CatchPreyState, actions: jax.Array) -> tuple[CatchPreyState, TimeStep[Observation]]:
        """Move the prey, and every predator by its action, `actions (n,)`."""
        key, draw = jax.random.split(state.key)  # type: ignore[arg-type]
        return self.move(state.replace(key=key), actions, self.draw(draw))  # type: ignore[attr-defined]

    def draw(self, key: jax.Array) -> PreyDraws:
        """The random choices of one step."""
        uniform = jax.random.uniform(key, (2,))
        return PreyDraws(chance=uniform[0], heading=TURN * uniform[1])

    def move(
        self, state: CatchPreyState, actions: jax.Array, draws: PreyDraws
    ) -> tuple[CatchPreyState, TimeStep[Observation]]:
        """Step with given random choices; the deterministic part of `step`."""
        around = state.predators - state.prey  # (n, 2)
        distance, angle = _polar(around)
        state = state.replace(  # type: ignore[attr-defined]
            prey=state.prey + self._flight(distance, angle, draws),
            predators=state.predators + _steps(around, distance, actions),
            step_count=state.step_count + jnp.int16(1),
        )
        after = jnp.linalg.norm(state.predators - state.prey, axis=-1)
        caught = jnp.any(after < self.catch_distance)
        reward = caught - jnp.sum(actions != STAY) / (self.num_agents * self.time_limit)
        late = state.step_count >= self.time_limit
        terminated = caught | late if self.time_limit_terminates else caught
        return state, self.next_timestep(state, reward, terminated, late)

    def _flight(self, distance: jax.Array, angle: jax.Array, draws: PreyDraws) -> jax.Array:
        """The prey's displacement `(2,)`, given predators at `distance (n,)` and `angle (n,)`."""
        afraid = jnp.any(distance < ALARM_DISTANCE)
        left, _ = _gaps(angle)
        widest = jnp.argmax(left)
        nearest = jnp.argmin(distance)
        open_way = left[widest] >= GAP_MARGIN
        lagging = jnp.max(distance) - distance[nearest] > LAG_MARGIN
        heading = jnp.select(
            [afraid & open_way, afraid & lagging],
            [angle[widest] + left[widest] / 2, angle[nearest] + jnp.pi],
            draws.heading,
        )
        speed = jnp.select(
            [afraid & (open_way | lagging), afraid],
            [self.prey_speed, self.prey_speed * (draws.chance < PANIC_CHANCE)],
            STROLL_SPEED * (draws.chance < STROLL_CHANCE),
        )
        return speed * _heading(heading)

    def observe(self, state: CatchPreyState) -> Observation:
        distance, angle = _polar(state.predators - state.prey)
        left, right = _gaps(angle)
        features = [
            distance / ALARM_DISTANCE,
            (distance - jnp.min(distance)) / LAG_MARGIN,
            (jnp.max(distance) - distance) / LAG_MARGIN,
            right / TURN,
            left / TURN,
            jnp.max(left) / TURN,
            state.step_count / self.time_limit,
        ]
        view = jnp.stack([jnp.broadcast_to(feature, distance.shape) for feature in features], axis=-1)
        view = view.astype(jnp.float32)
        return Observation(
            agents_view=view,  # (n, 7)
            global_state=view.reshape(-1),
            action_mask=jnp.ones((self.num_agents, self.num_actions), bool),
            step_count=state.step_count.astype(jnp.int32),
        )

    def render(self, state: CatchPreyState, save_path: str | None = None) -> Any:
        """Draw the predators around the prey, with its alarm and catch radii."""
        return self._viewer().render(state, save_path)

    def animate(self, states: list[CatchPreyState], interval: int = 100, save_path: str | None = None) -> Any:
        """Draw one frame for each state, written to `save_path` (.gif); `interval` in milliseconds."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> PursuitViewer:
        return PursuitViewer(ALARM_DISTANCE, float(self.catch_distance), self.time_limit)


def _heading(angle: jax.Array) -> jax.Array:
    """The unit vector `(..., 2)` in a direction, in radians clockwise from the y axis."""
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _polar(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lengths and directions `(n,)` of `vectors (n, 2)`; directions as in `_heading`, in (-pi, pi]."""
    x, y = vectors[:, 0], vectors[:, 1]
    return jnp.sqrt(x**2 + y**2), jnp.arctan2(x, y)


def _gaps(angle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each predator's gap to the next one clockwise and counter-clockwise, `(n,)` each, in radians.

    Pairwise, because sorting a few numbers does not vectorise. The clockwise gaps sum to a full turn.
    """
    index = jnp.arange(len(angle))
    ahead = angle - angle[:, None]  # (n, n), from row to column, clockwise
    # Of two at the same angle the later one counts as further clockwise, as in a stable sort.
    behind = (ahead < 0) | ((ahead == 0) & (index <= index[:, None]))
    ahead = jnp.where(behind, ahead + TURN, ahead)  # a whole turn to itself
    return jnp.min(ahead, axis=1), jnp.min(ahead, axis=0)


def _steps(around: jax.Array, distance: jax.Array, actions: jax.Array) -> jax.Array:
    """The predators' moves `(n, 2)`, from their positions relative to the prey, `around (n, 2)`."""
    # A predator exactly on the prey has no direction, and does not move.
    inward = -around / jnp.maximum(distance, jnp.finfo(distance.dtype).tiny)[:, None]
    sideways = jnp.stack([inward[:, 1], -inward[:, 0]], axis=-1)  # a quarter turn clockwise from inward
    along = (actions == TOWARDS).astype(around.dtype) - (actions == AWAY)
    across = (actions == COUNTER_CLOCKWISE).astype(around.dtype) - (actions == CLOCKWISE)
    return along[:, None] * inward + across[:, None] * sideways


@checks_parameters
def catch_prey(
    agents: Annotated[int, at_least(2)] = 4,
    prey_speed: Annotated[float, at_least(0)] = 1.2,
    catch_distance: Annotated[float, above(0)] = 3.0,
    time_limit_terminates: bool = False,
) -> CatchPrey:
    """The pursuit game with any number of predators.

    Raises:
        BadInputError: for fewer than two agents or more than fit into memory, a negative speed, or a catch
            distance that is not positive.
    """
    check_fits(4 * agents**2, f"the angles between {agents} agents")
    return CatchPrey(
        num_agents=agents,
        prey_speed=prey_speed,
        catch_distance=catch_distance,
        time_limit_terminates=time_limit_terminates,
    )
