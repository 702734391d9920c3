"""A comparison of algorithms on tasks: finished runs, what they are measured by, and their scores.

Aggregates over tasks need every algorithm on every task. Where pairs are missing they are made from the
largest part of the comparison that is complete, see `complete_part`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmarl_fac.report.curves import last_returns

#: Points of sample efficiency curves, evenly spread over the training budget.
GRID = 21


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """All seeds of one algorithm on one task.

    Attributes:
        algorithm: its id.
        task: the game's id.
        seeds: seed numbers.
        env_steps: `(evaluations,)`, at which the greedy policy was evaluated.
        returns: `(evaluations, seeds)` mean returns of these evaluations.
        seconds: wall-clock time of all seeds together; None if it was not recorded.
        elapsed: `(evaluations,)` seconds at the evaluations; None if they were not recorded.
    """

    algorithm: str
    task: str
    seeds: tuple[int, ...]
    env_steps: np.ndarray
    returns: np.ndarray
    seconds: float | None = None
    elapsed: np.ndarray | None = None

    @property
    def last(self) -> np.ndarray:
        """Each seed's last return `(seeds,)`, see `curves.last_returns`."""
        return last_returns(self.returns)


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """By what returns on a task are normalised: `low` becomes 0 and `high` becomes 1.

    Attributes:
        low: a return.
        high: a larger one, unless all algorithms earn the same.
        known: whether they are random play's and the optimum, not the comparison's own worst and best.
    """

    low: float
    high: float
    known: bool

    def normalise(self, returns: np.ndarray) -> np.ndarray:
        """Returns as scores; of games in which all algorithms earn the same, 1 is that return."""
        if self.high <= self.low:
            return 1 + (returns - self.high)
        return (returns - self.low) / (self.high - self.low)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Finished runs and what is made of them.

    Attributes:
        algorithms: ids, in the order of the report.
        tasks: ids, likewise.
        runs: by algorithm and task; some pairs may be missing.
        yardsticks: of every task.
        left_out: pairs that do not work, with the reason.
        failed: pairs that diverged or could not be finished, with the reason.
    """

    algorithms: tuple[str, ...]
    tasks: tuple[str, ...]
    runs: Mapping[tuple[str, str], FinishedRun]
    yardsticks: Mapping[str, Yardstick]
    left_out: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    failed: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    def of_task(self, task: str) -> dict[str, FinishedRun]:
        """The runs on a task by algorithm."""
        return {name: self.runs[name, task] for name in self.algorithms if (name, task) in self.runs}


@dataclasses.dataclass(frozen=True)
class CompletePart:
    """Algorithms that all have a run on each of some tasks, with as many seeds.

    Attributes:
        algorithms: ids.
        tasks: ids.
        seeds: number of seeds of each run that count, its first ones.
        scores: by algorithm, `(seeds, tasks)`: normalised last returns.
        curves: by algorithm, `(GRID, seeds, tasks)`: normalised returns at even shares of the task's steps.
    """

    algorithms: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: int
    scores: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]


def yardstick(runs: Sequence[FinishedRun], random: float | None, optimum: float | None) -> Yardstick:
    """Random play and the optimum where both are known, else the worst and the best mean last return.

    Args:
        runs: of all algorithms on the task.
        random: the mean return of random play, or None.
        optimum: the best return, or None.
    """
    if random is not None and optimum is not None and optimum > random:
        return Yardstick(random, optimum, True)
    means = [float(np.mean(run.last)) for run in runs]
    return Yardstick(min(means), max(means), False)


def complete_part(comparison: Comparison) -> CompletePart | None:
    """The largest part in which every algorithm has a finite run on every task; None if there is no pair.

    Of the sets of tasks that some algorithm has runs on, and the tasks that all have in common, it is the one
    with most pairs of those tasks and the algorithms that have them all; the one with more algorithms of two
    that are as large.
    """
    finite = {pair for pair, run in comparison.runs.items() if np.isfinite(run.returns).all()}
    tasks_of = {
        name: frozenset(task for task in comparison.tasks if (name, task) in finite)
        for name in comparison.algorithms
    }
    tasks_of = {name: tasks for name, tasks in tasks_of.items() if tasks}
    if not tasks_of:
        return None
    options = [*tasks_of.values(), frozenset.intersection(*tasks_of.values())]

    def members(tasks: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for name, own in tasks_of.items() if own >= tasks)

    chosen = max(options, key=lambda tasks: (len(tasks) * len(members(tasks)), len(members(tasks))))
    algorithms = members(chosen)
    tasks = tuple(task for task in comparison.tasks if task in chosen)
    runs = {pair: comparison.runs[pair] for pair in ((name, task) for name in algorithms for task in tasks)}
    seeds = min(len(run.seeds) for run in runs.values())
    budget = {task: min(runs[name, task].env_steps[-1] for name in algorithms) for task in tasks}

    def score(name: str, task: str) -> np.ndarray:  # (seeds,)
        return comparison.yardsticks[task].normalise(runs[name, task].last[:seeds])

    def curve(name: str, task: str) -> np.ndarray:  # (GRID, seeds)
        run, steps = runs[name, task], np.linspace(0, budget[task], GRID)
        columns = [np.interp(steps, run.env_steps, column) for column in run.returns[:, :seeds].T]
        return comparison.yardsticks[task].normalise(np.stack(columns, axis=1))

    return CompletePart(
        algorithms,
        tasks,
        seeds,
        {name: np.stack([score(name, task) for task in tasks], axis=1) for name in algorithms},
        {name: np.stack([curve(name, task) for task in tasks], axis=2) for name in algorithms},
    )
