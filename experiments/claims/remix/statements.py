"""What ReMIX's section 2.3, lemmas 1 to 5 and equations 5 to 30 state, tried on random games in float64.

"Fails" is a table of truth values, one for each game, mixer or pair of distributions that was tried. Where
the paper leaves open how a statement is meant, the reading is taken in which it fails least.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.matrix_games import QTRAN_PAYOFF
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact import policies as exact
from jaxmarl_fac.exact.joint import bellman_backup, best_values, optimal_q
from jaxmarl_fac.exact.projections import sum_utilities, weighted_additive_fit
from jaxmarl_fac.exact.regret import (
    RegretBounds,
    boltzmann_gap,
    boltzmann_policy,
    boltzmann_team,
    boltzmann_values,
    largest_boltzmann_gap,
    regret_bounds,
    revisits,
    state_distribution,
)
from jaxmarl_fac.mixers import monotone_mix
from jaxmarl_fac.report.verdicts import over_games

GAMMA, STATES, AGENTS, ACTIONS, HIDDEN = 0.9, 3, 2, 3, 4
#: Two numbers are equal up to this share of the larger one, or this if both are below 1.
EXACT = 1e-9
SEED = 2026

Fails = dict[str, np.ndarray]

RETURN, LEMMA_1, LEMMA_2, LEMMA_3, SMALL = "section 2.3", "lemma 1", "lemma 2", "lemma 3", "ε_0 below d"
LEMMA_4, LEMMA_5, EQUATION_5, EQUATION_18 = "lemma 4", "lemma 5", "equation 5", "equation 18"
EQUATION_20, EQUATION_6 = "equation 20", "equation 6"
EQUATION_23, EQUATION_24, EQUATION_25 = "equation 23", "equation 24", "equation 25"
EQUATION_26, EQUATION_27, EQUATION_28, DENOMINATOR = (
    "equation 26",
    "equation 27",
    "equation 28",
    "ν - λ other than 0",
)
SIGN, EQUATION_30, LEMMA_6 = "equation 28 never below 0", "equation 30", "lemma 6"

ONE_STATE_4, ONE_STATE_36 = "one state, 4 joint actions", "one state, 36 joint actions"
FITS, ADDITIVE, MONOTONE = "one state, additive fits", "team MDPs, additive", "team MDPs, monotone mixers"


def exceeds(left: Any, right: Any) -> Any:
    """Whether `left` lies above `right` by more than rounding."""
    return left - right > EXACT * np.maximum(1, np.abs(right))


def relative_error(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """The largest difference as a share of the largest entry, `()`."""
    return jnp.max(jnp.abs(found - wanted)) / jnp.max(jnp.abs(wanted))


# Lemma 1


def printed_slopes(utilities: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array) -> jax.Array:
    """The derivatives `(n,)` of lemma 1 for `monotone_mix`, h' being the mean over the hidden units.

    The lemma has h' in front of the sum over hidden units, where it cannot differ between them.
    """
    inputs = utilities @ w1 + b1
    return jnp.mean(jnp.where(inputs > 0, 1.0, jnp.exp(inputs))) * (w1 @ w2)


def slopes(utilities: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array) -> jax.Array:
    """The derivatives `(n,)` by automatic differentiation."""
    return jax.grad(monotone_mix)(utilities, w1, b1, w2, jnp.zeros(()))


class Slopes(NamedTuple):
    """Of random mixers, `(games,)` each."""

    error: np.ndarray  # of lemma 1, relative
    spread: np.ndarray  # of the h' that would be right for each agent: largest by least, minus 1


def mixers(games: int) -> Slopes:
    """Mixers of three agents with weights from an exponential distribution, all else standard normal."""
    draw = np.random.default_rng((SEED, 1))
    agents = 3

    def work(utilities: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array) -> Slopes:
        right = slopes(utilities, w1, b1, w2)
        needed = right / (w1 @ w2)
        spread = jnp.max(needed) / jnp.min(needed) - 1
        return Slopes(relative_error(printed_slopes(utilities, w1, b1, w2), right), spread)  # type: ignore[arg-type]

    return over_games(  # type: ignore[no-any-return]
        work,
        2 * draw.normal(size=(games, agents)),
        draw.exponential(size=(games, agents, HIDDEN)),
        draw.normal(size=(games, HIDDEN)),
        draw.exponential(size=(games, HIDDEN)),
    )


# Lemma 2


def total_variations(games: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether lemma 2 fails for f <= C, and for 0 <= f <= C, `(games,)`: four outcomes, C the largest f."""
    draw = np.random.default_rng((SEED, 2))
    p, q = draw.dirichlet(np.ones(4), (2, games))
    distance = np.abs(p - q).sum(axis=1) / 2

    def fails(f: np.ndarray) -> np.ndarray:
        return np.asarray(exceeds(np.abs(((p - q) * f).sum(axis=1)), f.max(axis=1) * distance))

    return fails(draw.normal(size=(games, 4))), fails(draw.random((games, 4)))


