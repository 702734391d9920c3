"""Pictures of rooms: walls, the cells that options lead to, and agents with the option that each follows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle, RegularPolygon

from envs.viewer import FrameViewer

#: Of options, which colour-blind readers can tell apart (Okabe and Ito); numbers stand beside them.
OPTIONS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
WALL, FREE, AGENT, GOAL, OPEN = "#4a4a4a", "#fbfbfb", "#1a1a1a", "#F0E442", "#009E73"
#: What letters on the map are called.
NAMES = {"b": "button", "d": "door"}


class RoomsViewer(FrameViewer):
    """Draws the map with one coloured, numbered square for each cell that an option leads to.

    An agent is a black disc with its number. If it is known which option it follows, its ring and the arrow
    that leads from it have the option's colour: the arrow is the most likely move under the option's prior. A
    door that is open is drawn with a green frame, any other with a grey one.

    Args:
        rows: the map; `#` is a wall, `b` a button and `d` a door.
        cells: for each agent its cell `(x, y)` in every state.
        targets: for each agent the cell that each of its options leads to.
        goals: cells to reach.
        prior: `(n, S, m, A)`, of actions up, left, right, down and stay.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(
        self,
        rows: Sequence[str],
        cells: Sequence[Sequence[tuple[int, int]]],
        targets: Sequence[Sequence[tuple[int, int]]],
        goals: Sequence[tuple[int, int]],
        prior: np.ndarray,
        render_mode: str = "rgb_array",
    ):
        self._rows, self._cells, self._targets, self._goals = rows, cells, targets, goals
        self._prior = prior
        height, width = len(rows), len(rows[0])
        size = min(0.75, 6 / max(height, width))  # inches of a cell
        super().__init__("Rooms", render_mode, (max(4.8, width * size), height * size + 1.3))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last of `(state, options or None)`."""
        inches = figure.get_figheight()
        axes = figure.add_axes((0.02, 0.85 / inches, 0.96, 1 - 1.25 / inches))
        state, options = states[-1]
        number = int(state.state)
        at = [cells[number] for cells in self._cells]
        self._map(axes, at)
        for agent, cell in enumerate(at):
            option = None if options is None else int(np.asarray(options)[agent])
            self._agent(axes, agent, cell, option, number)
        axes.set_title(f"step {int(state.step_count)}" + self._described(options), fontsize=10)
        self._legend(figure, axes)

    def _map(self, axes: Axes, at: Sequence[tuple[int, int]]) -> None:
        height, width = len(self._rows), len(self._rows[0])
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_axis_off()
        for y, row in enumerate(self._rows):
            for x, mark in enumerate(row):
                colour = WALL if mark == "#" else FREE
                axes.add_patch(
                    Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="#cccccc", lw=0.6)
                )
        for cell in self._goals:
            axes.add_patch(RegularPolygon(cell, 5, radius=0.42, facecolor=GOAL, edgecolor="black", zorder=1))
        for agent, targets in enumerate(self._targets):
            for option, (x, y) in enumerate(targets):
                colour, mark = OPTIONS[option % len(OPTIONS)], self._rows[y][x]
                edge, thickness = colour, 1.5
                if mark == "d":
                    edge, thickness = (OPEN if self._is_open(agent, at) else "#777777"), 4.0
                square = Rectangle((x - 0.42, y - 0.42), 0.84, 0.84, facecolor=to_rgba(colour, 0.3))
                square.set(edgecolor=edge, linewidth=thickness, zorder=1)
                axes.add_patch(square)
                axes.text(
                    x + 0.34,
                    y + 0.33,
                    str(option),
                    fontsize=8,
                    ha="right",
                    va="bottom",
                    weight="bold",
                    zorder=2,
                )

    def _is_open(self, agent: int, at: Sequence[tuple[int, int]]) -> bool:
        """Whether another agent stands on its button."""
        return any(self._rows[cell[1]][cell[0]] == "b" for other, cell in enumerate(at) if other != agent)

    def _agent(self, axes: Axes, agent: int, cell: tuple[int, int], option: int | None, state: int) -> None:
        colour = AGENT if option is None else OPTIONS[option % len(OPTIONS)]
        axes.add_patch(Circle(cell, 0.3, facecolor=AGENT, edgecolor=colour, linewidth=3.5, zorder=4))
        if len(self._cells) > 1:
            axes.text(
                *cell, str(agent + 1), color="white", ha="center", va="center_baseline", fontsize=9, zorder=5
            )
        if option is not None and self._targets[agent][option] != cell:
            step = ((0, -1), (-1, 0), (1, 0), (0, 1), (0, 0))[int(self._prior[agent, state, option].argmax())]
            if step != (0, 0):
                head = (cell[0] + 0.8 * step[0], cell[1] + 0.8 * step[1])
                arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.5, "shrinkA": 8, "shrinkB": 0}
                axes.annotate("", head, cell, arrowprops=arrow, zorder=3)

    def _described(self, options: Any) -> str:
        if options is None:
            return ""
        numbers = [str(int(option)) for option in np.asarray(options)]
        return ", following option" + ("s " if len(numbers) > 1 else " ") + " and ".join(numbers)

    def _legend(self, figure: Figure, axes: Axes) -> None:
        """One entry for each option, and the goal."""
        handles = []
        for option, (x, y) in enumerate(self._targets[0]):
            colour, name = OPTIONS[option % len(OPTIONS)], NAMES.get(self._rows[y][x], "hallway")
            label = f"{option}: to the {name}" if name in NAMES.values() else f"{option}: to hallway {option}"
            handles.append(
                Line2D(
                    [], [], marker="s", linestyle="", markersize=9, color=to_rgba(colour, 0.5), label=label
                )
            )
        if self._goals:
            handles.append(
                Line2D(
                    [],
                    [],
                    marker="p",
                    linestyle="",
                    markersize=10,
                    markeredgecolor="black",
                    color=GOAL,
                    label="goal",
                )
            )
        if any("d" in row for row in self._rows):
            frame = Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=OPEN, linewidth=3, label="open door")
            handles.append(frame)  # type: ignore[arg-type]
        figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9)
