"""Whole episodes, drawn uniformly from the last ones."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs.base import TeamEnvironment
from jaxmarl_fac.experience import Step, Trajectory
from jaxmarl_fac.memory.packing import pack, widen
from jaxmarl_fac.memory.rows import Rows, in_place
from jaxmarl_fac.memory.transitions import check_replay


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Uniform replay of whole episodes: batches `(B,)` of trajectories padded to the time limit.

    Only episodes that are over are drawn, with replacement.

    Attributes:
        capacity: episodes to keep, besides those that are being played; rounded up to a multiple of E.
        batch_size: B, episodes in a batch.
        recent: how many of the newest episodes the recent part of a batch is drawn from, rounded up to a
            multiple of E.
        recent_fraction: share of a batch that is drawn from those.

    Raises:
        BadInputError: if a batch is larger than the replay.
    """

    capacity: int
    batch_size: int
    recent: int = 0
    recent_fraction: float = 0.0

    period = 1
    resets_take_a_row = False

    def __post_init__(self) -> None:
        check_replay(self.capacity, self.batch_size)

    def warmup(self, time_limit: int) -> int:
        """Until the longest first episode is over."""
        return time_limit - 1

    def bind(
        self, env: TeamEnvironment, example: Step, num_envs: int, iterations: int, reset_rows: bool = False
    ) -> "EpisodeRing":
        """A ring of episodes for each environment."""
        kept = min(self.capacity, iterations * num_envs)  # an episode has a step at least
        return EpisodeRing(env, example, num_envs, -(-kept // num_envs) + 1, self)


@struct.dataclass
class EpisodeBuffer:
    """A slot holds one episode; every environment has slots of its own, one of which is being written."""

    rows: jax.Array  # (E, R, 128), T + 1 steps in each slot; the last one's state ends the episode
    lengths: jax.Array  # (E, slots) int32, steps of the episode in each slot
    steps: jax.Array  # (E,) int32, steps so far of the episode that each environment is in
    finished: jax.Array  # (E,) int32, episodes that each environment has ended


class EpisodeRing:
    """Functions over an `EpisodeBuffer`; see `memory.base.Store`.

    Environments end their episodes at different times: each writes into a slot of its own, and its next slot
    holds its oldest episode. States are kept once, and observations are recomputed.

    Args:
        env: the game.
        example: shapes and dtypes of one step.
        num_envs: E.
        slots: of each environment.
        memory: how batches are drawn.
    """

    def __init__(self, env: TeamEnvironment, example: Step, num_envs: int, slots: int, memory: Episodes):
        self._env, self._num_envs, self.slots, self._memory = env, num_envs, slots, memory
        self._time_limit = env.time_limit
        self.rows = Rows(jax.eval_shape(lambda step: pack(env, step), example))
        #: Steps that a slot has room for.
        self._room = self.rows.count(self._time_limit + 1) * self.rows.per_row // self.rows.height

    def init(self) -> EpisodeBuffer:
        """Nothing stored."""
        nothing = jnp.zeros((self._num_envs,), jnp.int32)
        return EpisodeBuffer(
            rows=self.rows.init(self._num_envs, steps=self.slots * self._room),
            lengths=jnp.zeros((self._num_envs, self.slots), jnp.int32),
            steps=nothing,
            finished=nothing,
        )

    def add(self, buffer: EpisodeBuffer, additions: jax.Array, steps: Step) -> EpisodeBuffer:
        """Store one step of each environment; resets leave the buffer as it is."""

        def write(rows: jax.Array, place: jax.Array, step: Step) -> jax.Array:
            # The state after the step is written too, and overwritten by the next step if there is one. A
            # reset's row is overwritten by the first step of the episode.
            rows = self.rows.write(rows, place, pack(self._env, step))
            return self.rows.write(rows, place + 1, pack(self._env, step._replace(state=step.next_state)))

        slot = buffer.finished % self.slots  # (E,)
        each = jnp.arange(self._num_envs)
        taken = buffer.steps + steps.mask  # (E,)
        over = steps.last & steps.mask
        return EpisodeBuffer(
            rows=in_place(jax.vmap(write)(in_place(buffer.rows), slot * self._room + buffer.steps, steps)),
            lengths=buffer.lengths.at[each, slot].set(taken),
            steps=jnp.where(over, 0, taken),
            finished=buffer.finished + over,
        )

    def sample(self, buffer: EpisodeBuffer, additions: jax.Array, key: jax.Array) -> Trajectory:
        """B episodes: part of them from the newest, the rest from all kept."""
        memory, batch_size = self._memory, self._memory.batch_size
        kept = jnp.minimum(buffer.finished, self.slots - 1)  # (E,)
        newest = jnp.minimum(kept, max(1, -(-memory.recent // self._num_envs)))
        recent = jnp.arange(batch_size) < round(memory.recent_fraction * batch_size)  # (B,)
        bits = jax.random.bits(key, (batch_size,))

        def draw(bits: jax.Array, recent: jax.Array) -> Trajectory:
            ends = jnp.cumsum(jnp.where(recent, newest, kept))  # (E,)
            index = (bits % jnp.maximum(ends[-1], 1).astype(jnp.uint32)).astype(jnp.int32)
            each = jnp.searchsorted(ends, index, side="right")
            back = ends[each] - index  # 1 is this environment's last finished episode
            slot = (buffer.finished[each] - back) % self.slots
            items = self.rows.read_range(buffer.rows, each, slot * self._room, self._time_limit + 1)
            return self._trajectory(items, buffer.lengths[each, slot])

        return jax.vmap(draw)(bits, recent)

    def _trajectory(self, items: dict[str, Any], length: jax.Array) -> Trajectory:
        """The episode in the items `(T + 1, ...)`, of which `length` are steps."""
        # What lies behind the end is left from an older episode: the last state stands in for it.
        places = jnp.arange(self._time_limit + 1)
        items = jax.tree.map(lambda leaf: leaf[jnp.minimum(places, length)], items)
        mask = places[:-1] < length  # (T,)

        def steps(leaf: jax.Array) -> jax.Array:
            """The first T entries, with zeros after the episode's end."""
            return jnp.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)), leaf[:-1], 0)

        return Trajectory(
            observation=jax.vmap(self._env.observe)(items["state"]),
            first=places == 0,
            carry=(),
            actions=steps(widen(items["actions"])),
            extras=jax.tree.map(steps, items["extras"]),
            reward=steps(items["reward"]),
            discount=steps(items["discount"]).astype(jnp.float32),
            mask=mask.astype(jnp.float32),
        )
