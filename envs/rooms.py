"""Rooms whose agents have options: four rooms with hallways, and two rooms with buttons and doors.

Both are finite: the rules of this module become the tables of an `OptionMDP`.
"""

from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from flax import struct

from envs.errors import BadInputError
from envs.option_mdp import OptionMDP, fields_of, with_options
from envs.ranges import Probability, Steps, above, at_least, checks_parameters
from envs.rooms_viewer import RoomsViewer
from envs.team_mdp import TeamMDPState, team_mdp

WALL = "#"
#: `(x, y)` of the moves; y points down.
UP, LEFT, RIGHT, DOWN, STAY = (0, -1), (-1, 0), (1, 0), (0, 1), (0, 0)
Cell = tuple[int, int]

#: Sutton, Precup and Singh's gridworld (1999, figure 2), 104 free cells.
FOUR_ROOMS = (
    "#############",
    "#     #     #",
    "#     #     #",
    "#           #",
    "#     #     #",
    "#     #     #",
    "## ####     #",
    "#     ### ###",
    "#     #     #",
    "#     #     #",
    "#           #",
    "#     #     #",
    "#############",
)
#: Its hallways, as `(x, y)`: what its options lead to, in this order.
HALLWAYS: tuple[Cell, ...] = ((6, 3), (9, 7), (6, 10), (2, 6))
FOUR_ROOMS_GOAL: Cell = (9, 9)

#: Two rooms of 3 x 2 cells. `s` is where an agent starts, `b` its button, `d` its door.
BUTTONS_AND_DOORS = (
    "#########",
    "#b d#b d#",
    "# s # s #",
    "#########",
)


@struct.dataclass(eq=False, kw_only=True)
class Rooms(OptionMDP):
    """An `OptionMDP` on a map: every agent stands on a cell, and every option leads to one.

    Args:
        rows: the map, one character for each cell; `#` is a wall.
        cells: for each agent its cell `(x, y)` in every state.
        targets: for each agent the cell `(x, y)` that each of its options leads to.
        goals: cells `(x, y)` to reach.
    """

    rows: tuple[str, ...] = struct.field(pytree_node=False)
    cells: tuple[tuple[Cell, ...], ...] = struct.field(pytree_node=False)
    targets: tuple[tuple[Cell, ...], ...] = struct.field(pytree_node=False)
    goals: tuple[Cell, ...] = struct.field(pytree_node=False, default=())

    def render(self, state: TeamMDPState, save_path: str | None = None, options: Any = None) -> Any:
        """Draw the map, the cells that options lead to, and the agents.

        Args:
            state: to draw.
            save_path: of a picture, if it is to be written.
            options: `(n,)`, which the agents follow, if that is known.
        """
        return self._rooms_viewer().render((state, options), save_path)

    def animate(
        self,
        states: list[TeamMDPState],
        interval: int = 400,
        save_path: str | None = None,
        options: Sequence[Any] | None = None,
    ) -> Any:
        """Draw one frame for each state.

        Args:
            states: to draw.
            interval: between frames, in milliseconds.
            save_path: of a .gif file, if it is to be written.
            options: for each state `(n,)`, which options the agents follow there, if that is known.
        """
        known = [None] * len(states) if options is None else options
        return self._rooms_viewer().animate(list(zip(states, known, strict=True)), interval, save_path)

    def _rooms_viewer(self) -> RoomsViewer:
        return RoomsViewer(self.rows, self.cells, self.targets, self.goals, np.asarray(self.option_prior))


def free_cells(rows: Sequence[str]) -> tuple[Cell, ...]:
    """The cells of a map that are no walls, row by row, as `(x, y)`."""
    return tuple((x, y) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark != WALL)


def moved(rows: Sequence[str], cell: Cell, move: Cell) -> Cell:
    """Where a move leads; a wall stops it."""
    x, y = cell[0] + move[0], cell[1] + move[1]
    return cell if rows[y][x] == WALL else (x, y)


def distances(rows: Sequence[str], target: Cell) -> dict[Cell, int]:
    """The steps of a shortest path to `target`, for every cell that has one."""
    found, queue = {target: 0}, deque([target])
    while queue:
        cell = queue.popleft()
        for move in (UP, LEFT, RIGHT, DOWN):
            near = moved(rows, cell, move)
            if near not in found:
                found[near] = found[cell] + 1
                queue.append(near)
    return found


def shortest_path_prior(
    rows: Sequence[str],
    cells: Sequence[Cell],
    targets: Sequence[Cell],
    moves: Sequence[Cell],
    sharpness: float,
) -> np.ndarray:
    """Priors `(cells, options, moves)`: option z takes a move with odds `e^{-sharpness d}`.

    d is the distance to the option's target from where the move leads.
    """
    prior = np.zeros((len(cells), len(targets), len(moves)))
    for option, target in enumerate(targets):
        left = distances(rows, target)
        for place, cell in enumerate(cells):
            away = np.asarray([left[moved(rows, cell, move)] for move in moves])
            odds = np.exp(-sharpness * (away - away.min()))
            prior[place, option] = odds / odds.sum()
    return prior


Sharpness = Annotated[float, above(0)]


