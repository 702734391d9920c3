"""How agents explore."""

from typing import TYPE_CHECKING

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmarl_fac.values import greedy_actions, mask_unavailable

if TYPE_CHECKING:
    import distrax


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


def sample_actions(key: jax.Array, policy: "distrax.Categorical | jax.Array") -> jax.Array:
    """Actions `(...)` int32 drawn from a policy over A of them, always in 0 to A - 1.

    They are those of `jax.random.categorical`, which is this with the slower `jnp.argmax`. A policy with NaN
    (of a learner that has diverged, which the loop reports) plays 0, and a probability that rounding has put
    below 0 is 0; distrax would draw -1 for either without a word.

    Args:
        key: a PRNG key.
        policy: probabilities `(..., A)`, or a distribution over actions.
    """
    if isinstance(policy, jax.Array):
        probabilities = jnp.maximum(policy, 0)
        logits = jnp.log(probabilities / probabilities.sum(axis=-1, keepdims=True))
    else:
        logits = policy.logits
    return greedy_actions(logits + jax.random.gumbel(key, logits.shape, logits.dtype))


def boltzmann(key: jax.Array, masked_utilities: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Actions `(n,)` drawn from each agent's Boltzmann policy, `softmax(Q_i / temperature)`.

    Args:
        key: a PRNG key.
        masked_utilities: `(n, A)`, unavailable actions at `values.UNAVAILABLE`, whose probability is 0.
        temperature: `()`, above 0, in units of the utilities.
    """
    chex.assert_rank(masked_utilities, 2)
    return sample_actions(key, jax.nn.softmax(masked_utilities / temperature))


def gumbel_softmax(
    key: jax.Array, logits: jax.Array, action_mask: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """Actions drawn from softmax policies, one-hot `(..., A)`, with the gradient of relaxed samples.

    The straight-through estimator: with Gumbel noise g the sample is the one-hot code of the largest
    `logits + g`, and its gradient that of `softmax((logits + g) / temperature)` (Jang et al., 2017, section
    2.2). Unavailable actions are never drawn and have no gradient.

    Args:
        key: a PRNG key.
        logits: `(..., A)`.
        action_mask: `(..., A)` bool, at least one True in every row.
        temperature: above 0; the lower it is, the closer relaxed samples are to one-hot codes.
    """
    chex.assert_type([logits, action_mask], [float, bool])
    noisy = mask_unavailable(logits + jax.random.gumbel(key, logits.shape, logits.dtype), action_mask)
    hard = jax.nn.one_hot(greedy_actions(noisy), noisy.shape[-1], dtype=noisy.dtype)
    relaxed = jax.nn.softmax(noisy / temperature)
    return hard + (relaxed - jax.lax.stop_gradient(relaxed))  # in this order exactly `hard`


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
