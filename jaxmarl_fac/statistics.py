"""Aggregates and confidence intervals over seeds, on the host in float64.

Follows the recommendations of rliable (Agarwal et al., 2021): interquartile means, percentile bootstrap over
runs stratified by task, and the probability of improvement.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from envs.errors import BadInputError
from envs.lazy import lazily

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = lazily("scipy.stats")  # .3 s, and a run with few seeds needs none of it

#: Fraction of the values that the interquartile mean drops at each end.
TRIM = 0.25
#: Numbers that a bootstrap resamples in one batch.
MAX_RESAMPLED = 10_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; NaN bounds are unknown."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """`{"value", "low", "high"}` as floats; None where not finite, because JSON has no NaN."""
        return {
            name: float(number) if math.isfinite(number) else None
            for name, number in dataclasses.asdict(self).items()
        }


def iqm(values: ArrayLike, axis: int | None = 0) -> np.ndarray:
    """The interquartile mean: the mean without the floor(N / 4) lowest and highest of N values.

    Args:
        values: any shape; `axis=None` aggregates all values, rliable's IQM over runs and tasks.
        axis: the axis of the N values, usually seeds.

    Returns:
        The shape of `values` without `axis`, float64. NaN where one of the N values is NaN: a diverged seed
        is not trimmed away as if it were the largest.

    Raises:
        BadInputError: if there are no values.
    """
    table = _floats(values, "values")
    if int(TRIM * (table.size if axis is None else table.shape[axis])) == 0:  # nothing is trimmed
        return np.asarray(table.mean(axis))
    # Older versions of scipy sort NaN to the end and trim it.
    return np.where(np.isnan(table).any(axis), np.nan, stats.trim_mean(table, TRIM, axis=axis))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a success probability.

    Raises:
        BadInputError: if there are no trials, or `successes` is not between 0 and `trials`.
    """
    if trials < 1:
        raise BadInputError(f"a success rate needs at least one trial, not {trials}")
    if not 0 <= successes <= trials:
        raise BadInputError(f"successes must be between 0 and the {trials} trials, not {successes}")
    _check_confidence(confidence)
    test = stats.binomtest(int(successes), int(trials))
    bounds = test.proportion_ci(confidence, method="wilson")
    return Interval(successes / trials, float(bounds.low), float(bounds.high))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., np.ndarray] = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    strata: bool = False,
) -> Interval:
    """A percentile bootstrap interval over seeds; deterministic.

    Args:
        values: `(seeds,)`, or with `strata` `(seeds, tasks)`.
        statistic: called as `statistic(array, axis=-1)` on resamples of all values.
        confidence: level of the interval, between 0 and 1.
        resamples: number of resamples.
        seed: of the resampling.
        strata: resample the seeds of each task separately, then apply the statistic to all seeds and tasks
            together (rliable's stratified bootstrap over runs).

    Returns:
        The interval. With one seed low = high = value; the bounds are NaN if a value is not finite.

    Raises:
        BadInputError: if `values` is empty or has another rank, or `confidence` is outside (0, 1).

    Example:
        >>> interval = bootstrap_interval([7, 8, 8, 0, 8, 8, 7, 8])  # the interquartile mean of 8 seeds
        >>> print(f"{interval.value} [{interval.low}, {interval.high}]")
        7.75 [5.5, 8.0]
    """
    table = _floats(values, "values")
    if table.ndim != (2 if strata else 1):
        right = "(seeds, tasks) with strata" if strata else "(seeds,), or (seeds, tasks) with strata=True"
        raise BadInputError(f"values to resample have shape {table.shape}: they must be {right}")
    _check_confidence(confidence)
    value = float(statistic(table.reshape(-1), axis=-1))
    if not np.isfinite(table).all():
        return Interval(value, math.nan, math.nan)
    if len(table) == 1:  # scipy refuses to resample a single value
        return Interval(value, value, value)
    bounds = stats.bootstrap(
        tuple(table.T) if strata else (table,),  # scipy resamples each sample of the tuple separately
        lambda *columns, axis: statistic(np.concatenate(columns, axis=axis), axis=axis),
        n_resamples=resamples,
        # In one batch if the numbers are few; a million values would need 16 GB.
        batch=None if resamples * table.size <= MAX_RESAMPLED else max(1, MAX_RESAMPLED // table.size),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",  # BCa, scipy's default, fails when all values are equal
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(bounds.low), float(bounds.high))


def learning_curve(
    metric: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The IQM over seeds at every evaluation, with percentile bootstrap intervals.

    Args:
        metric: `(evaluations, seeds)`.
        confidence: level of the intervals, between 0 and 1.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        `(centre, low, high)`, each `(evaluations,)` float64. `low` and `high` are NaN at evaluations
        where a seed is not finite; with one seed they equal `centre`.

    Raises:
        BadInputError: if `metric` is not of rank 2 or is empty.
    """
    table = _floats(metric, "metric")
    if table.ndim != 2:
        raise BadInputError(f"a learning curve has shape (evaluations, seeds), not {table.shape}")
    _check_confidence(confidence)
    # scipy.stats.bootstrap takes seconds for 100 evaluations of 256 seeds, because it resamples and trims
    # for each of them. Seeds are exchangeable, so one set of resampled *ranks* serves every evaluation, and
    # the IQM of a resample is a weighted sum of the sorted values: one matrix product for all.
    ranked = np.sort(table, axis=1)
    finite = np.isfinite(ranked).all(axis=1)
    weights = _iqm_weights(ranked.shape[1], resamples, seed)  # (resamples, seeds)
    draws = np.where(finite[:, None], ranked, 0.0) @ weights.T  # (evaluations, resamples)
    tail = (1 - confidence) / 2
    low, high = np.where(finite, np.quantile(draws, [tail, 1 - tail], axis=1), np.nan)
    return iqm(table, axis=1), low, high


def _iqm_weights(size: int, resamples: int, seed: int) -> np.ndarray:
    """Weights of `size` sorted values in the IQM of each resample, `(resamples, size)`."""
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    cumulative = np.cumsum(counts, axis=1)  # (resamples, size), number of drawn values up to this rank
    dropped = int(TRIM * size)
    bounds = dropped, size - dropped
    kept = np.clip(cumulative, *bounds) - np.clip(cumulative - counts, *bounds)
    return kept / (size - 2 * dropped)


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Probability that a run of `x` beats a run of `y`: Mann-Whitney's U / (n m), ties count half.

    Args:
        x: `(n,)`, one value per seed of one algorithm; more is better.
        y: `(m,)`, of another algorithm.
        confidence: level of the interval, between 0 and 1.
        resamples: number of resamples; `x` and `y` are resampled independently.
        seed: of the resampling.

    Raises:
        BadInputError: if `x` or `y` is not of rank 1, is empty or contains NaN.
    """
    first, second = _floats(x, "x"), _floats(y, "y")
    for name, runs in (("x", first), ("y", second)):
        if runs.ndim != 1 or np.isnan(runs).any():
            raise BadInputError(f"{name} must be one number (not NaN) for each seed, shape (seeds,)")
    _check_confidence(confidence)
    wins = np.where(first[:, None] == second, 0.5, first[:, None] > second)  # (n, m)
    # A resample only changes the weights of the runs: two small matrix products instead of `resamples`
    # times n m comparisons.
    rng = np.random.default_rng(seed)
    n, m = wins.shape
    weights_x = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n  # (resamples, n)
    weights_y = rng.multinomial(m, np.full(m, 1 / m), size=resamples) / m  # (resamples, m)
    tail = (1 - confidence) / 2
    low, high = np.quantile(((weights_x @ wins) * weights_y).sum(axis=1), [tail, 1 - tail])
    return Interval(float(wins.mean()), float(low), float(high))


def _floats(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as a float64 array that is not empty."""
    table = np.asarray(values, dtype=np.float64)
    if table.size == 0 or table.ndim == 0:
        raise BadInputError(f"{name} (shape {table.shape}) must hold a number for each of one or more seeds")
    return table


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise BadInputError(f"confidence must lie between 0 and 1, such as 0.95, not {confidence}")
