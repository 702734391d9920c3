"""Exact projections of a payoff tensor onto the joint value functions that a factorisation can represent.

They are what VDN and QMIX would learn on a one-shot game with perfect optimisation, to compare learned tables
with. "Orders" below rank every agent's actions from worst to best.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from envs.errors import BadInputError
from jaxmarl_fac.exact import linear_systems

#: `monotone_fit` tries every tuple of action orders up to this many: 5 x 5 has 14,400, 6 x 6 518,400.
MAX_ORDERS = 20_000
#: Most upper sets of one slice of the tensor that the search for a split compares: 21 x 21 has 22, three
#: agents with 4 actions 70, five agents with 2 actions 168.
MAX_SLICE_SETS = 256

#: Elements of the largest temporary array.
_CHUNK = 4_000_000

Orders = tuple[tuple[int, ...], ...]


class AdditiveFit(NamedTuple):
    """An additive joint value function, `q_tot[u] = sum_i utilities[i][u_i]`."""

    utilities: list[jax.Array]  # n of (A_i,)
    q_tot: jax.Array  # (A_1, ..., A_n)


@dataclasses.dataclass(frozen=True)
class MonotoneFit:
    """A joint value function that is monotone in every agent's utility.

    Attributes:
        q_tot: `(A_1, ..., A_n)` float64. Pooled joint actions have exactly equal values.
        sse: the weighted sum of squared errors.
        orders: for each agent its actions from worst to best; `q_tot` is non-decreasing along them.
    """

    q_tot: np.ndarray
    sse: float
    orders: Orders

    @property
    def greedy(self) -> tuple[int, ...]:
        """The joint action of the largest `q_tot`; ties go to the lowest index."""
        return tuple(int(u) for u in np.unravel_index(np.argmax(self.q_tot), self.q_tot.shape))


def additive_fit(payoff: ArrayLike, probabilities: Sequence[ArrayLike] | None = None) -> AdditiveFit:
    """The best additive fit under independently drawn actions, which exact VDN learns.

    Minimises `E[(payoff[u] - q_tot[u])^2]` with `u_i ~ probabilities[i]`, in closed form (FMA-FQI, arXiv
    2006.00587, Theorem 1 with w_i = 0): `utilities[i][a] = E[payoff | u_i = a] - (n - 1) / n E[payoff]`.
    With positive probabilities `q_tot` is unique, and the utilities are unique up to constants that
    sum to 0 over the agents.

    Pure: jit it, or vmap it over games and probabilities. In float64 under `jax.enable_x64(True)`.

    Args:
        payoff: `(A_1, ..., A_n)`.
        probabilities: for each agent the probabilities `(A_i,)` of its actions, summing to 1; uniform
            if None.

    Raises:
        BadInputError: if `probabilities` do not have the payoff's shape.
    """
    table = jnp.asarray(payoff)
    table = table.astype(jnp.result_type(table, float))
    n = table.ndim
    if n == 0 or table.size == 0:
        raise BadInputError(f"a payoff of shape {table.shape} has no joint action: give one axis per agent")
    if probabilities is None:
        factors = [jnp.full((size,), 1 / size, table.dtype) for size in table.shape]
    else:
        factors = [jnp.asarray(p, table.dtype) for p in probabilities]
        shapes = [p.shape for p in factors]
        if shapes != [(size,) for size in table.shape]:
            raise BadInputError(
                f"probabilities of shapes {shapes} do not fit a payoff of shape {table.shape}: "
                "give one vector for each agent with one entry for each of its actions"
            )

    def expectation(given: int | None) -> jax.Array:
        """E[payoff | u_given], `(A_given,)`; E[payoff], `()`, for None."""
        left = table
        for agent in reversed(range(n)):  # from the last axis, so that the earlier ones keep their index
            if agent != given:
                factor = factors[agent].reshape(-1, *[1] * (left.ndim - agent - 1))
                left = (left * factor).sum(axis=agent)  # no matrix product: accelerators round its inputs
        return left

    mean = expectation(None)
    utilities = [expectation(agent) - (n - 1) / n * mean for agent in range(n)]
    return AdditiveFit(utilities, sum_utilities(utilities))


def weighted_additive_fit(payoff: ArrayLike, weights: ArrayLike) -> AdditiveFit:
    """The best additive fit for any positive weights of the joint actions, which VDN learns with such a loss.

    Minimises `sum_u weights[u] (payoff[u] - q_tot[u])^2` by its normal equations. `q_tot` is unique; the
    utilities, of which all agents' but the first's are 0 at action 0, are so up to constants that sum to 0
    over the agents. The weights' common scale does not matter.

    Pure: jit, differentiate, or vmap it over games and weights.

    Args:
        payoff: `(A_1, ..., A_n)`.
        weights: of the same shape, positive.

    Raises:
        BadInputError: for weights of another shape, and for those that are known and not positive.
    """
    table = jnp.asarray(payoff)
    table = table.astype(jnp.result_type(table, float))
    weight = jnp.asarray(weights, table.dtype)
    known = not isinstance(weight, jax.core.Tracer)
    if table.ndim == 0 or weight.shape != table.shape or (known and not bool(jnp.all(weight > 0))):
        raise BadInputError(
            f"weights of shape {weight.shape} do not fit a payoff of shape {table.shape}: "
            "give one positive number for each joint action"
        )
    joints = np.indices(table.shape).reshape(table.ndim, -1)  # (n, J)
    used = jnp.asarray(  # (J, k), which of all utilities in a row a joint action adds up
        np.concatenate(
            [
                np.eye(count)[own][:, min(agent, 1) :]
                for agent, (count, own) in enumerate(zip(table.shape, joints, strict=True))
            ],
            axis=1,
        ),
        table.dtype,
    )
    weighted, exactly = used * weight.reshape(-1, 1), jax.lax.Precision.HIGHEST
    normal = jnp.matmul(weighted.T, used, precision=exactly)
    right = jnp.matmul(weighted.T, table.ravel(), precision=exactly)
    free = linear_systems.differentiable_solve(normal, right)  # (k,)
    first, *others = table.shape
    parts = jnp.split(free, np.cumsum([first, *(count - 1 for count in others)])[:-1])
    utilities = [parts[0], *(jnp.concatenate([jnp.zeros(1, part.dtype), part]) for part in parts[1:])]
    return AdditiveFit(utilities, sum_utilities(utilities))


def sum_utilities(utilities: Sequence[ArrayLike]) -> jax.Array:
    """`q_tot (A_1, ..., A_n)` of VDN, from utilities `(A_i,)`."""
    q_tot = jnp.asarray(utilities[0])
    for utility in utilities[1:]:
        q_tot = q_tot[..., None] + jnp.asarray(utility)
    return q_tot


def greedy_joint_action(utilities: Sequence[ArrayLike]) -> jax.Array:
    """Every agent's best action, `(n,)` int32; ties go to the lowest index."""
    return jnp.stack([jnp.argmax(jnp.asarray(utility)).astype(jnp.int32) for utility in utilities])