# Section 2.3, lemmas 3 and 5


class Visits(NamedTuple):
    """Of random team MDPs and policies, `(games,)` each."""

    return_error: np.ndarray  # of η = E_d r / (1 - γ)
    difference_error: np.ndarray  # of lemma 5
    moved: np.ndarray  # largest change of d(s) by moving probability, as a share of ε d(s): lemma 3 has <= 1
    free: np.ndarray  # largest |∂d(s)/∂π(u|s)| as a share of ε d_1(s)
    small: np.ndarray  # largest |∂d(s)/∂π(u|s)| as a share of d(s)
    largest_again: np.ndarray  # ε
    derivative_error: np.ndarray  # of ∂d/∂π by first visits and returns
    row_sum: np.ndarray  # of one state's probabilities, normalised over all states' actions; the largest
    late_maximum: np.ndarray  # by how much r + γ max_u E Q*(s', u) lies below Q*, the largest


def mdps(games: int) -> Visits:
    """Two agents with three actions each and three states, γ = .9; random policies and starts."""
    draw = np.random.default_rng((SEED, 3))
    model, start = random_mdps(draw, games)
    logits = 2 * draw.normal(size=(2, *model.reward.shape))

    def work(model: TeamModel, start: jax.Array, logits: jax.Array, new_logits: jax.Array) -> Visits:
        policy, new = boltzmann_policy(logits), boltzmann_policy(new_logits)
        d = state_distribution(model, GAMMA, policy, start)
        value = exact.performance(model, GAMMA, policy, start)
        cells = (-1, *(1,) * AGENTS)
        gained = jnp.sum(
            state_distribution(model, GAMMA, new, start).reshape(cells)
            * new
            * exact.advantages(model, GAMMA, policy)
        ) / (1 - GAMMA)
        wanted = exact.performance(model, GAMMA, new, start) - value
        by_policy = jax.jacrev(lambda each: state_distribution(model, GAMMA, each, start))(policy)
        own = jnp.stack([by_policy[s, s].ravel() for s in range(STATES)])  # (S, A_1 A_2)
        seen = revisits(model, GAMMA, policy, start)
        again, returns = seen.again.reshape(STATES, -1), jnp.sum(policy * seen.again, axis=(1, 2))
        closed = (seen.first / (1 - returns) ** 2)[:, None] * again
        epsilon = jnp.max(again)
        q_star = optimal_q(model, GAMMA)
        ahead = jnp.einsum("sabt,tuv->sabuv", model.transition, q_star)
        late = model.reward + GAMMA * jnp.max(ahead, axis=(-2, -1))
        shares = jax.nn.softmax(logits.ravel()).reshape(STATES, -1)  # over the states' actions, as printed
        found = (
            jnp.abs(jnp.sum(d.reshape(cells) * policy * model.reward) / (1 - GAMMA) - value),
            jnp.abs(gained - wanted),
            jnp.max((jnp.max(own, axis=1) - jnp.min(own, axis=1)) / d) / epsilon,
            jnp.max(jnp.abs(own) / seen.first[:, None]) / epsilon,
            jnp.max(jnp.abs(own) / d[:, None]),
            epsilon,
            relative_error(closed, own),
            jnp.max(jnp.sum(shares, axis=1)),
            jnp.max(bellman_backup(model, GAMMA, best_values(q_star)) - late),
        )
        return Visits(*found)  # type: ignore[arg-type]

    return over_games(work, model, start, *logits)  # type: ignore[no-any-return]


