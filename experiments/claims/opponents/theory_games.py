"""Thesis, sections 2.5 and 3.5.1: Nash-Q's operator, minimax, friends and foes, on random games."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.stochastic_games import GameModel
from experiments.claims.opponents.statements import EXACT, SOLVED, Group, Statement
from jaxmarl_fac.exact.equilibria import friend, max_min, nash_equilibrium
from jaxmarl_fac.exact.friends_and_foes import correlated_friends, foes_bound, independent_friends
from jaxmarl_fac.exact.stochastic_games import (
    best_reply_gains,
    iterate_backup,
    minimax_solution,
    nash_backup,
    player_side,
    stage_policies,
)
from jaxmarl_fac.report.verdicts import over_games
from jaxmarl_fac.soft.stages import agent_first

STATES, ACTIONS, GAMMA = 2, 2, 0.9
SWEEPS = 400
#: A second table is the first and noise of this standard deviation, where entries are uniform in [0, 1).
NEAR = 0.1
#: Where the equilibrium of `jump` is selected anew.
JUMPS = (0.1, 0.01)

NASH = "2.67"
NASH_SETTLES = "2.67 settles"
NASH_TEAM = "2.67 team"
NASH_ZERO_SUM = "2.67 zero-sum"
NASH_LIMIT = "2.64"
MINIMAX = "minimax"
BOTH = "2.68 contraction"
INDEPENDENT = "2.68"
CORRELATED = "2.68 correlated"
SOFT_FRIEND = "3.5.1 friend"
SOFT_FOE = "3.5.1 foe"

STATEMENTS = {
    NASH: Statement(
        "(2.67): Nash-Q's operator is a contraction",
        "R₁ = [[3, 0], [3 + x, 1]], R₂ = R₁ᵀ: worth 3 at x = -.1, 1 at .1: distance times 10γ; 100γ at ±.01",
    ),
    NASH_TEAM: Statement("(2.67) is one if both are paid the same (Hu and Wellman)"),
    NASH_ZERO_SUM: Statement("(2.67) is one if the sum of the payoffs is 0"),
    NASH_SETTLES: Statement(
        "section 2.5.2: applied repeatedly, (2.67) leads to a fixed point",
        "the panel below: two states, two actions each; in the record its tables",
    ),
    NASH_LIMIT: Statement("(2.64), (2.65): at a fixed point nobody gains by another policy"),
    MINIMAX: Statement("sum 0: the fixed point is that of minimax iteration, an equilibrium"),
    BOTH: Statement("(2.68): friend-or-foe operators are γ-contractions"),
    INDEPENDENT: Statement(
        "(2.68): friends who mix independently get Littman's value",
        "R = 4 at (0, 0, 0) and (1, 1, 1), else 0, foe 3: 1; friends who correlate get 2",
    ),
    CORRELATED: Statement("Littman's value is also what foes can hold friends to"),
    SOFT_FRIEND: Statement("section 3.5.1: Balancing-Q tends to friend values (β, β' → ∞)"),
    SOFT_FOE: Statement(
        "section 3.5.1: Balancing-Q tends to foe values (β → ∞, β' → -∞)",
        "[[1, -1], [-1, 1]]: -1, as the other sees the action; the foe value is 0",
    ),
}


def random_games(draw: np.random.Generator, games: int) -> GameModel:
    """Two agents; rewards uniform in [0, 1), transitions from a flat Dirichlet distribution."""
    shape = (games, STATES, ACTIONS, ACTIONS)
    return GameModel(
        draw.dirichlet(np.ones(STATES), shape),  # type: ignore[arg-type]
        draw.random((games, 2, *shape[1:])),  # type: ignore[arg-type]
        np.zeros((games, STATES), bool),  # type: ignore[arg-type]
    )


def jump(x: ArrayLike) -> np.ndarray:
    """Tables `(k, 2, S, 2, 2)`, alike in all states, with equilibrium (0, 0) below x = 0, (1, 1) above."""
    shift = np.asarray(x, float)[:, None, None] * np.asarray([[0, 0], [1, 0]])
    first = np.asarray([[3.0, 0.0], [3.0, 1.0]]) + shift  # (k, 2, 2)
    return np.repeat(np.stack([first, np.swapaxes(first, 1, 2)], axis=1)[:, :, None], STATES, axis=2)


def widening(models: GameModel, first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """By how much Nash-Q's operator T widens each pair: `max |T x - T y| / max |x - y|`, `(games,)`.

    And what the equilibrium of x pays player 1 in state 0.
    """

    def of_game(model: GameModel, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
        both = jax.vmap(lambda q: nash(model, q))(jnp.stack([first, second]))
        factor = jnp.max(jnp.abs(both[0] - both[1])) / jnp.max(jnp.abs(first - second))
        return factor, nash_equilibrium(first[:, 0]).values[0]

    return over_games(of_game, models, first, second)  # type: ignore[no-any-return]


def nash(model: GameModel, q: jax.Array) -> jax.Array:
    """Nash-Q's operator with the discount of all games here."""
    return nash_backup(model, GAMMA, q)