def monotone_fit(payoff: ArrayLike, weights: ArrayLike | None = None) -> MonotoneFit:
    """The best monotone fit: QMIX on a one-shot game at the global optimum.

    Weighted least squares over all functions `f(Q_1(u_1), ..., Q_n(u_n))` that are non-decreasing in
    every utility: isotonic regression on the product of the agents' action orders, minimised over all
    tuples of orders. If several tuples are optimal (they may have different `q_tot`, as in QPLEX's
    game), the lexicographically lowest is returned.

    Gradient descent often ends in the local optimum of other orders: see `monotone_fit_for_orders`.

    Args:
        payoff: `(A_1, ..., A_n)`.
        weights: of the same shape, positive; 1 if None.

    Raises:
        BadInputError: for more than `MAX_ORDERS` tuples of orders, too many agents
            (`MAX_SLICE_SETS`), or weights that do not fit.
    """
    table, weight = _check(payoff, weights)
    count = math.prod(math.factorial(size) for size in table.shape)
    if count > MAX_ORDERS:
        raise BadInputError(
            f"a payoff of shape {table.shape} has too many action orders to enumerate: the exact monotone "
            f"fit tries at most {MAX_ORDERS} tuples; use a smaller game (two agents: 5 x 5 at most)"
        )
    tuples = list(itertools.product(*(itertools.permutations(range(size)) for size in table.shape)))
    fits, errors = _isotonic_fits(table, weight, tuples)
    # Orders that only swap pooled actions have the same error up to rounding.
    rounding = _rounding(table, weight) * np.ptp(table)
    best = int(np.argmax(errors <= errors.min() + rounding))
    return MonotoneFit(fits[best], float(errors[best]), tuples[best])


