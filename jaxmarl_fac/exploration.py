"""How agents explore."""

import chex
import distrax
import jax
import jax.numpy as jnp
import optax

from jaxmarl_fac.values import greedy_actions


def linear_epsilon(
    env_steps: jax.Array, start: float | jax.Array, end: float | jax.Array, steps: int
) -> jax.Array:
    """Epsilon `()` after `env_steps`: from `start` straight to `end` in `steps`, then constant.

    Never outside of the two, and exactly `end` at last: compiled, `1 - count * (1 / steps)` may come out as
    -5e-8 or 6e-8 where it should be 0.
    """
    low, high = jnp.minimum(start, end), jnp.maximum(start, end)
    epsilon = jnp.clip(optax.linear_schedule(start, end, steps)(env_steps), low, high)
    return jnp.where(env_steps >= steps, end, epsilon)


def sample_actions(key: jax.Array, policy: distrax.Categorical | jax.Array) -> jax.Array:
    """Actions `(...)` int32 drawn from a policy over A of them, always in 0 to A - 1.

    For a policy with NaN (of a learner that has diverged, which the loop reports) or with a probability that
    rounding has put below 0, distrax draws -1 without a word. Here the one plays 0, the other never happens.

    Args:
        key: a PRNG key.
        policy: probabilities `(..., A)`, or a distribution over actions.
    """
    if not isinstance(policy, distrax.Categorical):
        policy = distrax.Categorical(probs=jnp.maximum(policy, 0))
    return jnp.maximum(policy.sample(seed=key), 0).astype(jnp.int32)


def epsilon_greedy(
    key: jax.Array, masked_utilities: jax.Array, action_mask: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """Actions `(n,)`: each agent's best with probability `1 - epsilon`, else uniform over the available.

    distrax.EpsilonGreedy knows no action masks and splits ties; here ties go to the lowest index, and
    an unavailable action has probability 0.

    Args:
        key: a PRNG key.
        masked_utilities: `(n, A)`, unavailable actions at `values.UNAVAILABLE`.
        action_mask: `(n, A)`, True where available.
        epsilon: `()`, or `(n,)` for one per agent.
    """
    chex.assert_equal_shape([masked_utilities, action_mask])
    best = jax.nn.one_hot(greedy_actions(masked_utilities), masked_utilities.shape[-1])  # (n, A)
    uniform = action_mask / jnp.sum(action_mask, axis=-1, keepdims=True)  # (n, A)
    epsilon = jnp.broadcast_to(epsilon, masked_utilities.shape[:1])[:, None]
    return sample_actions(key, (1 - epsilon) * best + epsilon * uniform)
