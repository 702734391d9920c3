"""Theorem 2 of the lecture: additive fitted Q-iteration on on-policy data."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from envs.team_mdp import divergence_mmdp, draw_team_mdp
from jaxmarl_fac.exact.fitted import fma_fqi, igm_projection
from jaxmarl_fac.exact.joint import optimal_q, optimality_gap
from jaxmarl_fac.exact.team import greedy_joint_actions
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Every, Part, Rule, over_games, share

#: Where the two-state game's slope is 1, at discount .99: gamma (1 + epsilon^2 / 4) = 1.
GAMMA = 0.99
STABLE_BELOW = 2 * math.sqrt(1 / GAMMA - 1)
SHOWN_EPSILONS = (1.0, 0.5, 0.2, 0.1, 0.05)
RANDOM_GAME_EPSILONS = (1.0, 0.5, 0.2, 0.1, 0.03, 0.01, 0.001, 0.0001)


def recursion(offset: np.ndarray, slope: np.ndarray, steps: int) -> np.ndarray:
    """`V_{t+1} = offset + slope V_t` from 0: `(steps + 1, ...)`."""
    values = [np.zeros_like(offset)]
    for _ in range(steps):
        values.append(offset + slope * values[-1])
    return np.stack(values)


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, where above 1 as a part of what is expected."""
    return float((np.abs(values - expected) / np.maximum(1, np.abs(expected))).max())


def near_optimal_start(q_star: jax.Array) -> tuple[jax.Array, ...]:
    """Utilities whose greedy joint action and values are those of Q*, n of `(S, A_i)`."""
    return tuple(jax.vmap(igm_projection)(q_star).utilities)


