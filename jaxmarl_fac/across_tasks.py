"""Comparisons of algorithms over several tasks: aggregates, profiles, ranks, and their bootstrap intervals.

Follows rliable (Agarwal et al., Deep RL at the Edge of the Statistical Precipice, 2021): every interval is a
percentile bootstrap that resamples the seeds of each task by themselves. Scores are `(seeds, tasks)`,
normalised so that tasks can be averaged.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from envs.errors import BadInputError
from jaxmarl_fac.statistics import MAX_RESAMPLED, Interval, iqm

#: Mean scores that differ by less share a rank.
SAME_SCORE_DECIMALS = 9
#: Level of all intervals.
CONFIDENCE = 0.95
#: Lower and upper tail of the intervals.
TAILS = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)


def optimality_gap(scores: ArrayLike, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """The mean amount by which scores fall short of 1, those above 1 counting as 1."""
    return np.asarray(np.mean(np.maximum(0.0, 1.0 - np.asarray(scores, np.float64)), axis=axis))


def aggregate(
    scores: ArrayLike, statistic: Callable[..., np.ndarray] = iqm, resamples: int = 2000, seed: int = 0
) -> Interval:
    """A statistic of all runs on all tasks, with its stratified bootstrap interval.

    Args:
        scores: `(seeds, tasks)`.
        statistic: called as `statistic(array, axis=-1)` on the runs of all tasks together.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        BadInputError: for another shape, or a score that is not finite.

    Example:
        >>> aggregate([[0.0, 1.0], [0.0, 1.0]], np.mean)  # every seed alike: nothing is uncertain
        Interval(value=0.5, low=0.5, high=0.5)
    """
    table = _scores(scores)
    draws = [statistic(_pooled(draw), axis=-1) for draw in _resampled(table, resamples, seed)]
    return _interval(float(statistic(table.reshape(-1), axis=-1)), np.concatenate(draws))


def performance_profile(
    scores: ArrayLike, thresholds: ArrayLike, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fraction of runs, over all tasks, whose score is above each threshold (section 4.2).

    Args:
        scores: `(seeds, tasks)`.
        thresholds: `(K,)`.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        `(centre, low, high)`, each `(K,)`.

    Raises:
        BadInputError: as `aggregate`.
    """
    table, at = _scores(scores), np.asarray(thresholds, np.float64)

    def above(pooled: np.ndarray) -> np.ndarray:  # (R, runs) -> (R, K)
        return np.stack([(pooled > threshold).mean(axis=-1) for threshold in at], axis=-1)

    draws = np.concatenate([above(_pooled(draw)) for draw in _resampled(table, resamples, seed)])
    low, high = np.quantile(draws, TAILS, axis=0)
    return above(table.reshape(1, -1))[0], low, high


def sample_efficiency(
    curves: ArrayLike, resamples: int = 500, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The IQM over all runs and tasks at every evaluation.

    Args:
        curves: `(evaluations, seeds, tasks)`.
        resamples: number of resamples; one set of them serves all evaluations.
        seed: of the resampling.

    Returns:
        `(centre, low, high)`, each `(evaluations,)`.

    Raises:
        BadInputError: as `aggregate`.
    """
    table = np.asarray(curves, np.float64)
    if table.ndim != 3:
        raise BadInputError(f"curves have shape {table.shape}: they must be (evaluations, seeds, tasks)")
    intervals = [aggregate(scores, iqm, resamples, seed) for scores in table]
    centre, low, high = np.asarray([[each.value, each.low, each.high] for each in intervals]).T
    return centre, low, high


def improvement_over_tasks(x: ArrayLike, y: ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """The probability that a run of `x` beats one of `y` on the same task, averaged over tasks.

    On each task it is Mann and Whitney's U / (n m); ties count half (section 4.3).

    Args:
        x: `(n, tasks)`.
        y: `(m, tasks)`.
        resamples: number of resamples; both are resampled independently.
        seed: of the resampling.

    Raises:
        BadInputError: as `aggregate`, or if the numbers of tasks differ.
    """
    first, second = _scores(x), _scores(y)
    if first.shape[1] != second.shape[1]:
        raise BadInputError(
            f"scores on {first.shape[1]} and on {second.shape[1]} tasks: both must be on the same tasks"
        )
    wins = np.where(first[:, None] == second, 0.5, first[:, None] > second)  # (n, m, tasks)
    # A resample only changes the weights of the runs, see `statistics.probability_of_improvement`.
    n, m, tasks = wins.shape
    generator = np.random.default_rng(seed)
    draws = np.zeros(resamples)
    for task in range(tasks):
        weights_x = generator.multinomial(n, np.full(n, 1 / n), size=resamples) / n
        weights_y = generator.multinomial(m, np.full(m, 1 / m), size=resamples) / m
        draws += ((weights_x @ wins[..., task]) * weights_y).sum(axis=1) / tasks
    return _interval(float(wins.mean()), draws)


def average_ranks(
    scores: Mapping[str, ArrayLike], resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Each algorithm's rank by its mean score on a task, averaged over tasks; 1 is the best, ties share.

    Args:
        scores: by algorithm, `(seeds, tasks)` with the same number of tasks.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        BadInputError: as `aggregate`, or if the numbers of tasks differ.
    """
    tables = {name: _scores(table) for name, table in scores.items()}
    if len({table.shape[1] for table in tables.values()}) != 1:
        raise BadInputError("ranks need scores of one or more algorithms on the same tasks")

    def ranks(means: np.ndarray) -> np.ndarray:  # (algorithms, R, tasks) -> (algorithms, R)
        rounded = np.round(means, SAME_SCORE_DECIMALS)
        return np.asarray(stats.rankdata(-rounded, method="average", axis=0)).mean(axis=-1)

    centres = ranks(np.stack([table.mean(axis=0)[None] for table in tables.values()]))[:, 0]
    means = [
        np.concatenate([draw.mean(axis=1) for draw in _resampled(table, resamples, seed + index)])
        for index, table in enumerate(tables.values())
    ]
    return {
        name: _interval(float(centre), draws)
        for name, centre, draws in zip(tables, centres, ranks(np.stack(means)), strict=True)
    }


def _scores(values: ArrayLike) -> np.ndarray:
    """Scores as a float64 table `(seeds, tasks)`."""
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise BadInputError(f"scores have shape {table.shape}: they must be (seeds, tasks), not empty")
    if not np.isfinite(table).all():
        raise BadInputError("scores must be finite numbers: leave out the runs that diverged")
    return table


def _resampled(table: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Resamples `(R, seeds, tasks)` of `(seeds, tasks)`, the seeds of each task drawn by themselves."""
    generator = np.random.default_rng(seed)
    block = max(1, MAX_RESAMPLED // table.size)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        index = generator.integers(len(table), size=(count, *table.shape))
        yield np.take_along_axis(table[None], index, axis=1)


def _pooled(draws: np.ndarray) -> np.ndarray:
    """The runs of all tasks together, `(R, seeds * tasks)`."""
    return draws.reshape(len(draws), -1)


def _interval(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, TAILS)
    return Interval(value, float(low), float(high))
