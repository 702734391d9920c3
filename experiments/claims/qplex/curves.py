"""QPLEX, matrix games: what greedy play earns during training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.claims.qplex.games import ALGORITHMS, GAMES, UNPUBLISHED, summary, train
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_RANDOM, gain_over_random
from jaxmarl_fac.report.figures import learning_curves, panels
from jaxmarl_fac.report.verdicts import Part, Rule, share
from jaxmarl_fac.statistics import Interval

AT_SIX = ("vdn", "qmix", "qatten")
SOLVED = ("matrix-qtran", "matrix-qplex")


def curves(workshop: Workshop) -> Outcome:
    """Greedy rewards of eight algorithms on three games."""
    histories = {name: train(workshop, name) for name in ALGORITHMS}
    ours: dict[str, Any] = {
        game: {name: summary(histories[name][game], payoff) for name in ALGORITHMS}
        for game, (_, payoff) in GAMES.items()
    }
    at_end = {name: histories[name]["matrix-qplex"].last["episode_return"] for name in ALGORITHMS}
    measured = gain_over_random(at_end.values(), GAMES["matrix-qplex"][1].mean())
    for name in AT_SIX:
        at_six = share(np.abs(at_end[name] - 6) < 1e-4)
        ours["matrix-qplex"][name]["reward_6_fraction"] = at_six
        measured[f"share of {name}'s seeds at 6 on QPLEX's game"] = at_six
    for game in SOLVED:
        solved = ours[game]["qplex"]["greedy_optimal_fraction"]
        measured[f"share of qplex's seeds at 8 on {GAMES[game][0]}"] = solved

    figure, axes = panels(1, 3, (5.6, 3.4))
    seeds = len(histories["vdn"]["matrix-qtran"].last["episode_return"])
    for column, (game, (title, payoff)) in enumerate(GAMES.items()):
        arrays = {name: histories[name][game].arrays() for name in ALGORITHMS}
        learning_curves(
            axes[0, column],
            arrays["vdn"]["env_steps"],
            {name: arrays[name]["episode_return"] for name in ALGORITHMS},
            ylabel="greedy reward",
            reference=float(payoff.max()),
            title=title,
        )
    figure.suptitle(f"Greedy reward on matrix games, ε = 1, {seeds} seeds")
    reached = "; ".join(
        f"{title}: " + ", ".join(f"{name} {_percents(ours[game][name])}" for name in ALGORITHMS)
        for game, (title, _) in GAMES.items()
    )
    sixes = ", ".join(
        f"{name} {ours['matrix-qplex'][name]['reward_6_fraction'].value:.0%}" for name in AT_SIX
    )
    why = (
        f"Seeds of {seeds} whose greedy reward is the optimum: {reached}. Seeds at 6 on QPLEX's game: "
        f"{sixes}; in its exact additive fit B and C tie, so the two agents may settle on different ones."
    )
    return Outcome(figure, UNPUBLISHED, ours, measured, why)


def _percents(numbers: Mapping[str, Interval]) -> str:
    return f"{numbers['greedy_optimal_fraction'].value:.0%}"


CLAIMS = (
    Claim(
        "curves",
        "QPLEX, matrix games (the quoted outcomes are unverified)",
        "QPLEX earns 8 on QTRAN's and on QPLEX's 3x3 game; VDN, QMIX and Qatten end at 6 on QPLEX's.",
        Rule(
            (
                *(Part(f"share of {name}'s seeds at 6 on QPLEX's game", at_least=0.9) for name in AT_SIX),
                *(Part(f"share of qplex's seeds at 8 on {GAMES[game][0]}", at_least=0.9) for game in SOLVED),
            ),
            learned=BETTER_THAN_RANDOM,
            given="Greedy rewards after 20,000 steps with epsilon = 1: ",
        ),
        {"smoke": "1 min", "quick": "6 min on 2 cores", "paper": "30 min on 2 cores"},
        curves,
    ),
)
