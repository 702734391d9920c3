"""Exact solvers for finite team decision processes: what factored Q-learning does without sampling.

Value iteration on joint actions; fitted Q-iteration with additive values (FMA-FQI) and with values of the
IGM class (FQI-IGM), from Wang et al. 2021, "Towards Understanding Cooperative Multi-Agent Q-Learning with
Value Factorization"; and the operators of Logical Team Q-learning (LTQL, Cassano and Sayed 2021).

Every solver starts with `(model, discount, ...)`, is jitted, and can be vmapped over games, discounts and
data. Numbers are as exact as the model: build it, and call these, inside `jax.enable_x64(True)` for
float64. Shapes: `S` states, agent i has `A_i` actions; what agents have one of each, `(S, A_i)`, comes as a
tuple of n arrays, because the A_i may differ. Ties in every argmax go to the lowest index.

All solvers raise `BadInputError` for a discount outside [0, 1) and for a model with fewer than two agents.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.tables import SUM_TOLERANCE
from envs.team_mdp import TeamModel
from jaxmarl_fac.projections import additive_fit, greedy, sum_utilities

#: One array for each agent: utilities, q-functions or policies.
PerAgent = tuple[jax.Array, ...]


class ValueTrace(NamedTuple):
    """The iterates of value iteration, t = 0, ..., T; t = 0 is the start."""

    values: jax.Array  # (T + 1, S), max over joint actions of q
    q: jax.Array  # (T + 1, S, A_1, ..., A_n)


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


class TeamTrace(NamedTuple):
    """What repeated application of LTQL's operators leads to."""

    q: PerAgent  # n of (S, A_i), after the last application
    actions: jax.Array  # (T, S, n), the greedy joint action after each application


class TeamResiduals(NamedTuple):
    """How far factored q-functions are from LTQL's two equations; both are 0 at a team optimum."""

    consistency: jax.Array  # (), largest |q^k - B_I q^k|: equation (1)
    optimality: jax.Array  # (), largest |max q^k - max over joint actions of k's backup|: equation (2)


# Checks. A traced value cannot be looked at; the caller's own numbers can.

_Solver = TypeVar("_Solver", bound=Callable[..., Any])


def _known(*values: Any) -> bool:
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def _solver(*static: str) -> Callable[[_Solver], _Solver]:
    """Jits a function of `(model, discount, ...)` and checks these two before."""

    def decorate(solve: _Solver) -> _Solver:
        compiled = jax.jit(solve, static_argnames=static)

        @functools.wraps(solve)
        def checked(model: TeamModel, discount: ArrayLike, *args: Any, **kwargs: Any) -> Any:
            shape = model.reward.shape
            if len(shape) < 3:
                raise BadInputError(
                    f"a reward of shape {shape} has fewer than two agents: give "
                    "(states, actions of agent 1, ..., actions of agent n), n >= 2"
                )
            if model.transition.shape != (*shape, shape[0]) or model.terminal.shape != shape[:1]:
                raise BadInputError(
                    f"a model with transition {model.transition.shape}, reward {shape} and terminal "
                    f"{model.terminal.shape} does not fit together: use `team_mdp(...).model()`, "
                    "and jax.vmap for a batch of games"
                )
            if _known(discount) and not (np.min(discount) >= 0 and np.max(discount) < 1):
                raise BadInputError(f"the discount must be in [0, 1), not {discount}")
            return compiled(model, discount, *args, **kwargs)

        return cast(_Solver, checked)

    return decorate


def _check_count(count: int, name: str) -> None:
    if count < 1:
        raise BadInputError(f"{name} must be at least 1, not {count}")


# The joint Q-function.


