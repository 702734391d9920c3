"""Soft backups: what an agent that reasons about one other agent makes of a table of joint values.

One stage is a table `(A, B)`: the agent's own action a down, the other's action b across. Every method
of the family (PR2, ROMMEO, Balancing-Q, GR2) is a nesting of two operators under a prior P:

- `log_mean_exp`: (1/β) log Σ_x P(x) e^{β v(x)}, which is the mean of v under P at β = 0, its maximum at
  β = +inf and its minimum at β = -inf;
- `tilted_policy`: the distribution P(x) e^{β v(x)} / Z that attains it.

Values are in units of reward and every β may be negative, zero or infinite, unless a docstring says
otherwise. Actions that are not available get prior 0. All functions are unbatched; callers vmap.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr, gammaln, logsumexp, xlogy
from jax.typing import ArrayLike as Scalar
from numpy.typing import ArrayLike

from envs.errors import BadInputError
from jaxmarl_fac.linear_systems import solve

# The two operators.


def log_mean_exp(values: jax.Array, prior: Scalar, beta: Scalar, axis: int = -1) -> jax.Array:
    """`(1/β) log Σ_x P(x) e^{β v(x)}` over `axis`, also known as the free energy of v under P.

    Goes over into the mean under P at β = 0, and into the maximum and the minimum over the actions
    with P > 0 at β = +inf and -inf (Grau-Moya et al., 2018).

    Args:
        values: v, any shape.
        prior: P, broadcastable to `values`; sums to 1 over `axis`.
        beta: inverse temperature `()`, any sign.
        axis: the axis of x.
    """
    values, prior, beta = _aligned(values, prior, beta)
    support = prior > 0
    values = jnp.where(support, values, 0)
    mean = jnp.sum(prior * values, axis, keepdims=True)
    deviation = jnp.where(support, values - mean, 0)
    divisor = jnp.where(jnp.abs(beta) < jnp.finfo(values.dtype).tiny, 1, beta)
    # While β (v - mean) is small, e^{β v} is 1 to most of its digits, and dividing their noise by β would
    # leave nothing of v: expm1 and log1p keep it. Both branches see harmless numbers where they are not
    # taken, or their infinities would spoil the gradient.
    near = jnp.abs(beta) * jnp.max(jnp.abs(deviation), axis, keepdims=True) < 1
    small = jnp.where(near, beta * deviation, 0)
    near_value = mean + jnp.log1p(jnp.sum(prior * jnp.expm1(small), axis, keepdims=True)) / divisor
    extreme = _extreme(values, support, beta, axis)
    large = jnp.where(support & ~near, beta * (values - extreme), 0)  # <= 0
    far_value = extreme + jnp.log(jnp.sum(prior * jnp.exp(large), axis, keepdims=True)) / divisor
    return jnp.squeeze(jnp.where(near, near_value, far_value), axis)


def tilted_policy(values: jax.Array, prior: Scalar, beta: Scalar, axis: int = -1) -> jax.Array:
    """`P(x) e^{β v(x)} / Z` over `axis`: the policy that `log_mean_exp` is the regularised value of.

    At β = 0 it is the prior. At β = ±inf the best (worst) actions share the mass as their priors do:
    no tie is broken.

    Args:
        values: v, any shape.
        prior: P, broadcastable to `values`; sums to 1 over `axis`.
        beta: inverse temperature `()`, any sign.
        axis: the axis of x.
    """
    values, prior, beta = _aligned(values, prior, beta)
    support = prior > 0
    values = jnp.where(support, values, 0)
    exponent = jnp.where(support, beta * (values - _extreme(values, support, beta, axis)), 0)
    weights = prior * jnp.exp(exponent)
    return weights / jnp.sum(weights, axis, keepdims=True)


def _aligned(values: jax.Array, prior: Scalar, beta: Scalar) -> tuple[jax.Array, jax.Array, jax.Array]:
    dtype = jnp.result_type(values, prior, jnp.float32)
    values = jnp.asarray(values, dtype)
    prior = jnp.broadcast_to(jnp.asarray(prior, dtype), values.shape)
    # So large a β tells all floats apart already; infinity would make 0 * inf of the best action.
    limit = math.sqrt(float(jnp.finfo(dtype).max))
    return values, prior, jnp.clip(jnp.asarray(beta, dtype), -limit, limit)


def _extreme(values: jax.Array, support: jax.Array, beta: jax.Array, axis: int) -> jax.Array:
    """The action value that e^{β v} is largest for; its choice cancels out, hence no gradient."""
    highest = jnp.max(jnp.where(support, values, -jnp.inf), axis, keepdims=True)
    lowest = jnp.min(jnp.where(support, values, jnp.inf), axis, keepdims=True)
    return jax.lax.stop_gradient(jnp.where(beta >= 0, highest, lowest))


# One stage: what the agent makes of a table (A, B).


class SoftBackup(NamedTuple):
    """What a soft backup makes of one stage. `A` own actions, `B` actions of the other agent.

    The one who plays *first* answers for the other, who replies *second*, knowing the first's action.
    """

    value: jax.Array  # (), the soft value of the stage
    policy: jax.Array  # (A,), what the agent executes
    opponent: jax.Array  # (B,), what it expects of the other, its own action averaged out
    joint: jax.Array  # (A, B), both together
    first_values: jax.Array  # (A,) if the agent plays first, (B,) if the other does
    second_policy: jax.Array  # (A, B), rho(b|a): rows sum to 1; or pi(a|b): columns sum to 1


def agent_outer(
    q: jax.Array,
    beta_own: Scalar = 1.0,
    beta_other: Scalar = 1.0,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
) -> SoftBackup:
    """Balancing-Q of the agent: it plays first, and the other replies to its action.

    `m(a) = (1/β') log Σ_b P(b|a) e^{β' q(a,b)}`, `π(a) ∝ P(a) e^{β m(a)}`,
    `V = (1/β) log Σ_a P(a) e^{β m(a)}`, `ρ(b|a) ∝ P(b|a) e^{β' q(a,b)}` (Grau-Moya et al., 2018; thesis,
    equations 3.23 to 3.28, whose Q^i(a) is β m(a) and whose V^i is β V). β' → +inf makes a team of the
    two, -inf a zero-sum game, 0 a fixed opponent that plays its prior. With β = β' = 1 on a table
    scaled by β this is PR2 (`pr2`).

    Args:
        q: `(A, B)`.
        beta_own: β of the agent, `()`.
        beta_other: β' of the other, `()`; the opposite sign makes an adversary of it.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`, or P(b|a), `(A, B)`; uniform if None.
    """
    chex.assert_rank(q, 2)
    own_prior = _uniform(q, 0) if own_prior is None else own_prior
    other_prior = _uniform(q, 1) if other_prior is None else other_prior
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


def opponent_outer(
    q: jax.Array,
    beta_own: Scalar = 1.0,
    beta_other: Scalar = 1.0,
    own_prior: jax.Array | None = None,
    other_prior: jax.Array | None = None,
) -> SoftBackup:
    """The mirror of `agent_outer`: the other plays first, and the agent replies to its action.

    `m(b) = (1/β) log Σ_a P(a|b) e^{β q(a,b)}`, `ρ(b) ∝ P(b) e^{β' m(b)}`,
    `V = (1/β') log Σ_b P(b) e^{β' m(b)}`, `π(a|b) ∝ P(a|b) e^{β q(a,b)}` (thesis, equation 3.30). The agent
    executes the marginal `Σ_b π(a|b) ρ(b)` (equation 3.18). With β = β' = 1 on a table scaled by β this
    is the thesis's ROMMEO (`rommeo`).

    Its value is in general not that of `agent_outer`, whatever Corollary 1 of Grau-Moya et al. (thesis,
    equation 3.31) says; the two agree where β = β' and no prior depends on the other's action.

    Args:
        q: `(A, B)`.
        beta_own: β of the agent, `()`.
        beta_other: β' of the other, `()`.
        own_prior: P(a), `(A,)`, or P(a|b), `(A, B)` with columns that sum to 1; uniform if None.
        other_prior: P(b), `(B,)`; uniform if None.
    """
    if own_prior is not None and own_prior.ndim == 2:
        own_prior = own_prior.T
    mirrored = agent_outer(q.T, beta_other, beta_own, other_prior, own_prior)
    return mirrored._replace(
        policy=mirrored.opponent,
        opponent=mirrored.policy,
        joint=mirrored.joint.T,
        second_policy=mirrored.second_policy.T,
    )


def pr2(k: jax.Array, own_prior: jax.Array | None = None, other_prior: jax.Array | None = None) -> SoftBackup:
    """PR2: the agent first, the other's reply modelled as helping it.

    `Q(a) = log Σ_b P(b|a) e^{K(a,b)}`, `ρ(b|a) = P e^{K - Q(a)}`, `V = log Σ_a P(a) e^{Q(a)}`,
    `π(a) = P e^{Q(a) - V}` (Wen et al., 2019; thesis, section 3.1).

    Args:
        k: `(A, B)`, K = βr + γ E V, in units of β times reward, as are the values that come back.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`, or P(b|a), `(A, B)`; uniform if None.
    """
    return agent_outer(k, 1.0, 1.0, own_prior, other_prior)


def rommeo(
    k: jax.Array, own_prior: jax.Array | None = None, other_prior: jax.Array | None = None
) -> SoftBackup:
    """ROMMEO as the thesis has it: the opponent model first, the agent replies to it.

    `Q(b) = log Σ_a P(a|b) e^{K(a,b)}`, `π(a|b) = P e^{K - Q(b)}`, `V = log Σ_b P(b) e^{Q(b)}`,
    `ρ(b) = P e^{Q(b) - V}` (thesis, equations 3.14, 3.15). Where no prior depends on the other's action,
    joint, value and executed policy are those of `pr2`.

    Args:
        k: `(A, B)`, K = βr + γ E V, in units of β times reward, as are the values that come back.
        own_prior: P(a), `(A,)`, or P(a|b), `(A, B)` with columns that sum to 1; uniform if None.
        other_prior: P(b), `(B,)`; uniform if None.
    """
    return opponent_outer(k, 1.0, 1.0, own_prior, other_prior)


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
    other_prior = _uniform(q, 1) if other_prior is None else other_prior
    own_actions = q.shape[0]
    beta = 1 / jnp.asarray(alpha, q.dtype)
    replies = tilted_policy(q, 1 / own_actions, beta, axis=0)  # (A, B)
    # A uniform prior and the weight β = 1/α leave out α log A of the sum without a prior.
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

    It is `agent_outer` in other units: Q^{-i} = β' q, Q(a) = β' m(a), V^i = β V. The table that comes in
    is q in units of reward, since the thesis's own recursion, Q^{-i} = β'r + γ (β'/β) E V^i, is lost at
    β' = 0, where its Q^{-i} is 0, and undefined at β = 0, both of which q can take.

    Args:
        q: `(A, B)`, r + γ E V.
        beta_own: β of the agent, `()`, finite.
        beta_other: β' of the other, `()`, finite.
        own_prior: P(a), `(A,)`; uniform if None.
        other_prior: P(b), `(B,)`, or P(b|a), `(A, B)`; uniform if None.
    """
    backup = agent_outer(q, beta_own, beta_other, own_prior, other_prior)
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
    `agent_outer` and `opponent_outer`. With equal signs there can be several, and the one comes back that
    the agents reach from the priors by improving in turns, the agent first.

    Args:
        q: `(A, B)`.
        beta_own: β of the agent, `()`, finite. For ±inf see `equilibria.max_min`.
        beta_other: β' of the other, `()`, finite.
        own_prior: P(a), `(A,)`, positive; uniform if None.
        other_prior: P(b), `(B,)`, positive; uniform if None.
        iterations: of Newton's method, and rounds of turns where the signs are equal. `residual` tells
            whether they were enough; in float64 100 are for |β| (max q - min q) up to 10,000.
    """
    chex.assert_rank(q, 2)
    own_prior = _uniform(q, 0) if own_prior is None else own_prior
    other_prior = _uniform(q, 1) if other_prior is None else other_prior
    actions = q.shape[0]
    prior_logits = jnp.concatenate([jnp.log(own_prior), jnp.log(other_prior)])  # (A + B,)

    def policies(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.nn.softmax(logits[:actions]), jax.nn.softmax(logits[actions:])

    def error(logits: jax.Array, share: jax.Array) -> jax.Array:
        policy, opponent = policies(logits)
        tilt = jnp.concatenate([beta_own * (q @ opponent), beta_other * (policy @ q)])
        return logits - prior_logits - share * tilt

    def take_turns(logits: jax.Array, _: None) -> tuple[jax.Array, None]:
        own = prior_logits[:actions] + beta_own * (q @ jax.nn.softmax(logits[actions:]))
        other = prior_logits[actions:] + beta_other * (jax.nn.softmax(own) @ q)
        return jnp.concatenate([own, other]), None

    # With β β' <= 0 the Jacobian is never singular, so the norm of the error has no other stationary point
    # and a line search that lowers it finds the solution: followed from a small share of β and β', where it
    # is close to the priors, to all of them.
    strides = 0.5 ** jnp.arange(16, dtype=q.dtype)

    def newton(logits: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
        step = solve(jax.jacfwd(error)(logits, share), error(logits, share))
        tried = logits - strides[:, None] * step  # (16, A + B)
        norms = jnp.linalg.norm(jax.vmap(error, (0, None))(tried, share), axis=-1)
        better = jnp.min(norms) < jnp.linalg.norm(error(logits, share))
        return jnp.where(better, tried[jnp.argmin(norms)], logits), None

    together = jnp.multiply(beta_own, beta_other) > 0
    in_turns, _ = jax.lax.scan(take_turns, prior_logits, None, length=iterations)
    steepest = jnp.maximum(jnp.abs(beta_own), jnp.abs(beta_other)) * jnp.ptp(q)
    # Geometric from 1/steepest to 1 in the first three quarters, then 1.
    progress = jnp.minimum(jnp.arange(iterations, dtype=q.dtype) / (0.75 * iterations), 1)
    shares = jnp.where(together, 1, jnp.maximum(steepest, 1) ** (progress - 1))
    logits, _ = jax.lax.scan(newton, jnp.where(together, in_turns, prior_logits), shares)
    policy, opponent = policies(logits)
    # KL(π|P)/β = Σ π (β q ρ - log Z)/β: in this form β = 0 needs no care.
    own_values, other_values = q @ opponent, policy @ q
    own_penalty = policy @ own_values - log_mean_exp(own_values, own_prior, beta_own)
    other_penalty = opponent @ other_values - log_mean_exp(other_values, other_prior, beta_other)
    return IndependentPlay(
        value=policy @ q @ opponent - own_penalty - other_penalty,
        policy=policy,
        opponent=opponent,
        residual=jnp.max(jnp.abs(error(logits, jnp.ones((), q.dtype)))),
    )


def _uniform(q: jax.Array, axis: int) -> jax.Array:
    return jnp.full((q.shape[axis],), 1 / q.shape[axis], q.dtype)


# GR2: levels of reasoning.


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
            `π_k(a) = Σ_b π(a|b) ρ_{k-1}(b)`, as GR2 was published, not to their mixture.
    """
    chex.assert_rank([q_own, q_other], 2)
    chex.assert_equal_shape([q_own, q_other])
    own_prior = _uniform(q_own, 0) if own_prior is None else own_prior
    other_prior = _uniform(q_own, 1) if other_prior is None else other_prior
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
    """GR2-M's weights of the levels 1 to K, `(K,)`: a Poisson distribution cut to them.

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


# Several states: a known model of the game.


class TwoPlayerModel(NamedTuple):
    """A finite game with one reward, as one of two agents sees it."""

    reward: jax.Array  # (S, A, B)
    transition: jax.Array  # (S, A, B, S) probabilities; what is missing to 1 ends the game
    gamma: jax.Array  # ()


#: From a table `(A, B)`, and whatever else belongs to its state, to what a backup makes of it.
Stage = Callable[..., SoftBackup]


def lookahead(model: TwoPlayerModel, values: jax.Array) -> jax.Array:
    """`r(s,a,b) + γ E V(s')`: state values `(S,)` to joint action values `(S, A, B)`."""
    return model.reward + model.gamma * model.transition @ values


def bellman(model: TwoPlayerModel, stage: Stage, q: jax.Array, *stage_inputs: jax.Array) -> jax.Array:
    """The soft Bellman operator `(B q)(s,a,b) = r + γ E V(s')` with V(s') the soft value of q(s').

    A γ-contraction in the largest absolute value for each of the backups above and any sign of β: they
    are monotone, and adding a constant to q adds it to V.

    Args:
        model: rewards in the units of the backup (β r for `pr2` and `rommeo`).
        stage: for example `functools.partial(agent_outer, beta_own=2.0, beta_other=-3.0)`.
        q: `(S, A, B)`.
        *stage_inputs: further arguments of `stage` with a leading state axis, such as priors.
    """
    return lookahead(model, jax.vmap(stage)(q, *stage_inputs).value)


def soft_value_iteration(
    model: TwoPlayerModel,
    stage: Stage,
    *stage_inputs: jax.Array,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> tuple[jax.Array, SoftBackup]:
    """The fixed point q `(S, A, B)` of `bellman`, and the backup of every state (leading axis S).

    Args:
        model: see `bellman`.
        stage: see `bellman`.
        *stage_inputs: see `bellman`.
        tolerance: the largest error of q, unless rounding errors are larger.
        max_iterations: stops there in any case.
    """
    rounding = 4 * jnp.finfo(model.reward.dtype).eps

    def going(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q, change, iteration = carry
        far = (model.gamma * change > (1 - model.gamma) * tolerance) & (
            change > rounding * jnp.max(jnp.abs(q))
        )
        return far & (iteration < max_iterations)

    def improve(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        q, _, iteration = carry
        updated = bellman(model, stage, q, *stage_inputs)
        return updated, jnp.max(jnp.abs(updated - q)), iteration + 1

    start = (model.reward, jnp.asarray(jnp.inf, model.reward.dtype), jnp.zeros((), jnp.int32))
    q, _, _ = jax.lax.while_loop(going, improve, start)
    return q, jax.vmap(stage)(q, *stage_inputs)


def regularised_evaluation(
    model: TwoPlayerModel,
    policy: jax.Array,
    opponent: jax.Array,
    beta_own: Scalar,
    beta_other: Scalar,
    own_prior: Scalar | None = None,
    other_prior: Scalar | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Exact values of two given policies: q `(S, A, B)` and V `(S,)` (thesis, equations 3.34, 3.39).

    `q = r + γ E V` and `V = E[q - log(π/P)/β - log(ρ/P)/β']`, solved as a linear system. A β of ±inf drops
    its term. At β = 0 the term is 0 for a policy that is the prior, and infinite for any other.

    Args:
        model: see `bellman`.
        policy: π(a|s), `(S, A, 1)`, or π(a|s,b), `(S, A, B)`.
        opponent: ρ(b|s), `(S, 1, B)`, or ρ(b|s,a), `(S, A, B)`.
        beta_own: β, `()`.
        beta_other: β', `()`.
        own_prior: broadcastable to `(S, A, B)`; uniform if None.
        other_prior: broadcastable to `(S, A, B)`; uniform if None.
    """
    states, actions, others = model.reward.shape
    chex.assert_rank([policy, opponent], 3)
    joint = policy * opponent  # (S, A, B)

    def penalty(chosen: jax.Array, prior: Scalar, beta: Scalar) -> jax.Array:
        played = chosen > 0
        ratio = jnp.log(jnp.where(played, chosen, 1)) - jnp.log(jnp.where(played, prior, 1))
        return jnp.where(ratio == 0, 0, ratio / jnp.asarray(beta, ratio.dtype))

    stage_reward = (
        model.reward
        - penalty(policy, 1 / actions if own_prior is None else own_prior, beta_own)
        - penalty(opponent, 1 / others if other_prior is None else other_prior, beta_other)
    )
    moves = jnp.einsum("sab,sabt->st", joint, model.transition)
    expected = jnp.sum(jnp.where(joint > 0, joint * stage_reward, 0), axis=(1, 2))
    values = solve(jnp.eye(states, dtype=moves.dtype) - model.gamma * moves, expected)
    return lookahead(model, values), values


def contraction_factor(
    operator: Callable[[jax.Array], jax.Array], first: jax.Array, second: jax.Array
) -> jax.Array:
    """`max|T x - T y| / max|x - y|` for one pair x, y of the same shape: a lower bound of T's modulus."""
    chex.assert_equal_shape([first, second])
    return jnp.max(jnp.abs(operator(first) - operator(second))) / jnp.max(jnp.abs(first - second))


# One agent: SAC-discrete, soft Q-learning and its sampler.


def soft_value(q: jax.Array, policy: jax.Array, temperature: Scalar) -> jax.Array:
    """SAC's value of a discrete policy, `V = Σ_a π(a) (q(a) - α log π(a))`: `(A,)`, `(A,)` to `()`.

    It is largest, α log Σ_a e^{q/α}, at π = softmax(q/α) (`tilted_policy(q, 1/A, 1/α)`). Its gradient is
    finite, and that of the actions with π(a) > 0 alone.
    """
    chex.assert_equal_shape([q, policy])
    # The slope of -p log p is infinite at 0: an action that is not played has no part in the entropy.
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

    The first term is the log of the volume, without which the value of more dimensions is too small.
    """
    return sampled_soft_value(q, jnp.full(q.shape, -dimensions * math.log(2), q.dtype))


def svgd_direction(
    particles: jax.Array, score: jax.Array, bandwidth: Scalar, at: jax.Array | None = None
) -> jax.Array:
    """Stein's direction: where points should move for particles to follow the density p (Liu & Wang, 2016).

    `φ(y) = (1/n) Σ_j [k(x_j, y) ∇ log p(x_j) + ∇_{x_j} k(x_j, y)]` with `k(x, y) = e^{-|x - y|²/h}`. The
    first term climbs, the second drives apart; one particle alone climbs the gradient.

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
    away = points[:, None] - particles  # (m, n, d), y_i - x_j
    kernel = jnp.exp(-jnp.sum(jnp.square(away), axis=-1) / bandwidth)[..., None]  # (m, n, 1)
    return jnp.mean(kernel * (score + 2 / bandwidth * away), axis=1)


def median_bandwidth(particles: jax.Array) -> jax.Array:
    """H `()` of `svgd_direction` by the median heuristic, med²/log n over distances of pairs of `(n, d)`.

    With it the kernels at a particle sum to about 2 (Liu & Wang, 2016). It is 1 for a single particle,
    for which h does not matter, and bounded away from 0 for particles that coincide.
    """
    count = particles.shape[0]
    if count < 2:
        return jnp.ones((), particles.dtype)
    first, second = np.triu_indices(count, k=1)
    squared = jnp.sum(jnp.square(particles[first] - particles[second]), axis=-1)
    return jnp.maximum(jnp.median(squared) / math.log(count), jnp.finfo(particles.dtype).eps)


# Input.


def check_prior(prior: ArrayLike, shape: tuple[int, ...], axis: int = -1, name: str = "prior") -> np.ndarray:
    """`prior` as an array of this shape whose entries along `axis` are probabilities.

    Raises:
        BadInputError: if it has another shape, negative or non-finite entries, or does not sum to 1.
    """
    try:
        table = np.asarray(prior, dtype=float)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{name} is ragged or not numeric: give plain numbers that sum to 1") from error
    if table.shape != shape:
        raise BadInputError(f"{name} has shape {table.shape}: this game needs {shape}")
    if not np.isfinite(table).all() or (table < 0).any():
        raise BadInputError(f"{name} holds negative or non-finite entries: give probabilities")
    totals = table.sum(axis)
    if not np.allclose(totals, 1, rtol=0, atol=1e-5):
        wrong = totals.flat[np.argmax(np.abs(totals - 1))] if totals.ndim else totals
        raise BadInputError(f"{name} sums to {wrong:g}: probabilities must sum to 1")
    return table
