"""QTRAN, section 4.2: how much faster QTRAN-alt learns predator-prey than QTRAN-base."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.claims.qtran.predator_prey import PENALTIES, PREY_COST, train_prey
from experiments.claims.qtran.squeeze import QTRAN
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import scores
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.verdicts import Every, Part, Rule
from jaxmarl_fac.statistics import Interval, bootstrap_interval

BASE, ALT = QTRAN


def steps_to_half(curve: np.ndarray, env_steps: np.ndarray, best: float) -> np.ndarray:
    """Environment steps at which each seed first reaches half of a return; the last ones if it never does.

    Args:
        curve: returns `(evaluations, seeds)`.
        env_steps: `(evaluations,)`.
        best: the return, above 0.

    Returns:
        `(seeds,)`.
    """
    there = curve >= best / 2
    first = np.where(there.any(axis=0), there.argmax(axis=0), len(env_steps) - 1)
    return env_steps[first]


def slowness(curves: Mapping[str, np.ndarray], env_steps: np.ndarray, best: float) -> Interval:
    """How many times as many steps as QTRAN-alt's QTRAN-base takes to half of a return, IQM over seeds.

    A seed that never gets there counts with all steps, so that the ratio is at most too close to 1; it is 1
    where nobody learns, that is where `best` is not above 0.
    """
    if best <= 0:
        return Interval(1.0, 1.0, 1.0)
    base, alt = (np.maximum(steps_to_half(curves[name], env_steps, best), 1) for name in (BASE, ALT))
    return bootstrap_interval(base / alt)


def ratio(predators: int, penalty: float) -> str:
    """The name of what is measured of one panel of figure 4."""
    return f"{BASE}'s steps to half of the best return over {ALT}'s at N = {predators}, P = {penalty:g}"


def _best(predators: int, penalty: float) -> str:
    return f"interval of the best of both last returns at N = {predators}, P = {penalty:g}"


def speed(workshop: Workshop, *teams: int) -> Outcome:
    """Ratios of steps for each penalty, from the runs of figure 4."""
    figure, axes = panels(1, 1, (5.4, 3.8), f"QTRAN 4.2: how much slower {BASE} is than {ALT}")
    measured: dict[str, Interval] = {}
    never = {}
    for predators in teams:
        for penalty in PENALTIES:
            env_steps, curves = train_prey(workshop, predators, penalty, QTRAN)
            last = scores(curves)
            best = max(last.values(), key=lambda score: score.low)
            measured[_best(predators, penalty)] = best
            measured[ratio(predators, penalty)] = slowness(curves, env_steps, best.value)
            for name, curve in curves.items():
                missed = int((curve < best.value / 2).all(axis=0).sum()) if best.value > 0 else curve.shape[1]
                never[f"{name}, N = {predators}, P = {penalty:g}"] = missed
        shown = [measured[ratio(predators, penalty)] for penalty in PENALTIES]
        values = np.asarray([each.value for each in shown])
        errors = np.abs(np.asarray([(each.low, each.high) for each in shown]).T - values)
        axes[0, 0].errorbar(PENALTIES, values, errors, fmt="o-", capsize=4, label=f"N = {predators}")
    axes[0, 0].axhline(1, color="0.45", linewidth=1, linestyle=(0, (6, 4)), zorder=0)
    axes[0, 0].set(xlabel="penalty P", ylabel="ratio of steps, 95 % intervals", xticks=PENALTIES)
    axes[0, 0].grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    seeds = next(iter(curves.values())).shape[1]
    found = ", ".join(
        f"N = {predators}, P = {penalty:g}: {measured[ratio(predators, penalty)].value:.2f}"
        for predators in teams
        for penalty in PENALTIES
    )
    missing = ", ".join(f"{name}: {count}" for name, count in never.items() if count)
    why = f"Ratios of steps, {seeds} seeds: {found}. Seeds that never get there, which count with all steps: "
    ours: dict[str, Any] = {"ratio of steps": measured, "seeds that never get there": never}
    return Outcome(figure, {}, ours, measured, f"{why}{missing or 'none'}.")


def _learned(*teams: int) -> Every:
    return Every(tuple(Part(_best(team, penalty), above=0) for team in teams for penalty in PENALTIES))


LOW, HIGH = PENALTIES[0], PENALTIES[-1]
CLAIMS = (
    Claim(
        "speed_penalty",
        "QTRAN, section 4.2",
        "Predator-prey, N = 2: QTRAN-alt learns faster than QTRAN-base, the more so the higher the penalty.",
        Rule((Part(ratio(2, HIGH), above=1), Part(ratio(2, HIGH), above=ratio(2, LOW))), learned=_learned(2)),
        PREY_COST[2],
        lambda workshop: speed(workshop, 2),
    ),
    Claim(
        "speed_agents",
        "QTRAN, section 4.2",
        "Predator-prey: QTRAN-alt is ahead of QTRAN-base by more with N = 4 than with N = 2.",
        Rule(
            tuple(Part(ratio(4, penalty), above=ratio(2, penalty)) for penalty in PENALTIES),
            learned=_learned(2, 4),
        ),
        PREY_COST[4],
        lambda workshop: speed(workshop, 2, 4),
    ),
)
