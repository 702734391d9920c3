"""Figures drawn the same way in every experiment, without pyplot's global state.

Make a figure with `panels`, draw on its axes with the functions below, write it with `save`.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, DrawingArea, HPacker, TextArea
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from envs.errors import BadInputError
from jaxmarl_fac.files import replacing
from jaxmarl_fac.report.styles import STYLES, label_of, line_styles
from jaxmarl_fac.statistics import Interval, learning_curve

#: A frame around a cell and a marker that stand out on every colour of the maps.
_ACCENT = "#D55E00"
_COLOURS = "viridis"
#: Height of a line's label.
_LABEL_INCHES = 0.16
#: Bars that stand for no algorithm, such as "paper" and "ours".
_BARS = ("#BDBDBD", "#6A89B5", "#C9A66B", "#7FB59A")


def panels(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.2, 3.4), title: str = ""
) -> tuple[Figure, np.ndarray]:
    """A figure and its `(rows, columns)` array of `Axes`; `size` is one panel's, in inches."""
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)  # inches
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout=layout)
    if title:
        figure.suptitle(title)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write `figure` to `path` as PNG or PDF, at once: nobody ever reads half a picture.

    Raises:
        BadInputError: if `path` ends in neither .png nor .pdf, or its folder does not exist or refuses files.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf"):
        raise BadInputError(f"figures are written as PNG or PDF: {path} must end in .png or .pdf")
    if not path.parent.is_dir():
        raise BadInputError(f"the folder {path.parent} does not exist: make it before saving {path.name}")
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight")


def annotated_matrix(
    axes: Axes,
    values: ArrayLike,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    highlight: tuple[int, int] | None = None,
    value_format: str = "{:.2f}",
    limits: tuple[float, float] | None = None,
) -> None:
    """A table of numbers on colours, in the style of the papers' payoff tables.

    Args:
        axes: where to draw.
        values: `(rows, columns)`, agent 1's action by agent 2's.
        row_labels: one for each row, from the top, for example "3.84 (A)": agent 1's utility and action.
        column_labels: one for each column, above the table.
        title: above all.
        highlight: `(row, column)` of a cell to frame, usually the greedy joint action.
        value_format: of the numbers.
        limits: `(lowest, highest)` value of the colours, to compare tables; the values' own if None.

    Raises:
        BadInputError: for values of another rank, labels that do not fit, or a highlight outside.
    """
    table = _table(values)
    rows, columns = table.shape
    if (len(row_labels), len(column_labels)) != (rows, columns):
        raise BadInputError(
            f"{len(row_labels)} row and {len(column_labels)} column labels do not fit a table of shape "
            f"{table.shape}: give one for each row and each column"
        )
    norm, colours = Normalize(*_limits(table, limits)), colormaps[_COLOURS]
    axes.imshow(table, cmap=colours, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        # Cells without a number stay white, as the figure is.
        background = colours(norm(value)) if math.isfinite(value) else (1.0, 1.0, 1.0, 1.0)
        ink = _readable_on(background[:3])
        axes.text(column, row, _number(value, value_format), ha="center", va="center", color=ink)
    if highlight is not None:
        row, column = _inside(highlight, table.shape)
        frame = Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_ACCENT, linewidth=3, zorder=3
        )
        frame.set_path_effects([withStroke(linewidth=5.5, foreground="white")])
        frame.set_clip_on(False)  # at the border half the line would be cut off
        axes.add_patch(frame)
    for row in range(1, rows):
        axes.axhline(row - 0.5, color="white", linewidth=1.5, zorder=1.5)
    for column in range(1, columns):
        axes.axvline(column - 0.5, color="white", linewidth=1.5, zorder=1.5)
    axes.set_yticks(range(rows), row_labels)
    axes.set_xticks(range(columns), column_labels)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def share_table(
    axes: Axes,
    shares: Sequence[Sequence[Interval | str]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "",
) -> None:
    """Shares in percent with their intervals, on colours from 0 to 100 %; a cell of words stays white.

    Args:
        axes: where to draw.
        shares: for each row its cells: a share in [0, 1], or why there is none.
        row_labels: one for each row, from the top.
        column_labels: one for each column, above the table.
        title: above all.

    Raises:
        BadInputError: for labels that do not fit.
    """
    values = [[cell.value if isinstance(cell, Interval) else math.nan for cell in row] for row in shares]
    table = _table(values)
    annotated_matrix(axes, table, row_labels, column_labels, title, limits=(0, 1))
    for number in list(axes.texts):  # without its interval
        number.remove()
    norm, colours = Normalize(0, 1), colormaps[_COLOURS]
    for row, cells in enumerate(shares):
        for column, cell in enumerate(cells):
            if isinstance(cell, Interval):
                text = f"{100 * cell.value:.0f} %\n[{100 * cell.low:.0f}, {100 * cell.high:.0f}]"
                ink = _readable_on(colours(norm(cell.value))[:3])
            else:
                text, ink = textwrap.fill(cell, 16), "0.45"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize="small")


