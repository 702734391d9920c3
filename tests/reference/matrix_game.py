"""Matrix games in plain Python, one step at a time: what envs.matrix_games must do."""

from collections.abc import Sequence

import numpy as np


class MatrixGame:
    """Plays payoff tensors; `ways[stage]` maps joint actions to the next stage, all others end the game."""

    def __init__(
        self, payoffs: Sequence[np.ndarray], ways: Sequence[dict[tuple[int, ...], int]], stage: int
    ) -> None:
        self.payoffs, self.ways, self.stage = payoffs, ways, stage
        self.over = False
        self.steps = 0

    def step(self, actions: Sequence[int]) -> float:
        """Play a joint action; an action beyond an agent's last one counts as the last one."""
        assert not self.over
        payoff = self.payoffs[self.stage]
        joint = tuple(
            min(int(action), count - 1) for action, count in zip(actions, payoff.shape, strict=True)
        )
        reward = payoff
        for action in joint:
            reward = reward[action]
        self.steps += 1
        self.over = joint not in self.ways[self.stage]
        self.stage = self.stage if self.over else self.ways[self.stage][joint]
        return float(reward)


class NStepMatrixGame:
    """MAVEN's m-step matrix game from its rules, without stages or tables."""

    def __init__(self, steps: int, good: Sequence[tuple[int, int]]) -> None:
        self.limit, self.good = steps, good
        self.branch: tuple[int, int] | None = None
        self.steps = 0
        self.over = False

    def step(self, joint: tuple[int, int]) -> float:
        """Play a joint action."""
        assert not self.over
        if self.branch is None:
            self.branch = joint
        self.steps += 1
        last = self.steps == self.limit
        reward = 1.0 if joint == self.branch and self.branch in self.good else 0.0
        if last and self.limit > 1 and self.branch == (0, 0):
            reward = 4.0 if joint == (1, 1) else 1.0
        self.over = last or reward == 0
        return reward


def two_gaussians() -> list[list[float]]:
    """QTRAN's 21 x 21 game, cell by cell (supplement C.1)."""
    return [
        [
            max(5 - ((15 - u1) / 3) ** 2 - ((5 - u2) / 3) ** 2, 10 - (5 - u1) ** 2 - (15 - u2) ** 2)
            for u2 in range(21)
        ]
        for u1 in range(21)
    ]
