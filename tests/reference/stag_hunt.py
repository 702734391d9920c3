"""DCG's predator-prey, slowly and from the rules: an array for the grid, and one turn after the other."""

from collections.abc import Sequence

import numpy as np

MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up, as (x, y)
STAY, CATCH = 4, 5
AGENT, PREY = 0, 1


class ReferenceStagHunt:
    """Cells go in as numbers `y * width + x`; inside they are pairs (x, y), None for who has left."""

    def __init__(
        self,
        height: int,
        width: int,
        capture_reward: float,
        punishment: float,
        agents: Sequence[int],
        prey: Sequence[int],
    ):
        self.height, self.width = height, width
        self.capture_reward, self.punishment = capture_reward, punishment
        self.agents: list[tuple[int, int] | None] = [(cell % width, cell // width) for cell in agents]
        self.prey: list[tuple[int, int] | None] = [(cell % width, cell // width) for cell in prey]

    @property
    def grid(self) -> np.ndarray:
        """The whole grid (height, width, 3): agents, prey, and hares that there are none of."""
        grid = np.zeros((self.height, self.width, 3), np.float32)
        for channel, places in ((AGENT, self.agents), (PREY, self.prey)):
            for place in filter(None, places):
                assert grid[place[1], place[0]].sum() == 0, "two on one cell"
                grid[place[1], place[0], channel] = 1
        return grid

    def cells(self, places: Sequence[tuple[int, int] | None]) -> list[int | None]:
        return [None if place is None else place[1] * self.width + place[0] for place in places]

    def step(
        self,
        actions: Sequence[int],
        agent_order: Sequence[int],
        prey_order: Sequence[int],
        choices: Sequence[int],
    ) -> tuple[float, list[int]]:
        """The reward, and how many agents tried to catch each prey.

        The orders list who has the first turn, the second, and so on; `choices` number the free cells.
        """
        for index in agent_order:
            place = self.agents[index]
            if place is not None and actions[index] < STAY:
                target = self._beside(place)[actions[index]]
                if self._inside(target) and self._is_free(target):
                    self.agents[index] = target

        reward, tried = 0.0, [0] * len(self.prey)
        for index in prey_order:
            place = self.prey[index]
            if place is None:
                continue
            catchers = [
                number
                for number, agent in enumerate(self.agents)
                if actions[number] == CATCH and agent in self._beside(place)
            ]
            tried[index] = len(catchers)
            if len(catchers) >= 2:
                reward += self.capture_reward
                self.prey[index] = None
                for number in catchers:
                    self.agents[number] = None
                continue
            if catchers:
                reward += self.punishment
            free = [cell for cell in self._beside(place) if self._inside(cell) and self._is_free(cell)]
            if free:
                self.prey[index] = free[choices[index] % len(free)]
        return reward, tried

    @property
    def over(self) -> bool:
        return not any(self.prey) or not any(self.agents)

    def view(self, side: int) -> np.ndarray:
        """What each agent sees, (n, side * side * 3): its cut of the grid with a frame of zeros."""
        half = side // 2
        framed = np.pad(self.grid, ((half, half), (half, half), (0, 0)))
        rows = np.zeros((len(self.agents), side * side * 3), np.float32)
        for row, place in zip(rows, self.agents, strict=True):
            if place is not None:
                x, y = place
                row[:] = framed[y : y + side, x : x + side].ravel()
        return rows

    def masks(self) -> np.ndarray:
        """Which actions are available, (n, 6)."""
        masks = np.zeros((len(self.agents), 6), bool)
        masks[:, STAY] = True
        for mask, place in zip(masks, self.agents, strict=True):
            if place is not None:
                mask[:STAY] = [self._inside(cell) for cell in self._beside(place)]
                mask[CATCH] = any(cell in self.prey for cell in self._beside(place))
        return masks

    def _beside(self, place: tuple[int, int]) -> list[tuple[int, int]]:
        return [(place[0] + dx, place[1] + dy) for dx, dy in MOVES]

    def _inside(self, place: tuple[int, int]) -> bool:
        return 0 <= place[0] < self.width and 0 <= place[1] < self.height

    def _is_free(self, place: tuple[int, int]) -> bool:
        return place not in self.agents and place not in self.prey
