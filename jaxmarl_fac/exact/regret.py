"""Exact regret of Boltzmann policies in finite team MDPs, its bounds, and how often a state is seen again.

Mei et al. (2023), "ReMIX: Regret Minimization for Monotonic Value Function Factorization in Multiagent
Reinforcement Learning", section 2.3 and supplement C. The temperature is 1 throughout. Policies are tables
π(u|s) over joint actions, as in `policies`; for shapes, float64 and errors see `joint.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.special import lambertw

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact import linear_systems
from jaxmarl_fac.exact.joint import PerAgent, bellman_backup, check_count, solver
from jaxmarl_fac.exact.policies import discounted_visits, joint_policy, performance


class RegretBounds(NamedTuple):
    """The regret of a policy, and what ReMIX puts above it; all `()`."""

    regret: jax.Array  # η(π*) - η(π_k)
    without_one: jax.Array  # the right-hand side of equation 5
    with_one: jax.Array  # that of equation 18
    jensen: jax.Array  # the objective of equation 6


class Revisits(NamedTuple):
    """How soon each state is visited first, and again; 0 in terminal states."""

    first: jax.Array  # (S,), d_1(s) = (1 - γ) Σ_t γ^t P(s_t = s for the first time)
    again: jax.Array  # (S, A_1, ..., A_n), Σ_{t>0} γ^t P(s_t = s for the first time since s_0 = s | u_0 = u)


# Boltzmann policies


def boltzmann_policy(q: jax.Array) -> jax.Array:
    """π(u|s) = exp q(s, u) / Σ_u' exp q(s, u'), `(S, A_1, ..., A_n)` of `q` of the same shape."""
    return jax.nn.softmax(q, axis=tuple(range(1, q.ndim)))


def boltzmann_team(utilities: PerAgent) -> jax.Array:
    """The joint policy `(S, A_1, ..., A_n)` of agents who play Boltzmann policies of `utilities (S, A_i)`.

    It is `boltzmann_policy` of the utilities' sum, but not of another mixture of them.
    """
    return joint_policy(tuple(jax.nn.softmax(utility, axis=-1) for utility in utilities))


def boltzmann_gap(q: jax.Array) -> jax.Array:
    """By how much a Boltzmann policy falls short: max_u q(s, u) - E q(s, u), `(S,)`."""
    flat = q.reshape(len(q), -1)
    return jnp.max(flat, axis=1) - jnp.sum(jax.nn.softmax(flat, axis=1) * flat, axis=1)


def largest_boltzmann_gap(actions: ArrayLike) -> np.ndarray:
    """The supremum of `boltzmann_gap` over all tables of so many (joint) actions, float64 of the same shape.

    W((N - 1) / e), with Lambert's W. One action is better than the others, which are equal, by z: the gap is
    then (N - 1) z / (e^z + N - 1), which is largest where (z - 1) e^(z - 1) = (N - 1) / e, and there z - 1.

    Raises:
        BadInputError: for fewer than one action.
    """
    counts = np.asarray(actions, np.float64)
    if not (counts >= 1).all():
        raise BadInputError(f"a policy has at least one action, not {counts.min():g}")
    return np.asarray(lambertw((counts - 1) / np.e).real)


@solver("sweeps")
def boltzmann_values(model: TeamModel, discount: ArrayLike, sweeps: int = 1000) -> jax.Array:
    """Q with Q = Q^π for π = `boltzmann_policy(Q)`, `(S, A_1, ..., A_n)`.

    The result of `sweeps` backups r + γ E Σ_u π(u|s') Q(s', u) from 0. These are no contraction in general
    (Asadi and Littman, 2017): compare with `policies.action_values` to see whether they have settled.
    """
    check_count(sweeps, "sweeps")

    def sweep(_: int, q: jax.Array) -> jax.Array:
        return bellman_backup(model, discount, _mean(boltzmann_policy(q) * q))

    return jax.lax.fori_loop(0, sweeps, sweep, jnp.zeros_like(model.reward))


# Visits


@solver()
def state_distribution(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, start: jax.Array
) -> jax.Array:
    """d^π(s) = (1 - γ) Σ_t γ^t P(s_t = s), `(S,)` (section 2.3): it sums to 1 if no state is terminal."""
    return (1 - jnp.asarray(discount)) * discounted_visits(model, discount, policy, start)


@solver()
def revisits(model: TeamModel, discount: ArrayLike, policy: jax.Array, start: jax.Array) -> Revisits:
    """First visits and returns of each state under `policy`, by a linear solve for each (supplement C).

    With R(s) = Σ_u π(u|s) again(s, u) the distribution of states is first(s) / (1 - R(s)), and its
    derivative by π(u|s) is first(s) again(s, u) / (1 - R(s))²; lemma 3 has ε = max again.
    """
    states = jnp.arange(len(model.terminal))
    chances = jnp.sum(policy[..., None] * model.transition, axis=tuple(range(1, policy.ndim)))
    onward = discount * jnp.where(model.terminal[:, None], 0.0, chances)  # (S, S)
    system = jnp.eye(len(states), dtype=onward.dtype) - onward

    def of_state(state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """E γ^T of the time T until `state`, 0 if one is there: from the start, and after its actions."""
        here = (states == state).astype(onward.dtype)
        until = linear_systems.solve(jnp.where(here[:, None] > 0, here, system), here)  # (S,)
        after = discount * jnp.sum(model.transition[state] * until, axis=-1)
        over = model.terminal[state]
        return jnp.where(over, 0.0, jnp.sum(start * until)), jnp.where(over, 0.0, after)

    first, again = jax.vmap(of_state)(states)
    return Revisits((1 - jnp.asarray(discount)) * first, again)


# Regret


@solver()
def regret(
    model: TeamModel, discount: ArrayLike, policy: jax.Array, best: jax.Array, start: jax.Array
) -> jax.Array:
    """η(π*) - η(π), `()`, for policies π and π* = `best`, both `(S, A_1, ..., A_n)`.

    Below 0 if `best` is not the better one, as a Boltzmann policy need not be.
    """
    return performance(model, discount, best, start) - performance(model, discount, policy, start)


@solver()
def regret_bounds(
    model: TeamModel,
    discount: ArrayLike,
    q_star: jax.Array,
    q_k: jax.Array,
    policy: jax.Array,
    start: jax.Array,
) -> RegretBounds:
    """The regret against the Boltzmann policy of `q_star`, and ReMIX's equations 5, 18 and 6.

    Where `q_star` are the values of its Boltzmann policy, regret times 1 - γ is the right-hand side of (5)
    plus what `q_k` expects of that policy more than of π_k, in the states that π_k visits.

    Args:
        model: the game.
        discount: γ, in [0, 1).
        q_star: Q*, `(S, A_1, ..., A_n)`.
        q_k: Q_k, of the same shape.
        policy: π_k, of the same shape.
        start: `(S,)` probabilities of the first state.
    """
    best = boltzmann_policy(q_star)
    states = state_distribution(model, discount, policy, start).reshape(-1, *(1,) * (policy.ndim - 1))
    wanted, taken, above = states * best, states * policy, q_k - q_star
    bound = jnp.sum(taken * above) - jnp.sum(wanted * above)
    return RegretBounds(
        regret(model, discount, policy, best, start),
        bound,
        (bound + 1) / (1 - jnp.asarray(discount)),
        -jax.nn.logsumexp(above, b=wanted) - jax.nn.logsumexp(-above, b=taken),
    )


def _mean(table: jax.Array) -> jax.Array:
    """The sum over joint actions, `(S, A_1, ..., A_n)` to `(S,)`."""
    return jnp.sum(table, axis=tuple(range(1, table.ndim)))
