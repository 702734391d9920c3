"""Exact fitted Q-iteration in factored classes: factored Q-learning without sampling error.

With additive values (FMA-FQI) and with values of the IGM class (FQI-IGM), from Wang et al. 2021, "Towards
Understanding Cooperative Multi-Agent Q-Learning with Value Factorization". For shapes, float64 and errors see
`joint.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.tables import SUM_TOLERANCE
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import (
    PerAgent,
    bellman_backup,
    best_values,
    check_count,
    is_concrete,
    solver,
    total,
    with_start,
)
from jaxmarl_fac.exact.projections import additive_fit, sum_utilities


class AdditiveTrace(NamedTuple):
    """The iterates of FMA-FQI, t = 0, ..., T; t = 0 is the start."""

    values: jax.Array  # (T + 1, S), max over joint actions of q_tot
    q_tot: jax.Array  # (T + 1, S, A_1, ..., A_n)
    utilities: PerAgent  # n of (T + 1, S, A_i)


class IGMFactors(NamedTuple):
    """A member of QPLEX's class, `q_tot(u) = sum_i V_i + sum_i weights(u) (Q_i(u_i) - V_i)`."""

    values: PerAgent  # n of (), V_i = max Q_i
    utilities: PerAgent  # n of (A_i,), Q_i
    weights: jax.Array  # (A_1, ..., A_n) >= 0, the same for every agent


class IGMTrace(NamedTuple):
    """The iterates of FQI-IGM, t = 0, ..., T; t = 0 is the start."""

    values: jax.Array  # (T + 1, S), sum_i V_i
    q_tot: jax.Array  # (T + 1, S, A_1, ..., A_n), rebuilt from the factors
    factors: IGMFactors  # with leading axes (T + 1, S) on every leaf


def uniform_policies(model: TeamModel) -> PerAgent:
    """The uniform distribution over every agent's actions, n of `(S, A_i)`."""
    states, *counts = model.reward.shape
    return tuple(jnp.full((states, count), 1 / count, model.reward.dtype) for count in counts)


def epsilon_greedy_policies(utilities: PerAgent, epsilon: ArrayLike, exploration: PerAgent) -> PerAgent:
    """With probability `1 - epsilon` each agent's greedy action, else a draw from `exploration`.

    All are n of `(S, A_i)`. Ties of the greedy action go to the lowest index.
    """
    chance = jnp.asarray(epsilon)

    def mixed(utility: jax.Array, explore: jax.Array) -> jax.Array:
        best = jax.nn.one_hot(utility.argmax(axis=-1), utility.shape[-1], dtype=utility.dtype)
        return (1 - chance) * best + chance * explore

    return tuple(map(mixed, utilities, exploration))


def fma_fqi(
    model: TeamModel,
    discount: ArrayLike,
    iterations: int,
    *,
    epsilon: ArrayLike = 1.0,
    exploration: PerAgent | None = None,
    start: PerAgent | None = None,
) -> AdditiveTrace:
    """Fitted Q-iteration in the additive class, with exact regression (Wang et al. 2021; exact VDN).

    `Q^{t+1}` is the additive function closest to `y^t = r + discount E max Q_tot^t` in the mean square
    under the data distribution. In every state the agents' actions in the data are independent:
    `epsilon_greedy_policies` of the current iterate. With `epsilon` 1 the data are off-policy and do
    not change; with a small one they are on-policy. The regression is the closed form of Theorem 1
    (`additive_fit`); the utilities are its choice w_i = 0.

    Args:
        model: the game.
        discount: in [0, 1).
        iterations: `T`.
        epsilon: in (0, 1].
        exploration: n of `(S, A_i)`, positive probabilities; uniform if None.
        start: the utilities at t = 0, n of `(S, A_i)`; 0 if None.

    Raises:
        BadInputError: for data without some action, and the errors of all solvers (`joint.py`).
    """
    check_count(iterations, "iterations")
    if is_concrete(epsilon) and not (np.min(epsilon) > 0 and np.max(epsilon) <= 1):
        raise BadInputError(
            f"epsilon must be in (0, 1], not {epsilon}: the data must hold every action of every agent"
        )
    if exploration is not None:
        _check_exploration(model, exploration)
    return _fma_fqi(model, discount, iterations, epsilon, exploration, start)


