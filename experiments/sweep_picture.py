"""A sweep's runs in parallel coordinates: an axis for each setting that differs, and one for the return."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxmarl_fac.report.figures import panels, save
from jaxmarl_fac.tracking import shortened

#: In the output folder.
PICTURE = "sweep.png"
#: Values of one setting that are all named on its axis, in equal steps; of more, round numbers on a scale.
MAX_NAMED = 12
#: Characters of a name on an axis.
MAX_LETTERS = 20
#: Height on an axis over which runs with the same value are spread, so that each can be followed.
BAND = 0.06
#: Of runs without a return.
GREY = "#9E9E9E"


class Axis(NamedTuple):
    """One vertical axis.

    Attributes:
        name: over it.
        heights: of the runs, `(runs,)` from 0 to 1.
        ticks: heights and names.
    """

    name: str
    heights: np.ndarray
    ticks: list[tuple[float, str]]


def draw(rows: Sequence[dict[str, Any]], out: Path) -> Path | None:
    """Draw the runs, best first, if there is something to see; returns the picture's path.

    Args:
        rows: of the table.
        out: the sweep's output folder.
    """
    order = np.argsort([row["run"] for row in rows])  # in which the file names values
    names = list(dict.fromkeys(name for row in rows for name in row["settings"]))
    values = {name: [row["settings"].get(name) for row in rows] for name in names}
    varying = [name for name in names if len(set(map(str, values[name]))) > 1]
    returns = np.asarray([math.nan if row["return"] is None else row["return"] for row in rows], float)
    finite = np.isfinite(returns)
    if not varying or not finite.any():
        return None
    axes = [_axis(name, values[name], order) for name in varying]
    figure, ((panel,),) = panels(size=(1.9 * (len(axes) + 1.4), 4.2))
    low, high = returns[finite].min(), returns[finite].max()
    scale = Normalize(low, high if high > low else low + 1)
    last = _scale("return", np.where(finite, returns, low))
    heights = np.stack([_spread(axis.heights) for axis in axes] + [last.heights])  # (axes, runs)
    for run in reversed(range(len(rows))):  # the best on top
        if finite[run]:
            best = run == 0
            panel.plot(
                heights[:, run],
                color=colormaps["viridis"](scale(returns[run])),
                linewidth=2.8 if best else 1.3,
                alpha=1 if best else 0.75,
                zorder=3 if best else 2,
            )
        else:
            places = [*range(len(axes)), len(axes) - 0.5]
            dotted = [*heights[:-1, run], heights[-2, run]]
            panel.plot(places, dotted, color=GREY, linewidth=1, linestyle=":", zorder=1)
    for place, axis in enumerate([*axes, last]):
        _draw_axis(panel, place, axis)
    panel.set(xlim=(-0.35, len(axes) + 0.35), ylim=(-0.1, 1.1))
    panel.axis("off")
    figure.colorbar(
        ScalarMappable(scale, "viridis"), ax=panel, label="return (IQM over seeds)", fraction=0.04
    )
    lost = len(rows) - int(finite.sum())
    left_out = f"; dotted: {lost} without a return" if lost else ""
    panel.set_title(f"{len(rows)} runs, the best one thick{left_out}", fontsize=9, pad=22)
    save(figure, out / PICTURE)
    return out / PICTURE


def _axis(name: str, values: Sequence[Any], order: np.ndarray) -> Axis:
    """The axis of a setting: of few values each in its place, of many numbers a scale.

    Args:
        name: of the setting.
        values: of the runs.
        order: of the runs in the sweep, in which texts follow one another; numbers do by size.
    """
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        texts = ["not given" if value is None else str(value) for value in values]
        return _places(name, texts, list(dict.fromkeys(texts[run] for run in order)))
    known = sorted({number for number in numbers if number is not None})
    if len(known) > MAX_NAMED and math.isfinite(known[0]) and math.isfinite(known[-1]):
        return _scale(name, np.asarray(numbers, float))
    return _places(name, [f"{number:.4g}" for number in numbers], [f"{number:.4g}" for number in known])


def _number(value: Any) -> float | None:
    """The value as a number, if it is one; as text it may be one too."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _places(name: str, texts: Sequence[str], known: Sequence[str]) -> Axis:
    """An axis with a place for each known text, from the bottom, in equal steps."""
    known = list(dict.fromkeys(known))
    heights = dict(zip(known, np.linspace(0, 1, len(known)), strict=True))
    shown = known[:: -(-len(known) // MAX_NAMED)]
    return Axis(
        name,
        np.asarray([heights[text] for text in texts]),
        [(heights[text], shortened(text, MAX_LETTERS)) for text in shown],
    )


def _scale(name: str, values: np.ndarray) -> Axis:
    """An axis of numbers, logarithmic where that spreads settings more evenly."""
    low, high = values.min(), values.max()
    logarithmic = False
    if name != "return" and low > 0:
        centres = [
            (np.median(scaled) - scaled.min()) / (np.ptp(scaled) or 1) for scaled in (values, np.log(values))
        ]
        logarithmic = abs(centres[1] - 0.5) < abs(centres[0] - 0.5)
    scaled = np.log(values) if logarithmic else values
    start, length = scaled.min(), np.ptp(scaled) or 1.0
    locator: Any = LogLocator() if logarithmic else MaxNLocator(5)
    marks = np.unique([low, *locator.tick_values(low, high), high])
    marks = marks[(marks >= low) & (marks <= high)]
    heights = ((np.log(marks) if logarithmic else marks) - start) / length
    ticks: list[tuple[float, str]] = []
    for height, mark in sorted(zip(heights, marks, strict=True), key=lambda tick: tick[0] not in (0, 1)):
        if all(abs(height - other) > 0.05 for other, _ in ticks):  # the ends first
            ticks.append((float(height), f"{mark:.4g}"))
    return Axis(name, (scaled - start) / length, ticks)


def _spread(heights: np.ndarray) -> np.ndarray:
    """Heights `(runs,)`, equal ones beside one another in a narrow band, in the order of the runs."""
    spread = heights.copy()
    for height in np.unique(heights):
        (same,) = np.nonzero(heights == height)
        if len(same) > 1:
            spread[same] += np.linspace(BAND / 2, -BAND / 2, len(same))
    return spread


def _draw_axis(panel: Axes, place: int, axis: Axis) -> None:
    panel.plot([place, place], [-0.03, 1.03], color="black", linewidth=0.8, zorder=4)
    style: dict[str, Any] = {"parse_math": False}  # $ is a character of a name
    panel.text(place, 1.05, axis.name, ha="center", va="bottom", fontsize=9, fontweight="bold", **style)
    for height, text in axis.ticks:
        panel.text(
            place - 0.04,
            height,
            text,
            ha="right",
            va="center",
            fontsize=8,
            zorder=5,
            **style,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )
