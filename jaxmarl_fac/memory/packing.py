"""Steps of experience as compact rows of bytes, and back to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jumanji.types import TimeStep

from envs.base import TeamEnvironment


def widened(actions: jax.Array) -> jax.Array:
    """Stored actions as learners take them: int32, or float32."""
    return actions if jnp.issubdtype(actions.dtype, jnp.floating) else actions.astype(jnp.int32)


def transition_example(env: TeamEnvironment) -> Any:
    """Shapes and dtypes of a packed transition."""
    state, actions, timestep = _first_step(env)
    return jax.eval_shape(lambda *step: pack_transition(env, *step), state, actions, timestep, state)


def step_example(env: TeamEnvironment) -> Any:
    """Shapes and dtypes of a packed step of an episode."""
    return jax.eval_shape(lambda *first: pack_step(env, *first), *_first_step(env))


def _first_step(env: TeamEnvironment) -> Any:
    """Shapes and dtypes of a state, a joint action and a time step."""
    discrete = env.num_actions > 0
    actions = jax.ShapeDtypeStruct((env.num_agents,), jnp.int32 if discrete else jnp.float32)
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    return state, actions, jax.eval_shape(env.step, state, actions)[1]


def pack_transition(
    env: TeamEnvironment, state: Any, actions: jax.Array, timestep: TimeStep, after: Any
) -> dict[str, Any]:
    """One transition in as few bytes as it can be kept in."""
    step = pack_step(env, state, actions, timestep)
    if env.stateless:
        del step["state"]
        return step
    return {**step, "next_state": after.replace(key=None)}


def pack_step(env: TeamEnvironment, state: Any, actions: jax.Array, timestep: TimeStep) -> dict[str, Any]:
    """One step, without the state that it leads to."""
    return {
        "state": state.replace(key=None),
        "actions": actions.astype(env.action_dtype),
        "reward": jnp.asarray(timestep.reward, jnp.float32),
        "discount": timestep.discount.astype(jnp.int8 if env.binary_discounts else jnp.float32),
    }


def tree_bytes(tree: Any) -> int:
    """Bytes that the arrays of a tree take, which may be known by shape only."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def to_bytes(tree: Any) -> jax.Array:
    """All leaves after each other, `(bytes,)` uint8."""
    leaves = [leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate([jax.lax.bitcast_convert_type(leaf, jnp.uint8).reshape(-1) for leaf in leaves])


def from_bytes(row: jax.Array, example: Any) -> Any:
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
