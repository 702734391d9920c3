"""Jumanji's own cooperative environments as team games.

The team's reward is the sum of the agents' rewards; a reward that Jumanji shares among them is counted once.
"""

import abc
import functools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jumanji
from flax import struct
from jumanji.environments import Connector, LevelBasedForaging, RobotWarehouse
from jumanji.environments.routing.connector.constants import PATH, POSITION, TARGET
from jumanji.environments.routing.connector.generator import RandomWalkGenerator
from jumanji.environments.routing.lbf.generator import RandomGenerator as ForagingGenerator
from jumanji.environments.routing.robot_warehouse.generator import RandomGenerator as WarehouseGenerator
from jumanji.types import TimeStep

from envs.base import Observation, TeamEnvironment, compact_dtype
from envs.errors import BadInputError
from envs.memory import check_fits
from envs.ranges import Steps, checks_parameters, from_to

Settings = tuple[tuple[str, Any], ...]
#: Sides of grids and numbers of entities: above 100, Jumanji takes minutes to draw a start.
Size = Annotated[int, from_to(1, 100)]


@struct.dataclass
class JumanjiState:
    """The observation, which replay stores; the wrapped environment's state takes the place of the key."""

    key: Any  # the wrapped environment's state with its PRNG key: used by `step`, not by `observe`
    seen: jax.Array  # (n, O) or (height, width), in the smallest integers
    action_mask: jax.Array  # (n, A) bool
    step_count: jax.Array  # ()


@struct.dataclass(eq=False)
class JumanjiTeam(TeamEnvironment):
    """One of Jumanji's environments with the interface of this suite.

    Args:
        settings: names and values of its constructor's arguments.
        num_agents, num_actions, time_limit: as these settings imply.
    """

    settings: Settings = struct.field(pytree_node=False)
    num_agents: int = struct.field(pytree_node=False)
    num_actions: int = struct.field(pytree_node=False)
    time_limit: int = struct.field(pytree_node=False)

    #: False if Jumanji reports "terminated" at the time limit: every end at that step counts as a truncation.
    signals_truncation = True
    #: False if Jumanji's step mixes dtypes in JAX's 64-bit mode.
    supports_64_bits = True
    binary_discounts = True

    @staticmethod
    @abc.abstractmethod
    def build(**settings: Any) -> Any:
        """The wrapped environment."""

    @abc.abstractmethod
    def compact_observation(self, observation: Any) -> jax.Array:
        """The part of the wrapped environment's observation that a state stores, in the smallest dtype."""

    @property
    def wrapped(self) -> Any:
        """Jumanji's environment."""
        return _build(type(self), self.settings)

    def reset(self, key: jax.Array) -> tuple[JumanjiState, TimeStep[Observation]]:
        """Start an episode of Jumanji's environment."""
        if jax.config.read("jax_enable_x64") and not self.supports_64_bits:
            raise BadInputError(
                f"{type(self).__name__} cannot be played in 64-bit mode: unset JAX_ENABLE_X64"
            )
        inner, timestep = self.wrapped.reset(key)
        state = self._state(inner, timestep.observation)
        return state, self.first_timestep(state).replace(extras=timestep.extras)  # type: ignore[attr-defined]

    def step(self, state: JumanjiState, actions: jax.Array) -> tuple[JumanjiState, TimeStep[Observation]]:
        """Jumanji's step with the joint action `actions (n,)`; its extras are passed on."""
        inner, timestep = self.wrapped.step(state.key, actions)
        following = self._state(inner, timestep.observation)
        over, reward = timestep.last(), jnp.sum(timestep.reward).astype(jnp.float32)
        terminated = over & (timestep.discount == 0).all()
        if not self.signals_truncation:
            terminated &= following.step_count < self.time_limit
        result = self.next_timestep(following, reward, terminated, over & ~terminated)
        return following, result.replace(extras=timestep.extras)  # type: ignore[attr-defined]

    def observe(self, state: JumanjiState) -> Observation:
        """Jumanji's views unchanged; the global state is all of them, concatenated."""
        views = state.seen.astype(jnp.float32)
        return self._observation(state, views, views.reshape(-1))

    def render(self, state: JumanjiState) -> Any:
        """Draw `state` with Jumanji's viewer; not for states from replay."""
        return self.wrapped.render(state.key)

    def animate(self, states: list[JumanjiState], interval: int = 200, save_path: str | None = None) -> Any:
        """Jumanji's animation of states that are not from replay, `interval` milliseconds apart."""
        return self.wrapped.animate([state.key for state in states], interval, save_path)

    def _state(self, inner: Any, observation: Any) -> JumanjiState:
        return JumanjiState(
            key=inner,
            seen=self.compact_observation(observation),
            action_mask=observation.action_mask,
            step_count=observation.step_count.astype(compact_dtype(self.time_limit)),
        )

    def _observation(self, state: JumanjiState, views: jax.Array, global_state: jax.Array) -> Observation:
        return Observation(views, global_state, state.action_mask, state.step_count.astype(jnp.int32))


