"""Pictures of a Gaussian squeeze: the reward curve, and each agent's share of the usage."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from envs.viewer import FrameViewer


class SqueezeViewer(FrameViewer):
    """Draws G(x) with a dot at the joint action, and below it the agents' shares s_i u_i end to end.

    Args:
        reward: G, from usages `(N,)` to rewards `(N,)`.
        s: `(n,)`, the unit-level resources, or their upper bounds if episodes draw them.
        num_actions: A.
        render_mode: "human" opens a window, "rgb_array" returns pixels.
    """

    def __init__(
        self,
        reward: Callable[[np.ndarray], np.ndarray],
        s: np.ndarray,
        num_actions: int,
        render_mode: str = "rgb_array",
    ):
        self._reward, self._s, self._num_actions = reward, s, num_actions
        super().__init__("Gaussian squeeze", render_mode, (7.0, 4.6))

    def draw(self, figure: Figure, states: Sequence[Any]) -> None:
        """Draw the last state."""
        margins = {"left": 0.1, "right": 0.97, "top": 0.92, "bottom": 0.12, "hspace": 0.12}
        curve, shares = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1), gridspec_kw=margins)
        state = states[-1]
        s = self._s if state.s is None else np.asarray(state.s)
        most = float((self._num_actions - 1) * s.sum())

        xs = np.linspace(0, 1.02 * most, 1000)
        curve.plot(xs, self._reward(xs), color="#2b6cb0")
        curve.set_xlim(0, xs[-1])
        curve.set_ylim(bottom=0)
        curve.set_ylabel("reward G(x)")
        title = "not played yet"
        actions = np.asarray(state.last_actions, int)
        if int(state.step_count) > 0:
            parts = s * actions
            starts = np.concatenate([[0.0], parts.cumsum()])
            usage = starts[-1]
            reward = float(self._reward(np.asarray([usage]))[0])
            colours = plt.get_cmap("tab10")(np.arange(len(s)) % 10)
            shares.barh(0, parts, left=starts[:-1], color=colours, edgecolor="white", height=0.8)
            for start, part, level in zip(starts, parts, actions, strict=False):
                if part > 0.02 * most:  # narrower ones have no room for a number
                    shares.text(start + part / 2, 0, str(level), ha="center", va="center", color="white")
            curve.vlines(usage, 0, reward, color="#d6336c", linestyle="--")
            shares.axvline(usage, color="#d6336c", linestyle="--")
            curve.plot(usage, reward, "o", color="#d6336c", markersize=8, clip_on=False)
            title = f"usage {usage:.3f} pays {reward:.3f}"
        curve.set_title(title)
        shares.set_yticks([])
        shares.set_ylim(-0.5, 0.5)
        shares.set_ylabel("levels")
        shares.set_xlabel("usage x, agent by agent")
