"""Pictures of matrix games: the payoff as an annotated heat map, the joint action marked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from envs.viewer import FrameViewer

#: With more cells than this the numbers would be too small to read, and only colours are drawn.
MAX_ANNOTATED_CELLS = 144


class MatrixGameViewer(FrameViewer):
    """Draws the payoff tensor of the current stage; tensors of more than two agents as rows of blocks.

    With a payoff per agent, the cells list all of them, and the colours are agent 1's.

    Args:
        payoff: `(K, A_1, ..., A_n)`, or `(K, A_1, ..., A_n, n)` if `general_sum`.
        general_sum: whether each agent has its own payoff.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(self, payoff: np.ndarray, general_sum: bool = False, render_mode: str = "rgb_array"):
        #: `(K, A_1, ..., A_n, m)` with m = n or 1.
        self._payoff = payoff if general_sum else payoff[..., None]
        super().__init__("Matrix game", render_mode, figure_size=(5.0, 5.0))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """The payoff table of the last state's stage."""
        axes, state = figure.add_subplot(), states[-1]
        payoff = self._payoff[int(state.stage)]
        *above, columns, _ = payoff.shape
        rows, agents = int(np.prod(above)), len(above) + 1
        cells = payoff.reshape(rows, columns, -1)  # agents 1..n-1 down, agent n across
        table = cells[..., 0]
        axes.imshow(table, cmap="viridis", aspect="auto")
        if table.size <= MAX_ANNOTATED_CELLS:
            midpoint = (table.max() + table.min()) / 2
            for (row, column), value in np.ndenumerate(table):
                colour = "white" if value < midpoint else "black"
                axes.text(
                    column, row, _format_payoffs(cells[row, column]), ha="center", va="center", color=colour
                )
        actions = np.asarray(state.last_actions)
        title = f"stage {int(state.stage)}"
        if (actions >= 0).all() and int(state.step_count) > 0:
            row = int(np.ravel_multi_index(actions[:-1], above)) if above else 0
            column = int(actions[-1])
            box = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=3)
            axes.add_patch(box)
            joint = tuple(int(action) for action in actions)
            title = f"joint action {joint} pays {_format_payoffs(cells[row, column])}"
        axes.set_title(title)
        axes.set_ylabel({1: "", 2: "agent 1"}.get(agents, f"agents 1 to {agents - 1}"))
        axes.set_xlabel(f"agent {agents}")
        axes.set_xticks(range(columns) if columns <= 12 else range(0, columns, 5))
        axes.set_yticks(range(rows) if rows <= 12 else range(0, rows, max(1, rows // 5)))


def _format_payoffs(payoffs: np.ndarray) -> str:
    """The text of a cell: the team's payoff, or that of each agent."""
    return ", ".join(f"{payoff:.3g}" for payoff in payoffs)
