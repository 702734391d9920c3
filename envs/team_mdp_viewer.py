"""Pictures of finite team MDPs: a graph of the states, the current one marked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from envs.viewer import FrameViewer

FREE, TERMINAL, CURRENT = "#dce6f2", "#c8c8c8", "#ffb347"
RADIUS = 0.3


class TeamMDPViewer(FrameViewer):
    """Draws each state as a disc and each possible transition as an arrow.

    Transitions from the current state are dark; the width of an arrow is the probability under a uniformly
    random joint action. Terminal states are grey, the current state is orange.

    Args:
        transition: `(S, A_1, ..., A_n, S)`.
        terminal: `(S,)` bool.
        layout: `(x, y)` of each state, in units in which neighbours are 1 apart; a circle if None.
        labels: the label of each state; its number if None.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(
        self,
        transition: np.ndarray,
        terminal: np.ndarray,
        layout: Sequence[tuple[float, float]] | None = None,
        labels: Sequence[str] | None = None,
        render_mode: str = "rgb_array",
    ):
        states = len(terminal)
        self._edges = transition.mean(axis=tuple(range(1, transition.ndim - 1)))  # (S, S)
        self._terminal = terminal
        self._labels = labels or [str(state) for state in range(states)]
        if layout is None:
            angles = np.pi / 2 - 2 * np.pi * np.arange(states) / states
            radius = 0.5 / np.sin(np.pi / states) if states > 1 else 0.0
            self._places = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        else:
            self._places = np.asarray(layout, float)
        width, height = 1.1 * (np.ptp(self._places, axis=0) + 1.4)
        super().__init__("Team MDP", render_mode, (max(4.0, float(width)), max(2.0, float(height)) + 0.4))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last state."""
        state = states[-1]
        axes = figure.add_axes((0, 0, 1, 1 - 0.4 / figure.get_figheight()))
        current = int(state.state)
        for source, target in np.argwhere(self._edges > 0):
            if not (self._terminal[source] and source == target):
                self._arrow(axes, source, target, source == current)
        for index, (x, y) in enumerate(self._places):
            colour = CURRENT if index == current else TERMINAL if self._terminal[index] else FREE
            axes.add_patch(Circle((x, y), RADIUS, facecolor=colour, edgecolor="black", zorder=3))
            axes.text(x, y, self._labels[index], ha="center", va="center", fontsize=7, zorder=4)
        actions = np.asarray(state.last_actions)
        title = f"step {int(state.step_count)}"
        if (actions >= 0).all():
            title += f", after the joint action {tuple(int(action) for action in actions)}"
        axes.set_title(title, fontsize=10)
        low, high = self._places.min(axis=0) - 0.7, self._places.max(axis=0) + 0.7
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(low[1], high[1])
        axes.set_aspect("equal")
        axes.set_axis_off()

    def _arrow(self, axes: Axes, source: int, target: int, dark: bool) -> None:
        start, end = self._places[source], self._places[target]
        style: dict[str, Any] = {
            "color": "#303030" if dark else "#b8b8b8",
            "linewidth": 0.6 + 2.4 * float(self._edges[source, target]),
            "arrowstyle": "-|>",
            "mutation_scale": 9,
            "zorder": 2 if dark else 1,
        }
        if source == target:  # a loop above the disc
            left, right = start + RADIUS * np.array([[-0.6, 0.8], [0.6, 0.8]])
            axes.add_patch(FancyArrowPatch(left, right, connectionstyle="arc3,rad=-1.6", **style))
            return
        along = (end - start) / np.linalg.norm(end - start)
        axes.add_patch(
            FancyArrowPatch(
                start + RADIUS * along, end - RADIUS * along, connectionstyle="arc3,rad=0.12", **style
            )
        )
