"""Pictures of a comparison: learning curves per task, and aggregates over tasks."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jaxmarl_fac.across_tasks import performance_profile, sample_efficiency
from jaxmarl_fac.report.comparison import GRID, Comparison, CompletePart
from jaxmarl_fac.report.figures import learning_curves, panels, share_table
from jaxmarl_fac.report.styles import label_of, line_styles
from jaxmarl_fac.statistics import Interval

#: Panels side by side.
COLUMNS = 3
#: Thresholds of a performance profile.
THRESHOLDS = 101


def curves_per_task(comparison: Comparison) -> Figure:
    """A panel for each task: the IQM over seeds of every algorithm, its 95 % band, and the optimum."""
    tasks = [task for task in comparison.tasks if comparison.of_task(task)]
    columns = min(COLUMNS, len(tasks))
    figure, grid = panels(-(-len(tasks) // columns), columns, (4.2, 3.2))
    handles: dict[str, Any] = {}  # of algorithms
    known: dict[str, Any] = {}  # of what the game knows
    styles = line_styles(comparison.algorithms)
    for axes, task in zip(grid.flat, tasks, strict=False):
        runs, yardstick = comparison.of_task(task), comparison.yardsticks[task]
        learning_curves(
            axes,
            {name: run.env_steps for name, run in runs.items()},
            {name: run.returns for name, run in runs.items()},
            title=task,
            ylabel="greedy return" if axes is grid[axes.get_subplotspec().rowspan.start, 0] else "",
            xlabel="environment steps",
            reference=yardstick.high if yardstick.known else None,
            legend=False,
        )
        # A panel alone chooses the colours of its own algorithms; here they are those of the whole figure.
        for name, line, band in zip(runs, axes.lines, axes.collections, strict=False):
            line.set(color=styles[name].colour, linestyle=styles[name].dashes)
            band.set_facecolor(styles[name].colour)
            handles.setdefault(name, line)
        if yardstick.known:
            known["optimum"] = axes.lines[len(runs)]
            known["random play"] = axes.axhline(
                yardstick.low, color="0.6", linewidth=1, dashes=(1, 2), zorder=0
            )
    for axes in grid.flat[len(tasks) :]:
        axes.set_axis_off()
    ordered = [name for name in comparison.algorithms if name in handles]
    lines = [*(handles[name] for name in ordered), *known.values()]
    _legend(figure, lines, [*map(label_of, ordered), *known])
    return figure


def aggregates(rows: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """A panel for each measure, with a line for each algorithm: a point and its 95 % interval.

    Args:
        rows: by measure, then by algorithm from the top.
    """
    algorithms = list(next(iter(rows.values())))
    styles = line_styles(algorithms)
    figure, grid = panels(1, len(rows), (3.1, 1.1 + 0.3 * len(algorithms)))
    for axes, (measure, intervals) in zip(grid.flat, rows.items(), strict=True):
        for place, (name, interval) in enumerate(intervals.items()):
            colour = styles[name].colour
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=7, alpha=0.35)
            axes.plot([interval.value], [place], "|", color=colour, markersize=13, markeredgewidth=2.5)
        axes.set_yticks(range(len(algorithms)), [label_of(name) for name in algorithms])
        axes.set(title=measure, ylim=(len(algorithms) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.25)
        if axes is not grid[0, 0]:
            axes.tick_params(labelleft=False)
    return figure


def profiles_and_efficiency(part: CompletePart) -> Figure:
    """Performance profiles on the left, sample efficiency curves on the right."""
    figure, ((left, right),) = panels(1, 2, (5.4, 3.8))
    pooled = np.concatenate([table.reshape(-1) for table in part.scores.values()])
    # One odd run far below all others would squeeze the profiles into a corner.
    thresholds = np.linspace(min(0.0, float(np.quantile(pooled, 0.02))), max(1.0, pooled.max()), THRESHOLDS)
    styles = line_styles(part.algorithms)
    for name in part.algorithms:
        _band(left, thresholds, performance_profile(part.scores[name], thresholds, 500), name, styles)
        share = np.linspace(0, 1, GRID)
        _band(right, share, sample_efficiency(part.curves[name]), name, styles)
    left.set(xlabel="normalised score τ", ylabel="runs with a score above τ", title="performance profiles")
    left.set_ylim(-0.02, 1.02)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set(xlabel="share of the training steps", ylabel="IQM of normalised returns")
    right.set_title("sample efficiency")
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (left, right):
        axes.grid(alpha=0.25)
    lines = list(left.lines)
    _legend(figure, lines, [line.get_label() for line in lines])
    return figure


def improvements(chances: Mapping[tuple[str, str], Interval], algorithms: tuple[str, ...]) -> Figure:
    """A table of the probability that the row's algorithm beats the column's on a task."""
    side = 1.6 + 1.0 * len(algorithms)
    figure, ((axes,),) = panels(1, 1, (side + 0.6, 0.9 + 0.55 * len(algorithms)))
    cells = [[chances[row, column] if row != column else "–" for column in algorithms] for row in algorithms]
    names = [label_of(name) for name in algorithms]
    share_table(axes, cells, names, names)
    axes.set_xlabel("… beats the algorithm above", labelpad=8)
    axes.set_ylabel("a run of …")
    return figure


def seconds_per_pair(comparison: Comparison) -> Figure | None:
    """Wall-clock seconds of each pair, all seeds together; None if none was recorded."""
    timed = {pair: run.seconds for pair, run in comparison.runs.items() if run.seconds}
    if not timed:
        return None
    tasks = [task for task in comparison.tasks if any(pair[1] == task for pair in timed)]
    algorithms = [name for name in comparison.algorithms if any(pair[0] == name for pair in timed)]
    styles = line_styles(comparison.algorithms)
    figure, ((axes,),) = panels(1, 1, (3.5 + 0.16 * len(tasks) * (len(algorithms) + 1), 3.4))
    for place, name in enumerate(algorithms):
        at = [index * (len(algorithms) + 1) + place for index, task in enumerate(tasks)]
        heights = [timed.get((name, task), math.nan) for task in tasks]
        axes.bar(
            at, heights, 0.9, color=styles[name].colour, label=label_of(name), hatch=_hatch(styles[name])
        )
    middles = [index * (len(algorithms) + 1) + (len(algorithms) - 1) / 2 for index in range(len(tasks))]
    axes.set_xticks(middles, tasks, rotation=20, ha="right", rotation_mode="anchor")
    axes.set(ylabel="seconds, all seeds")
    if max(timed.values()) > 20 * min(timed.values()):
        axes.set_yscale("log")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    _legend(figure, *axes.get_legend_handles_labels())
    return figure


def _band(axes: Axes, x: np.ndarray, curve: tuple[Any, Any, Any], name: str, styles: Mapping) -> None:
    centre, low, high = curve
    style = styles[name]
    axes.plot(x, centre, style.dashes, color=style.colour, label=label_of(name))
    axes.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0)


def _legend(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    """One legend below all panels."""
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)


def _hatch(style: Any) -> str:
    """Tells bars of one colour apart, as dashes do lines."""
    return {"-": "", "--": "//", ":": "..", "-.": "xx"}[style.dashes]