@struct.dataclass(eq=False)
class Foraging(JumanjiTeam):
    """Level-based foraging: agents load food, if their levels together are at least the food's.

    Jumanji's `LevelBasedForaging`, whose docstring has the rules. An agent sees (y, x, level) of every
    food, of itself and of the others, (-1, -1, 0) for those out of sight. The rewards for a
    food are shared among the agents that load it; the team's return is 1 when all food is loaded.
    """

    @staticmethod
    def build(**settings: Any) -> Any:
        agents, food = settings.pop("agents"), settings.pop("food")
        time_limit, penalty = settings.pop("time_limit"), settings.pop("penalty")
        generator = ForagingGenerator(num_agents=agents, num_food=food, **settings)
        return LevelBasedForaging(generator, time_limit=time_limit, penalty=penalty)

    def compact_observation(self, observation: Any) -> jax.Array:
        """The agents' views `(n, 3 (food + n))`."""
        generator = self.wrapped._generator
        largest = max(generator.grid_size, generator.num_agents * generator.max_agent_level)
        return observation.agents_view.astype(compact_dtype(largest))


@struct.dataclass(eq=False)
class Warehouse(JumanjiTeam):
    """Robots bring requested shelves to a goal, +1 each for the team, and must not run into each other.

    Jumanji's `RobotWarehouse`, whose docstring has the rules. It reports "terminated" at the time limit
    too, which is a truncation here; so is a collision in the last step.
    """

    signals_truncation = False
    supports_64_bits = False

    @staticmethod
    def build(**settings: Any) -> Any:
        agents, time_limit = settings.pop("agents"), settings.pop("time_limit")
        return RobotWarehouse(WarehouseGenerator(num_agents=agents, **settings), time_limit)

    def compact_observation(self, observation: Any) -> jax.Array:
        """The agents' views `(n, O)`."""
        return observation.agents_view.astype(compact_dtype(max(self.wrapped.grid_size)))


