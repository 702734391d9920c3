"""Soft values of policies and from samples, and Stein variational gradient descent."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr, logsumexp
from jax.typing import ArrayLike as Scalar


def soft_value(q: jax.Array, policy: jax.Array, temperature: Scalar) -> jax.Array:
    """SAC's value of a discrete policy, `V = Σ_a π(a) (q(a) - α log π(a))`: `(A,)`, `(A,)` to `()`.

    Its maximum α log Σ_a e^{q/α} is at π = softmax(q/α) (`tilted_policy(q, 1/A, 1/α)`). Its gradient is
    finite: the entropy is differentiated at actions with π(a) > 0 only.
    """
    chex.assert_equal_shape([q, policy])
    # The slope of -p log p is infinite at 0, so actions with probability 0 are masked.
    entropy = entr(jnp.where(policy > 0, policy, 1))
    return jnp.sum(policy * q + temperature * entropy, axis=-1)


def sampled_soft_value(q: jax.Array, log_proposal: jax.Array, log_prior: Scalar = 0.0) -> jax.Array:
    """`V = log E_w[e^q P/w]` estimated from K actions drawn from a proposal w: `(K,)` to `()`.

    Soft Q-learning (Haarnoja et al., 2017, equation 10); P = 1 unless `log_prior` is given.
    """
    chex.assert_equal_shape([q, log_proposal])
    return logsumexp(q + log_prior - log_proposal) - math.log(q.shape[0])


def uniform_soft_value(q: jax.Array, dimensions: int) -> jax.Array:
    """`sampled_soft_value` for K actions uniform in [-1, 1]^d: `d log 2 - log K + log Σ_k e^{q_k}`.

    The first term is the log of the volume; without it values would be too small, more so in high dimensions.
    """
    return sampled_soft_value(q, jnp.full(q.shape, -dimensions * math.log(2), q.dtype))


def svgd_direction(
    particles: jax.Array, score: jax.Array, bandwidth: Scalar, at: jax.Array | None = None
) -> jax.Array:
    """Stein's direction, along which particles move towards the density p (Liu & Wang, 2016).

    `φ(y) = (1/n) Σ_j [k(x_j, y) ∇ log p(x_j) + ∇_{x_j} k(x_j, y)]` with `k(x, y) = e^{-|x - y|²/h}`. The
    first term ascends the density, the second repels particles; a single particle follows the gradient.

    Args:
        particles: x, `(n, d)`.
        score: ∇ log p(x_j), `(n, d)`.
        bandwidth: h, `()`; see `median_bandwidth`.
        at: y, `(m, d)`; the particles themselves if None. Soft Q-learning moves half of its particles
            by the scores of the other half.
    """
    chex.assert_rank([particles, score], 2)
    chex.assert_equal_shape([particles, score])
    points = particles if at is None else at
    offset = points[:, None] - particles  # (m, n, d), y_i - x_j
    kernel = jnp.exp(-jnp.sum(jnp.square(offset), axis=-1) / bandwidth)[..., None]  # (m, n, 1)
    return jnp.mean(kernel * (score + 2 / bandwidth * offset), axis=1)


def median_bandwidth(particles: jax.Array) -> jax.Array:
    """The bandwidth h `()` by the median heuristic, med²/log n over pairwise distances of `(n, d)`.

    With it the kernels at a particle sum to about 2 (Liu & Wang, 2016). It is 1 for a single particle,
    where h does not matter, and bounded away from 0 for particles that coincide.
    """
    count = particles.shape[0]
    if count < 2:
        return jnp.ones((), particles.dtype)
    first, second = np.triu_indices(count, k=1)
    squared = jnp.sum(jnp.square(particles[first] - particles[second]), axis=-1)
    return jnp.maximum(jnp.median(squared) / math.log(count), jnp.finfo(particles.dtype).eps)