def random_mdps(draw: np.random.Generator, games: int) -> tuple[TeamModel, np.ndarray]:
    """Standard normal rewards, transitions and starts from flat Dirichlet distributions, no end."""
    shape = (games, STATES, *(ACTIONS,) * AGENTS)
    model = TeamModel(
        transition=draw.dirichlet(np.ones(STATES), shape),  # type: ignore[arg-type]
        reward=draw.normal(size=shape),  # type: ignore[arg-type]
        terminal=np.zeros((games, STATES), bool),  # type: ignore[arg-type]
    )
    return model, draw.dirichlet(np.ones(STATES), games)


def absorbed() -> dict[str, float]:
    """The smallest counterexample to lemma 3: action 0 stays, action 1 leaves for good, half of the time."""
    model = TeamModel(
        transition=jnp.asarray([[[1.0, 0], [0, 1]], [[0, 1], [0, 1]]]),
        reward=jnp.zeros((2, 2)),
        terminal=jnp.zeros(2, bool),
    )
    policy, start = jnp.full((2, 2), 0.5), jnp.asarray([1.0, 0])
    by_policy = jax.jacrev(lambda each: state_distribution(model, GAMMA, each, start)[0])(policy)[0]
    d = state_distribution(model, GAMMA, policy, start)[0]
    return {
        "change of d by moving probability": float(by_policy[0] - by_policy[1]),
        "ε d": float(jnp.max(revisits(model, GAMMA, policy, start).again) * d),
    }


# Lemma 4, equations 5, 18, 20 and 6