@struct.dataclass(eq=False)
class Connect(JumanjiTeam):
    """Agents draw lines on a grid, each to a target of its own, and lines may not cross.

    Jumanji's `Connector`, whose docstring has the rules; +1 for each line that is done, -0.03 a step for
    each that is not. Jumanji shows one grid of numbers to all. Here an agent sees four features per cell:
    whether it holds a line, the head of a line, or a target, and whether that is its own. In the global state
    the fourth is (i + 1) / n, where i is the owner.
    """

    supports_64_bits = False

    @property
    def fully_observable(self) -> bool:  # type: ignore[override]
        """True: every agent sees the whole grid."""
        return True

    @staticmethod
    def build(**settings: Any) -> Any:
        generator = RandomWalkGenerator(settings["grid_size"], settings["agents"])
        return Connector(generator, time_limit=settings["time_limit"])

    def compact_observation(self, observation: Any) -> jax.Array:
        """The grid of numbers."""
        return observation.grid.astype(compact_dtype(3 * self.num_agents))

    def observe(self, state: JumanjiState) -> Observation:
        """The grid as each agent sees it; see the class."""
        cells = state.seen.reshape(-1).astype(jnp.int32)  # (cells,), 0 or 3 i + PATH, POSITION or TARGET
        owner = jnp.where(cells > 0, (cells - PATH) // 3, -1)  # (cells,)
        kind = jnp.where(cells > 0, cells - 3 * owner, 0)
        shared = (kind[:, None] == jnp.asarray([PATH, POSITION, TARGET])).astype(jnp.float32)  # (cells, 3)

        def with_owner(mark: jax.Array) -> jax.Array:
            return jnp.concatenate([shared, mark[:, None]], axis=1).reshape(-1)

        own = (owner == jnp.arange(self.num_agents)[:, None]).astype(jnp.float32)  # (n, cells)
        whole = with_owner((owner + 1) / self.num_agents)
        return self._observation(state, jax.vmap(with_owner)(own), whole)


@checks_parameters
def level_based_foraging(
    grid_size: Size = 8,
    fov: Size = 8,
    agents: Size = 2,
    food: Size = 2,
    max_agent_level: Annotated[int, from_to(2, 1000)] = 2,
    force_coop: bool = True,
    time_limit: Steps = 100,
    penalty: float = 0.0,
) -> Foraging:
    """Level-based foraging with Jumanji's settings as defaults.

    Raises:
        BadInputError: for settings that Jumanji refuses.
    """
    return _team(
        Foraging,
        grid_size=grid_size,
        fov=fov,
        agents=agents,
        food=food,
        max_agent_level=max_agent_level,
        force_coop=force_coop,
        time_limit=time_limit,
        penalty=penalty,
    )


@checks_parameters
def robot_warehouse(
    shelf_rows: Size = 2,
    shelf_columns: Size = 3,
    column_height: Size = 8,
    agents: Size = 4,
    sensor_range: Annotated[int, from_to(0, 100)] = 1,
    request_queue_size: Size = 8,
    time_limit: Steps = 500,
) -> Warehouse:
    """The robot warehouse with Jumanji's settings as defaults.

    Raises:
        BadInputError: for settings that Jumanji refuses.
    """
    return _team(
        Warehouse,
        shelf_rows=shelf_rows,
        shelf_columns=shelf_columns,
        column_height=column_height,
        agents=agents,
        sensor_range=sensor_range,
        request_queue_size=request_queue_size,
        time_limit=time_limit,
    )


@checks_parameters
def connector(grid_size: Size = 10, agents: Size = 10, time_limit: Steps = 50) -> Connect:
    """Connector with Jumanji's settings as defaults.

    Raises:
        BadInputError: for settings that Jumanji refuses.
    """
    if grid_size**2 < 2 * agents:
        raise BadInputError(
            f"a grid of {grid_size} x {grid_size} is too small for {agents} agents and as many targets"
        )
    return _team(Connect, grid_size=grid_size, agents=agents, time_limit=time_limit)


GAMES: dict[str, tuple[Callable[..., JumanjiTeam], str]] = {
    "LevelBasedForaging": (level_based_foraging, "agents lift food together, optimum 1"),
    "RobotWarehouse": (robot_warehouse, "robots bring requested shelves, +1 each"),
    "Connector": (connector, "agents draw lines that may not cross, +1 each"),
}


def about_games() -> dict[str, str]:
    """One line about each environment, by its name with the installed version."""
    installed = {name.rpartition("-v")[0]: name for name in jumanji.registered_environments()}
    return {installed[name]: f"Jumanji's {name}: {about}" for name, (_, about) in GAMES.items()}


def lookup(name: str) -> tuple[Callable[..., JumanjiTeam], str]:
    """The builder of `name`, a name with its version, and one line about it.

    Raises:
        BadInputError: for an unknown name.
    """
    about = about_games()
    if name not in about:
        known = ", ".join(f"jumanji:{one}" for one in about)
        raise BadInputError(f"unknown environment 'jumanji:{name}': choose one of {known}")
    return GAMES[name.rpartition("-v")[0]][0], about[name]


def _team(kind: Any, **settings: Any) -> Any:
    try:
        wrapped = _build(kind, tuple(settings.items()))
        actions = int(max(wrapped.action_spec.num_values))
        team = kind(tuple(settings.items()), wrapped.num_agents, actions, wrapped.time_limit)
        started = jax.eval_shape(team.reset, jax.random.key(0))
    except BadInputError:
        raise
    except Exception as error:  # Jumanji refuses some settings, and fails internally on others
        why = " ".join(str(error).split())[:300]
        raise BadInputError(f"Jumanji refuses these settings: {why or type(error).__name__}") from error
    check_fits(
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(started)),
        "one state of this environment",
    )
    return team


@functools.cache
def _build(kind: Any, settings: Settings) -> Any:
    # Cached: it may be built while a function is traced, and holds arrays.
    with jax.ensure_compile_time_eval():
        return kind.build(**dict(settings))
