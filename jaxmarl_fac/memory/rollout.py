"""What the environments have just done: pieces of experience that may run across episodes, each used once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.experience import Step, Trajectory
from jaxmarl_fac.memory.packing import discounts, only_observation, pack, widen


@dataclasses.dataclass(frozen=True)
class Rollout:
    """The last `length` steps of every environment: batches `(E,)`, one every `length` iterations.

    With a length of 1 it is the transition that each environment has just made. Longer ones run across the
    borders of episodes: there an environment spends one row, with mask 0, on being reset, so that step t
    always leads to observation t + 1.

    Attributes:
        length: T.

    Raises:
        BadInputError: for a length below 1.
    """

    length: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise BadInputError(f"the length of a rollout must be at least 1, not {self.length}")

    @property
    def period(self) -> int:
        """A rollout is used once."""
        return self.length

    @property
    def resets_take_a_row(self) -> bool:
        """Not for single transitions, which end where they end."""
        return self.length > 1

    def warmup(self, time_limit: int) -> int:
        """Until the first rollout is whole."""
        return self.length - 1

    def bind(
        self, env: TeamEnvironment, example: Step, num_envs: int, iterations: int, reset_rows: bool = False
    ) -> "RolloutStore":
        """Arrays `(E, T, ...)`."""
        return RolloutStore(env, example, num_envs, self.length, reset_rows)


@struct.dataclass
class RolloutBuffer:
    """The rollout that is being written."""

    steps: dict[str, Any]  # (E, T, ...), packed, without states
    states: Any  # (E, T + 1, ...); None in a stateless game
    mask: jax.Array  # (E, T) bool
    first: jax.Array  # (E, T + 1) bool
    carry: Any  # (E, ...), agent memory at observation 0
    fresh: jax.Array  # (E,) bool, the next step begins an episode


class RolloutStore:
    """Functions over a `RolloutBuffer`; see `memory.base.Store`.

    Args:
        env: the game.
        example: shapes and dtypes of one step.
        num_envs: E.
        length: T.
        reset_rows: whether some steps are resets.
    """

    def __init__(self, env: TeamEnvironment, example: Step, num_envs: int, length: int, reset_rows: bool):
        self._env, self._example, self._num_envs = env, example, num_envs
        self._length, self._reset_rows = length, reset_rows

    def init(self) -> RolloutBuffer:
        """Nothing stored."""
        step, (e, t) = self._example, (self._num_envs, self._length)

        def zeros(tree: Any, *shape: int) -> Any:
            return jax.tree.map(lambda leaf: jnp.zeros((*shape, *leaf.shape), leaf.dtype), tree)

        return RolloutBuffer(
            steps=zeros(jax.eval_shape(self._pack, step), e, t),
            states=None if self._env.stateless else zeros(step.state.replace(key=None), e, t + 1),
            mask=jnp.zeros((e, t), bool),
            first=jnp.zeros((e, t + 1), bool),
            carry=zeros(step.carry, e),
            fresh=jnp.ones((e,), bool),
        )

    def add(self, buffer: RolloutBuffer, additions: jax.Array, steps: Step) -> RolloutBuffer:
        """Write one step of each environment in the old one's place."""
        t = additions % self._length

        def put(old: Any, new: Any, place: jax.Array) -> Any:
            return jax.tree.map(lambda a, b: a.at[:, place].set(b), old, new)

        states = buffer.states
        if states is not None:
            states = put(states, steps.state.replace(key=None), t)
            states = put(states, steps.next_state.replace(key=None), t + 1)
        begun = ~steps.mask if self._reset_rows else jnp.zeros_like(buffer.fresh)  # at observation t + 1
        return RolloutBuffer(
            steps=put(buffer.steps, jax.vmap(self._pack)(steps), t),
            states=states,
            mask=put(buffer.mask, steps.mask, t),
            first=put(put(buffer.first, buffer.fresh, t), begun, t + 1),
            carry=jax.tree.map(lambda old, new: jnp.where(t == 0, new, old), buffer.carry, steps.carry),
            fresh=begun if self._reset_rows else steps.last,
        )

    def sample(self, buffer: RolloutBuffer, additions: jax.Array, key: jax.Array) -> Trajectory:
        """The rollouts of all E environments."""
        env = self._env
        if env.stateless:
            observation = only_observation(env, self._length + 1)
        else:
            observation = jax.vmap(jax.vmap(env.observe))(buffer.states)
        return Trajectory(
            observation=observation,
            first=buffer.first,
            carry=buffer.carry,
            actions=widen(buffer.steps["actions"]),
            extras=buffer.steps["extras"],
            reward=buffer.steps["reward"],
            discount=discounts(env, buffer.steps["discount"]),
            mask=buffer.mask.astype(jnp.float32),
        )

    def _pack(self, step: Step) -> dict[str, Any]:
        return pack(self._env, step, state=False)
