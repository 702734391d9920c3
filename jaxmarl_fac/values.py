"""Values of actions: which may be taken, which is best, those that were chosen. Unbatched; callers vmap."""

import chex
import jax
import jax.numpy as jnp

#: Stands in for the value of an unavailable action before an argmax or a softmax, never in a mean.
UNAVAILABLE = -1e9


def mask_unavailable(utilities: jax.Array, action_mask: jax.Array) -> jax.Array:
    """Utilities `(n, A)` with `UNAVAILABLE` where the mask `(n, A)` is False."""
    chex.assert_equal_shape([utilities, action_mask])
    return jnp.where(action_mask, utilities, UNAVAILABLE)


def greedy_actions(masked_utilities: jax.Array) -> jax.Array:
    """Every agent's best action: `(n, A)` to `(n,)` int32. Ties go to the lowest index; NaN plays 0.

    XLA's CPU code for `jnp.argmax` of a few actions takes three times as long.
    """
    num_actions = masked_utilities.shape[-1]
    is_best = masked_utilities == jnp.max(masked_utilities, axis=-1, keepdims=True)
    lowest = jnp.min(jnp.where(is_best, jnp.arange(num_actions, dtype=jnp.int32), num_actions), axis=-1)
    return jnp.where(lowest == num_actions, 0, lowest)


def chosen(utilities: jax.Array, actions: jax.Array) -> jax.Array:
    """The utilities of the chosen actions: `(n, A)` and `(n,)` to `(n,)`.

    Written as a masked sum: its gradient is a product, where that of a gather is a scatter, which
    costs several times as much once vmapped over samples and seeds.
    """
    chex.assert_rank([utilities, actions], [2, 1])
    hot = jax.nn.one_hot(actions, utilities.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(hot, utilities, 0), axis=-1)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean `()` of the values where the mask, of the same shape, is 1; 0 where that is nowhere."""
    chex.assert_equal_shape([values, mask])
    return jnp.sum(mask * values) / jnp.maximum(jnp.sum(mask), 1)