@checks_parameters
def four_rooms(
    goal: tuple[Annotated[int, at_least(0)], ...] = FOUR_ROOMS_GOAL,
    goal_reward: float = 10.0,
    slip: Probability = 1 / 3,
    sharpness: Sharpness = 1.0,
    time_limit: Steps = 100,
) -> Rooms:
    """One agent in four rooms that are joined by hallways; its four options lead to the hallways.

    The gridworld of Sutton, Precup and Singh (1999, "Between MDPs and semi-MDPs", section 2), 13 x 13 with
    104 free cells. Actions are up, left, right and down. A move goes astray with probability `slip`, in each
    of the other three directions equally often, and a wall stops it. At the goal any action pays and ends the
    episode, in a last state that is no cell. Episodes start in any other cell. Option z takes an action a
    with odds `e^{-sharpness d}`, where d is the distance to hallway z from the cell that a leads to.

    Args:
        goal: `(x, y)`, a free cell; x counts from the left, y from the top.
        goal_reward: what an action there pays.
        slip: probability that a move goes astray.
        sharpness: how strictly options take shortest paths.
        time_limit: steps until truncation.

    Raises:
        BadInputError: if the goal is a wall or outside, or for a parameter that is out of its range.
    """
    cells, moves = free_cells(FOUR_ROOMS), (UP, LEFT, RIGHT, DOWN)
    if tuple(goal) not in cells:
        raise BadInputError(f"goal must be a free cell (x, y) such as {FOUR_ROOMS_GOAL}, not {tuple(goal)}")
    index = {cell: number for number, cell in enumerate(cells)}
    at_goal, end = index[(goal[0], goal[1])], len(cells)
    transition = np.zeros((end + 1, len(moves), end + 1))
    for cell, action, move in np.ndindex(end, len(moves), len(moves)):
        chance = 1 - slip if move == action else slip / (len(moves) - 1)
        transition[cell, action, index[moved(FOUR_ROOMS, cells[cell], moves[move])]] += chance
    transition[[at_goal, end]] = np.eye(end + 1)[end]
    reward = np.zeros((end + 1, len(moves)))
    reward[at_goal] = goal_reward
    start = np.full(end + 1, 1 / (end - 1))
    start[[at_goal, end]] = 0
    cells = (*cells, cells[at_goal])  # where the agent is drawn when the episode has ended
    terminal = np.arange(end + 1) == end
    game = team_mdp(transition, reward, start=start, terminal=terminal, time_limit=time_limit)
    prior = shortest_path_prior(FOUR_ROOMS, cells, HALLWAYS, moves, sharpness)
    return Rooms(
        **fields_of(with_options(game, [prior])),
        rows=FOUR_ROOMS,
        cells=(cells,),
        targets=(HALLWAYS,),
        goals=((goal[0], goal[1]),),
    )


def doors_step(
    rows: Sequence[str], cells: tuple[Cell, Cell], moves: tuple[Cell, Cell], reward: float
) -> tuple[tuple[Cell, Cell], float]:
    """Where both agents are after their moves, and what is paid; see `buttons_and_doors`."""
    starts, buttons, doors = (marked(rows, mark) for mark in "sbd")
    if any(cells[agent] == doors[agent] and cells[1 - agent] == buttons[1 - agent] for agent in range(2)):
        return (starts[0], starts[1]), reward
    first, second = (moved(rows, cell, move) for cell, move in zip(cells, moves, strict=True))
    return (first, second), 0.0


def marked(rows: Sequence[str], mark: str) -> tuple[Cell, ...]:
    """The cells with a mark, from left to right."""
    return tuple(sorted(cell for cell in free_cells(rows) if rows[cell[1]][cell[0]] == mark))


@checks_parameters
def buttons_and_doors(door_reward: float = 4.0, sharpness: Sharpness = 2.0, time_limit: Steps = 30) -> Rooms:
    """Two agents in a room each: the door of one is open while the other stands on its button.

    Each room has 3 x 2 cells with a start, a button and a door, as far from the start as the button. Actions
    are up, left, right, down and stay. While one agent is at its door and the other on its button, the open
    door pays and both start again, whatever they do. Options are "to the button" (0) and "to the door" (1):
    they take an action a with odds `e^{-sharpness d}`, where d is the distance to go after a. Agents see both
    positions, but not the option that the other follows: in the start cell only a message tells whether it
    will go to its button or to its door, and one of each is needed.

    Args:
        door_reward: what an open door pays.
        sharpness: how strictly options take shortest paths.
        time_limit: steps until truncation.

    Raises:
        BadInputError: for a parameter that is out of its range.
    """
    rows, moves = BUTTONS_AND_DOORS, (UP, LEFT, RIGHT, DOWN, STAY)
    everywhere = sorted(free_cells(rows))
    rooms = everywhere[: len(everywhere) // 2], everywhere[len(everywhere) // 2 :]
    pairs = [(first, second) for first in rooms[0] for second in rooms[1]]
    index = {pair: number for number, pair in enumerate(pairs)}
    shape = (len(pairs), len(moves), len(moves))
    following, reward = np.zeros(shape, int), np.zeros(shape)
    for state, first, second in np.ndindex(shape):
        after, paid = doors_step(rows, pairs[state], (moves[first], moves[second]), door_reward)
        following[state, first, second], reward[state, first, second] = index[after], paid
    starts, buttons, doors = (marked(rows, mark) for mark in "sbd")
    game = team_mdp(
        np.eye(len(pairs))[following],
        reward,
        start=np.eye(len(pairs))[index[(starts[0], starts[1])]],
        time_limit=time_limit,
    )
    cells = tuple(tuple(pair[agent] for pair in pairs) for agent in range(2))
    targets = tuple((buttons[agent], doors[agent]) for agent in range(2))
    priors = [shortest_path_prior(rows, *pair, moves, sharpness) for pair in zip(cells, targets, strict=True)]
    return Rooms(**fields_of(with_options(game, priors)), rows=rows, cells=cells, targets=targets)