def settled(model: GameModel) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Nash-Q's operator from 0: the last change, gains of best replies, values by sweep, and the last q."""
    path = iterate_backup(lambda q: nash(model, q), jnp.zeros_like(model.reward), SWEEPS)
    values = jax.vmap(
        lambda q: jax.vmap(lambda stage: nash_equilibrium(stage).values, in_axes=1, out_axes=1)(q)
    )(path)  # (SWEEPS + 1, 2, S)
    last = path[-1]
    gains = jnp.max(best_reply_gains(model, GAMMA, stage_policies(last)))
    return jnp.max(jnp.abs(last - path[-2])), gains, values, last


class OfStage(NamedTuple):
    """What is measured of a stage of three players and another one, `(2, 2, 2)` each."""

    shrinks: jax.Array  # (4,), |value - value| by the largest difference, by who their friends are
    independent: jax.Array  # the value for players 0 and 1, friends who mix independently
    correlated: jax.Array  # the same if they correlate
    bound: jax.Array  # what player 2 can hold them to
    to_friend: jax.Array  # Balancing-Q's limit minus the friend value, with player 2 away
    to_foe: jax.Array  # the same for the foe value


def of_stage(stage: jax.Array, other: jax.Array) -> OfStage:
    """All that concerns one stage."""
    friends = (0, 1)

    def values(stage: jax.Array) -> jax.Array:
        return jnp.stack(
            [
                friend(stage.reshape(4, 2))[0],
                max_min(stage.reshape(2, 4))[0],
                correlated_friends(stage, friends).value,
                independent_friends(stage, friends).value,
            ]
        )

    both = jax.vmap(values)(jnp.stack([stage, other]))  # (2, 4)
    two = stage[..., 0]
    soft = [agent_first(two, jnp.inf, sign * jnp.inf).value for sign in (1, -1)]
    return OfStage(
        jnp.abs(both[0] - both[1]) / jnp.max(jnp.abs(stage - other)),
        both[0, 3],
        both[0, 2],
        foes_bound(stage, friends),
        soft[0] - friend(two)[0],
        soft[1] - max_min(two)[0],
    )


