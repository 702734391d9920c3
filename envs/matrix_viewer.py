"""Pictures of matrix games: the payoff as an annotated heat map, the joint action marked."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jumanji.viewer import MatplotlibViewer
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

#: Above this many cells numbers are too small to read, and only the colours are drawn.
MOST_NUMBERS = 144


class MatrixGameViewer(MatplotlibViewer[Any]):
    """Draws the payoff tensor of the current stage; tensors of more than two agents as rows of blocks.

    Args:
        payoff: `(K, A_1, ..., A_n)`.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(self, payoff: np.ndarray, render_mode: str = "rgb_array"):
        self._payoff = payoff
        self._animation: FuncAnimation | None = None
        super().__init__("Matrix game", render_mode, figure_size=(5.0, 5.0))

    def render(self, state: Any, save_path: str | None = None) -> Any:
        """Draw `state`; returns an RGB array in mode "rgb_array"."""
        self._clear_display()
        figure, axes = self._get_fig_ax()
        self._draw(axes, state)
        if save_path:
            figure.savefig(save_path, bbox_inches="tight", pad_inches=0.2)
        return self._display(figure)

    def animate(self, states: Sequence[Any], interval: int = 400, save_path: str | None = None) -> Any:
        """One frame for each state, `interval` milliseconds apart; written to `save_path` if given."""
        figure, axes = plt.subplots(figsize=self.figure_size)

        def frame(index: int) -> tuple[Artist]:
            axes.clear()
            self._draw(axes, states[index])
            return (axes,)

        animation = FuncAnimation(figure, frame, frames=len(states), interval=interval)
        if save_path:
            animation.save(save_path)
        plt.close(figure)
        return animation

    def _draw(self, axes: Axes, state: Any) -> None:
        payoff = self._payoff[int(state.stage)]
        rows, columns = int(np.prod(payoff.shape[:-1])), payoff.shape[-1]
        table = payoff.reshape(rows, columns)  # agents 1..n-1 down, agent n across
        axes.imshow(table, cmap="viridis", aspect="auto")
        if table.size <= MOST_NUMBERS:
            middle = (table.max() + table.min()) / 2
            for (row, column), value in np.ndenumerate(table):
                colour = "white" if value < middle else "black"
                axes.text(column, row, f"{value:g}", ha="center", va="center", color=colour)
        actions = np.asarray(state.last_actions)
        title = f"stage {int(state.stage)}"
        if (actions >= 0).all() and int(state.step_count) > 0:
            row, column = int(np.ravel_multi_index(actions[:-1], payoff.shape[:-1])), int(actions[-1])
            box = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=3)
            axes.add_patch(box)
            title = f"joint action {tuple(int(action) for action in actions)} pays {table[row, column]:g}"
        axes.set_title(title)
        axes.set_ylabel("agent 1" if payoff.ndim == 2 else f"agents 1 to {payoff.ndim - 1}")
        axes.set_xlabel(f"agent {payoff.ndim}")
        axes.set_xticks(range(columns) if columns <= 12 else range(0, columns, 5))
        axes.set_yticks(range(rows) if rows <= 12 else range(0, rows, max(1, rows // 5)))
