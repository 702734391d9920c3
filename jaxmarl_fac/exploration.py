"""How agents explore."""

import chex
import distrax
import jax
import jax.numpy as jnp
import optax

from jaxmarl_fac.losses import greedy_actions


def linear_epsilon(env_steps: jax.Array, start: float, end: float, steps: int) -> jax.Array:
    """Epsilon `()` after `env_steps`: from `start` straight to `end` in `steps`, then constant."""
    return jnp.asarray(optax.linear_schedule(start, end, steps)(env_steps))


def epsilon_greedy(
    key: jax.Array, masked_utilities: jax.Array, action_mask: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """Actions `(n,)`: each agent's best with probability `1 - epsilon`, else uniform over the available.

    distrax.EpsilonGreedy knows no action masks and splits ties; here ties go to the lowest index, and
    an unavailable action has probability 0.

    Args:
        key: a PRNG key.
        masked_utilities: `(n, A)`, unavailable actions at `losses.UNAVAILABLE`.
        action_mask: `(n, A)`, True where available.
        epsilon: `()`, or `(n,)` for one per agent.
    """
    chex.assert_equal_shape([masked_utilities, action_mask])
    best = jax.nn.one_hot(greedy_actions(masked_utilities), masked_utilities.shape[-1])  # (n, A)
    uniform = action_mask / jnp.sum(action_mask, axis=-1, keepdims=True)  # (n, A)
    epsilon = jnp.broadcast_to(epsilon, masked_utilities.shape[:1])[:, None]
    return distrax.Categorical(probs=(1 - epsilon) * best + epsilon * uniform).sample(seed=key)