def _check_exploration(model: TeamModel, exploration: PerAgent) -> None:
    states, *counts = model.reward.shape
    shapes = [tuple(np.shape(chances)) for chances in exploration]
    if shapes != [(states, count) for count in counts]:
        raise BadInputError(
            f"exploration of shapes {shapes} does not fit a reward of shape {model.reward.shape}: "
            "give for each agent (states, actions)"
        )
    for agent, chances in enumerate(exploration):
        if not is_concrete(chances):
            continue
        if not np.min(chances) > 0:
            raise BadInputError(
                f"the data distribution of agent {agent} holds a probability of {np.min(chances):g}: "
                "every action of every agent needs a positive one"
            )
        sums = np.sum(chances, axis=-1)
        if np.abs(sums - 1).max() > SUM_TOLERANCE:
            worst = int(np.abs(sums - 1).argmax())
            raise BadInputError(
                f"the data distribution of agent {agent} does not sum to 1: in state {worst} it sums to "
                f"{sums[worst]:g}"
            )


@solver("iterations")
def _fma_fqi(
    model: TeamModel,
    discount: ArrayLike,
    iterations: int,
    epsilon: ArrayLike,
    exploration: PerAgent | None,
    start: PerAgent | None,
) -> AdditiveTrace:
    explore = uniform_policies(model) if exploration is None else exploration
    first = jax.tree.map(jnp.zeros_like, explore) if start is None else start

    def iterate(utilities: PerAgent, _: None) -> tuple[PerAgent, PerAgent]:
        data = epsilon_greedy_policies(utilities, epsilon, explore)
        values = total(utility.max(axis=-1) for utility in utilities)
        fitted = tuple(jax.vmap(additive_fit)(bellman_backup(model, discount, values), data).utilities)
        return fitted, fitted

    _, iterates = jax.lax.scan(iterate, first, length=iterations)
    utilities = with_start(first, iterates)
    q_tot = jax.vmap(jax.vmap(sum_utilities))(utilities)
    return AdditiveTrace(values=jax.vmap(best_values)(q_tot), q_tot=q_tot, utilities=utilities)


def igm_projection(target: jax.Array) -> IGMFactors:
    """Factors of the IGM class that rebuild `target (A_1, ..., A_n)` exactly.

    The construction in the proof that QPLEX's class is complete: with u* the best joint action,
    `V_i = target(u*) / n`, `Q_i(u_i) = V_i - [u_i != u*_i]`, and the weight of u is
    `(target(u*) - target(u)) / (number of agents that deviate from u*)`, 1 at u* itself. So the
    maximum of each `Q_i` at u*_i is unique. A joint action as good as u* gets weight 0: the boundary of the
    class, which a network with positive weights can approach but not reach.
    """
    n = target.ndim
    best = jnp.unravel_index(target.argmax(), target.shape)
    top = target.max()
    values = (top / n,) * n
    deviates = [
        (jnp.arange(count) != action).astype(target.dtype)
        for count, action in zip(target.shape, best, strict=True)
    ]  # n of (A_i,)
    deviators = sum_utilities(deviates)  # (A_1, ..., A_n)
    return IGMFactors(
        values=values,
        utilities=tuple(value - away for value, away in zip(values, deviates, strict=True)),
        weights=jnp.where(deviators > 0, (top - target) / jnp.maximum(deviators, 1), 1.0),
    )


def igm_q_tot(factors: IGMFactors) -> jax.Array:
    """The joint values `(A_1, ..., A_n)` of the factors."""
    advantages = [q - v for q, v in zip(factors.utilities, factors.values, strict=True)]
    return total(factors.values) + factors.weights * sum_utilities(advantages)


@solver("iterations")
def fqi_igm(
    model: TeamModel, discount: ArrayLike, iterations: int, start: jax.Array | None = None
) -> IGMTrace:
    """Fitted Q-iteration in the IGM class, with exact regression (Wang et al. 2021).

    Each iterate is `igm_projection` of the backup of the one before, and the next backup reads only the
    factors. The class is complete, so this is value iteration: the error shrinks by `discount` each time.

    Args:
        model: the game.
        discount: in [0, 1).
        iterations: `T`.
        start: the joint values at t = 0, `(S, A_1, ..., A_n)`; 0 if None.
    """
    project = jax.vmap(igm_projection)
    first = project(jnp.zeros_like(model.reward) if start is None else start)

    def iterate(factors: IGMFactors, _: None) -> tuple[IGMFactors, IGMFactors]:
        factors = project(bellman_backup(model, discount, total(factors.values)))
        return factors, factors

    _, iterates = jax.lax.scan(iterate, first, length=iterations)
    factors = with_start(first, iterates)
    return IGMTrace(
        values=total(factors.values), q_tot=jax.vmap(jax.vmap(igm_q_tot))(factors), factors=factors
    )
