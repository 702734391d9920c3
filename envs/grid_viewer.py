"""Pictures of grid worlds: positions, and the reward of the last step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, RegularPolygon

from envs.viewer import FrameViewer

PREDATOR, PREY, PAID, FINED = "#2b6cb0", "#ed8936", "#2f9e44", "#d6336c"


def draw_grid(axes: Axes, height: int, width: int) -> None:
    """An empty grid of unit cells with the middle of cell (x, y) at x, y; y points down."""
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xticks(range(width))
    axes.set_yticks(range(height))
    axes.tick_params(length=0, labelcolor="#888888")
    axes.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, color="#cccccc", linewidth=0.8, zorder=0)
    axes.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_facecolor("#fbfbfb")


class PredatorPreyViewer(FrameViewer):
    """Draws predators as numbered blue discs and prey as numbered orange diamonds.

    A line joins each predator to the prey that it stands beside: red where it is the only one, green
    where it is not. The title has the last reward; a prey that was just caught has a green ring around
    its new cell, and one for which the team was fined has a red one.

    Args:
        height, width: of the grid, in cells.
        penalty: P.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(self, height: int, width: int, penalty: float, render_mode: str = "rgb_array"):
        self._height, self._width, self._penalty = height, width, penalty
        cell = min(0.9, 9 / max(height, width))  # inches
        super().__init__("Predator-prey", render_mode, (max(4.2, width * cell + 0.6), height * cell + 1.4))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last state; the return is the sum over all of them."""
        inches = figure.get_figheight()
        axes = figure.add_axes((0.08, 0.95 / inches, 0.88, 1 - 1.35 / inches))
        draw_grid(axes, self._height, self._width)
        state = states[-1]
        predators, prey = self._points(state.predators), self._points(state.prey)
        hunters = np.asarray(state.hunters)
        for place, count in zip(prey, hunters, strict=True):
            beside = [predator for predator in predators if np.abs(predator - place).sum() == 1]
            for predator in beside:
                colour = PAID if len(beside) >= 2 else FINED
                axes.plot(*zip(place, predator, strict=True), color=colour, linewidth=5, zorder=1)
            if count:
                ring = Circle(place, 0.46, fill=False, linewidth=2.5, linestyle=(0, (2, 1)))
                ring.set_edgecolor(PAID if count >= 2 else FINED)
                axes.add_patch(ring)
        for index, place in enumerate(predators):
            axes.add_patch(Circle(place, 0.33, color=PREDATOR, zorder=2))
            self._label(axes, place, index)
        for index, place in enumerate(prey):
            axes.add_patch(RegularPolygon(place, 4, radius=0.38, color=PREY, zorder=2))
            self._label(axes, place, index)
        title = f"step {int(state.step_count)}, reward {self._reward(hunters):+g}"
        if len(states) > 1:
            title += f", return {sum(self._reward(np.asarray(one.hunters)) for one in states):+g}"
        axes.set_title(title)
        self._legend(figure)

    def _points(self, cells: Any) -> np.ndarray:
        y, x = np.divmod(np.asarray(cells, np.int64), self._width)
        return np.stack([x, y], axis=-1)  # (E, 2)

    def _reward(self, hunters: np.ndarray) -> float:
        return float((hunters >= 2).sum() - self._penalty * (hunters == 1).sum())

    def _label(self, axes: Axes, place: np.ndarray, index: int) -> None:
        x, y = place
        axes.text(x, y, str(index), ha="center", va="center_baseline", color="white", weight="bold")

    def _legend(self, figure: Figure) -> None:
        def mark(shape: str, colour: str, label: str) -> Line2D:
            return Line2D([], [], marker=shape, color=colour, linestyle="", markersize=9, label=label)

        def ring(colour: str, label: str) -> Line2D:
            marker = mark("o", colour, label)
            marker.set_markerfacecolor("none")
            marker.set_markeredgewidth(2)
            return marker

        handles = [
            mark("o", PREDATOR, "predator"),
            mark("D", PREY, "prey"),
            ring(PAID, "just caught, +1"),
            ring(FINED, f"one beside it, {-self._penalty:+g}"),
        ]
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False)
