"""Four rooms, and buttons and doors, by their rules and slowly."""

import itertools
import math

UP, LEFT, RIGHT, DOWN, STAY = range(5)
STEPS = {UP: (0, -1), LEFT: (-1, 0), RIGHT: (1, 0), DOWN: (0, 1), STAY: (0, 0)}


def four_rooms_free(x, y):
    """Whether a cell of the 13 x 13 map is free: one wall down the middle, one across each half."""
    if not (0 < x < 12 and 0 < y < 12):
        return False
    if x == 6:
        return y in (3, 10)
    return not (y == 6 and x < 6 and x != 2) and not (y == 7 and x > 6 and x != 9)


def four_rooms_move(cell, action):
    x, y = cell[0] + STEPS[action][0], cell[1] + STEPS[action][1]
    return (x, y) if four_rooms_free(x, y) else cell


def room_move(cell, action):
    """In a room of 3 x 2 cells, from (0, 0) at the upper left."""
    x, y = cell[0] + STEPS[action][0], cell[1] + STEPS[action][1]
    return (x, y) if 0 <= x < 3 and 0 <= y < 2 else cell


def distances(cells, move, target):
    """Steps of a shortest path from every cell, by relaxing until nothing changes."""
    left = {cell: 0 if cell == target else math.inf for cell in cells}
    while True:
        after = {
            cell: min(left[cell], 1 + min(left[move(cell, action)] for action in (UP, LEFT, RIGHT, DOWN)))
            for cell in cells
        }
        if after == left:
            return left
        left = after


def prior(cells, move, target, cell, actions, sharpness):
    """The probabilities of an option's actions in a cell."""
    left = distances(cells, move, target)
    odds = [math.exp(-sharpness * left[move(cell, action)]) for action in range(actions)]
    return [each / sum(odds) for each in odds]


ROOM = list(itertools.product(range(3), range(2)))
BUTTON, DOOR, START = (0, 0), (2, 0), (1, 1)


class ButtonsAndDoors:
    """Both agents' cells, each in its own room."""

    def __init__(self, door_reward):
        self.door_reward, self.cells = door_reward, [START, START]

    def step(self, actions):
        """The reward."""
        first, second = self.cells
        if (first, second) in [(DOOR, BUTTON), (BUTTON, DOOR)]:
            self.cells = [START, START]
            return self.door_reward
        self.cells = [room_move(cell, action) for cell, action in zip(self.cells, actions, strict=True)]
        return 0
