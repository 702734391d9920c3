"""What policies with discrete actions learn from: log-probabilities, advantages and surrogate objectives.

Pure and unbatched; callers vmap and average. Advantages over time need no function of their own: with
`targets.lambda_returns`, G^λ(V) - V is generalised advantage estimation (Schulman et al., 2016, equation 16),
and λ = 1 gives the n-step advantage of A2C (thesis, equation 2.28).
"""

import chex
import jax
import jax.numpy as jnp

from jaxmarl_fac.values import mask_unavailable


def log_policy(logits: jax.Array, action_mask: jax.Array) -> jax.Array:
    """The log-probabilities of a softmax policy over the available actions: `(..., A)` to `(..., A)`.

    An unavailable action has probability 0 and a log-probability of about `values.UNAVAILABLE`, which is
    finite: a masked product with it has a finite gradient. With logits Q/α this is the Boltzmann policy
    `log π = (Q - V)/α` of `soft_value` V.

    Args:
        logits: `(..., A)`.
        action_mask: `(..., A)` bool, at least one True in every row.
    """
    chex.assert_type([logits, action_mask], [float, bool])
    return jax.nn.log_softmax(mask_unavailable(logits, action_mask), axis=-1)


def entropy(log_probs: jax.Array, action_mask: jax.Array) -> jax.Array:
    """The entropy `-Σ_a π log π` in nats over the available actions: `(..., A)` to `(...)`.

    Args:
        log_probs: `(..., A)`, of `log_policy`.
        action_mask: `(..., A)` bool, the one given to `log_policy`.
    """
    chex.assert_equal_shape([log_probs, action_mask])
    chex.assert_type([log_probs, action_mask], [float, bool])
    # Masked before the product too: the gradient of 0 times a very large number is very large.
    available = jnp.where(action_mask, log_probs, 0)
    return -jnp.sum(jnp.where(action_mask, jnp.exp(available) * available, 0), axis=-1)


def annealed(
    start: float | jax.Array, end: float | jax.Array | None, progress: jax.Array
) -> float | jax.Array:
    """A coefficient `()` that goes from `start` straight to `end`, by the progress of training in [0, 1].

    Args:
        start: the coefficient at a progress of 0.
        end: at a progress of 1; None for that of the start.
        progress: `()`.
    """
    return start if end is None else start + (end - start) * progress


