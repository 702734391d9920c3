"""Single transitions, drawn uniformly from the last ones or taken as they come.

A ring of our own, not flashbax's: its sampling (two bounded integers, four key splits) took 11 % of an
iteration of QTRAN-base on the 3x3 game (128 seeds, one core), because threefry is slow on CPUs. Here it is
one draw of random bits.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.experience import Step, Trajectory
from jaxmarl_fac.memory.packing import (
    discounts,
    from_bytes,
    only_observation,
    pack,
    to_bytes,
    tree_bytes,
    widen,
)


@dataclasses.dataclass(frozen=True)
class Transitions:
    """Uniform replay of transitions: batches `(B,)` of trajectories with T = 1.

    Attributes:
        capacity: transitions to keep, rounded up to a multiple of E.
        batch_size: B, transitions in a batch.

    Raises:
        BadInputError: if a batch is larger than the replay.
    """

    capacity: int
    batch_size: int

    period = 1
    resets_take_a_row = False

    def __post_init__(self) -> None:
        check_replay(self.capacity, self.batch_size)

    def warmup(self, time_limit: int) -> int:
        """None."""
        return 0

    def bind(
        self, env: TeamEnvironment, example: Step, num_envs: int, iterations: int, reset_rows: bool = False
    ) -> "Ring":
        """A ring of rows."""
        slots = -(-min(self.capacity, iterations * num_envs) // num_envs)
        return Ring(env, example, num_envs, slots, self.batch_size, newest=False, reset_rows=reset_rows)


@dataclasses.dataclass(frozen=True)
class Newest:
    """The newest transitions, the last one first, and from the start again while there are fewer.

    Attributes:
        batch_size: B, how many.
    """

    batch_size: int

    period = 1
    resets_take_a_row = False

    def warmup(self, time_limit: int) -> int:
        """None."""
        return 0

    def bind(
        self, env: TeamEnvironment, example: Step, num_envs: int, iterations: int, reset_rows: bool = False
    ) -> "Ring":
        """A ring that holds no more than a batch."""
        slots = -(-self.batch_size // num_envs)
        return Ring(env, example, num_envs, slots, self.batch_size, newest=True, reset_rows=reset_rows)


class Ring:
    """A buffer `(slots * E, bytes)` uint8 of transitions; see `memory.base.Store`.

    Stored of a step are the state before it, the actions, what came with them, the reward, the discount and
    the state after it (before any reset). For a stateless game no states are stored at all.

    Args:
        env: the game.
        example: shapes and dtypes of one step.
        num_envs: E, transitions that are added at a time.
        slots: transitions of each environment that are kept.
        batch_size: B.
        newest: whether a batch is the newest transitions, or drawn with replacement.
        reset_rows: whether some steps are resets, which are stored too, with mask 0.
    """

    def __init__(
        self,
        env: TeamEnvironment,
        example: Step,
        num_envs: int,
        slots: int,
        batch_size: int,
        *,
        newest: bool,
        reset_rows: bool,
    ):
        self._env, self._num_envs, self.slots = env, num_envs, slots
        self._batch_size, self._newest, self._reset_rows = batch_size, newest, reset_rows
        self._example = jax.eval_shape(self._pack, example)

    @property
    def size(self) -> int:
        """Transitions kept."""
        return self.slots * self._num_envs

    @property
    def bytes_per_transition(self) -> int:
        """Bytes that one transition takes."""
        return tree_bytes(self._example)

    def init(self) -> jax.Array:
        """Nothing stored."""
        return jnp.zeros((self.size, self.bytes_per_transition), jnp.uint8)

    def add(self, buffer: jax.Array, additions: jax.Array, steps: Step) -> jax.Array:
        """Store one step of each environment over the oldest ones."""
        rows = jax.vmap(lambda step: to_bytes(self._pack(step)))(steps)
        place = additions % self.slots * self._num_envs  # the product alone could wrap
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, place, 0)

    def sample(self, buffer: jax.Array, additions: jax.Array, key: jax.Array) -> Trajectory:
        """B transitions as trajectories with T = 1."""
        filled = jnp.minimum(additions, self.slots) * self._num_envs
        if self._newest:
            last = additions % self.slots * self._num_envs - 1
            places = (last - jnp.arange(self._batch_size)) % filled.astype(jnp.int32)
        else:
            # Reducing 32 random bits modulo at most a million favours some items by less than 1 in 4,000.
            bits = jax.random.bits(key, (self._batch_size,))
            places = (bits % filled.astype(jnp.uint32)).astype(jnp.int32)
        return self._trajectories(jax.vmap(self.unpack)(buffer[places]))

    def unpack(self, row: jax.Array) -> dict[str, Any]:
        """What a row `(bytes,)` holds, by name."""
        unpacked: dict[str, Any] = from_bytes(row, self._example)
        return unpacked

    def _pack(self, step: Step) -> dict[str, Any]:
        states = not self._env.stateless
        packed = pack(self._env, step, state=states, next_state=states)
        return {**packed, "mask": step.mask} if self._reset_rows else packed

    def _trajectories(self, rows: dict[str, Any]) -> Trajectory:
        """Unpacked rows `(B, ...)` as a batch."""
        env = self._env
        if env.stateless:
            observation = only_observation(env, 2)
        else:
            before, after = jax.vmap(env.observe)(rows["state"]), jax.vmap(env.observe)(rows["next_state"])
            observation = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), before, after)
        one = lambda leaf: leaf[:, None]  # noqa: E731  the axis of T = 1
        reward = rows["reward"]
        mask = rows["mask"].astype(jnp.float32) if self._reset_rows else jnp.ones(reward.shape[0])
        return Trajectory(
            observation=observation,
            first=jnp.zeros((reward.shape[0], 2), bool),
            carry=(),
            actions=one(widen(rows["actions"])),
            extras=jax.tree.map(one, rows["extras"]),
            reward=one(reward),
            discount=one(discounts(env, rows["discount"])),
            mask=one(mask),
        )


def check_replay(capacity: int, batch_size: int) -> None:
    """Refuse a replay that is smaller than a batch.

    Raises:
        BadInputError: if it is.
    """
    if capacity < batch_size:
        raise BadInputError(f"replay_size must be at least batch_size ({batch_size}), not {capacity}")
