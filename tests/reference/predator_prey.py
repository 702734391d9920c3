"""Modified predator-prey, slowly and from the rules: a grid of named cells and real recursion."""

from collections.abc import Sequence

import numpy as np

STEPS = {0: (0, -1), 1: (-1, 0), 2: (0, 0), 3: (1, 0), 4: (0, 1)}


class Entity:
    def __init__(self, place: tuple[int, int]):
        self.place = place
        self.move = 2
        self.waiting = False
        self.done = False


class ReferencePredatorPrey:
    """Cells go in and out as numbers `y * width + x`; inside they are pairs (x, y)."""

    def __init__(
        self, height: int, width: int, penalty: float, predators: Sequence[int], prey: Sequence[int]
    ):
        self.height, self.width, self.penalty = height, width, penalty
        self.predators = [Entity(self._pair(cell)) for cell in predators]
        self.prey = [Entity(self._pair(cell)) for cell in prey]

    @property
    def entities(self) -> list[Entity]:
        return self.predators + self.prey

    def cells(self, entities: Sequence[Entity]) -> list[int]:
        return [entity.place[1] * self.width + entity.place[0] for entity in entities]

    def step(
        self, actions: Sequence[int], prey_moves: Sequence[int], places: Sequence[int]
    ) -> tuple[float, list[int]]:
        """The team's reward, and how many predators stood beside each prey."""
        for entity, move in zip(self.entities, [*actions, *prey_moves], strict=True):
            entity.move, entity.waiting, entity.done = int(move), False, False
        for entity in self.entities:
            self._act(entity)

        beside = [sum(self._touch(predator, prey) for predator in self.predators) for prey in self.prey]
        reward = 0.0
        for count in beside:
            if count >= 2:
                reward += 1
            elif count == 1:
                reward -= self.penalty
        for prey, count, place in zip(self.prey, beside, places, strict=True):
            if count >= 2:
                prey.place = self.empty_places()[int(place)]
        return reward, beside

    def empty_places(self) -> list[tuple[int, int]]:
        everywhere = [(x, y) for y in range(self.height) for x in range(self.width)]
        return [place for place in everywhere if self._at(place) is None]

    def view(self, view: int | None, sees_predators: bool) -> np.ndarray:
        """What each predator sees; `view` None for everything, without flags."""
        rows = []
        for me in self.predators:
            row = list(self._own(me))
            for other in self.entities:
                if other is me or (other in self.predators and not sees_predators):
                    continue
                dx, dy = (theirs - mine for theirs, mine in zip(other.place, me.place, strict=True))
                relative = [dx / self.width, dy / self.height]
                if view is None:
                    row += relative
                elif max(abs(dx), abs(dy)) <= view // 2:
                    row += [1.0, *relative]
                else:
                    row += [0.0, 0.0, 0.0]
            rows.append(row)
        return np.asarray(rows)

    def whole(self) -> np.ndarray:
        return np.asarray([self._own(entity) for entity in self.entities]).ravel()

    def _act(self, entity: Entity) -> None:
        if entity.done or entity.waiting:
            return
        if entity.move != 2:
            target = (entity.place[0] + STEPS[entity.move][0], entity.place[1] + STEPS[entity.move][1])
            inside = 0 <= target[0] < self.width and 0 <= target[1] < self.height
            if inside and (blocker := self._at(target)) is not None:
                entity.waiting = True
                self._act(blocker)
                entity.waiting = False
            if inside and self._at(target) is None:
                entity.place = target
        entity.done = True

    def _at(self, place: tuple[int, int]) -> Entity | None:
        return next((entity for entity in self.entities if entity.place == place), None)

    def _own(self, entity: Entity) -> tuple[float, float]:
        x, y = entity.place
        return (x - self.width / 2) / self.width, (y - self.height / 2) / self.height

    def _pair(self, cell: int) -> tuple[int, int]:
        return int(cell) % self.width, int(cell) // self.width

    @staticmethod
    def _touch(one: Entity, other: Entity) -> bool:
        (x, y), (u, v) = one.place, other.place
        return (x == u and abs(y - v) == 1) or (y == v and abs(x - u) == 1)
