"""JaxMARL's SMAX and its simple_spread as team games. JaxMARL is an optional extra.

Games are stepped by `step_env`, since JaxMARL's own `step` resets finished ones.
"""

import abc
import functools
import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jumanji.types import TimeStep

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.ranges import Probability, Steps, at_least, checks_parameters

Settings = tuple[tuple[str, Any], ...]


@struct.dataclass
class JaxMARLState:
    """JaxMARL's state, and the key for its steps."""

    key: jax.Array | None
    inner: Any  # a dataclass of arrays


@struct.dataclass(eq=False)
class JaxMARLTeam(TeamEnvironment):
    """One of JaxMARL's environments with the interface of this suite.

    Observations are recomputed from JaxMARL's state, as for every environment here.

    Args:
        name: of the map or of the scenario.
        settings: names and values of its constructor's arguments.
        num_agents, num_actions: as in JaxMARL.
        time_limit: JaxMARL's `max_steps` + 1, because it checks for the end before it counts the step.
        time_limit_terminates: whether the time limit is a termination, as for JaxMARL's learners, which do
            not bootstrap there; a truncation if False.
    """

    name: str = struct.field(pytree_node=False)
    settings: Settings = struct.field(pytree_node=False)
    num_agents: int = struct.field(pytree_node=False)
    num_actions: int = struct.field(pytree_node=False)
    time_limit: int = struct.field(pytree_node=False)
    time_limit_terminates: bool = struct.field(pytree_node=False, default=False)

    binary_discounts = True

    @staticmethod
    @abc.abstractmethod
    def build(name: str, **settings: Any) -> Any:
        """The wrapped environment."""

    @abc.abstractmethod
    def team_reward(self, rewards: jax.Array) -> jax.Array:
        """The team's reward `()` from the agents' `(n,)`."""

    @abc.abstractmethod
    def terminated(self, inner: Any) -> jax.Array:
        """Whether the game is over in JaxMARL's state, whatever the time: `()` bool."""

    @property
    def wrapped(self) -> Any:
        """JaxMARL's environment."""
        return _build(type(self), self.name, self.settings)

    def reset(self, key: jax.Array) -> tuple[JaxMARLState, TimeStep[Observation]]:
        """Start an episode of JaxMARL's environment."""
        key, draw = jax.random.split(key)
        _, inner = self.wrapped.reset(draw)
        # JaxMARL counts steps from a Python number, whose weak type would make a loop compile twice.
        state = JaxMARLState(key, jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), inner))
        return state, self.first_timestep(state).replace(extras=self.extras(inner))  # type: ignore[attr-defined]

    def step(self, state: JaxMARLState, actions: jax.Array) -> tuple[JaxMARLState, TimeStep[Observation]]:
        """JaxMARL's step with the joint action `actions (n,)`."""
        key, draw = jax.random.split(state.key)  # type: ignore[arg-type]
        chosen = dict(zip(self.wrapped.agents, actions, strict=True))
        _, inner, rewards, dones, _ = self.wrapped.step_env(draw, state.inner, chosen)
        following = JaxMARLState(key, inner)
        reward = self.team_reward(jnp.stack([rewards[agent] for agent in self.wrapped.agents]))
        over = dones["__all__"]
        terminated = over if self.time_limit_terminates else self.terminated(inner)
        timestep = self.next_timestep(following, reward, terminated, over & ~terminated)
        return following, timestep.replace(extras=self.extras(inner))  # type: ignore[attr-defined]

    def observe(self, state: JaxMARLState) -> Observation:
        """JaxMARL's observations and masks."""
        seen = self.wrapped.get_obs(state.inner)
        views = jnp.stack([seen[agent] for agent in self.wrapped.agents])
        return Observation(
            views,
            self.global_state(state.inner, views),
            self.action_mask(state.inner),
            self.steps(state.inner),
        )

    def global_state(self, inner: Any, views: jax.Array) -> jax.Array:
        """All views `(n, O)`, one after the other: `(n O,)`."""
        return views.reshape(-1)

    def action_mask(self, inner: Any) -> jax.Array:
        """Available actions `(n, A)`; all of them by default."""
        return jnp.ones((self.num_agents, self.num_actions), bool)

    def steps(self, inner: Any) -> jax.Array:
        """Steps so far, int32 `()`."""
        return inner.step.astype(jnp.int32)

    def extras(self, inner: Any) -> dict[str, jax.Array]:
        """The time step's `extras`; none by default."""
        return {}


