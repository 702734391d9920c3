"""Thesis, sections 2.2 and 2.4.1: policy iteration, stochastic and soft, on random MDPs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.team_mdp import TeamModel
from experiments.claims.opponents.statements import EXACT, SOLVED, Group, Statement, apart
from jaxmarl_fac.exact.joint import bellman_backup, best_values, optimal_q
from jaxmarl_fac.exact.policies import policy_iteration
from jaxmarl_fac.exact.stochastic_iteration import polynomial_steps, stochastic_q_iteration
from jaxmarl_fac.report.verdicts import over_games
from jaxmarl_fac.soft.operators import log_mean_exp
from jaxmarl_fac.soft.policy_iteration import (
    log_normaliser,
    soft_bellman,
    soft_greedy_policy,
    soft_policy_iteration,
    soft_state_values,
)

STATES, ACTIONS, GAMMA = 3, 3, 0.9
#: Of policy iteration, at most |A|^|S| are needed; of soft policy iteration.
IMPROVEMENTS, SOFT_IMPROVEMENTS = ACTIONS**STATES, 12
#: Steps of stochastic Q-iteration on each random MDP, and on the worked one from each seed.
VISITS, WORKED_VISITS, WORKED_SEEDS = 10_000, 30_000, 50
#: Step sizes by the power of t that they fall with, and the first.
SCHEDULES: dict[str, tuple[float, float]] = {
    "1/t": (1.0, 1.0),
    "t^-.7": (0.7, 1.0),
    "t^-.4": (0.4, 1.0),
    "constant .1": (0.0, 0.1),
    "t^-2": (2.0, 1.0),
}

IMPROVES = "2.16"
ENDS = "A.2.1"
EXPECTED = "2.18"
NORM = "norm"
OPTIMAL = "2.20"
IF = "theorem 3 if"
ONLY_IF = "theorem 3 only if"
REGULARISED = "2.50"
PRINTED_VALUE = "2.51"
SOFT = "2.52"
THEOREM_6 = "theorem 6"
SOFT_LIMIT = "soft limit"
PRINTED_TARGET = "2.53"
LIMITS = "limits"

STATEMENTS = {
    IMPROVES: Statement("(2.16), A.2.1: no V falls in policy iteration"),
    ENDS: Statement("section 2.2.2: policy iteration ends at the optimum"),
    EXPECTED: Statement("(2.18), A.2.2: B^π is a γ-contraction"),
    NORM: Statement("section 2.2.2: max V(s) is a norm", "V = (-1, -2): -1; it needs ∣V∣"),
    OPTIMAL: Statement("(2.19), (2.20): B* of V and of Q are γ-contractions"),
    IF: Statement("theorem 3, if: steps t^-.7 lead to Q*"),
    ONLY_IF: Statement(
        "theorem 3, only if: without Σ α² < ∞ it does not converge",
        "one state, one action, r = 1, no noise: constant steps of 1/2 reach 1/(1-γ)",
    ),
    REGULARISED: Statement("(2.50): V = E (Q - log π/P) at the Boltzmann policy"),
    PRINTED_VALUE: Statement(
        "(2.51): V = E (βr - π/P + γV), without log",
        "one state, r = 0, γ = .9, π = P: -10, and 0 with the logarithm",
    ),
    SOFT: Statement("(2.52), A.3.3: the soft operator is a γ-contraction"),
    THEOREM_6: Statement("theorem 6: no Q falls in a soft improvement"),
    SOFT_LIMIT: Statement("section 2.4.1: soft policy iteration ends at the fixed point of (2.52)"),
    PRINTED_TARGET: Statement(
        "(2.53): exp(Q) P / V of the old policy is a distribution",
        "one state, two actions, r = (0, 1), γ = 0, uniform: sums to 3.718; to 1 with exp Z, as in (A.7)",
    ),
    LIMITS: Statement("section 2.4.1: V/β is max Q for β → ∞, E Q under P for β → 0"),
}


def worked_mdp() -> TeamModel:
    """Action a leads to state a; r(0, .) = (0, 1), r(1, .) = (2, 0)."""
    to = jnp.asarray(np.broadcast_to(np.eye(2), (2, 2, 2)), float)
    return TeamModel(to, jnp.asarray([[0.0, 1], [2, 0]]), jnp.zeros(2, bool))


def random_mdps(draw: np.random.Generator, games: int, moves: bool = False) -> TeamModel:
    """Rewards uniform in [0, 1), transitions from a flat Dirichlet distribution; with `moves` sure ones."""
    size = (games, STATES, ACTIONS)
    chances = draw.dirichlet(np.ones(STATES), size)
    if moves:
        chances = np.eye(STATES)[chances.argmax(-1)]
    return TeamModel(chances, draw.random(size), np.zeros((games, STATES), bool))  # type: ignore[arg-type]


class OfMDP(NamedTuple):
    """What is measured of one MDP."""

    least_rise: jax.Array  # () of V in policy iteration
    missing: jax.Array  # (), how far the last V is from V*
    improvements: jax.Array  # (), until nothing changes
    shrinks: jax.Array  # (4,), of B^π, B* of V, B* of Q and the soft operator
    soft_rise: jax.Array  # (), the least of Q in soft policy iteration
    soft_missing: jax.Array  # (), how far the last Q is from the fixed point
    regularised: jax.Array  # (), error of (2.50) at the fixed point
    mass: jax.Array  # (2,), largest distance from 1 of (2.53)'s target as printed and with exp Z
    limits: jax.Array  # (), error of the limits of V/β
    value: jax.Array  # (S,), V of a random policy, and
    printed_value: jax.Array  # (S,), as (2.51) prints it


def of_mdp(
    model: TeamModel, policy: jax.Array, prior: jax.Array, first: jax.Array, second: jax.Array
) -> OfMDP:
    """All but theorem 3, of a policy and a prior, and two tables q `(S, A)`."""
    trace = policy_iteration(model, GAMMA, policy, IMPROVEMENTS)
    best = best_values(optimal_q(model, GAMMA))
    changes = jnp.any(trace.policies[1:] != trace.policies[:-1], axis=(1, 2))

    def expected(values: jax.Array) -> jax.Array:
        return jnp.sum(policy * bellman_backup(model, GAMMA, values), axis=1)

    def optimal(values: jax.Array) -> jax.Array:
        return best_values(bellman_backup(model, GAMMA, values))

    def of_q(q: jax.Array) -> jax.Array:
        return bellman_backup(model, GAMMA, best_values(q))

    def soft(q: jax.Array) -> jax.Array:
        return soft_bellman(model, GAMMA, q, prior)

    shrinks = [
        jnp.max(jnp.abs(each(one) - each(other))) / jnp.max(jnp.abs(one - other))
        for each, one, other in (
            (expected, first[:, 0], second[:, 0]),
            (optimal, first[:, 0], second[:, 0]),
            (of_q, first, second),
            (soft, first, second),
        )
    ]
    gentle = soft_policy_iteration(model, GAMMA, policy, prior, SOFT_IMPROVEMENTS)
    last = gentle.q[-1]
    boltzmann = soft_greedy_policy(last, prior)
    regularised = jnp.sum(boltzmann * (last - jnp.log(boltzmann / prior)), axis=1)
    tilted = jnp.sum(prior * jnp.exp(gentle.q[0]), axis=1)  # (S,)
    masses = [tilted / gentle.values[0], tilted / jnp.exp(log_normaliser(gentle.q[0], prior))]
    at_ends = [
        log_mean_exp(first, prior, 1e9) - jnp.max(first, axis=1),
        log_mean_exp(first, prior, 1e-9) - jnp.sum(prior * first, axis=1),
    ]
    ratio = model.reward - policy / prior + jnp.log(policy / prior)  # its penalty is π/P
    return OfMDP(
        jnp.min(jnp.diff(trace.values, axis=0)),
        jnp.max(jnp.abs(trace.values[-1] - best)),
        jnp.sum(changes),
        jnp.stack(shrinks),
        jnp.min(jnp.diff(gentle.q, axis=0)),
        jnp.max(jnp.abs(soft(last) - last)),
        jnp.max(jnp.abs(regularised - log_normaliser(last, prior))),
        jnp.stack([jnp.max(jnp.abs(mass - 1)) for mass in masses]),
        jnp.max(jnp.abs(jnp.stack(at_ends))),
        gentle.values[0],
        soft_state_values(model._replace(reward=ratio), GAMMA, policy, prior),
    )


def errors_by_schedule(visits: int, seeds: int, key: jax.Array) -> dict[str, np.ndarray]:
    """`max |Q - Q*|` on the worked MDP with N(0, 1) on rewards, `(seeds, visits)`, from Q = 0."""
    model = worked_mdp()
    optimum = optimal_q(model, GAMMA)

    def run(steps: jax.Array, key: jax.Array) -> jax.Array:
        return stochastic_q_iteration(model, GAMMA, jnp.zeros((2, 2)), steps, 1.0, key, optimum)[1]  # type: ignore[no-any-return]

    steps = jnp.stack([polynomial_steps(visits, *schedule) for schedule in SCHEDULES.values()])
    keys = jax.random.split(key, seeds)  # the same for every schedule
    found = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(steps, keys)
    return dict(zip(SCHEDULES, np.asarray(found), strict=True))


def check(games: int, seed: int, visits: int, worked_visits: int) -> Group:
    """All statements; to be called in float64."""
    draw = np.random.default_rng((seed, 2))
    models = random_mdps(draw, games)
    size = (games, STATES)
    policies, priors = (draw.dirichlet(np.ones(ACTIONS), size) for _ in range(2))
    tables = [10 * draw.normal(size=(*size, ACTIONS)) for _ in range(2)]
    found: OfMDP = over_games(of_mdp, models, policies, priors, *tables)

    steps = polynomial_steps(visits, 0.7)
    keys = jax.random.split(jax.random.key(seed), games)
    start = jnp.zeros((STATES, ACTIONS))

    def sampled(model: TeamModel, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        optimum = optimal_q(model, GAMMA)
        _, errors = stochastic_q_iteration(model, GAMMA, start, steps, 1.0, key, optimum)
        return jnp.max(jnp.abs(optimum)), errors[-1]

    def unsampled(model: TeamModel, key: jax.Array) -> jax.Array:
        constant, optimum = polynomial_steps(800, 0, 0.5), optimal_q(model, GAMMA)
        _, errors = stochastic_q_iteration(model, GAMMA, start, constant, 0.0, key, optimum)
        return jnp.min(errors)

    before, after = (np.asarray(each) for each in jax.jit(jax.vmap(sampled))(models, keys))
    fixed = np.asarray(jax.jit(jax.vmap(unsampled))(random_mdps(draw, games, moves=True), keys))
    vectors = draw.normal(size=(games, 2))
    fails = {
        IMPROVES: found.least_rise < -EXACT,
        ENDS: (found.missing > SOLVED) | (found.improvements > ACTIONS**STATES - 1),
        EXPECTED: found.shrinks[:, 0] > GAMMA + EXACT,
        NORM: vectors.max(1) <= 0,
        OPTIMAL: found.shrinks[:, 1:3].max(1) > GAMMA + EXACT,
        IF: after > 0.1 * before,
        ONLY_IF: fixed < EXACT,
        REGULARISED: found.regularised > EXACT,
        PRINTED_VALUE: apart(found.printed_value, found.value) > EXACT,
        SOFT: found.shrinks[:, 3] > GAMMA + EXACT,
        THEOREM_6: found.soft_rise < -EXACT,
        SOFT_LIMIT: found.soft_missing > SOLVED,
        PRINTED_TARGET: found.mass[:, 0] > EXACT,
        LIMITS: found.limits > SOLVED,
    }
    curves = errors_by_schedule(worked_visits, WORKED_SEEDS, jax.random.key(seed))
    uniform = jnp.full((2, 2), 0.5)
    hard = policy_iteration(worked_mdp(), GAMMA, uniform, 2)
    gentle = soft_policy_iteration(worked_mdp(), GAMMA, uniform, uniform, 8)
    numbers: dict[str, Any] = {
        "most improvements of policy iteration": int(found.improvements.max()),
        "(2.53) with exp Z: largest distance of the sum from 1": found.mass[:, 1].max(),
        "the worked MDP": {
            "V in policy iteration": np.asarray(hard.values).tolist(),
            "V in soft policy iteration": np.asarray(gentle.values).tolist(),
            "policy after one soft improvement": np.asarray(gentle.policies[1]).tolist(),
        },
        "root mean square of max |Q - Q*| on it": {
            name: {f"t = {t}": np.sqrt(np.mean(errors[:, t - 1] ** 2)) for t in decades(worked_visits)}
            for name, errors in curves.items()
        },
        "random MDPs after t^-.7": {"median error": np.median(after), "largest": after.max()},
    }
    shown = {
        "schedules": {name: np.sqrt(np.mean(errors**2, axis=0)) for name, errors in curves.items()},
        "soft": np.asarray(gentle.values),
        "hard": np.asarray(hard.values),
    }
    return Group(fails, numbers, shown)


def decades(visits: int) -> list[int]:
    """10, 100, ... up to the last visit, which is the last."""
    return [*(10**power for power in range(1, 9) if 10**power < visits), visits]
