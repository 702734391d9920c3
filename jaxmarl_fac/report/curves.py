"""What figures do with learning curves: pictures, last returns, crossings, and what a scale changed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.figures import learning_curves, panels
from jaxmarl_fac.report.styles import PALETTE, label_of
from jaxmarl_fac.report.verdicts import Part
from jaxmarl_fac.settings import leaves
from jaxmarl_fac.statistics import Interval, bootstrap_interval

#: A seed's last return is its mean over this share of the evaluations, at the end.
LAST = 0.1
#: What rules say of it.
LAST_RETURN = "A seed's last return is its mean over the last tenth of the evaluations; IQM, 95 % intervals"


def settings_diff(experiment: Experiment, paper: Experiment, *games: tuple[str, Any, Any]) -> str:
    """In what training differs from the paper's own, as a sentence; empty if in nothing.

    `games` are more pairs to compare: a name, ours and the paper's.
    """
    pairs = [
        (name, getattr(experiment, name), getattr(paper, name))
        for name in ("env_steps", "num_envs", "updates_per_step")
    ]
    pairs += games
    settings = leaves(experiment.algorithm)
    pairs += [(name, settings[name].value, leaf.value) for name, leaf in leaves(paper.algorithm).items()]
    told = [f"{name} {ours} (paper: {theirs})" for name, ours, theirs in pairs if ours != theirs]
    return f"Changed for this scale: {', '.join(told)}. " if told else ""


def last_returns(returns: np.ndarray) -> np.ndarray:
    """Each seed's mean return `(seeds,)` over the last evaluations of `(evaluations, seeds)`."""
    return returns[-max(1, round(LAST * (len(returns) - 1))) :].mean(axis=0)


def scores(curves: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The IQM of the last returns of each algorithm, with its interval."""
    return {name: bootstrap_interval(last_returns(returns)) for name, returns in curves.items()}


#: What claims about returns take for learning.
BETTER_THAN_BEFORE = Part("last return of the best algorithm", above="its return before training")
#: The same where an agent that has learned nothing earns what random play does, as in games of one step.
BETTER_THAN_RANDOM = Part("interval of the best algorithm's gain over random play in greedy reward", above=0)


def gain_over_before(curves: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """What `BETTER_THAN_BEFORE` judges, from returns `(evaluations, seeds)`, the first before training."""
    last = scores(curves)
    best = max(last, key=lambda name: last[name].low)
    return {
        "last return of the best algorithm": last[best],
        "its return before training": bootstrap_interval(curves[best][0]),
    }


def gain_over_random(rewards: Iterable[np.ndarray], random: ArrayLike) -> dict[str, Interval]:
    """What `BETTER_THAN_RANDOM` judges, from all algorithms' greedy rewards and random play's, `(seeds,)`."""
    gains = [bootstrap_interval(reward - random, np.mean) for reward in rewards]
    return {BETTER_THAN_RANDOM.what: max(gains, key=lambda gain: gain.low)}


def format_intervals(intervals: Mapping[str, Interval]) -> str:
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


def draw_curves(
    axes: Any,
    curves: Mapping[str, np.ndarray],
    ylabel: str,
    limits: Mapping[str, float] | None = None,
    title: str = "",
    xlabel: str = "step",
    dashes: Sequence[str] = ("-",),
) -> None:
    """Means over seeds `(T, seeds)` with their 95 % bands, and where they must end."""
    for index, (name, values) in enumerate(curves.items()):
        steps, centre = np.arange(1, len(values) + 1), values.mean(1)
        margin = 1.96 * values.std(1) / np.sqrt(values.shape[1])
        colour = PALETTE[index]
        axes.plot(steps, centre, dashes[index % len(dashes)], color=colour, label=label_of(name))
        axes.fill_between(steps, centre - margin, centre + margin, color=colour, alpha=0.2, linewidth=0)
        if limits and name in limits:
            axes.axhline(limits[name], color=colour, linewidth=1, linestyle=(0, (1, 2)))
    axes.grid(alpha=0.25)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend(fontsize="small", frameon=False, loc="best")


def first_crossing(curve: np.ndarray, level: float = 0.5) -> int | None:
    """The first episode at which the seeds' mean `(T, seeds)` reaches a level, after which it stays there."""
    below = np.flatnonzero(curve.mean(1) < level)
    after = int(below[-1]) + 1 if len(below) else 0
    return after if after < len(curve) else None
