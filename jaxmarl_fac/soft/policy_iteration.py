"""Soft policy iteration in finite MDPs, with exact evaluation (thesis, section 2.4.1, theorem 6).

As control as inference has it, values are in units of β times reward: `Q = β r + γ E V(s')` and
`V = E_π [Q - log π/P]`. Shapes are those of `exact.policies`: a policy and its prior P are tables
`(S, A_1, ..., A_n)` over joint actions; one agent makes an MDP. Every function of `(model, discount, ...)`
raises `BadInputError` for a discount outside [0, 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import bellman_backup, solver, with_start
from jaxmarl_fac.exact.policies import state_values


class SoftPolicyTrace(NamedTuple):
    """The iterates of soft policy iteration, t = 0, ..., T; t = 0 is the start."""

    policies: jax.Array  # (T + 1, S, A_1, ..., A_n)
    values: jax.Array  # (T + 1, S), V of these policies
    q: jax.Array  # (T + 1, S, A_1, ..., A_n)


def scaled(model: TeamModel, beta: ArrayLike) -> TeamModel:
    """The model with rewards βr."""
    return model._replace(reward=jnp.multiply(beta, model.reward))


@solver()
def soft_state_values(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, prior: jax.Array, beta: ArrayLike = 1.0
) -> jax.Array:
    """`V^π (S,)` of any policy, by a linear solve; 0 in terminal states (thesis, equations 2.50 and 2.51).

    A policy must not play what its prior excludes.
    """
    played = policy > 0
    ratio = jnp.log(jnp.where(played, policy, 1)) - jnp.log(jnp.where(played, prior, 1))
    return state_values(  # type: ignore[no-any-return]
        model._replace(reward=jnp.multiply(beta, model.reward) - ratio), discount, policy
    )


@solver()
def soft_action_values(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, prior: jax.Array, beta: ArrayLike = 1.0
) -> jax.Array:
    """`Q^π = βr + γ E V^π`, `(S, A_1, ..., A_n)`, 0 in terminal states (thesis, equation 2.49)."""
    values = soft_state_values(model, discount, policy, prior, beta)
    return bellman_backup(scaled(model, beta), discount, values)  # type: ignore[no-any-return]


def log_normaliser(q: jax.Array, prior: jax.Array) -> jax.Array:
    """`Z(s) = log Σ_u P(u|s) e^{q(s,u)}`, `(S,)`: the soft maximum of q."""
    flat, chances = q.reshape(len(q), -1), prior.reshape(len(q), -1)
    return jax.nn.logsumexp(flat, axis=1, b=chances)


def soft_greedy_policy(q: jax.Array, prior: jax.Array) -> jax.Array:
    """The improved policy `P e^q / Σ P e^q`, `(S, A_1, ..., A_n)`: (2.53) with exp Z for V, as in (A.7)."""
    return prior * jnp.exp(q - log_normaliser(q, prior).reshape(-1, *(1,) * (q.ndim - 1)))


@solver("improvements")
def soft_policy_iteration(
    model: TeamModel,
    discount: ArrayLike,
    policy: jax.Array,
    prior: jax.Array,
    improvements: int,
    beta: ArrayLike = 1.0,
) -> SoftPolicyTrace:
    """`improvements` times evaluation and soft improvement. Q never falls (theorem 6).

    The limit is the fixed point of `soft_bellman`.
    """

    def improve(policy: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        policy = soft_greedy_policy(soft_action_values(model, discount, policy, prior, beta), prior)
        return policy, policy

    _, iterates = jax.lax.scan(improve, policy, length=improvements)
    policies = with_start(policy, iterates)
    values = jax.vmap(lambda each: soft_state_values(model, discount, each, prior, beta))(policies)
    q = jax.vmap(lambda each: bellman_backup(scaled(model, beta), discount, each))(values)
    return SoftPolicyTrace(policies, values, q)


@solver()
def soft_bellman(
    model: TeamModel, discount: ArrayLike, q: jax.Array, prior: jax.Array, beta: ArrayLike = 1.0
) -> jax.Array:
    """The soft Bellman operator `βr + γ E log Σ P e^q`, a γ-contraction (thesis, equations 2.52, A.5)."""
    return bellman_backup(scaled(model, beta), discount, log_normaliser(q, prior))  # type: ignore[no-any-return]
