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

#: In the output folder.
PICTURE = "sweep.png"
#: A setting's axis is logarithmic if its largest value is so many times its smallest, which is positive.
DECADES = 10
#: Values of one setting that are all named on its axis; of more, round numbers.
MAX_NAMED = 12
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
    names = list(dict.fromkeys(name for row in rows for name in row["settings"]))
    values = {name: [row["settings"].get(name) for row in rows] for name in names}
    varying = [name for name in names if len(set(map(str, values[name]))) > 1]
    returns = np.asarray([math.nan if row["return"] is None else row["return"] for row in rows], float)
    finite = np.isfinite(returns)
    if not varying or not finite.any():
        return None
    axes = [_axis(name, values[name]) for name in varying]
    figure, ((panel,),) = panels(size=(1.9 * (len(axes) + 1.4), 4.2))
    low, high = returns[finite].min(), returns[finite].max()
    scale = Normalize(low, high if high > low else low + 1)
    last = _numbers("return", np.where(finite, returns, low))
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
            panel.plot(heights[:-1, run], color=GREY, linewidth=1, linestyle=":", zorder=1)
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


def _axis(name: str, values: Sequence[Any]) -> Axis:
    """The axis of a setting, by its numbers if all are, else with one place for each value."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        return _numbers(name, np.asarray(numbers, float))
    texts = ["not given" if value is None else str(value) for value in values]
    known = sorted(set(texts))
    heights = dict(zip(known, np.linspace(0, 1, len(known)), strict=True))
    step = -(-len(known) // MAX_NAMED)
    ticks = [(heights[text], text) for text in known[::step]]
    return Axis(name, np.asarray([heights[text] for text in texts]), ticks)


def _numbers(name: str, values: np.ndarray) -> Axis:
    """The axis of numbers, logarithmic where they span decades."""
    low, high = values.min(), values.max()
    logarithmic = low > 0 and high / low >= DECADES
    scaled = np.log(values) if logarithmic else values
    start, end = scaled.min(), scaled.max()
    length = (end - start) or 1.0
    marks = np.unique(values)
    if len(marks) > MAX_NAMED or name == "return":
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
    panel.text(place, 1.05, axis.name, ha="center", va="bottom", fontsize=9, fontweight="bold")
    for height, text in axis.ticks:
        panel.text(
            place - 0.04,
            height,
            text,
            ha="right",
            va="center",
            fontsize=8,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )
