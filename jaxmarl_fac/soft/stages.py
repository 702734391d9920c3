"""Soft backups of a table of joint values, for an agent that models one other agent.

One stage is a table `(A, B)`: the agent's own action a down, the other's action b across. Every method
of the family (PR2, ROMMEO, Balancing-Q) nests the two operators of `operators.py`. All functions are
unbatched; callers vmap.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike as Scalar

from jaxmarl_fac.exact.linear_systems import solve
from jaxmarl_fac.soft.operators import log_mean_exp, tilted_policy, uniform


class SoftBackup(NamedTuple):
    """The soft backup of one stage. `A` own actions, `B` actions of the other agent.

    One of the two acts *first*, the other replies *second*, conditioned on the first's action.
    """

    value: jax.Array  # (), the soft value of the stage
    policy: jax.Array  # (A,), the policy that the agent executes
    opponent: jax.Array  # (B,), its model of the other, marginalised over its own action
    joint: jax.Array  # (A, B), their joint distribution
    first_values: jax.Array  # (A,) if the agent acts first, (B,) if the other does
    second_policy: jax.Array  # (A, B), rho(b|a): rows sum to 1; or pi(a|b): columns sum to 1


def agent_first(
    q: jax.Array,
    beta_own: Scalar = 1.0,
    beta_other: Scalar = 1.0,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
) -> SoftBackup:
    """Balancing-Q of the agent: it acts first, and the other replies to its action.

    `m(a) = (1/β') log Σ_b P(b|a) e^{β' q(a,b)}`, `π(a) ∝ P(a) e^{β m(a)}`,
    `V = (1/β) log Σ_a P(a) e^{β m(a)}`, `ρ(b|a) ∝ P(b|a) e^{β' q(a,b)}` (Grau-Moya et al., 2018; thesis,
    equations 3.23 to 3.28, whose Q^i(a) is β m(a) and whose V^i is β V). β' → +inf is a team game, -inf
    a zero-sum game, and 0 a fixed opponent that plays its prior. With β = β' = 1 on a table
    scaled by β this is PR2 (`pr2`).

    Args:
        q: `(A, B)`.
        beta_own: β of the agent, `()`.
        beta_other: β' of the other, `()`; the opposite sign makes it an adversary.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`, or P(b|a), `(A, B)`; uniform if None.
    """
    chex.assert_rank(q, 2)
    own_prior = uniform(q, 0) if own_prior is None else own_prior
    other_prior = uniform(q, 1) if other_prior is None else other_prior
    chex.assert_shape(own_prior, q.shape[:1])
    replies = tilted_policy(q, other_prior, beta_other)  # (A, B)
    first_values = log_mean_exp(q, other_prior, beta_other)  # (A,)
    policy = tilted_policy(first_values, own_prior, beta_own)
    joint = policy[:, None] * replies
    return SoftBackup(
        value=log_mean_exp(first_values, own_prior, beta_own),
        policy=policy,
        opponent=jnp.sum(joint, axis=0),
        joint=joint,
        first_values=first_values,
        second_policy=replies,
    )


def opponent_first(
    q: jax.Array,
    beta_own: Scalar = 1.0,
    beta_other: Scalar = 1.0,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
) -> SoftBackup:
    """The mirror of `agent_first`: the other acts first, and the agent replies to its action.

    `m(b) = (1/β) log Σ_a P(a|b) e^{β q(a,b)}`, `ρ(b) ∝ P(b) e^{β' m(b)}`,
    `V = (1/β') log Σ_b P(b) e^{β' m(b)}`, `π(a|b) ∝ P(a|b) e^{β q(a,b)}` (thesis, equation 3.30). The agent
    executes the marginal `Σ_b π(a|b) ρ(b)` (equation 3.18). With β = β' = 1 on a table scaled by β this
    is the thesis's ROMMEO (`rommeo`).

    Its value in general differs from that of `agent_first`, contrary to Corollary 1 of Grau-Moya et al.
    (thesis, equation 3.31); the two agree where β = β' and no prior depends on the other's action.

    Args:
        q: `(A, B)`.
        beta_own: β of the agent, `()`.
        beta_other: β' of the other, `()`.
        own_prior: P(a), `(A,)`, or P(a|b), `(A, B)` with columns that sum to 1; uniform if None.
        other_prior: P(b), `(B,)`; uniform if None.
    """
    if own_prior is not None and own_prior.ndim == 2:
        own_prior = own_prior.T
    mirrored = agent_first(q.T, beta_other, beta_own, other_prior, own_prior)
    return mirrored._replace(
        policy=mirrored.opponent,
        opponent=mirrored.policy,
        joint=mirrored.joint.T,
        second_policy=mirrored.second_policy.T,
    )


def pr2(k: jax.Array, own_prior: jax.Array | None = None, other_prior: jax.Array | None = None) -> SoftBackup:
    """PR2: the agent acts first, and models the other's reply as cooperative.

    `Q(a) = log Σ_b P(b|a) e^{K(a,b)}`, `ρ(b|a) = P e^{K - Q(a)}`, `V = log Σ_a P(a) e^{Q(a)}`,
    `π(a) = P e^{Q(a) - V}` (Wen et al., 2019; thesis, section 3.1).

    Args:
        k: `(A, B)`, K = βr + γ E V, in units of β times reward, as are the values that come back.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`, or P(b|a), `(A, B)`; uniform if None.
    """
    return agent_first(k, 1.0, 1.0, own_prior, other_prior)


def rommeo(
    k: jax.Array, own_prior: jax.Array | None = None, other_prior: jax.Array | None = None
) -> SoftBackup:
    """ROMMEO as in the thesis: the opponent model acts first, and the agent replies to it.

    `Q(b) = log Σ_a P(a|b) e^{K(a,b)}`, `π(a|b) = P e^{K - Q(b)}`, `V = log Σ_b P(b) e^{Q(b)}`,
    `ρ(b) = P e^{Q(b) - V}` (thesis, equations 3.14, 3.15). Where no prior depends on the other's action,
    joint, value and executed policy are those of `pr2`.

    Args:
        k: `(A, B)`, K = βr + γ E V, in units of β times reward, as are the values that come back.
        own_prior: P(a), `(A,)`, or P(a|b), `(A, B)` with columns that sum to 1; uniform if None.
        other_prior: P(b), `(B,)`; uniform if None.
    """
    return opponent_first(k, 1.0, 1.0, own_prior, other_prior)


def rommeo_published(q: jax.Array, alpha: Scalar = 1.0, other_prior: jax.Array | None = None) -> SoftBackup:
    """ROMMEO as published: entropy weight α on the own action, a prior on the opponent only.

    `Q(b) = α log Σ_a e^{q(a,b)/α}`, `π(a|b) ∝ e^{q/α}`, `ρ(b) ∝ P(b) e^{Q(b)}`, `V = log Σ_b P(b) e^{Q(b)}`
    (Tian et al., IJCAI 2019). The paper proves a contraction for α = 1; it is one for every α, because
    adding a constant to q adds it to V.

    Args:
        q: `(A, B)`.
        alpha: α >= 0, `()`; at 0 the agent's reply is greedy.
        other_prior: P(b), `(B,)`, in the paper the empirical frequencies of the opponent's past actions;
            uniform if None.
    """
    chex.assert_rank(q, 2)
    other_prior = uniform(q, 1) if other_prior is None else other_prior
    own_actions = q.shape[0]
    beta = 1 / jnp.asarray(alpha, q.dtype)
    replies = tilted_policy(q, 1 / own_actions, beta, axis=0)  # (A, B)
    # With a uniform prior and β = 1/α, α log A is missing from the sum without a prior.
    first_values = log_mean_exp(q, 1 / own_actions, beta, axis=0) + alpha * math.log(own_actions)  # (B,)
    opponent = tilted_policy(first_values, other_prior, 1.0)
    joint = replies * opponent
    return SoftBackup(
        value=log_mean_exp(first_values, other_prior, 1.0),
        policy=jnp.sum(joint, axis=1),
        opponent=opponent,
        joint=joint,
        first_values=first_values,
        second_policy=replies,
    )


class ProbabilisticBackup(NamedTuple):
    """Balancing-Q in the units of its graphical models (thesis, section 3.5)."""

    opponent_q: jax.Array  # (A, B), Q^{-i}(a, b) = β' q(a, b)
    action_values: jax.Array  # (A,), Q(a) = log Σ_b P(b|a) e^{Q^{-i}(a, b)}
    value: jax.Array  # (), V^i = log Σ_a P(a) e^{(β/β') Q(a)}
    policy: jax.Array  # (A,), π(a) ∝ P(a) e^{(β/β') Q(a)}
    opponent: jax.Array  # (A, B), ρ(b|a) = P(b|a) e^{Q^{-i}(a, b) - Q(a)}


def probabilistic_balancing(
    q: jax.Array,
    beta_own: Scalar,
    beta_other: Scalar,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
) -> ProbabilisticBackup:
    """Probabilistic Balancing-Q (thesis, equations 3.49 to 3.54).

    It is `agent_first` in other units: Q^{-i} = β' q, Q(a) = β' m(a), V^i = β V. The input is q in units of
    reward: the thesis's own recursion, Q^{-i} = β'r + γ (β'/β) E V^i, loses q at β' = 0, where its Q^{-i} is
    0, and is undefined at β = 0; q covers both.

    Args:
        q: `(A, B)`, r + γ E V.
        beta_own: β of the agent, `()`, finite.
        beta_other: β' of the other, `()`, finite.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`, or P(b|a), `(A, B)`; uniform if None.
    """
    backup = agent_first(q, beta_own, beta_other, own_prior, other_prior)
    return ProbabilisticBackup(
        opponent_q=jnp.multiply(beta_other, q),
        action_values=jnp.multiply(beta_other, backup.first_values),
        value=jnp.multiply(beta_own, backup.value),
        policy=backup.policy,
        opponent=backup.second_policy,
    )


class IndependentPlay(NamedTuple):
    """A solution of the regularised game in which neither agent knows the other's action."""

    value: jax.Array  # ()
    policy: jax.Array  # (A,)
    opponent: jax.Array  # (B,)
    residual: jax.Array  # (), the largest error of the two equations, in logits; 0 where solved