def score_loss(log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
    """`-sg[A] log π(u)`, elementwise: its expected gradient is minus the policy gradient.

    (Williams, 1992; thesis, equation 2.27.) A may be the return, minus any baseline that does not depend on
    the action.

    Args:
        log_prob: log-probabilities of the actions taken, any shape.
        advantage: of the same shape; it gets no gradient.
    """
    chex.assert_equal_shape([log_prob, advantage])
    chex.assert_type([log_prob, advantage], float)
    return -jax.lax.stop_gradient(advantage) * log_prob


def clipped_surrogate(ratio: jax.Array, advantage: jax.Array, clip: float | jax.Array) -> jax.Array:
    """PPO's objective `min(r A, clip(r, 1 - ε, 1 + ε) A)`, elementwise, to be maximised.

    (Schulman et al., 2017, equation 7; thesis, equation 2.34.)

    Args:
        ratio: r = π(u)/π_old(u), any shape.
        advantage: of the same shape; it gets no gradient.
        clip: ε.
    """
    chex.assert_equal_shape([ratio, advantage])
    chex.assert_type([ratio, advantage], float)
    advantage = jax.lax.stop_gradient(advantage)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def adapted_kl_coefficient(coefficient: jax.Array, kl: jax.Array, kl_target: float | jax.Array) -> jax.Array:
    """PPO's next weight `()` of the KL divergence: half of it below target/1.5, twice it above 1.5 target.

    (Schulman et al., 2017, section 4; thesis, equation 2.35.)

    Args:
        coefficient: β, `()`.
        kl: the mean KL(π_old || π) after the update, `()`.
        kl_target: d_target, in nats.
    """
    chex.assert_rank([coefficient, kl], 0)
    chex.assert_type([coefficient, kl], float)
    factor = jnp.where(kl < kl_target / 1.5, 0.5, jnp.where(kl > kl_target * 1.5, 2.0, 1.0))
    return coefficient * jax.lax.stop_gradient(factor)


def counterfactual_advantage(q: jax.Array, policy: jax.Array, action: jax.Array) -> jax.Array:
    """COMA's advantage of one agent, `Q(u) - Σ_a π(a) Q(a, u_-i)`: `(A,)`, `(A,)`, `()` to `()`.

    (Foerster et al., 2018, equation 4; thesis, equation 2.70.) Its mean under the policy is 0.

    Args:
        q: the joint values `(A,)` of the agent's own actions, those of the others held fixed.
        policy: the agent's probabilities `(A,)`, 0 for unavailable actions.
        action: the one it took, `()`.
    """
    chex.assert_equal_shape([q, policy])
    chex.assert_rank([q, policy, action], [1, 1, 0])
    chex.assert_type([q, policy, action], [float, float, int])
    return _taken(q, action) - jnp.sum(policy * q)


def default_action_advantage(q: jax.Array, action: jax.Array, default: jax.Array) -> jax.Array:
    """The difference reward of one agent, `Q(u) - Q(c, u_-i)`: `(A,)`, `()`, `()` to `()`.

    What it gained over a default action c (Wolpert and Tumer, 2002; thesis, equation 2.69).

    Args:
        q: the joint values `(A,)` of the agent's own actions, those of the others held fixed.
        action: the one it took, `()`.
        default: c, `()`.
    """
    chex.assert_rank([q, action, default], [1, 0, 0])
    chex.assert_type([q, action, default], [float, int, int])
    return _taken(q, action) - _taken(q, default)


def decomposed_advantages(
    weights: jax.Array, utilities: jax.Array, policy: jax.Array, actions: jax.Array
) -> jax.Array:
    """DOP's advantages `k_i (Q_i(u_i) - Σ_a π_i(a) Q_i(a))`: `(n,)`.

    (Wang et al., 2021, "DOP: Off-policy multi-agent decomposed policy gradients", equation 7.) For a linear
    critic `Q_tot = Σ_i k_i Q_i(u_i) + b` they are COMA's advantages exactly, whatever the others do.

    Args:
        weights: k `(n,)`.
        utilities: Q_i `(n, A)`, finite for unavailable actions too.
        policy: π_i `(n, A)`, 0 for unavailable actions.
        actions: the joint action `(n,)`.
    """
    chex.assert_equal_shape([utilities, policy])
    chex.assert_equal_shape_prefix([weights, utilities, actions], 1)
    chex.assert_rank([weights, utilities, actions], [1, 2, 1])
    chex.assert_type([weights, utilities, policy, actions], [float, float, float, int])
    return weights * jax.vmap(counterfactual_advantage)(utilities, policy, actions)


def soft_value(q: jax.Array, alpha: float | jax.Array, action_mask: jax.Array) -> jax.Array:
    """`α log Σ_a e^{Q(a)/α}` over the available actions: `(A,)` to `()`.

    The value of FOP's agents (Zhang et al., 2021): at its maximum a policy with entropy weight α satisfies
    `α log π = Q - V`.

    Args:
        q: `(A,)`.
        alpha: entropy weight, above 0, in units of reward.
        action_mask: `(A,)` bool.
    """
    chex.assert_rank([q, action_mask], 1)
    chex.assert_type([q, action_mask], [float, bool])
    return alpha * jax.nn.logsumexp(mask_unavailable(q, action_mask) / alpha)


def _taken(q: jax.Array, action: jax.Array) -> jax.Array:
    """q(action): `(A,)`, `()` to `()`, as a masked sum, whose gradient is no scatter."""
    return jnp.sum(jnp.where(jnp.arange(q.shape[0]) == action, q, 0))
