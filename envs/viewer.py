"""The base class of viewers: a still picture, and an animation that redraws it for each state."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jumanji.viewer import MatplotlibViewer
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.figure import Figure


class FrameViewer(MatplotlibViewer[Any]):
    """Draws states one at a time; subclasses implement `draw`.

    Args:
        name: the name of the window.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
        figure_size: in inches.
    """

    def __init__(self, name: str, render_mode: str, figure_size: tuple[float, float]):
        super().__init__(name, render_mode, figure_size)
        self._render_mode = render_mode
        self._animation: FuncAnimation | None = None

    @abc.abstractmethod
    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last of `states` on an empty figure; the others are its history, as far as known.

        Subclasses lay out the figure themselves: matplotlib's layout engines are off.
        """

    def render(self, state: Any, save_path: str | None = None) -> Any:
        """Draw `state`; returns an RGB array in mode "rgb_array"."""
        self._clear_display()
        figure, _ = self._get_fig_ax(show=self._render_mode == "human")
        figure.set_size_inches(self.figure_size)
        figure.set_layout_engine("none")  # as in `animate`, where fitting each frame would be slow
        self._redraw(figure, [state])
        if save_path:
            figure.savefig(save_path, bbox_inches="tight", pad_inches=0.2)
        pixels = self._display(figure)
        return None if pixels is None else np.array(pixels)  # a copy: the next picture reuses the buffer

    def animate(self, states: Sequence[Any], interval: int = 300, save_path: str | None = None) -> Any:
        """One frame for each state, `interval` milliseconds apart; written to `save_path` if given.

        A .gif is written by Pillow; for other formats matplotlib needs ffmpeg.
        """
        figure = plt.figure(f"{self._name} animation", figsize=self.figure_size)

        def frame(index: int) -> tuple[Artist, ...]:
            self._redraw(figure, states[: index + 1])
            return tuple(figure.axes)

        # Without an `init_func` matplotlib draws the first frame twice.
        self._animation = FuncAnimation(
            figure, frame, frames=len(states), init_func=lambda: (), interval=interval
        )
        if save_path:
            gif = Path(save_path).suffix.lower() == ".gif"
            self._animation.save(save_path, writer="pillow" if gif else None)
        plt.close(figure)
        return self._animation

    def _redraw(self, figure: Figure, states: Sequence[Any]) -> None:
        figure.clear()
        self.draw(figure, states)
