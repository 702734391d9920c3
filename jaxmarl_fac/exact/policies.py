"""Exact theory of stochastic policies in finite team MDPs: evaluation, improvement, gradients and bounds.

A policy is a table π(u|s) over joint actions, `(S, A_1, ..., A_n)`, which sums to 1 in every state:
`joint_policy` makes it of the policies of independent agents. One agent makes an MDP. Episodes start in a
state drawn from `start (S,)`. As in `joint`, the precision is that of the model, and every function that
begins with `(model, discount, ...)` raises `BadInputError` for a discount outside [0, 1).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import rel_entr
from jax.typing import ArrayLike

from envs.team_mdp import TeamModel
from jaxmarl_fac.exact import linear_systems
from jaxmarl_fac.exact.joint import PerAgent, bellman_backup, solver, with_start


class PolicyTrace(NamedTuple):
    """The iterates of policy iteration, t = 0, ..., T; t = 0 is the start."""

    policies: jax.Array  # (T + 1, S, A_1, ..., A_n)
    values: jax.Array  # (T + 1, S), of these policies


def joint_policy(policies: PerAgent) -> jax.Array:
    """The joint policy `(S, A_1, ..., A_n)` of independent agents, n of `(S, A_i)` probabilities."""
    return jax.vmap(lambda *own: functools.reduce(jnp.multiply.outer, own))(*policies)


# Evaluation and improvement


@solver()
def state_values(model: TeamModel, discount: ArrayLike, policy: jax.Array) -> jax.Array:
    """V^π `(S,)` by a linear solve (Sutton and Barto, 2018, equation 4.4; thesis, equation 2.12)."""
    reward = jnp.where(model.terminal, 0.0, _mean(policy * model.reward))
    return linear_systems.differentiable_solve(_system(model, discount, policy), reward)


@solver()
def action_values(model: TeamModel, discount: ArrayLike, policy: jax.Array) -> jax.Array:
    """Q^π `(S, A_1, ..., A_n)`, 0 in terminal states."""
    return bellman_backup(model, discount, state_values(model, discount, policy))


@solver()
def advantages(model: TeamModel, discount: ArrayLike, policy: jax.Array) -> jax.Array:
    """A^π = Q^π - V^π, `(S, A_1, ..., A_n)`, 0 in terminal states."""
    q = action_values(model, discount, policy)
    return q - _mean(policy * q).reshape(-1, *(1,) * (q.ndim - 1))


def greedy_policy(q: jax.Array) -> jax.Array:
    """The deterministic policy `(S, A_1, ..., A_n)` that is greedy for q; ties go to the lowest index."""
    flat = q.reshape(len(q), -1)
    return jax.nn.one_hot(jnp.argmax(flat, axis=1), flat.shape[1], dtype=q.dtype).reshape(q.shape)


@solver("improvements")
def policy_iteration(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, improvements: int
) -> PolicyTrace:
    """Policy iteration: `improvements` times evaluation and greedy improvement (thesis, equation 2.18).

    No value ever falls, and a policy that stays as it is is optimal.
    """

    def improve(policy: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        policy = greedy_policy(action_values(model, discount, policy))
        return policy, policy

    _, iterates = jax.lax.scan(improve, policy, length=improvements)
    policies = with_start(policy, iterates)
    return PolicyTrace(policies, jax.vmap(lambda each: state_values(model, discount, each))(policies))


# Performance and its gradient


@solver()
def performance(model: TeamModel, discount: ArrayLike, policy: jax.Array, start: jax.Array) -> jax.Array:
    """The expected discounted return η(π) `()` of an episode (thesis, equation 2.26)."""
    return jnp.sum(start * state_values(model, discount, policy))


@solver()
def discounted_visits(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, start: jax.Array
) -> jax.Array:
    """ρ_π(s) = Σ_t γ^t P(s_t = s), `(S,)`, of the states in which the agents act: 0 in terminal ones.

    (Schulman et al., 2015, section 2; thesis, equation 2.31.) Not normalised: without terminal states the
    sum is 1/(1 - γ).
    """
    visits = linear_systems.differentiable_solve(_system(model, discount, policy).T, jnp.asarray(start))
    return jnp.where(model.terminal, 0.0, visits)


def agent_values(q: jax.Array, policies: PerAgent) -> PerAgent:
    """For each agent `E[q(s, u) | u_i = a]`, n of `(S, A_i)`, the others drawn from their policies.

    Args:
        q: `(S, A_1, ..., A_n)`.
        policies: n of `(S, A_i)`.
    """
    agents = range(len(policies))

    def of_state(table: jax.Array, *own: jax.Array) -> PerAgent:
        values = []
        for agent in agents:
            left = table
            for other in reversed(agents):  # from the last axis, so that the earlier ones keep their index
                if other != agent:
                    left = jnp.sum(jnp.moveaxis(left, other, -1) * own[other], axis=-1)
            values.append(left)
        return tuple(values)

    return jax.vmap(of_state)(q, *policies)


@solver()
def policy_gradient(model: TeamModel, discount: ArrayLike, policies: PerAgent, start: jax.Array) -> PerAgent:
    """∂η/∂x_i, n of `(S, A_i)`, for agents that play softmax(x_i(s)): the policy-gradient theorem.

    `ρ(s) π_i(a|s) (E[Q(s, u) | u_i = a] - V(s))` (Sutton et al., 2000; thesis, equations 2.27 and 2.71).

    Args:
        model: the game.
        discount: in [0, 1).
        policies: n of `(S, A_i)` probabilities.
        start: `(S,)` probabilities of the first state.
    """
    joint = joint_policy(policies)
    visits = discounted_visits(model, discount, joint, start)
    own = agent_values(advantages(model, discount, joint), policies)
    return tuple(visits[:, None] * policy * value for policy, value in zip(policies, own, strict=True))


# One policy seen from another


@solver()
def performance_difference(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, new: jax.Array, start: jax.Array
) -> jax.Array:
    """η(π̃) - η(π) as `Σ_s ρ_π̃(s) Σ_u π̃(u|s) A_π(s, u)`, `()` (Kakade and Langford, 2002, lemma 6.1)."""
    gains = _mean(new * advantages(model, discount, policy))
    return jnp.sum(discounted_visits(model, discount, new, start) * gains)


@solver()
def surrogate_performance(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, new: jax.Array, start: jax.Array
) -> jax.Array:
    """L_π(π̃) = η(π) + Σ_s ρ_π(s) Σ_u π̃(u|s) A_π(s, u), `()`: with the visits of the old policy π.

    (Schulman et al., 2015, "Trust region policy optimization", equation 3; thesis, equation 2.31.)
    """
    gains = _mean(new * advantages(model, discount, policy))
    visits = discounted_visits(model, discount, policy, start)
    return performance(model, discount, policy, start) + jnp.sum(visits * gains)


def largest_divergence(model: TeamModel, policy: jax.Array, new: jax.Array) -> jax.Array:
    """max_s KL(π(.|s) || π̃(.|s)) `()` in nats, over the states in which the agents act."""
    divergence = _mean(rel_entr(policy, new))  # (S,)
    return jnp.max(jnp.where(model.terminal, 0.0, divergence))


@solver()
def trust_region_bound(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, new: jax.Array, start: jax.Array
) -> jax.Array:
    """A lower bound `()` of η(π̃): `L_π(π̃) - 4 ε γ / (1 - γ)² max_s KL(π || π̃)`, ε = max |A_π|.

    (Schulman et al., 2015, theorem 1; thesis, theorem 5, equation 2.30.)
    """
    largest = jnp.max(jnp.abs(advantages(model, discount, policy)))
    penalty = 4 * largest * discount / (1 - discount) ** 2 * largest_divergence(model, policy, new)
    return surrogate_performance(model, discount, policy, new, start) - penalty


def _mean(table: jax.Array) -> jax.Array:
    """The sum over joint actions, `(S, A_1, ..., A_n)` to `(S,)`."""
    return jnp.sum(table, axis=tuple(range(1, table.ndim)))


def _system(model: TeamModel, discount: ArrayLike, policy: jax.Array) -> jax.Array:
    """I - γ P_π, `(S, S)`; nothing follows a terminal state."""
    chances = jnp.sum(policy[..., None] * model.transition, axis=tuple(range(1, policy.ndim)))
    going = jnp.where(model.terminal[:, None], 0.0, chances)
    return jnp.eye(len(going), dtype=going.dtype) - discount * going
