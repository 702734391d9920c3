"""The report of a comparison: one self-contained HTML page, its numbers, and its pictures."""

import base64
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from jaxmarl_fac.across_tasks import aggregate, average_ranks, improvement_over_tasks, optimality_gap
from jaxmarl_fac.files import write_text
from jaxmarl_fac.report.comparison import Comparison, CompletePart, FinishedRun, complete_part
from jaxmarl_fac.report.comparison_figures import (
    aggregates,
    curves_per_task,
    improvements,
    profiles_and_efficiency,
    seconds_per_pair,
)
from jaxmarl_fac.report.curves import LAST_RETURN
from jaxmarl_fac.report.figures import save
from jaxmarl_fac.report.marl_eval import raw_data
from jaxmarl_fac.report.page import plain
from jaxmarl_fac.report.styles import label_of
from jaxmarl_fac.statistics import Interval, bootstrap_interval

IQM, MEAN, GAP, RANK = "IQM", "mean", "optimality gap", "average rank"
#: Shown where a pair has no number.
NONE = "–"


def write_comparison(comparison: Comparison, title: str, summary: str, folder: Path) -> Path:
    """Write report.html, its pictures, comparison.json and marl_eval.json; returns the page's path.

    Args:
        comparison: with at least one run.
        title: of the page.
        summary: a sentence on what ran.
        folder: existing, for all files.
    """
    part = complete_part(comparison)
    measured = {} if part is None else _measures(part)
    chances = {} if part is None else _chances(part)
    last = {pair: bootstrap_interval(run.last) for pair, run in comparison.runs.items()}
    figures: dict[str, Figure | None] = {
        "curves": curves_per_task(comparison),
        "seconds": seconds_per_pair(comparison),
    }
    if part is not None:
        figures |= {"aggregates": aggregates(measured), "profiles": profiles_and_efficiency(part)}
        if len(part.algorithms) > 1:
            order = tuple(measured[IQM])
            figures["improvements"] = improvements(chances, order)
    pictures = {name: figure for name, figure in figures.items() if figure is not None}
    encoded = {}
    for name, figure in pictures.items():
        path = folder / f"{name}.png"
        save(figure, path)
        encoded[name] = base64.b64encode(path.read_bytes()).decode()

    write_text(folder / "marl_eval.json", json.dumps(raw_data(comparison, part), allow_nan=False))
    numbers = {
        "algorithms": comparison.algorithms,
        "tasks": comparison.tasks,
        "last_returns": {f"{name} on {task}": interval for (name, task), interval in last.items()},
        "normalised_by": {
            task: {"low": each.low, "high": each.high, "optimum_and_random_play": each.known}
            for task, each in comparison.yardsticks.items()
        },
        "aggregated": None if part is None else {"algorithms": part.algorithms, "tasks": part.tasks},
        "scores": measured,
        "probability_of_improvement": {f"{one} over {two}": value for (one, two), value in chances.items()},
        "seconds": {f"{name} on {task}": run.seconds for (name, task), run in comparison.runs.items()},
        "left_out": {f"{name} on {task}": why for (name, task), why in comparison.left_out.items()},
        "failed": {f"{name} on {task}": why for (name, task), why in comparison.failed.items()},
    }
    write_text(folder / "comparison.json", json.dumps(plain(numbers), indent=1, allow_nan=False))

    def picture(name: str, alt: str) -> Markup:
        return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, encoded[name])

    environment = Environment(loader=PackageLoader("jaxmarl_fac.report"), autoescape=True, trim_blocks=True)
    page = environment.get_template("comparison.html.j2").render(
        title=title,
        summary=summary,
        notes=_notes(comparison, part),
        basis="" if part is None else _basis(comparison, part),
        complete=part is not None and len(part.tasks) == len(comparison.tasks),
        measures=tuple(measured),
        ranking=_ranking(measured),
        labels=[label_of(name) for name in comparison.algorithms],
        last_return=LAST_RETURN,
        returns=[_returns_row(comparison, task, last) for task in comparison.tasks],
        yardsticks=[_yardstick_row(comparison, task) for task in comparison.yardsticks],
        times=[
            {
                "task": task,
                "cells": [_seconds(comparison.runs.get((name, task))) for name in comparison.algorithms],
            }
            for task in comparison.tasks
        ],
        missing=[
            {"algorithm": label_of(name), "task": task, "why": why}
            for (name, task), why in {**comparison.left_out, **comparison.failed}.items()
        ],
        pictures=pictures,
        picture=picture,
        device=f"{jax.device_count()} × {jax.devices()[0].device_kind} ({platform.machine()})",
        versions="Made with "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jaxmarl_fac", "jax", "flax"))
        + ".",
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _measures(part: CompletePart) -> dict[str, dict[str, Interval]]:
    """The aggregates by measure and algorithm, the algorithm with the best IQM first."""
    scores = {name: aggregate(part.scores[name]) for name in part.algorithms}
    order = sorted(part.algorithms, key=lambda name: -scores[name].value)
    ranks = average_ranks(part.scores)
    return {
        IQM: {name: scores[name] for name in order},
        MEAN: {name: aggregate(part.scores[name], np.mean) for name in order},
        GAP: {name: aggregate(part.scores[name], optimality_gap) for name in order},
        RANK: {name: ranks[name] for name in order},
    }


def _chances(part: CompletePart) -> dict[tuple[str, str], Interval]:
    """The probability of improvement of each ordered pair of algorithms."""
    return {
        (one, two): improvement_over_tasks(part.scores[one], part.scores[two])
        for one in part.algorithms
        for two in part.algorithms
        if one != two
    }


def _ranking(measured: Mapping[str, Mapping[str, Interval]]) -> list[dict[str, Any]]:
    return [
        {
            "label": label_of(name),
            "cells": [_cell(intervals[name], "{:.2f}") for intervals in measured.values()],
        }
        for name in measured.get(IQM, {})
    ]


def _cell(interval: Interval, shape: str = "{:.4g}") -> dict[str, str]:
    low, high = shape.format(interval.low), shape.format(interval.high)
    return {"value": shape.format(interval.value), "interval": f"[{low}, {high}]", "kind": ""}


def _returns_row(
    comparison: Comparison, task: str, last: Mapping[tuple[str, str], Interval]
) -> dict[str, Any]:
    own = {name: last[name, task] for name in comparison.of_task(task)}
    best = max(own.values(), key=lambda interval: np.nan_to_num(interval.value, nan=-np.inf), default=None)
    cells = []
    for name in comparison.algorithms:
        if name not in own:
            cells.append({"value": NONE, "interval": "", "kind": "none"})
            continue
        overlaps = best is not None and (own[name] is best or own[name].high >= best.low)
        cells.append({**_cell(own[name]), "kind": "best" if overlaps else ""})
    return {"task": task, "cells": cells}


def _yardstick_row(comparison: Comparison, task: str) -> dict[str, str]:
    yardstick = comparison.yardsticks[task]
    about = "random play, and the optimum"
    if not yardstick.known:
        about = "no optimum is known: the worst and the best mean last return of these algorithms"
    return {"task": task, "low": f"{yardstick.low:.4g}", "high": f"{yardstick.high:.4g}", "about": about}


def _seconds(run: FinishedRun | None) -> str:
    return NONE if run is None or run.seconds is None else f"{run.seconds:,.1f}"


def _basis(comparison: Comparison, part: CompletePart) -> str:
    """What the aggregates are made of."""
    unknown = sum(not comparison.yardsticks[task].known for task in part.tasks)
    words = (
        f"Normalised last returns of {part.seeds} seed(s) on {len(part.tasks)} task(s): 0 is random play and "
        "1 the optimum"
    )
    if unknown:
        words += (
            f"; on {unknown} task(s) without a known optimum 0 and 1 are the worst and the best mean of the "
            "algorithms (see the end of the page)"
        )
    return (
        f"{words}. In brackets 95 % intervals of a bootstrap over seeds, stratified by task. The optimality "
        "gap is what scores lack of 1, less is better; rank 1 is the best mean of a task."
    )


def _notes(comparison: Comparison, part: CompletePart | None) -> list[str]:
    """What a reader must know before comparing."""
    notes = []
    if part is None:
        notes.append("No run is finite, so nothing is aggregated over tasks.")
    else:
        others = [label_of(name) for name in comparison.algorithms if name not in part.algorithms]
        if others:
            notes.append(
                f"Not in the aggregates, because they have no run on some tasks: {', '.join(others)}."
            )
        tasks = [task for task in comparison.tasks if task not in part.tasks]
        if tasks:
            notes.append(
                f"Tasks not in the aggregates, because some algorithms have no run: {', '.join(tasks)}."
            )
        counts = {len(run.seeds) for run in comparison.runs.values()}
        if len(counts) > 1:
            notes.append(
                f"Runs have {min(counts)} to {max(counts)} seeds; aggregates use the first {part.seeds}."
            )
    for task in comparison.tasks:
        lengths = {int(run.env_steps[-1]) for run in comparison.of_task(task).values()}
        if len(lengths) > 1:
            notes.append(
                f"On {task} runs have {min(lengths):,} to {max(lengths):,} environment steps: last returns "
                "are those at each run's own end, sample efficiency ends with the shortest."
            )
    return notes