def check(games: int, seed: int) -> Group:
    """All statements; to be called in float64."""
    draw = np.random.default_rng((seed, 3))
    models = random_games(draw, games)
    zero_sum = models._replace(reward=np.stack([models.reward[:, 0], -models.reward[:, 0]], axis=1))  # type: ignore[arg-type]
    q = draw.random((games, 2, STATES, ACTIONS, ACTIONS))
    pairs = {"far": draw.random(q.shape), "near": q + NEAR * draw.normal(size=q.shape)}

    def paid(tables: np.ndarray, sign: int) -> np.ndarray:
        return np.stack([tables[:, 0], sign * tables[:, 0]], axis=1)

    kinds = [q, paid(q, 1), paid(q, -1)], [[each, paid(each, 1), paid(each, -1)] for each in pairs.values()]
    line = np.concatenate([-np.linspace(0.3, 1e-6, 60), np.linspace(1e-6, 0.3, 60)])  # and the counterexample
    at = np.concatenate([-np.asarray(JUMPS), line])
    tables = np.concatenate([np.concatenate([first, first]) for first in kinds[0]] + [jump(at)])
    others = np.concatenate([each for pair in zip(*kinds[1], strict=True) for each in pair] + [jump(-at)])
    which = np.concatenate([np.tile(np.arange(games), 6), np.zeros(len(at), int)])
    found, paid_at = widening(jax.tree.map(lambda leaf: leaf[which], models), tables, others)
    factors = found[: 6 * games].reshape(3, 2, games)
    any_sum = dict(zip(pairs, factors[0], strict=True))
    jumps = found[6 * games :][: len(JUMPS)]
    change, gains, paths, _ = over_games(settled, models)
    unsettled = change > EXACT

    def of_zero_sum_game(model: GameModel) -> tuple[jax.Array, jax.Array]:
        found = minimax_solution(player_side(model, 0), GAMMA)
        q = jnp.stack([found.q, -found.q])
        residual = jnp.max(jnp.abs(nash(model, q) - q))
        return residual, jnp.max(best_reply_gains(model, GAMMA, (found.row, found.column)))

    residual, gain = over_games(of_zero_sum_game, zero_sum)
    stages = draw.random((2, games + 1, 2, 2, 2))
    stages[0, -1] = 0.0  # the smallest game in which it pays to correlate
    stages[0, -1, 0, 0, 0] = stages[0, -1, 1, 1, 1] = 4.0
    every: OfStage = over_games(of_stage, *stages)
    stage = OfStage(*(each[:-1] for each in every))
    fails = {
        NASH: np.concatenate([each > GAMMA + EXACT for each in any_sum.values()]),
        NASH_SETTLES: unsettled,
        NASH_LIMIT: gains[~unsettled] > SOLVED,
        NASH_TEAM: factors[1].ravel() > GAMMA + EXACT,
        NASH_ZERO_SUM: factors[2].ravel() > GAMMA + EXACT,
        MINIMAX: np.maximum(residual, gain) > SOLVED,
        BOTH: stage.shrinks.max(1) > 1 + EXACT,
        INDEPENDENT: np.abs(stage.independent - stage.correlated) > EXACT,
        CORRELATED: np.abs(stage.correlated - stage.bound) > EXACT,
        SOFT_FRIEND: np.abs(stage.to_friend) > EXACT,
        SOFT_FOE: np.abs(stage.to_foe) > EXACT,
    }
    example = smallest(unsettled, models)
    numbers: dict[str, Any] = {
        "(2.67): failures": {name: int((each > GAMMA + EXACT).sum()) for name, each in any_sum.items()},
        "(2.67): largest factor": {name: each.max() for name, each in any_sum.items()},
        "(2.67): factor of the counterexample": {
            f"x = ±{x:g}": factor for x, factor in zip(JUMPS, jumps, strict=True)
        },
        "(2.68): R = 4 at (0, 0, 0) and (1, 1, 1)": {
            "independent": every.independent[-1],
            "correlated": every.correlated[-1],
        },
        "(2.68): most that independent friends lose": (stage.correlated - stage.independent).max(),
        "gains where the iteration settles: largest": gains[~unsettled].max(initial=0.0),
    }
    if example is not None:
        numbers["a game in which (2.67) never settles"] = {
            "rewards": np.asarray(models.reward)[example].tolist(),
            "transition": np.asarray(models.transition)[example].tolist(),
        }
    shown = {
        "jump": (line, paid_at[-len(line) :]),
        "friends": (stage.independent, stage.correlated),
        "unsettled": None if example is None else paths[example],
        "factors": any_sum,
    }
    return Group(fails, numbers, shown)


def smallest(found: np.ndarray, models: GameModel) -> int | None:
    """Of the games found the one with the smallest rewards, None if there is none."""
    which = np.flatnonzero(found)
    if not len(which):
        return None
    sizes = np.abs(np.asarray(models.reward)[which]).reshape(len(which), -1).sum(1)
    return int(which[np.argmin(sizes)])