def theorem2(workshop: Workshop) -> Outcome:
    """Local convergence on-policy: the two-state game over epsilon, and random games."""
    count = workshop.choose(smoke=40, quick=2000, paper=20_000)
    games = workshop.choose(smoke=40, quick=2000, paper=20_000)
    steps, gamma_random, iterations = 50, 0.9, 150
    with jax.enable_x64(True):
        model = divergence_mmdp().model()
        # Epsilon from 1 down to .001, and the values that the figure shows.
        epsilons = np.concatenate([np.linspace(0.001, 1, count), SHOWN_EPSILONS])
        values = over_games(
            lambda epsilon: fma_fqi(model, GAMMA, steps, epsilon=epsilon).values[:, 0], epsilons
        )  # (count, steps + 1)

        def stays(key: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            game = draw_team_mdp(key, 5, (3, 3)).model()
            q_star = optimal_q(game, gamma_random)
            trace = fma_fqi(game, gamma_random, iterations, epsilon=epsilon, start=near_optimal_start(q_star))
            last = jax.tree.map(lambda utility: utility[-1], trace.utilities)
            values = trace.values
            error = jnp.abs(values[-1] - q_star.max((1, 2))).max()
            return (
                jnp.abs(values[-1] - values[-2]).max(),
                optimality_gap(q_star, greedy_joint_actions(last)),
                error,
            )

        keys = jax.random.split(jax.random.key(0), games)
        kinds = len(RANDOM_GAME_EPSILONS)
        played = over_games(stays, jnp.tile(keys, kinds), jnp.repeat(jnp.array(RANDOM_GAME_EPSILONS), games))
    by_epsilon = dict(
        zip(RANDOM_GAME_EPSILONS, zip(*(np.split(each, kinds) for each in played), strict=True), strict=True)
    )
    delta = epsilons / 2
    offset, slope = 1 - delta**2, GAMMA * (1 + delta**2)
    trace_error = relative_error(values.T, recursion(offset, slope, steps))
    rises = np.diff(values, axis=1)
    slopes = rises[:, 1] / rises[:, 0]  # of one step to the next
    slope_error = float(np.abs(slopes - slope).max())
    # The recursion is linear, so two steps give its limit.
    limit = np.where(slopes < 1, values[:, 0] + rises[:, 0] / (1 - slopes), np.inf)
    split_at = epsilons[:count][slopes[:count] < 1].max()

    ours: dict[str, Any] = {
        "epsilons": count,
        "largest_relative_error_of_values": trace_error,
        "largest_error_of_slopes": slope_error,
        "largest_stable_epsilon": split_at,
        "two_state_game": {
            f"epsilon {epsilon:g}": {
                "slope": slopes[count + i],
                "limit": limit[count + i],
                "value_after_50": values[count + i, -1],
            }
            for i, epsilon in enumerate(SHOWN_EPSILONS)
        },
        "random_games": {},
    }
    kept = {}
    for epsilon, (change, gap, error) in by_epsilon.items():
        good = (change < TOLERANCE) & (gap <= TOLERANCE)
        kept[epsilon] = share(good)
        ours["random_games"][f"epsilon {epsilon:g}"] = {
            "games": games,
            "settled_fraction": share(change < TOLERANCE),
            "settled_at_optimal_policy_fraction": kept[epsilon],
            "median_value_error": np.median(error),
        }
    shares = [kept[epsilon].value for epsilon in RANDOM_GAME_EPSILONS]
    measured = {
        VALUES: trace_error,
        SLOPES: slope_error,
        STABLE: abs(split_at - STABLE_BELOW) * count,
        SETTLED: kept[RANDOM_GAME_EPSILONS[-1]],
        MAX_SETTLED: max(shares),
    }
    figure, axes = panels(1, 3, (4.8, 3.8))
    figure.suptitle("Theorem 2: on-policy data (exact, no seeds)")
    _draw_epsilons(axes[0], epsilons, values, slopes, count)
    places = np.asarray(RANDOM_GAME_EPSILONS)
    intervals = [kept[epsilon] for epsilon in RANDOM_GAME_EPSILONS]
    axes[0, 2].plot(places, shares, "o-", color=PALETTE[2])
    axes[0, 2].fill_between(
        places, [i.low for i in intervals], [i.high for i in intervals], alpha=0.25, color=PALETTE[2]
    )
    axes[0, 2].set(
        xscale="log",
        xlabel="ε",
        ylabel="share of games",
        ylim=(0, 1.05),
        title=f"{games:,} random games, γ = {gamma_random}, from $Q^*$:\nsettled at an optimal policy",
    )
    axes[0, 2].grid(alpha=0.25)
    why = (
        f"Two-state game, {len(epsilons):,} values of epsilon: values and slopes are those of V' = (1 - "
        f"e^2/4) + {GAMMA}(1 + e^2/4)V to {max(trace_error, slope_error):.0e}, and it is stable up to "
        f"epsilon {split_at:.3f} (predicted {STABLE_BELOW:.4f}). Of {games:,} random games started at Q*, "
        f"{shares[0]:.0%} settle at an optimal policy with uniform data, {shares[-1]:.1%} with epsilon "
        f"{RANDOM_GAME_EPSILONS[-1]:g}: convergence is local and needs small epsilon."
    )
    paper = {"stable_below": STABLE_BELOW, "limits": {"0.2": 9900, "0.1": 132.558, "0.05": 106.529}}
    return Outcome(figure, paper, ours, measured, why, games)


def _draw_epsilons(
    axes: Sequence[Axes], epsilons: np.ndarray, values: np.ndarray, slopes: np.ndarray, count: int
) -> None:
    for i, epsilon in enumerate(SHOWN_EPSILONS):
        axes[0].plot(values[count + i], color=PALETTE[i], label=f"ε = {epsilon:g}")
    axes[0].axhline(1 / (1 - GAMMA), color="0.45", linestyle="--", linewidth=1, label="$V^*$ = 100")
    axes[0].set(yscale="log", xlabel="iteration t", ylabel="$V_t$", title=f"two-state game, γ = {GAMMA}")
    axes[0].legend(fontsize="small", frameon=False)
    axes[0].grid(alpha=0.25)
    axes[1].plot(epsilons[:count], slopes[:count], color=PALETTE[0], linewidth=3, label="measured")
    axes[1].plot(
        epsilons[:count],
        GAMMA * (1 + epsilons[:count] ** 2 / 4),
        color="black",
        linestyle="--",
        linewidth=1,
        label="γ(1 + ε²/4)",
    )
    axes[1].axhline(1, color="0.45", linewidth=1)
    axes[1].axvline(STABLE_BELOW, color="0.45", linestyle=":", label=f"ε = {STABLE_BELOW:.3f}")
    axes[1].set(
        xlabel="ε",
        ylabel="$(V_2 - V_1) / (V_1 - V_0)$",
        title=f"slope for {count:,} values of ε:\nstable below 1",
    )
    axes[1].legend(fontsize="small", frameon=False)
    axes[1].grid(alpha=0.25)


VALUES = "largest relative error of the two-state game's values by the recursion, over epsilon"
SLOPES = "largest error of their slopes"
STABLE = f"distance of its largest stable epsilon from {STABLE_BELOW:.4f}, in steps of the grid"
SETTLED = "share of random games, started at Q*, that settle at an optimal policy with epsilon 1e-4"
MAX_SETTLED = "that of any epsilon"

CLAIMS = (
    Claim(
        "theorem2",
        "lecture, theorem 2",
        "With on-policy data additive fitted Q-iteration converges locally.",
        Rule(
            (
                Every((Part(VALUES, at_most=TOLERANCE), Part(SLOPES, at_most=TOLERANCE))),
                Part(STABLE, at_most=1),
                Every((Part(SETTLED, at_least=0.99), Part(SETTLED, at_least=MAX_SETTLED))),
            ),
            given="Gamma .99 in the two-state game; games settle if they change by less than 1e-6: ",
        ),
        {"smoke": "10 s", "quick": "40 s", "paper": "5 min"},
        theorem2,
    ),
)