@struct.dataclass(eq=False)
class Smax(JaxMARLTeam):
    """A battle of SMAX, JaxMARL's StarCraft-like micromanagement, against its scripted enemy.

    An ally has four moves, stop, and an attack for each enemy. The team's reward is the fraction of the
    enemies' total health that the step removed, and 1 for a win: a return is at most 2. The battle terminates
    when one side is dead, and is truncated after `time_limit` steps. `extras` has `won`, True once the enemy
    is dead and an ally lives. The global state is JaxMARL's `world_state`.

    SMAX is not SMAC: rewards differ, there are no shields, and walls kill. Rankings of algorithms may be
    comparable, returns are not.
    """

    @staticmethod
    def build(name: str, **settings: Any) -> Any:
        scenario = _jaxmarl("environments.smax").map_name_to_scenario(name)
        return _jaxmarl("registration").make("HeuristicEnemySMAX", scenario=scenario, **settings)

    def team_reward(self, rewards: jax.Array) -> jax.Array:
        """The reward that JaxMARL gives to every ally alike."""
        return rewards[0]

    def terminated(self, inner: Any) -> jax.Array:
        """True when one side is dead."""
        allies, enemies = self._alive(inner)
        return ~allies | ~enemies

    def global_state(self, inner: Any, views: jax.Array) -> jax.Array:
        """JaxMARL's `world_state`: health, place, cooldown, type and side of every unit."""
        return self.wrapped.get_world_state(inner)

    def action_mask(self, inner: Any) -> jax.Array:
        """JaxMARL's available actions: attacks on those in range, and only stop for the dead."""
        available = self.wrapped.get_avail_actions(inner)
        return jnp.stack([available[agent] for agent in self.wrapped.agents]).astype(bool)

    def steps(self, inner: Any) -> jax.Array:
        return inner.state.step.astype(jnp.int32)

    def extras(self, inner: Any) -> dict[str, jax.Array]:
        allies, enemies = self._alive(inner)
        return {"won": allies & ~enemies}

    def _alive(self, inner: Any) -> tuple[jax.Array, jax.Array]:
        """Whether any ally and whether any enemy is alive, `()` bool each."""
        alive = inner.state.unit_alive
        return alive[: self.num_agents].any(), alive[self.num_agents :].any()


@struct.dataclass(eq=False)
class SimpleSpread(JaxMARLTeam):
    """JaxMARL's simple_spread of the multi-agent particle environments: cover all landmarks.

    `n` discs with five actions (nothing, left, right, down, up) are rewarded for being near `n` landmarks and
    penalised for collisions. The team's reward is the sum over the agents, as in JaxMARL's own learners.
    Episodes end only at the time limit.
    """

    @staticmethod
    def build(name: str, **settings: Any) -> Any:
        agents, make = settings.pop("agents"), _jaxmarl("registration").make
        return make(f"MPE_{name}_v3", num_agents=agents, num_landmarks=agents, **settings)

    def team_reward(self, rewards: jax.Array) -> jax.Array:
        """The sum of the agents' rewards."""
        return rewards.sum()

    def terminated(self, inner: Any) -> jax.Array:
        return jnp.asarray(False)


@checks_parameters
def smax(
    name: str,
    attack_mode: Literal["closest", "random"] = "closest",
    see_enemy_actions: bool = True,
    max_steps: Steps = 100,
    time_limit_terminates: bool = False,
) -> Smax:
    """The map `name` of SMAX, with JaxMARL's settings as defaults.

    Raises:
        BadInputError: if JaxMARL is missing, or has no such map or attack mode.
    """
    lookup_map(name)
    return _team(
        Smax,
        name,
        time_limit_terminates,
        attack_mode=attack_mode,
        see_enemy_actions=see_enemy_actions,
        max_steps=max_steps,
    )


@checks_parameters
def simple_spread(
    agents: Annotated[int, at_least(2)] = 3,
    local_ratio: Probability = 0.5,
    max_steps: Steps = 25,
    time_limit_terminates: bool = False,
) -> SimpleSpread:
    """simple_spread with as many landmarks as agents, and JaxMARL's settings as defaults.

    Raises:
        BadInputError: if JaxMARL is missing, for fewer than two agents or a ratio outside [0, 1].
    """
    settings = {"agents": agents, "local_ratio": local_ratio, "max_steps": max_steps}
    return _team(SimpleSpread, "simple_spread", time_limit_terminates, **settings)


def lookup_map(name: str) -> Callable[..., TeamEnvironment]:
    """How to build the map `name` of SMAX.

    Raises:
        BadInputError: if JaxMARL is missing or has no such map.
    """
    known = _jaxmarl("environments.smax.smax_env", f"smax:{name}").MAP_NAME_TO_SCENARIO
    if name not in known:
        maps = ", ".join(f"smax:{one}" for one in known)
        raise BadInputError(f"unknown environment 'smax:{name}': choose one of {maps}")
    return partial(smax, name)


def lookup_mpe(name: str) -> Callable[..., TeamEnvironment]:
    """How to build the particle environment `name`.

    Raises:
        BadInputError: if JaxMARL is missing, or for any environment but simple_spread.
    """
    if name != "simple_spread":
        raise BadInputError(f"unknown environment 'mpe:{name}': choose mpe:simple_spread")
    _jaxmarl("registration", f"mpe:{name}")
    return simple_spread


def _jaxmarl(module: str, env_id: str = "this environment") -> Any:
    """Import a module of JaxMARL, only when needed: it takes seconds, and most runs never use it."""
    if importlib.util.find_spec("jaxmarl") is None:
        raise BadInputError(
            f"{env_id} needs JaxMARL: pip install -e '.[peers]' -c constraints.txt, in an environment of its "
            "own with Python 3.11 (gymnax, which JaxMARL needs, holds JAX below 0.12)"
        )
    return importlib.import_module(f"jaxmarl.{module}")


def _team(kind: Any, name: str, time_limit_terminates: bool, **settings: Any) -> Any:
    wrapped = _build(kind, name, tuple(settings.items()))
    actions = max(wrapped.action_space(agent).n for agent in wrapped.agents)
    return kind(
        name,
        tuple(settings.items()),
        wrapped.num_agents,
        actions,
        wrapped.max_steps + 1,
        time_limit_terminates,
    )


@functools.cache
def _build(kind: Any, name: str, settings: Settings) -> Any:
    # Cached: it may be built while a function is traced, and holds arrays.
    with jax.ensure_compile_time_eval():
        return kind.build(name, **dict(settings))
