"""Intervals and aggregates over seeds, on the host in float64.

Follows the recommendations of rliable (Agarwal et al. 2021): interquartile means, percentile
bootstrap over runs, stratified by task, and the probability of improvement.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from envs.errors import BadInputError

#: Share of the values that the interquartile mean drops at either end.
TRIM = 0.25
#: Numbers that a bootstrap resamples at a time.
MOST_RESAMPLED = 10_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; NaN where a bound is not known."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """`{"value", "low", "high"}` as plain floats; None where not finite, for JSON has no NaN."""
        return {
            name: float(number) if math.isfinite(number) else None
            for name, number in dataclasses.asdict(self).items()
        }


def iqm(values: ArrayLike, axis: int | None = 0) -> np.ndarray:
    """The interquartile mean: the mean of what is left without floor(N / 4) values at either end.

    Args:
        values: any shape; `axis=None` takes all values together, rliable's IQM over runs and tasks.
        axis: the axis of the N values, usually seeds.

    Returns:
        `values`' shape without `axis`, float64. NaN where one of the N values is NaN: a seed that
        diverged is not trimmed away as if it were the largest.

    Raises:
        BadInputError: if there is no value.
    """
    table = _floats(values, "values")
    # Older scipy sorts NaN to the end and trims it.
    return np.where(np.isnan(table).any(axis), np.nan, stats.trim_mean(table, TRIM, axis=axis))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a success probability.

    Raises:
        BadInputError: for no trials, or for successes below 0 or above `trials`.
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
    """A percentile bootstrap interval over seeds; the same input gives the same interval.

    Args:
        values: `(seeds,)`, or with `strata` `(seeds, tasks)`.
        statistic: called as `statistic(array, axis=-1)` on resamples of all values.
        confidence: between 0 and 1.
        resamples: how many.
        seed: of the resampling.
        strata: resample the seeds of every task on their own, then take the statistic over all seeds
            and tasks together (rliable's stratified bootstrap over runs).

    Returns:
        One seed gives no spread: low = high = value. NaN bounds if a value is not finite.

    Raises:
        BadInputError: for values of another rank, none at all, or a confidence outside (0, 1).
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
        tuple(table.T) if strata else (table,),  # scipy resamples every sample of the tuple on its own
        lambda *columns, axis: statistic(np.concatenate(columns, axis=axis), axis=axis),
        n_resamples=resamples,
        # All at once if they are few numbers; a million values would need 16 GB.
        batch=None if resamples * table.size <= MOST_RESAMPLED else max(1, MOST_RESAMPLED // table.size),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",  # BCa, scipy's default, fails when all values are equal
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(bounds.low), float(bounds.high))


def learning_curve(
    metric: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The IQM over seeds of every evaluation, with a percentile bootstrap interval.

    Args:
        metric: `(evaluations, seeds)`.
        confidence: between 0 and 1.
        resamples: how many.
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
    # scipy.stats.bootstrap takes seconds for 100 evaluations of 256 seeds, because it draws and trims
    # afresh for each. Seeds are exchangeable, so one draw of *ranks* serves every evaluation, and the
    # IQM of a resample is then a weighted sum of the sorted values: one matrix product.
    ranked = np.sort(table, axis=1)
    finite = np.isfinite(ranked).all(axis=1)
    weights = _iqm_weights(ranked.shape[1], resamples, seed)  # (resamples, seeds)
    draws = np.where(finite[:, None], ranked, 0.0) @ weights.T  # (evaluations, resamples)
    tail = (1 - confidence) / 2
    low, high = np.where(finite, np.quantile(draws, [tail, 1 - tail], axis=1), np.nan)
    return iqm(table, axis=1), low, high


def _iqm_weights(size: int, resamples: int, seed: int) -> np.ndarray:
    """How much each of `size` sorted values weighs in the IQM of each resample: `(resamples, size)`."""
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    upto = np.cumsum(counts, axis=1)  # (resamples, size), how many drawn values have this rank or less
    dropped = int(TRIM * size)
    kept = np.clip(upto, dropped, size - dropped) - np.clip(upto - counts, dropped, size - dropped)
    return kept / (size - 2 * dropped)


def probability_of_improvement(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How probable it is that a run of `x` beats a run of `y`: Mann-Whitney's U / (n m), ties count half.

    Args:
        x: `(n,)`, one value for each seed of the one algorithm; more is better.
        y: `(m,)`, of the other.
        confidence: between 0 and 1.
        resamples: how many; `x` and `y` are resampled on their own.
        seed: of the resampling.

    Raises:
        BadInputError: if `x` or `y` is not of rank 1, is empty or holds NaN.
    """
    first, second = _floats(x, "x"), _floats(y, "y")
    for name, runs in (("x", first), ("y", second)):
        if runs.ndim != 1 or np.isnan(runs).any():
            raise BadInputError(f"{name} must be one number (not NaN) for each seed, shape (seeds,)")
    _check_confidence(confidence)
    wins = np.where(first[:, None] == second, 0.5, first[:, None] > second)  # (n, m)
    # A resample only changes how often each run counts: two small matrix products instead of
    # `resamples` times n m comparisons.
    rng = np.random.default_rng(seed)
    n, m = wins.shape
    often_x = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n  # (resamples, n)
    often_y = rng.multinomial(m, np.full(m, 1 / m), size=resamples) / m  # (resamples, m)
    tail = (1 - confidence) / 2
    low, high = np.quantile(((often_x @ wins) * often_y).sum(axis=1), [tail, 1 - tail])
    return Interval(float(wins.mean()), float(low), float(high))


def _floats(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as float64, at least one."""
    table = np.asarray(values, dtype=np.float64)
    if table.size == 0 or table.ndim == 0:
        raise BadInputError(f"{name} (shape {table.shape}) must hold a number for each of one or more seeds")
    return table


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise BadInputError(f"confidence must lie between 0 and 1, such as 0.95, not {confidence}")
