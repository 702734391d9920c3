"""What an algorithm is to the loop: what it consumes, acts with, learns and remembers."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.settings import Settings

Params = Any
Metrics = dict[str, jax.Array]


class Transition(NamedTuple):
    """One step of experience; a batch of them has a leading axis `(B, ...)` on every leaf.

    In a stateless game the observations carry no batch axis: they are the same for every sample.
    """

    observation: Observation
    actions: jax.Array  # (n,) int32, or float32 where actions are numbers
    reward: jax.Array  # (), or (n,) in a game with a reward per agent
    discount: jax.Array  # (), 0 after a termination, else 1
    next_observation: Observation


class Trajectory(NamedTuple):
    """One whole episode, padded to T steps; a batch of them has a leading axis `(B, ...)` on every leaf.

    After the episode's end `mask` is 0 and all else is of no meaning. The last observation of an episode
    of t steps is number t: `observation` has one more entry than there are steps.
    """

    observation: Observation  # (T + 1, ...)
    actions: jax.Array  # (T, n)
    reward: jax.Array  # (T,), or (T, n)
    discount: jax.Array  # (T,), 0 after a termination, else 1
    mask: jax.Array  # (T,) float32, 1 for the steps of the episode


@struct.dataclass
class LearnerState:
    """All that learning changes; `()` where an algorithm has no such part.

    In JAX's 64-bit mode tables are float64, while networks and their optimisers stay in float32.
    """

    params: Params  # what acting needs, and more
    target_params: Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(Settings, abc.ABC):
    """What the loop asks of an algorithm: pure functions over a frozen configuration.

    What is a class variable here, a subclass may turn into a setting.
    """

    #: What `update` is given: "transitions" or whole "episodes" drawn from replay (a `batch_size` of the
    #: last `replay_size`), or "latest": the transition that each environment has just made.
    consumes: ClassVar[Literal["transitions", "episodes", "latest"]]
    #: Environment steps before the first update.
    learning_starts: ClassVar[int] = 0
    #: Updates between the loop's copies of `params` to `target_params`; 0 leaves them to `update`.
    target_period: ClassVar[int] = 0
    #: Steps of the environments between updates.
    update_period: ClassVar[int] = 1
    #: True if the algorithm can play games with a reward per agent.
    general_sum: ClassVar[bool] = False

    def check(self, env: TeamEnvironment) -> None:
        """Refuse an environment that the algorithm cannot play.

        Raises:
            BadInputError: saying why.
        """
        if env.num_actions == 0:
            raise BadInputError(
                f"{type(self).__name__} chooses among discrete actions, which {type(env).__name__} has not: "
                "take an algorithm for continuous actions"
            )
        if env.reward_spec.shape and not self.general_sum:
            raise BadInputError(
                f"{type(self).__name__} learns from a reward of the whole team, and {type(env).__name__} "
                "has one per agent: take an algorithm for general-sum games"
            )

    @abc.abstractmethod
    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """A fresh learner."""

    def initial_carry(self, env: TeamEnvironment) -> Any:
        """What the agents remember within an episode, at its start."""
        return ()

    @abc.abstractmethod
    def act(
        self,
        env: TeamEnvironment,
        params: Params,
        carry: Any,
        observation: Observation,
        epsilon: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Actions `(n,)` with exploration, and what is remembered."""

    @abc.abstractmethod
    def act_greedily(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Any]:
        """Actions `(n,)` without exploration, ties to the lowest index, and what is remembered."""

    def epsilon(self, env_steps: jax.Array) -> jax.Array:
        """Exploration `()` after so many environment steps."""
        return jnp.zeros(())

    @abc.abstractmethod
    def update(
        self, env: TeamEnvironment, learner: LearnerState, batch: Any, progress: jax.Array, key: jax.Array
    ) -> tuple[LearnerState, Metrics]:
        """Learn from a batch; `progress ()` in [0, 1] says how much of training is done."""


def check_replay(replay_size: int, batch_size: int) -> None:
    """Refuse a replay that is smaller than a batch.

    Raises:
        BadInputError: if it is.
    """
    if replay_size < batch_size:
        raise BadInputError(f"replay_size must be at least batch_size ({batch_size}), not {replay_size}")