def independent_play(
    q: jax.Array,
    beta_own: Scalar,
    beta_other: Scalar,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
    iterations: int = 100,
) -> IndependentPlay:
    """The stationary point of `E[q] - KL(π|P)/β - KL(ρ|P)/β'` over independent π and ρ.

    `π(a) ∝ P(a) e^{β Σ_b ρ(b) q(a,b)}` and `ρ(b) ∝ P(b) e^{β' Σ_a π(a) q(a,b)}` (thesis, equation 3.20).
    With β β' <= 0 it is unique, a saddle point where the signs differ, and its value lies between those of
    `agent_first` and `opponent_first`. With equal signs there can be several; the one returned is
    reached from the priors by alternating soft best responses, the agent first.

    Args:
        q: `(A, B)`.
        beta_own: β of the agent, `()`, finite. For ±inf see `equilibria.max_min`.
        beta_other: β' of the other, `()`, finite.
        own_prior: P(a), `(A,)`, positive; uniform if None.
        other_prior: P(b), `(B,)`, positive; uniform if None.
        iterations: of Newton's method, and rounds of alternating responses if the signs are equal. `residual`
            shows whether they sufficed; in float64 100 suffice for |β| (max q - min q) up to 10,000.
    """
    chex.assert_rank(q, 2)
    own_prior = uniform(q, 0) if own_prior is None else own_prior
    other_prior = uniform(q, 1) if other_prior is None else other_prior
    actions = q.shape[0]
    prior_logits = jnp.concatenate([jnp.log(own_prior), jnp.log(other_prior)])  # (A + B,)

    def policies(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.nn.softmax(logits[:actions]), jax.nn.softmax(logits[actions:])

    def error(logits: jax.Array, fraction: jax.Array) -> jax.Array:
        policy, opponent = policies(logits)
        tilt = jnp.concatenate([beta_own * (q @ opponent), beta_other * (policy @ q)])
        return logits - prior_logits - fraction * tilt

    def respond_in_turn(logits: jax.Array, _: None) -> tuple[jax.Array, None]:
        own = prior_logits[:actions] + beta_own * (q @ jax.nn.softmax(logits[actions:]))
        other = prior_logits[actions:] + beta_other * (jax.nn.softmax(own) @ q)
        return jnp.concatenate([own, other]), None

    # With β β' <= 0 the Jacobian is never singular, so the norm of the error has no other stationary point
    # and a line search that lowers it finds the solution. It is continued from a small fraction of β and β',
    # where the solution is close to the priors, to their full values.
    step_sizes = 0.5 ** jnp.arange(16, dtype=q.dtype)

    def newton(logits: jax.Array, fraction: jax.Array) -> tuple[jax.Array, None]:
        step = solve(jax.jacfwd(error)(logits, fraction), error(logits, fraction))
        tried = logits - step_sizes[:, None] * step  # (16, A + B)
        norms = jnp.linalg.norm(jax.vmap(error, (0, None))(tried, fraction), axis=-1)
        better = jnp.min(norms) < jnp.linalg.norm(error(logits, fraction))
        return jnp.where(better, tried[jnp.argmin(norms)], logits), None

    same_sign = jnp.multiply(beta_own, beta_other) > 0
    alternated, _ = jax.lax.scan(respond_in_turn, prior_logits, None, length=iterations)
    steepest = jnp.maximum(jnp.abs(beta_own), jnp.abs(beta_other)) * jnp.ptp(q)
    # The fraction grows geometrically from 1/steepest to 1 in the first three quarters, then stays 1.
    progress = jnp.minimum(jnp.arange(iterations, dtype=q.dtype) / (0.75 * iterations), 1)
    fractions = jnp.where(same_sign, 1, jnp.maximum(steepest, 1) ** (progress - 1))
    logits, _ = jax.lax.scan(newton, jnp.where(same_sign, alternated, prior_logits), fractions)
    policy, opponent = policies(logits)
    # KL(π|P)/β = Σ π (β q ρ - log Z)/β: in this form β = 0 is no special case.
    own_values, other_values = q @ opponent, policy @ q
    own_penalty = policy @ own_values - log_mean_exp(own_values, own_prior, beta_own)
    other_penalty = opponent @ other_values - log_mean_exp(other_values, other_prior, beta_other)
    return IndependentPlay(
        value=policy @ q @ opponent - own_penalty - other_penalty,
        policy=policy,
        opponent=opponent,
        residual=jnp.max(jnp.abs(error(logits, jnp.ones((), q.dtype)))),
    )