@_solver()
def backup(model: TeamModel, discount: ArrayLike, values: jax.Array) -> jax.Array:
    """One Bellman backup, `y(s, u) = r(s, u) + discount E[values(s')]`, 0 in terminal states.

    Args:
        model: the game.
        discount: in [0, 1).
        values: `(S,)`, what each state is worth; terminal states count as 0.

    Returns:
        `(S, A_1, ..., A_n)`.
    """
    onward = jnp.matmul(
        model.transition, jnp.where(model.terminal, 0.0, values), precision=jax.lax.Precision.HIGHEST
    )
    over = model.terminal.reshape(-1, *(1,) * (model.reward.ndim - 1))
    return jnp.where(over, 0.0, model.reward + discount * onward)


def _best(q: jax.Array) -> jax.Array:
    """`max_u q(s, u)`, `(S,)`."""
    return q.max(axis=tuple(range(1, q.ndim)))


def _total(parts: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _with_start(start: Any, iterates: Any) -> Any:
    """Puts the start before the stacked iterates, leaf by leaf."""
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, iterates)


@_solver("sweeps")
def value_iteration(
    model: TeamModel, discount: ArrayLike, sweeps: int, start: jax.Array | None = None
) -> ValueTrace:
    """Value iteration on the joint action space, from `start (S, A_1, ..., A_n)`, 0 if None."""
    first = jnp.zeros_like(model.reward) if start is None else start

    def sweep(q: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        q = backup(model, discount, _best(q))
        return q, q

    _, iterates = jax.lax.scan(sweep, first, length=sweeps)
    q = _with_start(first, iterates)
    return ValueTrace(values=jax.vmap(_best)(q), q=q)


@_solver()
def optimal_q(model: TeamModel, discount: ArrayLike, tolerance: ArrayLike = 1e-10) -> jax.Array:
    """Q*, `(S, A_1, ..., A_n)`: value iteration until the error is below `tolerance`, or rounding."""
    epsilon = jnp.finfo(model.reward.dtype).eps

    def unfinished(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        values, change = carry
        # |V - V*| <= discount / (1 - discount) times the last change.
        wanted = tolerance * (1 - discount) / jnp.maximum(discount, epsilon)
        return change > jnp.maximum(wanted, 8 * epsilon * jnp.abs(values).max())

    def sweep(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values = _best(backup(model, discount, carry[0]))
        return values, jnp.abs(values - carry[0]).max()

    start = _best(jnp.zeros_like(model.reward)), jnp.full((), jnp.inf, model.reward.dtype)
    values, _ = jax.lax.while_loop(unfinished, sweep, start)
    return backup(model, discount, values)


@_solver()
def policy_values(model: TeamModel, discount: ArrayLike, policies: PerAgent) -> jax.Array:
    """The values `(S,)` of independent policies, n of `(S, A_i)` probabilities: a linear solve."""

    def expect(table: jax.Array, *chances: jax.Array) -> jax.Array:
        for chance in chances:  # agent by agent, the first axis each time
            table = jnp.tensordot(chance, table, axes=(0, 0))
        return table

    reward = jax.vmap(expect)(model.reward, *policies)  # (S,)
    transition = jax.vmap(expect)(model.transition, *policies)  # (S, S)
    going = jnp.where(model.terminal[:, None], 0.0, transition)
    system = jnp.eye(len(reward), dtype=reward.dtype) - discount * going
    return jnp.linalg.solve(system, jnp.where(model.terminal, 0.0, reward))


def optimality_gap(q_star: jax.Array, actions: jax.Array) -> jax.Array:
    """What playing `actions (S, n)` loses in the worst state, `max_s V*(s) - Q*(s, actions)`, `()`.

    It is 0 exactly if always to play them is optimal. `q_star (S, A_1, ..., A_n)` is `optimal_q`'s.
    """
    played = jax.vmap(lambda q, joint: q[tuple(joint)])(q_star, actions)
    return (_best(q_star) - played).max()


# Fitted Q-iteration with factored values.


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

    `Q^{t+1}` is the additive function nearest to `y^t = r + discount E max Q_tot^t` in the mean square
    under the data distribution. In every state the agents' actions in the data are independent:
    `epsilon_greedy_policies` of the current iterate. With `epsilon` 1 the data are off-policy and stay
    the same; with a small one they are on-policy. The regression is the closed form of Theorem 1
    (`additive_fit`); the utilities are its choice w_i = 0.

    Args:
        model: the game.
        discount: in [0, 1).
        iterations: `T`.
        epsilon: in (0, 1].
        exploration: n of `(S, A_i)`, positive probabilities; uniform if None.
        start: the utilities at t = 0, n of `(S, A_i)`; 0 if None.

    Raises:
        BadInputError: for data that leave out an action, or as the module says.
    """
    _check_count(iterations, "iterations")
    if _known(epsilon) and not (np.min(epsilon) > 0 and np.max(epsilon) <= 1):
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
        if not _known(chances):
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


@_solver("iterations")
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
        values = _total(utility.max(axis=-1) for utility in utilities)
        fitted = tuple(jax.vmap(additive_fit)(backup(model, discount, values), data).utilities)
        return fitted, fitted

    _, iterates = jax.lax.scan(iterate, first, length=iterations)
    utilities = _with_start(first, iterates)
    q_tot = jax.vmap(jax.vmap(sum_utilities))(utilities)
    return AdditiveTrace(values=jax.vmap(_best)(q_tot), q_tot=q_tot, utilities=utilities)


def igm_projection(target: jax.Array) -> IGMFactors:
    """Factors of the IGM class that rebuild `target (A_1, ..., A_n)` exactly.

    The proof that QPLEX's class is complete, as a construction: with u* the best joint action,
    `V_i = target(u*) / n`, `Q_i(u_i) = V_i - [u_i != u*_i]`, and the weight of u is
    `(target(u*) - target(u)) / (number of agents that deviate from u*)`, 1 at u* itself. So each `Q_i`
    has its only maximum at u*_i. Where another joint action is as good as u*, its weight is 0: the edge
    of the class, which a network with positive weights can come near but not reach.
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
    return _total(factors.values) + factors.weights * sum_utilities(advantages)


@_solver("iterations")
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
        factors = project(backup(model, discount, _total(factors.values)))
        return factors, factors

    _, iterates = jax.lax.scan(iterate, first, length=iterations)
    factors = _with_start(first, iterates)
    return IGMTrace(
        values=_total(factors.values), q_tot=jax.vmap(jax.vmap(igm_q_tot))(factors), factors=factors
    )


# The operators of Logical Team Q-learning.


def greedy_joint(q: PerAgent) -> jax.Array:
    """Each agent's greedy action in each state, `(S, n)`, of q-functions `(S, A_i)`."""
    return jax.vmap(greedy)(q)


def _team_backups(model: TeamModel, discount: ArrayLike, q: PerAgent) -> list[jax.Array]:
    """For each agent `r + discount E max q^k(s')`, n of `(S, A_1, ..., A_n)`."""
    return [backup(model, discount, own.max(axis=-1)) for own in q]


def _answers(table: jax.Array, actions: jax.Array, agent: int) -> jax.Array:
    """`table (S, A_1, ..., A_n)` where all but `agent` play `actions (S, n)`: `(S, A_agent)`."""

    def row(cells: jax.Array, joint: jax.Array) -> jax.Array:
        return cells[(*joint[:agent], slice(None), *joint[agent + 1 :])]

    return jax.vmap(row)(table, actions)


@_solver("in_turn")
def operator_b1(model: TeamModel, discount: ArrayLike, q: PerAgent, in_turn: bool = False) -> PerAgent:
    """B_I: what each action of agent k is worth if the others play their greedy ones.

    `B_I q^k(s, a^k) = r(s, a^k, â^{-k}) + discount E max q^k(s', .)` with `â^j = argmax q^j(s, .)`.

    Args:
        model: the game.
        discount: in [0, 1).
        q: n of `(S, A_i)`.
        in_turn: all agents answer the same greedy actions if False, as in the paper; if True agent k
            answers what agents 1 to k - 1 have just changed to, so that equally good optima are not
            mixed for ever (in [[0, 2], [2, 0]] the simultaneous answers are).
    """
    actions = greedy_joint(q)
    updated = []
    for agent, table in enumerate(_team_backups(model, discount, q)):
        updated.append(_answers(table, actions, agent))
        if in_turn:
            actions = actions.at[:, agent].set(updated[agent].argmax(axis=-1).astype(actions.dtype))
    return tuple(updated)


@_solver()
def operator_b2(model: TeamModel, discount: ArrayLike, q: PerAgent) -> PerAgent:
    """B_II: raise each action of agent k to what it could be worth if the others played best.

    `B_II q^k(s, a^k) = max(q^k(s, a^k), max_{a^{-k}} [r(s, a) + discount E max q^k(s', .)])`.
    `q` is n of `(S, A_i)`.
    """
    hopes = [
        table.max(axis=tuple(axis for axis in range(1, table.ndim) if axis != agent + 1))
        for agent, table in enumerate(_team_backups(model, discount, q))
    ]
    return tuple(jnp.maximum(own, hope) for own, hope in zip(q, hopes, strict=True))


def btoo(
    model: TeamModel,
    discount: ArrayLike,
    q: PerAgent,
    key: jax.Array,
    applications: int,
    p: ArrayLike,
    *,
    in_turn: bool = False,
) -> TeamTrace:
    """The Bellman team optimality operator BTOO_p, applied `applications` times to `q`, n of `(S, A_i)`.

    Each application is B_I with probability `p` and B_II otherwise, for all agents and states alike.
    `optimality_gap` of `actions[t]` tells whether the team was optimal after application t + 1;
    `team_residuals` whether q solves LTQL's equations. For `in_turn` see `operator_b1`.

    Raises:
        BadInputError: for `p` outside [0, 1], fewer than one application, or as the module says.
    """
    _check_count(applications, "applications")
    if _known(p) and not (np.min(p) >= 0 and np.max(p) <= 1):
        raise BadInputError(f"p is the probability of B_I and must be in [0, 1], not {p}")
    return _btoo(model, discount, q, key, applications, p, in_turn)


@_solver("applications", "in_turn")
def _btoo(
    model: TeamModel,
    discount: ArrayLike,
    q: PerAgent,
    key: jax.Array,
    applications: int,
    p: ArrayLike,
    in_turn: bool,
) -> TeamTrace:
    def apply(q: PerAgent, first: jax.Array) -> tuple[PerAgent, jax.Array]:
        one, two = operator_b1(model, discount, q, in_turn), operator_b2(model, discount, q)
        q = jax.tree.map(lambda a, b: jnp.where(first, a, b), one, two)
        return q, greedy_joint(q)

    q, actions = jax.lax.scan(apply, q, jax.random.bernoulli(key, p, (applications,)))
    return TeamTrace(q, actions)


@_solver()
def team_residuals(model: TeamModel, discount: ArrayLike, q: PerAgent) -> TeamResiduals:
    """How far `q`, n of `(S, A_i)`, is from equations (1) and (2) of LTQL.

    If both residuals are 0, the greedy joint action is optimal in every state and `max q^k = V*` for
    every agent: by (2) the maxima are V*, and by (1) the greedy joint action earns them.
    """
    backups = _team_backups(model, discount, q)
    answers = operator_b1(model, discount, q)
    return TeamResiduals(
        consistency=jnp.stack([jnp.abs(a - own).max() for a, own in zip(answers, q, strict=True)]).max(),
        optimality=jnp.stack(
            [jnp.abs(_best(table) - own.max(axis=-1)).max() for table, own in zip(backups, q, strict=True)]
        ).max(),
    )
