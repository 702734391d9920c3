"""Uniform replay of single transitions, kept as compact states.

A ring of our own, not flashbax's, for two reasons, measured on one core with QTRAN-base on the 3x3 game
and 128 seeds. Flashbax's sampling (two bounded integers, four key splits) took 11 % of an iteration,
because threefry is dear on CPUs; here it is one draw of random bits. And every transition is one row of
bytes: a sample is one gather, where three arrays needed three and were copied whole in every iteration.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jumanji.types import TimeStep

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Transition
from jaxmarl_fac.memory.base import Buffer
from jaxmarl_fac.memory.packing import (
    from_bytes,
    pack_transition,
    to_bytes,
    transition_example,
    tree_bytes,
    widened,
)


@dataclasses.dataclass(frozen=True)
class Replay:
    """A uniform replay buffer for one seed, as pure functions over its arrays `(size, ...)`.

    What is stored of a step is the state before it, the actions, the reward, the discount and the
    state after it (before any reset), all without PRNG keys; observations are recomputed when sampled.
    For a stateless game no states are stored at all.

    Args:
        capacity: transitions to keep, rounded up to a multiple of `num_envs`.
        batch_size: transitions in a sample.
        num_envs: E, transitions that are added at a time.
        newest: so many of the newest transitions follow the `batch_size` drawn ones in every sample, the
            newest first, and from the start again while there are fewer.
    """

    capacity: int
    batch_size: int
    num_envs: int = 1
    newest: int = 0

    @property
    def slots(self) -> int:
        """Transitions of each environment that are kept."""
        return -(-self.capacity // self.num_envs)

    @property
    def size(self) -> int:
        """Transitions kept."""
        return self.slots * self.num_envs

    def bytes_per_transition(self, env: TeamEnvironment) -> int:
        """Bytes that one transition takes."""
        return tree_bytes(transition_example(env))

    def init(self, env: TeamEnvironment) -> Buffer:
        """An empty buffer: `(size, bytes)` uint8."""
        return jnp.zeros((self.size, self.bytes_per_transition(env)), jnp.uint8)

    def add(
        self,
        env: TeamEnvironment,
        buffer: Buffer,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Buffer:
        """Store one step of each environment; see `Memory`."""
        rows = jax.vmap(lambda *step: to_bytes(pack_transition(env, *step)))(
            states, actions, timesteps, after
        )
        place = additions % self.slots * self.num_envs  # the product alone could wrap
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, place, 0)

    def sample(
        self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array
    ) -> Transition:
        """A batch drawn uniformly with replacement from what `additions` have stored, and the newest.

        For its axes see `Transition`.
        """
        filled = (jnp.minimum(additions, self.slots) * self.num_envs).astype(jnp.uint32)
        # Reducing 32 random bits modulo at most a million favours some items by less than 1 in 4,000.
        places = (jax.random.bits(key, (self.batch_size,)) % filled).astype(jnp.int32)
        if self.newest:
            last = additions % self.slots * self.num_envs - 1
            newest = (last - jnp.arange(self.newest)) % filled.astype(jnp.int32)
            places = jnp.concatenate([places, newest])
        return unpack_transitions(
            env, jax.vmap(lambda row: from_bytes(row, transition_example(env)))(buffer[places])
        )


def unpack_transitions(env: TeamEnvironment, items: dict[str, Any]) -> Transition:
    """Packed steps `(B, ...)` as a batch, with their observations recomputed."""
    discount = items["discount"].astype(jnp.float32)
    if env.stateless:
        # The one observation there is: any state shows it.
        before = after = env.observe(env.reset(jax.random.key(0))[0])
        if env.time_limit == 1:
            discount = jnp.zeros_like(discount)  # as it is; a constant spares what would follow
    else:
        before, after = jax.vmap(env.observe)(items["state"]), jax.vmap(env.observe)(items["next_state"])
    return Transition(before, widened(items["actions"]), items["reward"], discount, after)