def monotone_fit_for_orders(
    payoff: ArrayLike, orders: Sequence[Sequence[int]], weights: ArrayLike | None = None
) -> MonotoneFit:
    """The best fit that is monotone for the given action orders: one of QMIX's local optima.

    Args:
        payoff: `(A_1, ..., A_n)`.
        orders: for each agent its actions from worst to best.
        weights: of the payoff's shape, positive; 1 if None.

    Raises:
        BadInputError: for orders that are no permutations of the agents' actions, too many agents
            (`MAX_SLICE_SETS`), or weights that do not fit.
    """
    table, weight = _check(payoff, weights)
    ranked = tuple(tuple(int(action) for action in order) for order in orders)
    if [sorted(order) for order in ranked] != [list(range(size)) for size in table.shape]:
        raise BadInputError(
            f"orders {ranked} do not fit a payoff of shape {table.shape}: "
            "list every action of every agent once, from worst to best"
        )
    fits, errors = _isotonic_fits(table, weight, [ranked])
    return MonotoneFit(fits[0], float(errors[0]), ranked)


def _check(payoff: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Payoff and weights in float64."""
    table = np.asarray(payoff, np.float64)
    if table.ndim == 0 or table.size == 0 or not np.isfinite(table).all():
        raise BadInputError(
            f"a payoff of shape {table.shape} cannot be fitted: give finite numbers, one axis per agent"
        )
    weight = np.ones_like(table) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != table.shape or not (np.isfinite(weight) & (weight > 0)).all():
        raise BadInputError(
            f"weights of shape {weight.shape} do not fit a payoff of shape {table.shape}: "
            "give one positive number for each joint action"
        )
    return table, weight


def _rounding(payoff: np.ndarray, weights: np.ndarray) -> float:
    """A bound on the rounding error of a weighted sum of payoffs."""
    return float(4 * payoff.size * np.finfo(np.float64).eps * (weights * np.abs(payoff)).sum())


def _isotonic_fits(
    payoff: np.ndarray, weights: np.ndarray, tuples: Sequence[Orders]
) -> tuple[np.ndarray, np.ndarray]:
    """Isotonic regressions for T tuples of orders, and their weighted squared errors.

    Returns `(T, A_1, ..., A_n)`, indexed by actions as the payoff is, and `(T,)`.

    Recursive partitioning (Spouge, Wan and Wilbur 2003, doi 10.1023/A:1023901806339). The optimal fit
    of a block with mean m is m throughout if no upper set U of it has sum_U weight (payoff - m) > 0.
    Otherwise it is at least m on the U of the largest such sum and at most m on the rest, so the two
    can be fitted separately. Every split is final, so the result is exact without iterating to convergence.
    The blocks of all tuples are split in parallel.
    """
    places = np.arange(payoff.size).reshape(payoff.shape)
    # (T, cells), cell c of tuple t in ranked order is joint action places[t, c]
    where = np.stack([places[np.ix_(*orders)].reshape(-1) for orders in tuples])
    y, w = payoff.reshape(-1)[where], weights.reshape(-1)[where]  # (T, cells)
    splitter = _Splitter(payoff.shape)
    rounding = _rounding(payoff, weights)

    fitted = np.empty_like(y)
    blocks = np.ones_like(y, bool)  # (P, cells), the P blocks still to be fitted or split
    owner = np.arange(len(tuples))  # (P,), which tuple a block belongs to
    while len(blocks):
        weight = w[owner] * blocks
        mean = (weight * y[owner]).sum(axis=1) / weight.sum(axis=1)  # (P,)
        gain, upper = splitter.best_upper_set(weight * (y[owner] - mean[:, None]))
        upper &= blocks
        split = gain > rounding
        block, cell = np.nonzero(blocks[~split])
        fitted[owner[~split][block], cell] = mean[~split][block]
        blocks = np.concatenate([upper[split], blocks[split] & ~upper[split]])
        owner = np.concatenate([owner[split], owner[split]])

    errors = (w * (y - fitted) ** 2).sum(axis=1)
    fits = np.empty_like(fitted)
    np.put_along_axis(fits, where, fitted, axis=1)
    return fits.reshape(len(tuples), *payoff.shape), errors


class _Splitter:
    """Finds the upper set with the largest sum in tensors of one shape.

    An upper set of the grid (closed under raising any agent's action) is an increasing chain of upper
    sets of the slices along the first axis, so that dynamic programming over the slices finds the best one.
    """

    def __init__(self, shape: tuple[int, ...]):
        self._length, self._slice_size = shape[0], math.prod(shape[1:])
        self._sets = _upper_sets(shape[1:])  # (K, slice)
        self._contains = ~(self._sets[None, :, :] & ~self._sets[:, None, :]).any(axis=2)  # (K, K)

    def best_upper_set(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The largest sums `(P,)` over an upper set of `values (P, cells)`, and the sets `(P, cells)`."""
        rows = max(1, _CHUNK // self._contains.size)
        parts = [self._best(values[start : start + rows]) for start in range(0, len(values), rows)]
        sums, sets = zip(*parts, strict=True)
        return np.concatenate(sums), np.concatenate(sets)

    def _best(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(values)
        slices = values.reshape(count, self._length, self._slice_size)
        sums = slices @ self._sets.T.astype(np.float64)  # (P, length, K)
        best = sums[:, 0]  # (P, K), of chains that end in set k
        before = []  # for every later slice the set before it, (P, K)
        for index in range(1, self._length):
            allowed = np.where(self._contains, best[:, None, :], -np.inf)  # (P, K, K)
            choice = allowed.argmax(axis=2)
            before.append(choice)
            best = sums[:, index] + np.take_along_axis(best, choice, axis=1)
        last = best.argmax(axis=1)  # (P,)
        chosen = [last]
        for choice in reversed(before):
            chosen.append(choice[np.arange(count), chosen[-1]])
        chain = np.stack(chosen[::-1], axis=1)  # (P, length)
        return best[np.arange(count), last], self._sets[chain].reshape(count, -1)


def _upper_sets(shape: tuple[int, ...]) -> np.ndarray:
    """Every upper set of the grid `shape`, flat: `(K, cells)` bool. A grid without axes has one cell."""
    sets = np.array([[False], [True]])
    for length in reversed(shape):
        found = list(itertools.islice(_chains(sets, length), MAX_SLICE_SETS + 1))
        if len(found) > MAX_SLICE_SETS:
            raise BadInputError(
                f"the exact monotone fit would compare more than {MAX_SLICE_SETS} upper sets of actions of "
                "agents 2, 3, ...: use at most five agents of two actions, or three of four"
            )
        sets = np.stack(found)
    return sets


def _chains(sets: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """All ways to stack `length` of the `sets`, each containing the one before."""
    for chosen in sets:
        if length == 1:
            yield chosen
        else:
            supersets = sets[(sets >= chosen).all(axis=1)]
            for rest in _chains(supersets, length - 1):
                yield np.concatenate([chosen, rest])