def tables(games: int, *counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Q* and Q_k `(games, 1, A_1, ..., A_n)` of one state, of which Q_k knows Q* more or less."""
    draw = np.random.default_rng((SEED, 4, *counts))
    size, each = (games, 1, *counts), (games, *(1,) * (1 + len(counts)))
    q_star = 5 * draw.normal(size=size)
    return q_star, draw.uniform(0.2, 4, each) * draw.normal(size=size) + draw.random(each) * q_star


def gaps(q: np.ndarray) -> np.ndarray:
    """`boltzmann_gap` of tables `(games, 1, ...)`, `(games,)`."""
    return np.asarray(jax.vmap(boltzmann_gap)(jnp.asarray(q)))[:, 0]


def one_state(q_star: Any, q_k: Any) -> RegretBounds:
    """Bounds of one-state games, γ = 0, `(games,)`: tables `(games, 1, A_1, ..., A_n)`, π_k Boltzmann's."""

    def work(q_star: jax.Array, q_k: jax.Array) -> RegretBounds:
        here = jnp.ones(1)
        model = TeamModel(jnp.ones((*q_star.shape, 1)), q_star, jnp.zeros(1, bool))
        return regret_bounds(model, 0.0, q_star, q_k, boltzmann_policy(q_k), here)

    return over_games(work, q_star, q_k)  # type: ignore[no-any-return]


def fits(games: int) -> RegretBounds:
    """Bounds of one-state games in which Q_k is the additive fit of Q* under random weights."""
    draw = np.random.default_rng((SEED, 5))
    q_star = 5 * draw.normal(size=(games, ACTIONS, ACTIONS))
    weights = draw.dirichlet(np.ones(ACTIONS**2), games).reshape(q_star.shape)
    q_k = jax.jit(jax.vmap(lambda *both: weighted_additive_fit(*both).q_tot))(q_star, weights)
    return one_state(q_star[:, None], np.asarray(q_k)[:, None])


def team_mdps(games: int) -> dict[str, RegretBounds]:
    """Bounds of team MDPs: Q* are the values of its own Boltzmann policy, agents play theirs of random Q_i.

    Q_k is the sum of the Q_i, or each state's monotone mixture of them.
    """
    draw = np.random.default_rng((SEED, 6))
    model, start = random_mdps(draw, games)
    utilities = draw.uniform(0.2, 4, (games, 1, 1, 1)) * draw.normal(size=(games, AGENTS, STATES, ACTIONS))
    w1 = draw.exponential(size=(games, STATES, AGENTS, HIDDEN))
    b1, w2 = draw.normal(size=(games, STATES, HIDDEN)), draw.exponential(size=(games, STATES, HIDDEN))

    def work(
        model: TeamModel, start: jax.Array, utilities: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array
    ) -> tuple[RegretBounds, RegretBounds]:
        own = tuple(utilities)  # n of (S, A)
        q_star, policy = boltzmann_values(model, GAMMA), boltzmann_team(own)

        def mixed(w1: jax.Array, b1: jax.Array, w2: jax.Array, *own: jax.Array) -> jax.Array:
            joint = jnp.stack(jnp.meshgrid(*own, indexing="ij"), axis=-1)  # (A_1, ..., A_n, n)
            of_actions = jax.vmap(lambda chosen: monotone_mix(chosen, w1, b1, w2, jnp.zeros(())))
            return of_actions(joint.reshape(-1, AGENTS)).reshape(joint.shape[:-1])

        additive = jax.vmap(lambda *each: sum_utilities(each))(*own)
        monotone = jax.vmap(mixed)(w1, b1, w2, *own)
        first, second = (
            regret_bounds(model, GAMMA, q_star, q_k, policy, start) for q_k in (additive, monotone)
        )
        return first, second

    return dict(zip((ADDITIVE, MONOTONE), over_games(work, model, start, utilities, w1, b1, w2), strict=True))


def counterexample(best: float, ahead: float, actions: int) -> RegretBounds:
    """One state: in Q* and in Q_k one action is better than all others, which are 0; each `()`."""
    first = np.zeros((1, 1, actions))
    first[..., 0] = 1.0
    return RegretBounds(*(each[0] for each in one_state(best * first, ahead * first)))


# Equations 23 to 30


class Derivatives(NamedTuple):
    """Of random payoffs and weights in the additive class, `(games,)` each."""

    normal: np.ndarray  # |2 Σ p (Q_k - y)| (23)
    projection: np.ndarray  # relative error of (24)
    overstated: np.ndarray  # printed by true ∂Q_k(u)/∂p(u), the least
    scale: np.ndarray  # largest |Σ_v p(v) ∂Q_k(u)/∂p(v)|, 0 as weights have no scale
    printed_scale: np.ndarray  # the same with (24)
    policy: np.ndarray  # relative error of (25) with the true ∂Q_k/∂p_k
    objective: np.ndarray  # |(6)|
    slope: np.ndarray  # largest |p ∂(6)/∂p|
    lagrangian: np.ndarray  # error of (27) with all true derivatives and λ = ν = 0, times p
    both_signs: np.ndarray  # whether (17) has weights above and below 0
    apart: np.ndarray  # total variation of p and (17)


def fitted(payoff: jax.Array, weights: jax.Array) -> jax.Array:
    """The additive Q_k with these weights, of the payoff's shape."""
    return weighted_additive_fit(payoff, weights).q_tot


def relaxed_objective(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    """The objective of (6) in a one-state game, `()`: 0 whatever Q_k is.

    As π* exp(Q_k - Q*) is exp(Q_k) by the normaliser of π*, the first expectation is the ratio of the two
    normalisers, and the second one its inverse.
    """
    best, policy = jax.nn.softmax(q_star, axis=None), jax.nn.softmax(q_k, axis=None)
    above = q_k - q_star
    return -jax.nn.logsumexp(above, b=best) - jax.nn.logsumexp(-above, b=policy)


def agents_probabilities(policy: jax.Array) -> jax.Array:
    """Each agent's probability of its own action in each joint action, `(n, A_1, ..., A_n)`."""
    axes = range(policy.ndim)
    own = [jnp.sum(policy, tuple(a for a in axes if a != agent), keepdims=True) for agent in axes]
    return jnp.stack([jnp.broadcast_to(each, policy.shape) for each in own])


def printed_weights(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    """The p = w µ of (17) without ε_k, `(A_1, ..., A_n)`, for an additive Q_k, whose f' are 1, and y = Q*.

    Not normalised; 0 where Q_k lies above y. It is negative where the last factor is.
    """
    policy = jax.nn.softmax(q_k, axis=None)
    bracket = jnp.sum(1 - agents_probabilities(policy), axis=0) - 1
    below = q_star - q_k
    return jnp.where(below >= 0, policy * below * jnp.exp(below) * bracket, 0.0)


def derivatives(games: int) -> Derivatives:
    """3x3 payoffs, 5 times standard normal, and weights from a flat Dirichlet distribution; y = Q*."""
    draw = np.random.default_rng((SEED, 7))
    payoffs = 5 * draw.normal(size=(games, ACTIONS, ACTIONS))
    weights = draw.dirichlet(np.ones(ACTIONS**2), games).reshape(payoffs.shape)

    def work(payoff: jax.Array, weights: jax.Array) -> Derivatives:
        p, shape = weights.ravel(), payoff.shape

        def q_of(p: jax.Array) -> jax.Array:
            return fitted(payoff, p.reshape(shape)).ravel()

        def policy_of(p: jax.Array) -> jax.Array:
            return jax.nn.softmax(q_of(p))

        q_k, q_star, policy = q_of(p), payoff.ravel(), policy_of(p)
        by_weight, policy_by_weight = jax.jacrev(q_of)(p), jax.jacrev(policy_of)(p)  # (J, J)
        printed = -jnp.diag((q_k - q_star) / p)
        # (25) has a diagonal matrix in front of ∂Q_k/∂p_k; so judged on the diagonal only. f' is 1.
        away = jnp.sum(1 - agents_probabilities(policy.reshape(shape)), axis=0).ravel()
        own = jnp.diag(by_weight)
        chained = policy * away * own
        objective, gradient = jax.value_and_grad(lambda p: relaxed_objective(q_star, q_of(p)))(p)
        growth = jnp.exp(q_star - q_k)
        second = growth @ (policy_by_weight - policy[:, None] * by_weight) / jnp.sum(policy * growth)
        raw = printed_weights(payoff, q_k.reshape(shape)).ravel()
        kept = jnp.maximum(raw, 0) / jnp.maximum(jnp.sum(jnp.maximum(raw, 0)), 1e-300)
        found = (
            jnp.abs(2 * jnp.sum(p * (q_k - q_star))),
            relative_error(printed, by_weight),
            jnp.min(jnp.diag(printed) / own),
            jnp.max(jnp.abs(by_weight @ p)),
            jnp.max(jnp.abs(printed @ p)),
            relative_error(chained, jnp.diag(policy_by_weight)),
            jnp.abs(objective),
            jnp.max(jnp.abs(p * gradient)),
            jnp.max(jnp.abs(p * (-second - gradient))),
            (jnp.min(raw) < 0) & (jnp.max(raw) > 0),
            jnp.sum(jnp.abs(kept - p)) / 2,
        )
        return Derivatives(*found)  # type: ignore[arg-type]

    return over_games(work, payoffs, weights)  # type: ignore[no-any-return]


def by_weights_in_qtrans_game() -> tuple[np.ndarray, np.ndarray]:
    """∂Q(A, A)/∂p(u) `(3, 3)` with uniform data: as (24) prints it, and true."""
    payoff, uniform = jnp.asarray(QTRAN_PAYOFF, float), jnp.full((3, 3), 1 / 9)
    printed = np.zeros((3, 3))
    printed[0, 0] = -(fitted(payoff, uniform) - payoff)[0, 0] / uniform[0, 0]
    return printed, np.asarray(jax.jacrev(lambda p: fitted(payoff, p)[0, 0])(uniform))


def algebra(games: int) -> tuple[np.ndarray, np.ndarray]:
    """Two checks of (28) and (30) on random numbers, `(games,)` each.

    The relative error of (27) = 0 after putting (24), (25) and p from (28) into it, with ν = 0; and the share
    by which p of (30) differs from that of (28), with λ = 1 / Z*.
    """
    draw = np.random.default_rng((SEED, 8))
    d, epsilon, z, multiplier = draw.uniform(0.1, 1, (4, games))
    underestimation = draw.exponential(size=games)  # y - Q_k
    growth = np.exp(draw.normal(size=games))
    slopes = draw.exponential(size=(games, AGENTS))
    own = draw.random((games, AGENTS))
    away = ((1 - own) / slopes).sum(axis=1)
    policy = own.prod(axis=1)
    printed = -underestimation * growth * (d * (away - 1) + epsilon * policy * away) / (z * -multiplier)
    by_weight = underestimation / printed  # (24)
    d_by_weight = (d + epsilon * policy) * away * by_weight  # (25), with the sum over agents of (28)
    error = -growth / z * (d_by_weight - d * by_weight) + multiplier
    with_30 = underestimation * growth * (d * (away - 1) - epsilon * policy * away) / (z * multiplier)
    return error / multiplier, np.abs(with_30 / printed - 1)


# All of them


class Found(NamedTuple):
    """All that is shown of the statements."""

    fails: Fails  # by statement
    bounds: dict[str, RegretBounds]  # by kind of game, (games,) each
    numbers: dict[str, Any]


def check_statements(games: int) -> Found:
    """Everything but the optimal weights; to be called in float64."""
    found_slopes, visits, by_weight = mixers(games), mdps(games), derivatives(games)
    lemma_2, lemma_2_bounded = total_variations(games)
    algebra_error, with_30 = algebra(games)
    tables_4, tables_9, tables_36 = tables(games, 2, 2), tables(games, 3, 3), tables(games, 6, 6)
    bounds = {
        ONE_STATE_4: one_state(*tables_4),
        ONE_STATE_36: one_state(*tables_36),
        FITS: fits(games),
        **team_mdps(games),
    }
    gap = {f"{q[1][0].size} actions": gaps(q[1]) for q in (tables_4, tables_9, tables_36)}

    def of_bounds(fails: Any) -> np.ndarray:
        return np.concatenate([fails(each) for each in bounds.values()])

    above_5 = {kind: exceeds(each.regret, each.without_one) for kind, each in bounds.items()}
    above_18 = {kind: exceeds(each.regret, each.with_one) for kind, each in bounds.items()}
    above_6 = {kind: exceeds(each.regret, each.jensen) for kind, each in bounds.items()}
    below = {kind: exceeds(each.without_one, each.jensen) for kind, each in bounds.items()}
    fails = {
        RETURN: visits.return_error > EXACT,
        LEMMA_1: found_slopes.error > EXACT,
        LEMMA_2: lemma_2,
        LEMMA_3: exceeds(visits.moved, 1),
        SMALL: exceeds(visits.small, 1),
        LEMMA_4: np.concatenate([exceeds(each, 1) for each in gap.values()]),
        LEMMA_5: visits.difference_error > EXACT,
        EQUATION_5: np.concatenate(list(above_5.values())),
        EQUATION_18: np.concatenate(list(above_18.values())),
        EQUATION_20: of_bounds(lambda each: exceeds(each.jensen, each.without_one)),
        EQUATION_6: np.concatenate(list(below.values())),
        EQUATION_23: by_weight.normal > EXACT,
        EQUATION_24: by_weight.projection > EXACT,
        EQUATION_25: by_weight.policy > EXACT,
        EQUATION_26: by_weight.slope > EXACT,
        EQUATION_27: by_weight.lagrangian > EXACT,
        EQUATION_28: np.abs(algebra_error) > EXACT,
        SIGN: by_weight.both_signs,
        DENOMINATOR: by_weight.scale < EXACT,
        EQUATION_30: with_30 > EXACT,
        LEMMA_6: (by_weight.slope < EXACT) & (by_weight.apart > EXACT),
    }
    printed, true = by_weights_in_qtrans_game()
    two, nine = (
        counterexample(20, 1 + float(largest_boltzmann_gap(2)), 2),
        counterexample(20, 1 + float(largest_boltzmann_gap(9)), 9),
    )
    worked = [jnp.asarray(x) for x in ([1.0, -2], [[1, 0.5], [2, 1]], [1.0, 0], [2.0, 1])]
    numbers: dict[str, Any] = {
        "policies normalised over all states' actions: largest sum of a state's": visits.row_sum.max(),
        "B* with its maximum outside the expectation": {
            "MDPs in which it is another operator": int((visits.late_maximum > EXACT).sum()),
            "most by which it falls short of Q*": visits.late_maximum.max(),
        },
        "lemma 1 on a worked mixer": {
            "printed": np.asarray(printed_slopes(*worked)).tolist(),
            "exact": np.asarray(slopes(*worked)).tolist(),
        },
        "mixers in which no h' common to the agents would do": int((found_slopes.spread > EXACT).sum()),
        "lemma 2 with 0 <= f <= C: failures": int(lemma_2_bounded.sum()),
        "lemma 2, f = (-10, 1), disjoint P and Q": {"difference": 11.0, "C D(P, Q)": 1.0},
        "lemma 3": {
            "failures by single derivatives, with d_1": int(exceeds(visits.free, 1).sum()),
            "most by which it is missed (a factor)": {
                "moved probability, d": visits.moved.max(),
                "single derivatives, d_1": visits.free.max(),
                "ε_0 by d": visits.small.max(),
            },
            "largest ε": visits.largest_again.max(),
            "one state that can be left for good": absorbed(),
        },
        "lemma 4: failures": {name: int(exceeds(each, 1).sum()) for name, each in gap.items()},
        "lemma 4: supremum": {
            f"{count} actions": float(largest_boltzmann_gap(count)) for count in (2, 4, 8, 9, 36, 6**8)
        },
        "lemma 4: supremum for a sum of 8 agents' utilities of 6 actions": 8
        * float(largest_boltzmann_gap(6)),
        "equation 5: failures": {kind: int(each.sum()) for kind, each in above_5.items()},
        "equation 18: failures": {kind: int(each.sum()) for kind, each in above_18.items()},
        "regret above (6)": {kind: int(each.sum()) for kind, each in above_6.items()},
        "(6) where π_k is Boltzmann's of Q_k": {
            "largest distance from 0 in one state": max(
                np.abs(bounds[kind].jensen).max() for kind in (ONE_STATE_4, ONE_STATE_36, FITS)
            ),
            "largest in team MDPs": bounds[ADDITIVE].jensen.max(),
        },
        "median error of (27) times p, where the true derivative is 0": np.median(by_weight.lagrangian),
        "equation 5 with two actions": two._asdict(),
        "equation 18 with nine actions": nine._asdict(),
        "Jensen with X in {0, 2}": {"E X": 1.0, "-log E exp(-X)": -np.log((1 + np.exp(-2)) / 2)},
        "equation 24 in QTRAN's game, by p(u)": {"printed": printed.tolist(), "true": true.tolist()},
        "equation 24 by true derivative": {
            "least": by_weight.overstated.min(),
            "median of the games' least": np.median(by_weight.overstated),
        },
        "Σ_v p(v) ∂Q_k(u)/∂p(v), largest": {
            "true": by_weight.scale.max(),
            "printed, median": np.median(by_weight.printed_scale),
        },
        "median relative error": {
            "(24)": np.median(by_weight.projection),
            "(25)": np.median(by_weight.policy),
        },
    }
    return Found(fails, bounds, numbers)
