"""Pictures of finite team POMDPs: the graph of the states, and what the agents see of the current one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from envs.team_mdp_viewer import TeamMDPViewer


class TeamPOMDPViewer(TeamMDPViewer):
    """Draws the states as `TeamMDPViewer` does, with the observations above them.

    Args:
        transition: `(S, A_1, ..., A_n, S)`.
        terminal: `(S,)` bool.
        layout: `(x, y)` of each state; a circle if None.
        labels: the label of each state; its number if None.
        private_labels: the label of each private observation; its number if None.
        public_labels: the same of each public observation; empty where there is none to show.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(
        self,
        transition: np.ndarray,
        terminal: np.ndarray,
        layout: Sequence[tuple[float, float]] | None = None,
        labels: Sequence[str] | None = None,
        private_labels: Sequence[str] | None = None,
        public_labels: Sequence[str] | None = None,
        render_mode: str = "rgb_array",
    ):
        super().__init__(transition, terminal, layout, labels, render_mode)
        self._private, self._public = private_labels, public_labels
        width, height = self.figure_size
        self.figure_size = (max(width, 5.5), height + 0.5)

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last state."""
        super().draw(figure, states)
        state = states[-1]
        seen = ", ".join(_label(self._private, number) for number in np.asarray(state.private))
        lines = [f"seen in private: {seen}"]
        if self._public != ():
            lines.append(f"in public: {_label(self._public, state.public)}")
        (axes,) = figure.axes
        axes.set_position((0, 0, 1, 1 - 0.9 / figure.get_figheight()))
        axes.set_title("\n".join([axes.get_title(), ", ".join(lines)]), fontsize=10)


def _label(labels: Sequence[str] | None, number: Any) -> str:
    return labels[int(number)] if labels else str(int(number))
