"""QPLEX's core idea: where its joint values are near the payoff."""

from typing import Any

import numpy as np

from experiments.claims.qplex.games import ACTIONS, GAMES, summary, train
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_RANDOM, gain_over_random
from jaxmarl_fac.report.figures import annotated_matrix, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule, share
from jaxmarl_fac.statistics import bootstrap_interval


def _at_optimum(game: str) -> str:
    return f"median error at the optimal joint action on {GAMES[game][0]}"


#: Errors below it are float32's: which of two such is the larger says nothing.
ROUNDING = 1e-5


def _elsewhere(game: str) -> str:
    return f"median of the mean error elsewhere on {GAMES[game][0]}"


def core_idea(workshop: Workshop) -> Outcome:
    """Errors of QPLEX's joint values at the optimal joint action and elsewhere, over seeds."""
    histories = train(workshop, "qplex")
    ours: dict[str, Any] = {}
    measured: dict[str, Any] = gain_over_random(
        [histories["matrix-qplex"].last["episode_return"]], GAMES["matrix-qplex"][1].mean()
    )
    figure, axes = panels(2, len(GAMES), (3.9, 3.3))
    for column, (game, (title, payoff)) in enumerate(GAMES.items()):
        errors = np.abs(histories[game].last["q_tot"] - payoff)  # (seeds, 3, 3)
        best = np.unravel_index(payoff.argmax(), payoff.shape)
        there = errors[:, *best]
        elsewhere = (errors.sum((1, 2)) - there) / (payoff.size - 1)
        medians = {_at_optimum(game): np.median(there), _elsewhere(game): np.median(elsewhere)}
        measured |= {what: 0.0 if error < ROUNDING else error for what, error in medians.items()}
        ours[game] = {
            **summary(histories[game], payoff),
            "error at the optimal joint action": bootstrap_interval(there),
            "mean error elsewhere": bootstrap_interval(elsewhere),
            "seeds with less error at the optimal one": share(there <= elsewhere),
            "median error": np.median(errors, 0),
        }
        annotated_matrix(
            axes[0, column],
            np.median(errors, 0),
            ACTIONS,
            ACTIONS,
            f"{title}: median error",
            (int(best[0]), int(best[1])),
            value_format="{:.2f}",
        )
        axes[1, column].scatter(elsewhere, there, s=14, alpha=0.6, color=PALETTE[0])
        ends = np.array([0, max(elsewhere.max(), there.max(), 1e-3)])
        axes[1, column].plot(ends, ends, color="0.45", linewidth=1, linestyle="--", label="equal")
        axes[1, column].set(xlabel="mean error elsewhere", ylabel="error at the optimal joint action")
        axes[1, column].legend(fontsize="small", frameon=False)
        axes[1, column].grid(alpha=0.25)
    seeds, steps = len(errors), histories["matrix-qplex"].last_env_steps
    figure.suptitle(
        f"QPLEX's joint values after {steps:,} steps with ε = 1, {seeds} seeds; framed: the optimal joint "
        f"action"
    )
    why = "Medians over seeds, at the optimal joint action and elsewhere: " + "; ".join(
        f"{title} {measured[_at_optimum(game)]:.3f} and {measured[_elsewhere(game)]:.3f} (less at the "
        f"optimal "
        f"one on {ours[game]['seeds with less error at the optimal one'].value:.0%} of seeds, greedy play "
        f"optimal on {ours[game]['greedy_optimal_fraction'].value:.0%})"
        for game, (title, _) in GAMES.items()
    )
    return Outcome(figure, {"core idea": "optimal actions are fitted well"}, ours, measured, f"{why}.")


CLAIMS = (
    Claim(
        "core_idea",
        "Lecture, QPLEX's core idea",
        "QPLEX fits the values of optimal actions well, and only approximates those of the others.",
        Rule(
            tuple(Part(_at_optimum(game), at_most=_elsewhere(game)) for game in GAMES),
            learned=BETTER_THAN_RANDOM,
            given="Absolute errors of Q_tot after 20,000 steps with epsilon = 1, over seeds; those below "
            f"{ROUNDING:g}, roundings of float32 at payoffs around 10, count as 0: ",
        ),
        {"smoke": "10 s", "quick": "1 min on 2 cores", "paper": "5 min on 2 cores"},
        core_idea,
    ),
)
