"""Replay of single transitions, kept as compact environment states.

A ring of our own, not flashbax's, for two reasons, measured on one core with QTRAN-base on the 3x3 game
and 128 seeds. Flashbax's sampling (two bounded integers, four key splits) took 11 % of an iteration,
because threefry is dear on CPUs; here it is one draw of random bits. And every transition is one row of
bytes: a sample is one gather, where three arrays needed three and were copied whole in every iteration.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jumanji.types import TimeStep

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Transition

Buffer = jax.Array


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
    """

    capacity: int
    batch_size: int
    num_envs: int = 1

    @property
    def size(self) -> int:
        """Transitions kept."""
        return -(-self.capacity // self.num_envs) * self.num_envs

    def bytes_per_transition(self, env: TeamEnvironment) -> int:
        """Bytes that one transition takes."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self._example(env)))

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
        """Store one step of each environment, over the oldest ones where the buffer is full.

        Args:
            env: the game.
            buffer: to add to.
            additions: `()`, how often something was added before; the same for all seeds.
            states: before the step, as all that follows with a leading axis `(E,)`.
            actions: joint actions.
            timesteps: what the environments answered.
            after: the states that the steps led to.
        """
        rows = jax.vmap(lambda *step: _to_bytes(_pack(env, *step)))(states, actions, timesteps, after)
        place = (additions * self.num_envs) % self.size
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, place, 0)

    def sample(
        self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array
    ) -> Transition:
        """A batch drawn uniformly with replacement from what `additions` have stored.

        For its axes see `Transition`.
        """
        filled = jnp.minimum(additions * self.num_envs, self.size).astype(jnp.uint32)
        # Reducing 32 random bits modulo at most a million favours some items by less than 1 in 4,000.
        places = (jax.random.bits(key, (self.batch_size,)) % filled).astype(jnp.int32)
        items = jax.vmap(lambda row: _from_bytes(row, self._example(env)))(buffer[places])
        if env.stateless:
            # The one observation there is: any state shows it.
            before = after = env.observe(env.reset(key)[0])
        else:
            before, after = jax.vmap(env.observe)(items["state"]), jax.vmap(env.observe)(items["next_state"])
        return Transition(
            before,
            items["actions"].astype(jnp.int32),
            items["reward"],
            items["discount"].astype(jnp.float32),
            after,
        )

    def _example(self, env: TeamEnvironment) -> Any:
        def first(key: jax.Array) -> Any:
            state, timestep = env.reset(key)
            return _pack(env, state, jnp.zeros((env.num_agents,), jnp.int32), timestep, state)

        return jax.eval_shape(first, jax.random.key(0))


def _pack(
    env: TeamEnvironment, state: Any, actions: jax.Array, timestep: TimeStep, after: Any
) -> dict[str, Any]:
    """One step in as few bytes as it can be kept in."""
    kept = {} if env.stateless else {"state": state.replace(key=None), "next_state": after.replace(key=None)}
    return {
        **kept,
        "actions": actions.astype(jnp.int8),
        "reward": jnp.asarray(timestep.reward, jnp.float32),
        "discount": timestep.discount.astype(jnp.int8),
    }


def _to_bytes(tree: Any) -> jax.Array:
    """All leaves after each other, `(bytes,)` uint8."""
    leaves = [leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate([jax.lax.bitcast_convert_type(leaf, jnp.uint8).reshape(-1) for leaf in leaves])


def _from_bytes(row: jax.Array, example: Any) -> Any:
    """The inverse of `_to_bytes`, for a tree like `example`."""
    leaves, treedef = jax.tree.flatten(example)
    ends = np.cumsum([leaf.size * leaf.dtype.itemsize for leaf in leaves])
    parts = jnp.split(row, ends[:-1])
    return jax.tree.unflatten(treedef, [_from_part(*pair) for pair in zip(parts, leaves, strict=True)])


def _from_part(part: jax.Array, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if leaf.dtype == bool:
        return part.reshape(leaf.shape).astype(bool)
    width = leaf.dtype.itemsize
    shape = leaf.shape if width == 1 else (*leaf.shape, width)
    return jax.lax.bitcast_convert_type(part.reshape(shape), leaf.dtype)
