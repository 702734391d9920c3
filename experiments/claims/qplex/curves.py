"""QPLEX, matrix games: what greedy play earns during training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.claims.qplex.games import ALGORITHMS, GAMES, UNPUBLISHED, summary, train
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import learning_curves, panels
from jaxmarl_fac.report.verdicts import judged, share
from jaxmarl_fac.statistics import Interval


def curves(workshop: Workshop) -> Outcome:
    """Greedy rewards of eight algorithms on three games."""
    histories = {name: train(workshop, name) for name in ALGORITHMS}
    ours: dict[str, Any] = {
        game: {name: summary(histories[name][game], payoff) for name in ALGORITHMS}
        for game, (_, payoff) in GAMES.items()
    }
    parts: dict[str, bool] = {}
    for name in ("vdn", "qmix", "qatten"):
        at_six = share(np.abs(histories[name]["matrix-qplex"].last["episode_return"] - 6) < 1e-4)
        ours["matrix-qplex"][name]["reward_6_fraction"] = at_six
        parts[f"{name} at 6 on QPLEX's game"] = at_six.value >= 0.9
    for game in ("matrix-qtran", "matrix-qplex"):
        solved = ours[game]["qplex"]["greedy_optimal_fraction"].value
        parts[f"qplex at 8 on {GAMES[game][0]}"] = solved >= 0.9
    ours["parts"] = parts

    figure, axes = panels(1, 3, (4.6, 3.4))
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
            legend=column == len(GAMES) - 1,
        )
    figure.suptitle(f"Greedy reward on matrix games, ε = 1, {seeds} seeds")
    failed = [part for part, good in parts.items() if not good]
    reached = "; ".join(
        f"{title}: " + ", ".join(f"{name} {_percents(ours[game][name])}" for name in ALGORITHMS)
        for game, (title, _) in GAMES.items()
    )
    sixes = ", ".join(
        f"{name} {ours['matrix-qplex'][name]['reward_6_fraction'].value:.0%}"
        for name in ("vdn", "qmix", "qatten")
    )
    why = (
        f"Seeds of {seeds} whose greedy reward is the optimum: {reached}. Seeds at 6 on QPLEX's game: "
        f"{sixes}; in its exact additive fit B and C tie, so the two agents may settle on different ones. "
        + (f"The rule fails for: {', '.join(failed)}." if failed else "")
    )
    return Outcome(figure, UNPUBLISHED, ours, judged(*parts.values()), why)


def _percents(numbers: Mapping[str, Interval]) -> str:
    return f"{numbers['greedy_optimal_fraction'].value:.0%}"


CLAIMS = (
    Claim(
        "curves",
        "QPLEX, matrix games (R13; the quoted outcomes are unverified)",
        "QPLEX earns 8 on QTRAN's and on QPLEX's 3x3 game; VDN, QMIX and Qatten end at 6 on QPLEX's.",
        "After 20,000 steps with epsilon = 1: greedy reward 6 on >= 90 % of seeds for VDN, QMIX and Qatten "
        "on QPLEX's game, 8 on >= 90 % for QPLEX on either game. Reproduced if all hold, partly if some.",
        {"smoke": "1 min", "quick": "6 min on 2 cores", "paper": "30 min on 2 cores"},
        curves,
    ),
)
