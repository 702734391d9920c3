"""Exact inference with a hidden variable of finitely many values: evidence, ELBO, and the EM algorithm.

A joint density is a table `log P(x_i, z_i)`, `(N, K)`: N independent observations, each with a hidden value
z_i out of K. All functions are pure and unbatched.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import rel_entr, xlogy


def log_evidence(log_joint: jax.Array) -> jax.Array:
    """`log P(X) = Σ_i log Σ_z P(x_i, z)`, `()` (thesis, equation 2.5)."""
    chex.assert_rank(log_joint, 2)
    return jnp.sum(jax.nn.logsumexp(log_joint, axis=1))


def posterior(log_joint: jax.Array) -> jax.Array:
    """`P(z | x_i)`, `(N, K)`: the E-step of EM (thesis, equation 2.7)."""
    chex.assert_rank(log_joint, 2)
    return jax.nn.softmax(log_joint, axis=1)


def elbo(log_joint: jax.Array, q: jax.Array) -> jax.Array:
    """The evidence lower bound `E_q log P(X, z) / q(z)`, `()`, of `q (N, K)` (thesis, 2.6 and 2.9)."""
    chex.assert_rank([log_joint, q], 2)
    return jnp.sum(q * log_joint - xlogy(q, q))


def posterior_gap(log_joint: jax.Array, q: jax.Array) -> jax.Array:
    """`KL(q || P(z | X))`, `()`: what the ELBO lacks of the log-evidence (thesis, part 2 of 2.6)."""
    return jnp.sum(rel_entr(q, posterior(log_joint)))


class Coins(NamedTuple):
    """Tosses of coins: each row was tossed with one of K coins, which is not known."""

    heads: jax.Array  # (N,)
    tails: jax.Array  # (N,)
    weights: jax.Array  # (K,), the probability of each coin


def coins_log_joint(coins: Coins, chances: jax.Array) -> jax.Array:
    """`log P(x_i, z)`, `(N, K)`, if coin z shows heads with probability `chances[z]`.

    Of the tosses in their order: without binomial coefficients, which do not depend on the chances.
    """
    chex.assert_rank([coins.heads, coins.tails, coins.weights, chances], 1)
    tosses = xlogy(coins.heads[:, None], chances) + xlogy(coins.tails[:, None], 1 - chances)
    return jnp.log(coins.weights) + tosses


def coins_m_step(coins: Coins, q: jax.Array) -> jax.Array:
    """The chances `(K,)` for which the ELBO of `q (N, K)` is largest (thesis, equation 2.10)."""
    heads, tails = coins.heads @ q, coins.tails @ q
    return heads / (heads + tails)


def coins_em(coins: Coins, chances: jax.Array, steps: int) -> jax.Array:
    """EM from `chances (K,)`: the chances `(steps + 1, K)` before the first step and after each."""

    def step(chances: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        updated = coins_m_step(coins, posterior(coins_log_joint(coins, chances)))
        return updated, updated

    _, later = jax.lax.scan(step, chances, length=steps)
    return jnp.concatenate([chances[None], later])