def utility_labels(utilities: ArrayLike, actions: Sequence[str], value_format: str = "{:.2f}") -> list[str]:
    """Row or column labels of `annotated_matrix` from an agent's utilities `(A,)`: "3.84 (A)"."""
    pairs = zip(np.asarray(utilities, np.float64), actions, strict=True)
    return [f"{_number(utility, value_format)} ({action})" for utility, action in pairs]


def heat_map(
    axes: Axes,
    values: ArrayLike,
    title: str,
    limits: tuple[float, float] | None = None,
    mark: tuple[int, int] | None = None,
    xlabel: str = "agent 1's action",
    ylabel: str = "agent 2's action",
) -> None:
    """A joint value function of two agents as colours, for tables too large for numbers.

    Args:
        axes: where to draw.
        values: `(A_1, A_2)`, `values[u1, u2]`: agent 1's action runs to the right, agent 2's upwards, so
            do not transpose.
        title: above all.
        limits: `(lowest, highest)` value of the colours; the values' own if None. Where they cut values
            off, the colour bar has a pointed end.
        mark: `(u1, u2)` to mark and to name in the title, usually the greedy joint action.
        xlabel: below.
        ylabel: on the left.

    Raises:
        BadInputError: for values of another rank, or a mark outside.
    """
    table = _table(values)
    lowest, highest = _limits(table, limits)
    image = axes.imshow(
        table.T,
        cmap=_COLOURS,
        vmin=lowest,
        vmax=highest,
        origin="lower",
        aspect="equal",
        interpolation="nearest",
    )
    cut_off = (bool((table < lowest).any()), bool((table > highest).any()))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    axes.figure.colorbar(image, ax=axes, extend=extend[cut_off])
    if mark is not None:
        u1, u2 = _inside(mark, table.shape)
        for edge, width in (("black", 4), ("white", 2)):  # seen on dark and on bright
            axes.plot(
                u1, u2, "o", markersize=9, fillstyle="none", markeredgecolor=edge, markeredgewidth=width
            )
        title = f"{title}\nmarked: ({u1}, {u2})".lstrip()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)


