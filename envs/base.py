"""What every environment of the suite has in common: a Jumanji environment for teams."""

import abc
from functools import cached_property
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jumanji import specs
from jumanji.env import Environment
from jumanji.types import TimeStep, restart, termination, transition, truncation

from envs.errors import BadInputError


def compact_dtype(largest: int) -> Any:
    """The smallest signed integer type that holds -1 to `largest`; replay keeps states in it.

    Raises:
        BadInputError: if 32 bits do not hold it.
    """
    for kind in (jnp.int8, jnp.int16, jnp.int32):
        if largest <= np.iinfo(kind).max:
            return kind
    raise BadInputError(f"a state would have to hold {largest}, which is more than 32 bits can")


class Observation(NamedTuple):
    """What the agents and the centralised learner see of one state.

    Shapes: `n` agents, `O` features per agent, `S` features of the global state, `A` actions per
    agent (agents with fewer actions have the rest masked).
    """

    agents_view: jax.Array  # (n, O) float32
    global_state: jax.Array  # (S,) float32
    action_mask: jax.Array  # (n, A) bool, True where the action is available
    step_count: jax.Array  # () int32


class TeamEnvironment(Environment[Any, specs.MultiDiscreteArray, Observation]):
    """A cooperative game of `n` agents with discrete actions, as pure functions.

    A subclass is a `flax.struct.dataclass(eq=False)`: shapes are static fields, and parameters that a
    study varies (payoffs, penalties) are array leaves, so that `jax.vmap` over an environment is a
    batch of games. Its state is a `flax.struct.dataclass` with a field `key`; all that `observe` needs
    is in the other fields, in dtypes as small as they can be, because replay keeps them.
    """

    # Shapes and facts that the engine reads. Subclasses set them as fields or properties.
    num_agents: int
    num_actions: int
    #: Steps after which an episode ends at the latest.
    time_limit: int
    #: True if every observation of the game is the same: utilities are then computed once per update. With a
    #: `time_limit` of 1 its step ends the game for good: nothing follows to be bootstrapped from.
    stateless: bool = False
    #: True if every agent sees the whole state (QTRAN's Theorem 1a: V_jt may be left out).
    fully_observable: bool = False
    #: True if an agent's view is the one-hot number of its observation, so that tables can hold it.
    one_hot_views: bool = False
    #: True if every step's discount is 0 or 1, as `next_timestep` gives it: replay then keeps it in one byte.
    binary_discounts: bool = False

    @abc.abstractmethod
    def observe(self, state: Any) -> Observation:
        """What is seen in `state`. Never reads `state.key`, which is None for states from replay."""

    def least_return(self, gamma: float | jax.Array) -> jax.Array | None:
        """A bound `()`, 0 or below, that no discounted return is below; None where the game knows none.

        Games that are tables know theirs. Learners that only ever raise their values start there.
        """
        return None

    def best_reward_of_worst_action(self, agent: int) -> jax.Array:
        """The best reward `()` of the worst action of an agent in any state, without noise; at most 0.

        Games that are tables know theirs; of others it is 0. Learners that count how often an action's best
        reward came (FMQ) measure rewards from there.
        """
        return jnp.zeros(())

    # Jumanji closes environments when they are collected; a pure function has nothing to close.
    def close(self) -> None:
        """Nothing to release."""

    # Jumanji's specs compare their bounds with `if`: evaluate them at compile time, so that they can be
    # read inside a jitted function too.

    @cached_property
    def observation_spec(self) -> specs.Spec[Observation]:
        """Shapes, dtypes and bounds of an `Observation`, found by tracing one reset."""
        shapes = jax.eval_shape(lambda key: self.observe(self.reset(key)[0]), jax.random.key(0))
        with jax.ensure_compile_time_eval():
            return specs.Spec(
                Observation,
                "ObservationSpec",
                agents_view=specs.Array(shapes.agents_view.shape, jnp.float32, "agents_view"),
                global_state=specs.Array(shapes.global_state.shape, jnp.float32, "global_state"),
                action_mask=specs.BoundedArray(shapes.action_mask.shape, bool, False, True, "action_mask"),
                step_count=specs.BoundedArray((), jnp.int32, 0, self.time_limit, "step_count"),
            )

    @cached_property
    def action_spec(self) -> specs.MultiDiscreteArray:
        """One action per agent, each below `num_actions`."""
        with jax.ensure_compile_time_eval():
            return specs.MultiDiscreteArray(jnp.full((self.num_agents,), self.num_actions), name="actions")

    @property
    def action_dtype(self) -> Any:
        """The smallest type that holds each action, and -1 for none; float32 where actions are numbers."""
        return compact_dtype(self.num_actions - 1) if self.num_actions else jnp.float32

    @cached_property
    def discount_spec(self) -> specs.BoundedArray:
        """A discount between 0 (terminated) and 1."""
        with jax.ensure_compile_time_eval():
            return specs.BoundedArray((), float, minimum=0.0, maximum=1.0, name="discount")

    # Time steps, with termination (the game is over) and truncation (the clock ran out) kept apart.

    def first_timestep(self, state: Any) -> TimeStep[Observation]:
        """The time step of a fresh state.

        Raises:
            BadInputError: if the state cannot count to the time limit.
        """
        steps = getattr(state, "step_count", None)
        if steps is not None and self.time_limit > np.iinfo(steps.dtype).max:
            raise BadInputError(
                f"time_limit must be at most {np.iinfo(steps.dtype).max}, which {type(self).__name__} can "
                f"count, not {self.time_limit}"
            )
        return _in_single_precision(restart(observation=self.observe(state)))

    def next_timestep(
        self, state: Any, reward: jax.Array, terminated: jax.Array, truncated: jax.Array
    ) -> TimeStep[Observation]:
        """The time step after a move. Only a terminated one has discount 0; both are `last()`."""
        observation = self.observe(state)
        going = transition(reward=reward, observation=observation)
        over = termination(reward=reward, observation=observation)
        out_of_time = truncation(reward=reward, observation=observation)
        timestep = jax.tree.map(
            lambda a, b, c: jnp.where(terminated, b, jnp.where(truncated, c, a)), going, over, out_of_time
        )
        return _in_single_precision(timestep)


def _in_single_precision(timestep: TimeStep[Observation]) -> TimeStep[Observation]:
    """Reward and discount in float32, which also in JAX's 64-bit mode is what networks and replay take."""
    reward, discount = (jnp.asarray(leaf, jnp.float32) for leaf in (timestep.reward, timestep.discount))
    return cast(TimeStep[Observation], timestep.replace(reward=reward, discount=discount))  # type: ignore[attr-defined]
