"""Steps as rows of bytes: compact states without PRNG keys, from which observations are recomputed.

One row of bytes, because a sample is then one gather: three arrays needed three, and were copied whole in
every iteration (QTRAN-base on the 3x3 game, 128 seeds, one core).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import TeamEnvironment
from jaxmarl_fac.experience import Step


def pack(env: TeamEnvironment, step: Step, *, state: bool = True, next_state: bool = False) -> dict[str, Any]:
    """One step in the smallest dtypes that hold it, with the states before and after it if asked."""
    packed = {
        "actions": step.actions.astype(env.action_dtype),
        "extras": step.extras,
        "reward": jnp.asarray(step.reward, jnp.float32),
        "discount": step.discount.astype(jnp.int8 if env.binary_discounts else jnp.float32),
    }
    if state:
        packed["state"] = step.state.replace(key=None)
    if next_state:
        packed["next_state"] = step.next_state.replace(key=None)
    return packed


def plain_step(env: TeamEnvironment) -> Step:
    """Shapes and dtypes of a step of agents that remember nothing and store nothing with their actions."""
    actions = jnp.zeros((env.num_agents,), jnp.int32 if env.num_actions else jnp.float32)

    def step(key: jax.Array) -> Step:
        state, _ = env.reset(key)
        after, timestep = env.step(state, actions)
        last = timestep.last()
        return Step(state, (), actions, (), timestep.reward, timestep.discount, last, last, after)

    example: Step = jax.eval_shape(step, jax.random.key(0))
    return example


def widen(actions: jax.Array) -> jax.Array:
    """Actions as algorithms take them: int32, or numbers as they are."""
    return actions if jnp.issubdtype(actions.dtype, jnp.floating) else actions.astype(jnp.int32)


def only_observation(env: TeamEnvironment, length: int) -> Any:
    """The observation of a stateless game, repeated: leaves `(length, ...)` without a batch axis."""
    observation = env.observe(env.reset(jax.random.key(0))[0])
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * length), observation)


def discounts(env: TeamEnvironment, packed: jax.Array) -> jax.Array:
    """Discounts in float32; constant zeros in games of one step, which spares what would follow."""
    unpacked = packed.astype(jnp.float32)
    return jnp.zeros_like(unpacked) if env.stateless and env.time_limit == 1 else unpacked


def tree_bytes(tree: Any) -> int:
    """Bytes that the arrays of a tree take, which may be known by shape only."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def to_bytes(tree: Any) -> jax.Array:
    """All leaves after each other, `(bytes,)` uint8."""
    leaves = [leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate([jax.lax.bitcast_convert_type(leaf, jnp.uint8).reshape(-1) for leaf in leaves])


def from_bytes(row: jax.Array, example: Any) -> Any:
    """The inverse of `to_bytes`, for a tree like `example`."""
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
