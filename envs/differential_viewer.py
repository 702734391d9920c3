"""Pictures of the differential game: the reward over both actions, and where the agents are on it."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jumanji.viewer import MatplotlibViewer
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes


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
    axes.set_xlabel("action of agent 1")
    axes.set_ylabel("action of agent 2")
    return filled


def draw_path(axes: Axes, path: np.ndarray, colour: str = "tab:red", label: str | None = None) -> None:
    """Draw joint actions `path (T, 2)` in the order of play: a line from a ring to a dot."""
    axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.5, label=label, zorder=3)
    if len(path) > 1:
        axes.plot(*path[0], "o", markersize=8, markerfacecolor="none", markeredgecolor=colour, zorder=4)
    axes.plot(*path[-1], "o", markersize=8, color=colour, markeredgecolor="white", zorder=5)


class DifferentialGameViewer(MatplotlibViewer[Any]):
    """Draws the reward surface and the joint actions on it.

    Args:
        surface: `(R, R)`, see `draw_surface`.
        bound: of the actions.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(self, surface: np.ndarray, bound: float, render_mode: str = "rgb_array"):
        self._surface = surface
        self._bound = bound
        self._animation: FuncAnimation | None = None
        super().__init__("Differential game", render_mode, figure_size=(6.0, 5.0))

    def render(self, state: Any, save_path: str | None = None) -> Any:
        """Draw `state`; returns an RGB array in mode "rgb_array"."""
        self._clear_display()
        figure, _ = self._get_fig_ax()
        # The figure is kept between calls, and with it the last picture and its colour bar.
        figure.clear()
        self._draw(figure.add_subplot(), [state])
        if save_path:
            figure.savefig(save_path, bbox_inches="tight", pad_inches=0.2)
        return self._display(figure)

    def animate(self, states: Sequence[Any], interval: int = 100, save_path: str | None = None) -> Any:
        """One frame for each state, `interval` milliseconds apart; written to `save_path` if given."""
        figure = plt.figure(figsize=self.figure_size, layout="constrained")

        def frame(index: int) -> tuple[Artist]:
            figure.clear()
            axes = figure.add_subplot()
            self._draw(axes, states[: index + 1])
            return (axes,)

        animation = FuncAnimation(figure, frame, frames=len(states), interval=interval)
        if save_path:
            animation.save(save_path)
        plt.close(figure)
        return animation

    def _draw(self, axes: Axes, states: Sequence[Any]) -> None:
        filled = draw_surface(axes, self._surface, self._bound)
        axes.figure.colorbar(filled, ax=axes, label="reward of the team")
        played = [np.asarray(state.last_actions) for state in states if int(state.step_count) > 0]
        if played:
            draw_path(axes, np.stack(played))
            first, second = played[-1]
            axes.set_title(f"joint action ({first:.2f}, {second:.2f})")
