"""What scripts do with learning curves: a picture, last returns, and what a scale changed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.figures import learning_curves, panels
from jaxmarl_fac.statistics import Interval, bootstrap_interval

#: A seed's last return is its mean over this share of the evaluations, at the end.
LAST = 0.1


def changes(experiment: Experiment, paper: Experiment, *games: tuple[str, Any, Any]) -> str:
    """In what training differs from the paper's own, as a sentence; empty if in nothing.

    `games` are more pairs to compare: a name, ours and the paper's.
    """
    pairs = [
        (name, getattr(experiment, name), getattr(paper, name))
        for name in ("env_steps", "num_envs", "updates_per_step")
    ]
    pairs += games
    pairs += [
        (field.name, getattr(experiment.algorithm, field.name), getattr(paper.algorithm, field.name))
        for field in dataclasses.fields(paper.algorithm)
    ]
    told = [f"{name} {ours} (paper: {theirs})" for name, ours, theirs in pairs if ours != theirs]
    return f"Changed for this scale: {', '.join(told)}. " if told else ""


def last_returns(returns: np.ndarray) -> np.ndarray:
    """Each seed's mean return `(seeds,)` over the last evaluations of `(evaluations, seeds)`."""
    return returns[-max(1, round(LAST * (len(returns) - 1))) :].mean(axis=0)


def scores(curves: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The IQM of the last returns of each algorithm, with its interval."""
    return {name: bootstrap_interval(last_returns(returns)) for name, returns in curves.items()}


def above(higher: Interval, *others: Interval) -> bool:
    """Whether an interval lies wholly above others."""
    return all(higher.low > other.high for other in others)


def told(intervals: Mapping[str, Interval]) -> str:
    """Scores as text."""
    return ", ".join(
        f"{name} {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]" for name, score in intervals.items()
    )


def curves_figure(
    env_steps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    title: str,
    optimum: float | None,
    ylabel: str = "greedy return",
    *,
    zero: bool = False,
) -> Figure:
    """One panel with the returns `(evaluations, seeds)` of each algorithm.

    Args:
        env_steps: `(evaluations,)`.
        curves: by algorithm.
        title: of the figure.
        optimum: drawn as a line, where it is known.
        ylabel: what is measured.
        zero: draw a line at 0 too, for games in which it pays to do nothing.
    """
    figure, axes = panels(1, 1, (6.6, 4.0))
    learning_curves(axes[0, 0], env_steps, curves, title=title, ylabel=ylabel, reference=optimum)
    if zero:
        axes[0, 0].axhline(0, color="black", linewidth=0.8, zorder=0)
    return figure
