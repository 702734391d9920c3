"""Pictures of the pursuit on the plane: predators, prey, their paths, and the prey's radii."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MultipleLocator

from envs.viewer import FrameViewer

PREDATOR, PREY, GROUND = "#2b6cb0", "#c05621", "#f6f8f0"
#: Least half-width of the picture around the prey, in steps of a predator.
REACH = 20.0


class PursuitViewer(FrameViewer):
    """Draws the prey with its alarm circle (dashed) and catch circle, the predators, and all paths.

    The picture is centred on the prey; the grid lines are fixed to the plane.

    Args:
        alarm_distance: radius at which the prey is alarmed.
        catch_distance: radius at which the prey is caught.
        time_limit: steps in an episode, for the title.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(
        self, alarm_distance: float, catch_distance: float, time_limit: int, render_mode: str = "rgb_array"
    ):
        self._alarm_distance, self._catch_distance = alarm_distance, catch_distance
        self._time_limit = time_limit
        super().__init__("Catch prey", render_mode, (5.0, 5.2))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last state and the paths that led to it."""
        axes = figure.add_axes((0.09, 0.06, 0.88, 0.86))
        prey = np.stack([np.asarray(state.prey) for state in states])  # (T, 2)
        predators = np.stack([np.asarray(state.predators) for state in states])  # (T, n, 2)
        x, y = prey[-1]
        axes.plot(*prey.T, color=PREY, alpha=0.5, linewidth=1)
        for path in predators.swapaxes(0, 1):
            axes.plot(*path.T, color=PREDATOR, alpha=0.5, linewidth=1)
        axes.add_patch(Circle((x, y), self._alarm_distance, fill=False, edgecolor="#707070", linestyle="--"))
        axes.add_patch(Circle((x, y), self._catch_distance, facecolor=PREY, alpha=0.25, edgecolor=PREY))
        axes.plot(x, y, marker="D", color=PREY, markersize=8, zorder=3)
        for number, (px, py) in enumerate(predators[-1]):
            axes.plot(px, py, marker="o", color=PREDATOR, markersize=13, markeredgecolor="white", zorder=3)
            axes.text(px, py, str(number), color="white", fontsize=7, ha="center", va="center", zorder=4)
        distances = np.linalg.norm(predators[-1] - prey[-1], axis=1)
        caught = ", caught" if distances.min() < self._catch_distance else ""
        step = int(states[-1].step_count)
        axes.set_title(
            f"step {step} of {self._time_limit}, nearest at {distances.min():.1f}{caught}", fontsize=10
        )
        reach = max(REACH, float(distances.max()) + 2)
        axes.set_xlim(x - reach, x + reach)
        axes.set_ylim(y - reach, y + reach)
        axes.set_aspect("equal")
        axes.set_facecolor(GROUND)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(10))
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, length=0, labelcolor="#888888")
