"""Pictures of the differential game: the reward surface and the joint actions on it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from envs.viewer import FrameViewer


def draw_surface(axes: Axes, surface: np.ndarray, bound: float) -> Any:
    """Fill `axes` with the reward, agent 1 across and agent 2 up; returns the mappable for a colour bar.

    Args:
        axes: where to draw.
        surface: `(R, R)`, the reward on an even grid over [-bound, bound], agent 1 first.
        bound: of the actions.
    """
    axis = np.linspace(-bound, bound, len(surface))
    filled = axes.contourf(axis, axis, surface.T, levels=24, cmap="viridis")
    lines = np.asarray(filled.levels)[::2]
    axes.contour(axis, axis, surface.T, levels=lines, colors="black", linewidths=0.3, alpha=0.4)
    axes.set_aspect("equal")
    axes.set_xticks(np.linspace(-bound, bound, 5))
    axes.set_yticks(np.linspace(-bound, bound, 5))
    axes.set_xlabel("action of agent 1")
    axes.set_ylabel("action of agent 2")
    return filled


def draw_path(axes: Axes, path: np.ndarray, colour: str = "tab:red", label: str | None = None) -> None:
    """Draw joint actions `path (T, 2)` in the order of play: a line from a ring to a dot."""
    axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.5, label=label, zorder=3)
    if len(path) > 1:
        axes.plot(*path[0], "o", markersize=8, markerfacecolor="none", markeredgecolor=colour, zorder=4)
    axes.plot(*path[-1], "o", markersize=8, color=colour, markeredgecolor="white", zorder=5)


class DifferentialGameViewer(FrameViewer):
    """Draws the reward surface and the joint actions on it.

    Args:
        surface: `(R, R)`, see `draw_surface`.
        bound: of the actions.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(self, surface: np.ndarray, bound: float, render_mode: str = "rgb_array"):
        self._surface = surface
        self._bound = bound
        super().__init__("Differential game", render_mode, (5.8, 4.8))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the joint action of the last state, and the path of those before."""
        axes = figure.add_axes((0.14, 0.12, 0.65, 0.8))
        filled = draw_surface(axes, self._surface, self._bound)
        figure.colorbar(filled, cax=figure.add_axes((0.82, 0.12, 0.04, 0.8)), label="reward of the team")
        played = [np.asarray(state.last_actions) for state in states if int(state.step_count) > 0]
        if not played:
            axes.set_title("before the only step")
            return
        draw_path(axes, np.stack(played))
        first, second = played[-1]
        axes.set_title(f"joint action ({first:.2f}, {second:.2f})")
