"""Uniform replay of whole episodes, kept as compact states."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jumanji.types import TimeStep

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Trajectory
from jaxmarl_fac.memory.packing import from_bytes, pack_step, step_example, to_bytes, tree_bytes, widened


@struct.dataclass
class Episodes:
    """What `EpisodeReplay` keeps. A slot holds one episode; every environment has slots of its own."""

    rows: jax.Array  # (E, slots, T + 1, bytes) uint8: one step each; the last one's state ends the episode
    lengths: jax.Array  # (E, slots) int32, steps of the episode in each slot
    steps: jax.Array  # (E,) int32, steps so far of the episode that each environment is in
    finished: jax.Array  # (E,) int32, episodes that each environment has ended


@dataclasses.dataclass(frozen=True)
class EpisodeReplay:
    """A uniform replay buffer of whole episodes for one seed.

    Environments step side by side and end their episodes when they do: each writes into a slot of its
    own, and its next slot holds its oldest episode. Only episodes that are over are sampled. States are
    kept once, as `Replay` does without keys, and observations are recomputed.

    Args:
        capacity: episodes to keep, besides those that are being played; rounded up to a multiple of E.
        batch_size: episodes in a sample.
        num_envs: E.
        time_limit: T, steps of the longest episode.
        recent: how many of the newest episodes the recent part of a batch is drawn from, rounded up to
            a multiple of E.
        recent_fraction: share of a batch that is drawn from those.
    """

    capacity: int
    batch_size: int
    num_envs: int
    time_limit: int
    recent: int = 0
    recent_fraction: float = 0.0

    @property
    def slots(self) -> int:
        """Slots of each environment; one of them is being written."""
        return -(-self.capacity // self.num_envs) + 1

    def init(self, env: TeamEnvironment) -> Episodes:
        """No episodes."""
        width = tree_bytes(step_example(env))
        nothing = jnp.zeros((self.num_envs,), jnp.int32)
        return Episodes(
            rows=jnp.zeros((self.num_envs, self.slots, self.time_limit + 1, width), jnp.uint8),
            lengths=jnp.zeros((self.num_envs, self.slots), jnp.int32),
            steps=nothing,
            finished=nothing,
        )

    def add(
        self,
        env: TeamEnvironment,
        buffer: Episodes,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Episodes:
        """Store one step of each environment; see `Memory`."""

        def rows_of(state: Any, actions: jax.Array, timestep: TimeStep, after: Any) -> jax.Array:
            step = to_bytes(pack_step(env, state, actions, timestep))
            return jnp.stack([step, to_bytes(pack_step(env, after, actions, timestep))])  # (2, bytes)

        rows = jax.vmap(rows_of)(states, actions, timesteps, after)  # (E, 2, bytes)
        slot = buffer.finished % self.slots  # (E,)
        # The state after the step is written too, and overwritten by the next step if there is one.
        place = jnp.stack([buffer.steps, buffer.steps + 1], axis=1)  # (E, 2)
        each = jnp.arange(self.num_envs)
        over = timesteps.last()
        return Episodes(
            rows=buffer.rows.at[each[:, None], slot[:, None], place].set(rows),
            lengths=buffer.lengths.at[each, slot].set(buffer.steps + 1),
            steps=jnp.where(over, 0, buffer.steps + 1),
            finished=buffer.finished + over,
        )

    def sample(
        self, env: TeamEnvironment, buffer: Episodes, additions: jax.Array, key: jax.Array
    ) -> Trajectory:
        """A batch drawn with replacement: part of it from the newest episodes, the rest from all kept."""
        kept = jnp.minimum(buffer.finished, self.slots - 1)  # (E,)
        newest = jnp.minimum(kept, max(1, -(-self.recent // self.num_envs)))
        recent = jnp.arange(self.batch_size) < round(self.recent_fraction * self.batch_size)  # (B,)
        bits = jax.random.bits(key, (self.batch_size,))

        def draw(bits: jax.Array, recent: jax.Array) -> Trajectory:
            ends = jnp.cumsum(jnp.where(recent, newest, kept))  # (E,)
            index = (bits % jnp.maximum(ends[-1], 1).astype(jnp.uint32)).astype(jnp.int32)
            each = jnp.searchsorted(ends, index, side="right")
            back = ends[each] - index  # 1 is this environment's last finished episode
            slot = (buffer.finished[each] - back) % self.slots
            return self._trajectory(env, buffer.rows[each, slot], buffer.lengths[each, slot])

        return jax.vmap(draw)(bits, recent)

    def _trajectory(self, env: TeamEnvironment, rows: jax.Array, length: jax.Array) -> Trajectory:
        """The episode in the rows `(T + 1, bytes)`, of which `length` are steps."""
        # What lies behind the end is left from an older episode: the last state stands in for it.
        rows = rows[jnp.minimum(jnp.arange(self.time_limit + 1), length)]
        items = jax.vmap(lambda row: from_bytes(row, step_example(env)))(rows)
        mask = jnp.arange(self.time_limit) < length  # (T,)

        def steps(leaf: jax.Array) -> jax.Array:
            """The first T entries, with zeros after the episode's end."""
            return jnp.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)), leaf[:-1], 0)

        return Trajectory(
            observation=jax.vmap(env.observe)(items["state"]),
            actions=steps(widened(items["actions"])),
            reward=steps(items["reward"]),
            discount=steps(items["discount"]).astype(jnp.float32),
            mask=mask.astype(jnp.float32),
        )