def learning_curves(
    axes: Axes,
    env_steps: ArrayLike | Mapping[str, ArrayLike],
    curves: Mapping[str, ArrayLike],
    xlabel: str = "environment steps",
    ylabel: str = "return",
    reference: float | None = None,
    reference_label: str = "optimum",
    title: str = "",
    legend: bool = True,
    labels: Mapping[str, str] | None = None,
) -> None:
    """One line for each algorithm: the IQM over seeds, with a band for its 95 % bootstrap interval.

    Names stand to the right of the axes, each led to by the end of its line, so that lines which lie on one
    another can be told apart; above them, how many seeds there are.

    Args:
        axes: where to draw.
        env_steps: `(evaluations,)`, of all curves or for each algorithm id.
        curves: for each algorithm id its metric `(evaluations, seeds)`.
        xlabel: below.
        ylabel: on the left.
        reference: value of a horizontal line.
        reference_label: what that line is, for the legend.
        title: above all.
        legend: False leaves the names out, for a panel beside another one that has them.
        labels: for some algorithm ids, their names instead of `styles.label_of`.

    Raises:
        BadInputError: if there is no curve, or one whose length differs from that of `env_steps`.
    """
    if not curves:
        raise BadInputError("a figure of learning curves needs at least one curve")
    tables = {name: np.asarray(metric, np.float64) for name, metric in curves.items()}
    steps = {
        name: np.asarray(env_steps[name] if isinstance(env_steps, Mapping) else env_steps, np.float64)
        for name in curves
    }
    for name, metric in tables.items():
        if metric.ndim != 2 or steps[name].shape != metric.shape[:1]:
            raise BadInputError(
                f"the curve of {name} has shape {metric.shape}: it must be (evaluations, seeds) with as many "
                f"evaluations as env_steps, which has shape {steps[name].shape}"
            )
    styles = line_styles(list(curves))
    seeds = {name: metric.shape[1] for name, metric in tables.items()}
    alike = len(set(seeds.values())) == 1
    lines: list[Line2D] = []
    for name, metric in tables.items():
        centre, low, high = learning_curve(metric)
        shade, dashes = styles[name]
        label = (labels or {}).get(name, label_of(name)) + ("" if alike else f" ({_seeds(seeds[name])})")
        marker = "o" if len(centre) == 1 else None  # a lone evaluation is a point, not a line
        lines += axes.plot(steps[name], centre, dashes, color=shade, label=label, marker=marker)
        axes.fill_between(steps[name], low, high, color=shade, alpha=0.2, linewidth=0)
    if reference is not None:
        grey = "0.45"
        lines.append(
            axes.axhline(
                reference, color=grey, linewidth=1, linestyle=(0, (6, 4)), zorder=0, label=reference_label
            )
        )
    if legend:
        name_ends(axes, lines, "IQM, 95 % band" + (f"\n{_seeds(max(seeds.values()))}" if alike else ""))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1M
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(alpha=0.25)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)


def name_ends(axes: Axes, lines: Sequence[Line2D], heading: str = "") -> None:
    """Write the labels of lines to the right of their axes, each at the height of its line's end or near it.

    Args:
        axes: with its scale and limits.
        lines: of these axes, at least one.
        heading: above the labels.
    """
    low = axes.get_ylim()[0]
    ends = [_end(line, low) for line in lines]
    heights = [
        (line.get_transform() - axes.transAxes).transform(end)[1]
        for line, end in zip(lines, ends, strict=True)
    ]
    upwards = sorted(range(len(lines)), key=lambda place: (heights[place], -place))
    inches = axes.get_position().height * axes.get_figure().get_figheight()  # type: ignore[union-attr]
    gap = min(_LABEL_INCHES / inches, 1 / len(lines))
    steps = gap * np.arange(len(lines))
    # As near to the ends as labels can be that are `gap` apart and in their order.
    places = isotonic_regression(np.asarray(heights)[upwards] - steps).x
    places = np.clip(places, 0, 1 - steps[-1]) + steps
    for place, index in zip(places, upwards, strict=True):
        line = lines[index]
        sample = DrawingArea(22, 8)
        sample.add_artist(
            Line2D(
                [0, 22],
                [4, 4],
                color=line.get_color(),
                linestyle=line.get_linestyle(),
                linewidth=line.get_linewidth(),
            )
        )
        # $ is a character of a folder's name, not the start of a formula.
        name = TextArea(str(line.get_label()), textprops={"fontsize": "small", "parse_math": False})
        axes.add_artist(
            AnnotationBbox(
                HPacker(children=[sample, name], align="center", pad=0, sep=4),
                ends[index],
                (1.06, place),
                xycoords=line.get_transform(),
                boxcoords="axes fraction",
                box_alignment=(0, 0.5),
                frameon=False,
                pad=0,
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": line.get_color(),
                    "linewidth": 0.7,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "relpos": (0, 0.5),
                },
            )
        )
    if heading:
        axes.text(1.06, 1.04, heading, transform=axes.transAxes, va="bottom", fontsize="small")


