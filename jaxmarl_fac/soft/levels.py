"""GR2: levels of recursive reasoning."""

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlogy
from jax.typing import ArrayLike as Scalar

from jaxmarl_fac.soft.operators import tilted_policy, uniform


def level_policies(
    q_own: jax.Array,
    q_other: jax.Array,
    beta_own: Scalar,
    beta_other: Scalar,
    levels: int,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
    sampled: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """GR2: both agents' policies at the levels of reasoning 0 to K, `(K + 1, A)` and `(K + 1, B)`.

    Level 0 plays the prior. Level k is the soft best response to the other's level k - 1:
    `π_k(a) ∝ P(a) e^{β Σ_b ρ_{k-1}(b) q(a,b)}`.

    Args:
        q_own: `(A, B)`, the agent's values.
        q_other: `(A, B)`, the other's values, in the same layout.
        beta_own: `()`.
        beta_other: `()`.
        levels: K.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`; uniform if None.
        sampled: respond to each single action of the level below and average the responses,
            `π_k(a) = Σ_b π(a|b) ρ_{k-1}(b)`, as GR2 was published, instead of to their mixture.
    """
    chex.assert_rank([q_own, q_other], 2)
    chex.assert_equal_shape([q_own, q_other])
    own_prior = uniform(q_own, 0) if own_prior is None else own_prior
    other_prior = uniform(q_own, 1) if other_prior is None else other_prior
    own_replies = tilted_policy(q_own, own_prior[:, None], beta_own, axis=0)  # (A, B), π(a|b)
    other_replies = tilted_policy(q_other, other_prior, beta_other, axis=1)  # (A, B), ρ(b|a)

    def respond(
        below: tuple[jax.Array, jax.Array], _: None
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        policy, opponent = below
        if sampled:
            above = own_replies @ opponent, policy @ other_replies
        else:
            above = (
                tilted_policy(q_own @ opponent, own_prior, beta_own),
                tilted_policy(policy @ q_other, other_prior, beta_other),
            )
        return above, above

    _, (own, other) = jax.lax.scan(respond, (own_prior, other_prior), None, length=levels)
    return jnp.concatenate([own_prior[None], own]), jnp.concatenate([other_prior[None], other])


def poisson_level_weights(mean: Scalar, levels: int) -> jax.Array:
    """GR2-M's weights of the levels 1 to K, `(K,)`: a Poisson distribution truncated to them.

    Args:
        mean: of the Poisson distribution, `()`, >= 0; at 0 all weight is on level 1.
        levels: K.
    """
    level = jnp.arange(1, levels + 1)
    mean = jnp.asarray(mean, jnp.result_type(mean, jnp.float32))
    log_weights = xlogy(level - 1, mean) - gammaln(level + 1.0)  # (K,), up to a constant
    return jax.nn.softmax(log_weights)


def level_mixture(policies: jax.Array, weights: jax.Array) -> jax.Array:
    """GR2-M's policy `(A,)`: levels 1 to K of `policies (K + 1, A)` mixed by `weights (K,)`."""
    chex.assert_shape(weights, (policies.shape[0] - 1,))
    return weights @ policies[1:]
