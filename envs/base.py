"""The base class of all environments: a Jumanji environment for teams."""

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
    """The smallest signed integer type that holds -1 to `largest`, since replay stores states in it.

    Raises:
        BadInputError: if `largest` does not fit into 32 bits.
    """
    for kind in (jnp.int8, jnp.int16, jnp.int32):
        if largest <= np.iinfo(kind).max:
            return kind
    raise BadInputError(f"a state would hold {largest}, which does not fit into 32 bits")


class Observation(NamedTuple):
    """The observation of one state, for the agents and the centralised learner.

    Shapes: `n` agents, `O` features per agent, `S` features of the global state, `A` actions per
    agent (for agents with fewer actions the remaining ones are masked), `P` features that all agents see.
    Games without public observations leave the last two out.
    """

    agents_view: jax.Array  # (n, O) float32
    global_state: jax.Array  # (S,) float32
    action_mask: jax.Array  # (n, A) bool, True where the action is available
    step_count: jax.Array  # () int32
    public_view: jax.Array | None = None  # (P,) float32, what every agent sees, and knows that all see
    private: jax.Array | None = None  # (n,) int32, the number of what only agent i sees


class TeamEnvironment(Environment[Any, specs.MultiDiscreteArray, Observation]):
    """A cooperative game of `n` agents with discrete actions, as pure functions.

    A subclass is a `flax.struct.dataclass(eq=False)`: shapes are static fields, and parameters that a
    study varies (payoffs, penalties) are array leaves, so that `jax.vmap` over an environment is a
    batch of games. The state is a `flax.struct.dataclass` with a field `key`; `observe` reads only the
    other fields, which have the smallest possible dtypes because replay stores them.
    """

    # Shapes and properties read by the engine. Subclasses set them as fields or properties.
    num_agents: int
    num_actions: int
    #: Maximum number of steps in an episode.
    time_limit: int
    #: True if all observations of the game are identical: utilities are then computed once per update. With a
    #: `time_limit` of 1 the only step terminates the episode, so there is no next state to bootstrap from.
    stateless: bool = False
    #: True if every agent sees the whole state (QTRAN's Theorem 1a: V_jt may be left out).
    fully_observable: bool = False
    #: True if an agent's view is the one-hot index of its observation, as tabular learners need.
    one_hot_views: bool = False
    #: True if every step's discount is 0 or 1, as `next_timestep` sets it: replay then stores it in one byte.
    binary_discounts: bool = False
    #: Options of each agent; 0 in a game that has none.
    num_options: int = 0
    #: How many different things an agent may see in private; 0 in games without public observations.
    num_private: int = 0

    @abc.abstractmethod
    def observe(self, state: Any) -> Observation:
        """The observation of `state`. Must not read `state.key`, which is None for states from replay."""

    def return_lower_bound(self, gamma: float | jax.Array) -> jax.Array | None:
        """A lower bound `()`, at most 0, on all discounted returns; None if the game has none.

        Tabular games provide one. Learners whose values only increase are initialised with it.
        """
        return None

    def hidden_model(self) -> Any:
        """The tables of a finite game with hidden state, a `HiddenModel`; None for all others."""
        return None

    def optimal_return(self) -> float | None:
        """The largest expected return of an episode, undiscounted; None where it is not known.

        It is that of a team that sees the whole state: agents that see less may be unable to reach it.
        Comparisons of algorithms measure returns by it.
        """
        return None

    def best_reward_of_worst_action(self, agent: int) -> jax.Array:
        """The best noiseless reward `()` of an agent's worst action in any state; at most 0.

        Tabular games compute it, others return 0. Learners that count how often an action's best reward
        occurred (FMQ) measure rewards relative to it.
        """
        return jnp.zeros(())

    def option_priors(self, observation: Observation) -> jax.Array:
        """The prior probabilities of every agent's actions under each of its options, `(n, m, A)`.

        Raises:
            NotImplementedError: in a game without options.
        """
        raise NotImplementedError(f"{type(self).__name__} has no options")

    # Jumanji closes environments on garbage collection; pure functions hold no resources.
    def close(self) -> None:
        """Do nothing."""

    # Jumanji's specs compare their bounds with `if`: they are evaluated at compile time, so that they can be
    # read inside a jitted function too.

    @cached_property
    def observation_shapes(self) -> Observation:
        """Shapes and dtypes of an `Observation`, found by tracing one reset."""
        shapes: Observation = jax.eval_shape(lambda key: self.observe(self.reset(key)[0]), jax.random.key(0))
        return shapes

    @cached_property
    def observation_spec(self) -> specs.Spec[Observation]:
        """Shapes, dtypes and bounds of an `Observation`."""
        shapes = self.observation_shapes
        with jax.ensure_compile_time_eval():
            public = None
            if shapes.public_view is not None:
                public = specs.Array(shapes.public_view.shape, jnp.float32, "public_view")
            private = None
            if shapes.private is not None:
                private = specs.BoundedArray(
                    shapes.private.shape, jnp.int32, 0, self.num_private - 1, "private"
                )
            return specs.Spec(
                Observation,
                "ObservationSpec",
                agents_view=specs.Array(shapes.agents_view.shape, jnp.float32, "agents_view"),
                global_state=specs.Array(shapes.global_state.shape, jnp.float32, "global_state"),
                action_mask=specs.BoundedArray(shapes.action_mask.shape, bool, False, True, "action_mask"),
                step_count=specs.BoundedArray((), jnp.int32, 0, self.time_limit, "step_count"),
                # None, as in the observation: a tree without leaves.
                public_view=public,  # type: ignore[arg-type]
                private=private,  # type: ignore[arg-type]
            )

    @cached_property
    def action_spec(self) -> specs.MultiDiscreteArray:
        """One action per agent, each below `num_actions`."""
        with jax.ensure_compile_time_eval():
            return specs.MultiDiscreteArray(jnp.full((self.num_agents,), self.num_actions), name="actions")

    @property
    def action_dtype(self) -> Any:
        """The smallest integer type that holds every action and -1 (none); float32 for continuous actions."""
        return compact_dtype(self.num_actions - 1) if self.num_actions else jnp.float32

    @cached_property
    def discount_spec(self) -> specs.BoundedArray:
        """A discount between 0 (terminated) and 1."""
        with jax.ensure_compile_time_eval():
            return specs.BoundedArray((), float, minimum=0.0, maximum=1.0, name="discount")

    # Time steps, with termination (the game is over) and truncation (time is up) kept apart.

    def first_timestep(self, state: Any) -> TimeStep[Observation]:
        """The time step of a fresh state.

        Raises:
            BadInputError: if the state's step counter cannot hold the time limit.
        """
        steps = getattr(state, "step_count", None)
        if steps is not None and self.time_limit > np.iinfo(steps.dtype).max:
            raise BadInputError(
                f"the time_limit of {type(self).__name__} must be at most {np.iinfo(steps.dtype).max}, "
                f"not {self.time_limit}"
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
    """Cast reward and discount to float32, the dtype of networks and replay even in JAX's 64-bit mode."""
    reward, discount = (jnp.asarray(leaf, jnp.float32) for leaf in (timestep.reward, timestep.discount))
    return cast(TimeStep[Observation], timestep.replace(reward=reward, discount=discount))  # type: ignore[attr-defined]
