"""Pictures of the stag hunt: positions, entities that have left, and the reward of the last step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, RegularPolygon

from envs.grid_viewer import FINED, PAID, PREDATOR, PREY, draw_grid
from envs.viewer import FrameViewer

GONE, GROUND = "#9aa3af", "#fbfbfb"


class StagHuntViewer(FrameViewer):
    """Draws agents as numbered blue discs and prey as numbered orange diamonds.

    Frozen agents and caught prey are dotted grey outlines on their last cell. A prey caught in the last step
    is green, with a line to each agent that it froze; a prey for which the team was punished has a red ring
    around its new cell.

    Args:
        height, width: of the grid, in cells.
        capture_reward: reward of a catch.
        punishment: p, added when one agent tries alone.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(
        self,
        height: int,
        width: int,
        capture_reward: float,
        punishment: float,
        render_mode: str = "rgb_array",
    ):
        self._height, self._width = height, width
        self._capture_reward, self._punishment = capture_reward, punishment
        cell = min(0.9, 7 / max(height, width))  # inches
        super().__init__("Stag hunt", render_mode, (max(4.8, width * cell + 0.6), height * cell + 1.6))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last state; the return is the sum over all of them."""
        inches = figure.get_figheight()
        axes = figure.add_axes((0.08, 1.15 / inches, 0.88, 1 - 1.5 / inches))
        draw_grid(axes, self._height, self._width)
        state = states[-1]
        agents, frozen = self._points(state.agents), np.asarray(state.agents) < 0
        prey, caught = self._points(state.prey), np.asarray(state.prey) < 0
        catchers = np.asarray(state.catchers)
        just_frozen = np.zeros(frozen.shape, bool)
        for place in prey[catchers >= 2]:
            cost = frozen & ~self._frozen_before(states) & (np.abs(agents - place).sum(axis=1) == 1)
            for agent in agents[cost]:
                axes.plot(*zip(place, agent, strict=True), color=PAID, linewidth=4, zorder=1)
            just_frozen |= cost
        for place in prey[catchers == 1]:
            ring = Circle(place, 0.47, fill=False, linewidth=2.5, linestyle=(0, (2, 1)), edgecolor=FINED)
            axes.add_patch(ring)
        # Entities on the grid are drawn over those that have left from the same cell.
        for index, place in enumerate(agents):
            colour = (PAID if just_frozen[index] else GONE) if frozen[index] else PREDATOR
            self._piece(axes, Circle(place, 0.34), place, index, colour, bool(frozen[index]))
        for index, place in enumerate(prey):
            colour = (PAID if catchers[index] >= 2 else GONE) if caught[index] else PREY
            self._piece(axes, RegularPolygon(place, 4, radius=0.4), place, index, colour, bool(caught[index]))
        title = f"step {int(state.step_count)}, reward {self._reward(state):+g}"
        if len(states) > 1:
            title += f", return {sum(map(self._reward, states)):+g}"
        axes.set_title(title)
        self._legend(figure)

    def _points(self, cells: Any) -> np.ndarray:
        """Current or last positions, `(E, 2)`."""
        cells = np.asarray(cells, np.int64)
        y, x = np.divmod(np.where(cells < 0, ~cells, cells), self._width)
        return np.stack([x, y], axis=-1)

    def _frozen_before(self, states: Sequence[Any]) -> np.ndarray:
        """Whether each agent was frozen before the last step, as far as known, `(n,)`."""
        last = np.asarray(states[-1].agents)
        return np.asarray(states[-2].agents) < 0 if len(states) > 1 else np.zeros(last.shape, bool)

    def _reward(self, state: Any) -> float:
        count = np.asarray(state.catchers)
        return float(self._capture_reward * (count >= 2).sum() + self._punishment * (count == 1).sum())

    def _piece(
        self, axes: Axes, shape: Patch, place: np.ndarray, index: int, colour: str, left: bool
    ) -> None:
        """A numbered piece: filled, or only its outline if it has left the grid."""
        shape.set(facecolor=GROUND if left else colour, edgecolor=colour, zorder=1.5 if left else 3)
        if left:
            shape.set(linestyle=(0, (1, 1)), linewidth=2)
        axes.add_patch(shape)
        x, y = place
        text = axes.text(x, y, str(index), ha="center", va="center_baseline", weight="bold")
        text.set(color=colour if left else "white", zorder=shape.get_zorder())

    def _legend(self, figure: Figure) -> None:
        def mark(shape: str, colour: str, label: str, filled: bool = True) -> Line2D:
            marker = Line2D([], [], marker=shape, color=colour, linestyle="", markersize=9, label=label)
            if not filled:
                marker.set_markerfacecolor("none")
                marker.set_markeredgewidth(2)
            return marker

        handles = [
            mark("o", PREDATOR, "agent"),
            mark("D", PREY, "prey"),
            mark("o", GONE, "frozen, has left the grid", filled=False),
            mark("D", GONE, "caught", filled=False),
            mark("D", PAID, f"just caught, {self._capture_reward:+g}", filled=False),
            mark("o", FINED, f"one tried alone, {self._punishment:+g}", filled=False),
        ]
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False)
