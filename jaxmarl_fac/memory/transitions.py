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
from jaxmarl_fac.memory.packing import discounts, only_observation, pack, widen
from jaxmarl_fac.memory.rows import Rows, in_place


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
    """A buffer `(E, R, 128)` of transitions, see `Rows`; and functions over it, see `memory.base.Store`.

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
        self.rows = Rows(jax.eval_shape(self._pack, example))

    @property
    def size(self) -> int:
        """Transitions kept."""
        return self.slots * self._num_envs

    @property
    def bytes_per_transition(self) -> int:
        """Bytes of what is kept of one transition."""
        return self.rows.step_bytes

    def init(self) -> jax.Array:
        """Nothing stored."""
        return self.rows.init(self._num_envs, steps=self.slots)

    def add(self, buffer: jax.Array, additions: jax.Array, steps: Step) -> jax.Array:
        """Store one step of each environment over the oldest ones."""
        write = jax.vmap(self.rows.write, (0, None, 0))
        return in_place(write(in_place(buffer), additions % self.slots, jax.vmap(self._pack)(steps)))

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
        return self._trajectories(self.transitions(buffer, places))

    def transitions(self, buffer: jax.Array, places: jax.Array) -> dict[str, Any]:
        """What is stored in places `(B,)`, of `slot * E + e` for environment e, by name."""

        def read(place: jax.Array) -> Any:
            slot = jax.lax.div(place, self._num_envs)
            return self.rows.read(buffer, place - slot * self._num_envs, slot)

        read_all: dict[str, Any] = jax.vmap(read)(places)
        return read_all

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