def _end(line: Line2D, low: float) -> tuple[float, float]:
    """The last point of a line that is finite; the lower corner of the axes at its end if none is."""
    xs, ys = (np.asarray(data, np.float64) for data in line.get_data())
    (finite,) = np.nonzero(np.isfinite(ys))
    return (float(xs[finite[-1]]), float(ys[finite[-1]])) if len(finite) else (float(xs[-1]), low)


def bar_counts(
    axes: Axes,
    labels: Sequence[str],
    values: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[Interval | None]] | None = None,
    ylabel: str = "",
    title: str = "",
    value_format: str = "{:g}",
    colours: Mapping[str, str] | None = None,
) -> None:
    """Groups of bars side by side, with their numbers: a table of the paper beside ours.

    Args:
        axes: where to draw.
        labels: one for each group.
        values: for each series, such as "paper" and "ours", one number for each group; NaN draws none.
        intervals: for some of the series, whiskers; None for a group without.
        ylabel: on the left.
        title: above all.
        value_format: of the numbers above the bars.
        colours: of some series, such as those of their lines in a panel beside.

    Raises:
        BadInputError: if a series has not one number for each group, or intervals have no series.
    """
    whiskers = dict(intervals or {})
    for name, row in [*values.items(), *whiskers.items()]:
        if len(row) != len(labels) or name not in values:
            raise BadInputError(
                f"series {name!r} has {len(row)} entries for {len(labels)} groups of bars: "
                "every series needs a value for each group, and every interval a series"
            )
    places, width = np.arange(len(labels)), 0.8 / max(1, len(values))
    for index, (name, row) in enumerate(values.items()):
        left = places + (index - (len(values) - 1) / 2) * width
        heights = np.asarray(row, np.float64)
        own = STYLES[name].colour if name in STYLES else _BARS[index % len(_BARS)]
        fill = (colours or {}).get(name, own)
        axes.bar(left, heights, width * 0.94, color=fill, label=label_of(name))
        tops = heights.copy()
        for group, interval in enumerate(whiskers.get(name, [])):
            if interval is not None and math.isfinite(interval.low + interval.high):
                axes.vlines(left[group], interval.low, interval.high, color="black", linewidth=1.2)
                tops[group] = max(tops[group], interval.high)
        for x, value, top in zip(left, heights, tops, strict=True):
            if math.isfinite(value):
                axes.annotate(
                    _number(value, value_format),
                    (x, max(top, 0)),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize="small",
                )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.12)  # room for the numbers
    axes.set_xticks(places, labels)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(values) > 1:  # below the axes, where it hides no bar
        axes.legend(
            fontsize="small",
            frameon=False,
            ncols=len(values),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
        )
    axes.set(ylabel=ylabel, title=title)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _table(values: ArrayLike) -> np.ndarray:
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise BadInputError(f"a table to draw has rows and columns, not shape {table.shape}")
    return table


def _inside(cell: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    row, column = int(cell[0]), int(cell[1])
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        raise BadInputError(f"cell ({row}, {column}) lies outside a table of shape {shape}")
    return row, column


def _limits(table: np.ndarray, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The values at the two ends of the colour scale."""
    if limits is not None:
        return limits
    finite = table[np.isfinite(table)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _number(value: float, value_format: str) -> str:
    """`value` with a real minus sign, and none on what is rounded to zero."""
    text = value_format.format(value)
    if text.startswith("-") and not any(character in "123456789fn" for character in text):  # inf, nan
        text = text[1:]
    return text.replace("-", "\N{MINUS SIGN}")


def _readable_on(background: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with an sRGB background (WCAG 2 luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast is (lighter + .05) / (darker + .05): equal for black and white at sqrt(1.05 * .05) - .05.
    return "black" if luminance > 0.179 else "white"
