"""Losses of values and policies that are regularised towards priors, as learners of soft backups have them.

Pure and unbatched; callers vmap and average. The last axis is what is chosen, and everything is in units of β
times the reward, so that the best policy of values v under a prior P is `P e^v` normalised, and its value
`log Σ_x P(x) e^{v(x)}` (thesis, section 4.3).
"""

import chex
import jax
import jax.numpy as jnp


def regularised_value(values: jax.Array, log_policy: jax.Array, log_prior: jax.Array) -> jax.Array:
    """`Σ_x π(x) (v(x) - log π(x)/P(x))`: `(..., X)` to `(...)`.

    Args:
        values: v `(..., X)`.
        log_policy: log π `(..., X)`, finite, as of `policy_gradients.log_policy`.
        log_prior: log P `(..., X)`, finite; next to nothing where P is 0.
    """
    chex.assert_equal_shape([values, log_policy, log_prior])
    chex.assert_type([values, log_policy, log_prior], float)
    return jnp.sum(jnp.exp(log_policy) * (values - log_policy + log_prior), axis=-1)


def soft_value_loss(
    value: jax.Array, values: jax.Array, log_policy: jax.Array, log_prior: jax.Array
) -> jax.Array:
    """`½ (V - Σ_x π(x) (v(x) - log π(x)/P(x)))^2`, of which V alone learns: `(...)`.

    (Thesis, equations 4.22 to 4.24 and 4.29 to 4.34.)

    Args:
        value: V `(...)`.
        values: v `(..., X)`.
        log_policy: log π `(..., X)`.
        log_prior: log P `(..., X)`.
    """
    target = jax.lax.stop_gradient(regularised_value(values, log_policy, log_prior))
    chex.assert_equal_shape([value, target])
    return jnp.square(value - target) / 2


def soft_policy_loss(
    value: jax.Array, values: jax.Array, log_policy: jax.Array, log_prior: jax.Array
) -> jax.Array:
    """`KL(π ‖ P e^{v - V})`, of which π alone learns: `(...)`.

    At any other V than `log Σ_x P(x) e^{v(x)}` it is off by a constant. (Thesis, equations 4.25 to 4.27 and
    4.35 to 4.40.)

    Args:
        value: V `(...)`.
        values: v `(..., X)`.
        log_policy: log π `(..., X)`.
        log_prior: log P `(..., X)`.
    """
    value, values = jax.lax.stop_gradient((value, values))
    return value - regularised_value(values, log_policy, log_prior)


def soft_q_loss(q: jax.Array, target: jax.Array) -> jax.Array:
    """`½ (Q - y)^2`, of which Q alone learns, elementwise, with `y = β r + γ d U(s', z)`.

    (Thesis, equations 4.28 and 4.41, which print `Q - β r + γ U`: the sign of the last term is wrong there.)

    Args:
        q: any shape.
        target: y, of the same shape.
    """
    chex.assert_equal_shape([q, target])
    chex.assert_type([q, target], float)
    return jnp.square(q - jax.lax.stop_gradient(target)) / 2
