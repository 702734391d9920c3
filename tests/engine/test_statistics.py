import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from envs.errors import BadInputError
from jaxmarl_fac import statistics
from jaxmarl_fac.statistics import (
    Interval,
    bootstrap_interval,
    iqm,
    learning_curve,
    probability_of_improvement,
    wilson_interval,
)

# IQM


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (range(1, 9), 4.5),
        ([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], 2 / 3),
        ([-100, 3, 5, 1000], 4),  # 4 runs: the mean of the middle 2
        ([1, 2, 6], 3),  # 3 runs: nothing is dropped
        ([7], 7),
    ],
)
def test_iqm(values, expected):
    assert iqm(values) == pytest.approx(expected)
    assert iqm(list(values)[::-1]) == pytest.approx(expected)


def test_iqm_along_an_axis_and_over_all_runs_and_tasks():
    scores = np.array([[1.0, 10], [2, 20], [3, 30], [400, 40]])  # (seeds, tasks)
    np.testing.assert_allclose(iqm(scores), [2.5, 25])
    np.testing.assert_allclose(iqm(scores, axis=1), [5.5, 11, 16.5, 220])
    assert iqm(scores, axis=None) == pytest.approx((3 + 10 + 20 + 30) / 4)


def test_iqm_does_not_hide_a_seed_that_diverged():
    assert np.isnan(iqm([1, 2, 3, math.nan]))
    np.testing.assert_array_equal(iqm([[1, 1], [1, 2], [1, 3], [math.nan, 4]]), [math.nan, 2.5])


def test_iqm_of_nothing():
    with pytest.raises(BadInputError, match="one or more seeds"):
        iqm([])


# Interval


def test_interval_to_json_has_plain_numbers_and_no_nan():
    interval = Interval(np.float32(0.5), math.nan, np.float64(math.inf))
    written = interval.to_json()
    assert written == {"value": 0.5, "low": None, "high": None}
    assert type(written["value"]) is float
    assert json.loads(json.dumps(written, allow_nan=False)) == written


# Wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        # With z = 1.959964: no success gives (0, z^2 / (n + z^2)), only successes its mirror image.
        (0, 10, 0, 0.2775328),
        (10, 10, 0.7224672, 1),
        (48, 48, 0.9258998, 1),
    ],
)
def test_wilson_interval(successes, trials, low, high):
    interval = wilson_interval(successes, trials)
    assert interval.value == successes / trials
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-6)


def test_wilson_interval_by_its_formula():
    p, n, z = 115 / 310, 310, stats.norm.ppf(0.95)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    interval = wilson_interval(np.int64(115), np.int64(310), confidence=0.9)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_of_impossible_counts(successes, trials):
    with pytest.raises(BadInputError):
        wilson_interval(successes, trials)


# Bootstrap


def test_bootstrap_interval_of_iqm_has_the_exact_distribution_s_quantiles():
    # The IQM of 4 draws from (0, 0, 0, 10) is the mean of the middle two. With k tens among them,
    # k ~ Bin(4, 1/4), it is 0 for k <= 1 (p = .738), 5 for k = 2 (.211), 10 for k >= 3 (.051).
    values = [0, 0, 10, 0]
    assert bootstrap_interval(values) == Interval(0, 0, 10)
    assert bootstrap_interval(values, confidence=0.8) == Interval(0, 0, 5)
    assert bootstrap_interval(values, confidence=0.4) == Interval(0, 0, 0)


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(1).normal(3, 2, size=400)
    interval = bootstrap_interval(values, statistic=np.mean, resamples=20_000)
    half = 1.959964 * values.std() / math.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03 * half)


def test_bootstrap_interval_is_deterministic_and_leaves_the_global_generator_alone():
    values = np.random.default_rng(0).normal(size=30)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = bootstrap_interval(values), bootstrap_interval(values)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert first == again
    assert bootstrap_interval(values, seed=1) != first


def test_bootstrap_interval_collapses_for_equal_values_and_one_seed():
    assert bootstrap_interval(np.full(12, 0.25)) == Interval(0.25, 0.25, 0.25)
    assert bootstrap_interval([7.5]) == Interval(7.5, 7.5, 7.5)


def test_bootstrap_interval_with_a_diverged_seed():
    interval = bootstrap_interval([1, 2, math.nan, 3])
    assert all(math.isnan(number) for number in (interval.value, interval.low, interval.high))
    interval = bootstrap_interval([1, 2, math.inf, 3])
    assert interval.value == 2.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_strata_are_resampled_on_their_own():
    # Each task always gives the same score: between-task spread is not seed noise.
    constant = np.array([[0.0, 10.0]] * 6)  # (seeds, tasks)
    assert bootstrap_interval(constant, np.mean, strata=True) == Interval(5, 5, 5)
    pooled = bootstrap_interval(constant.reshape(-1), np.mean)
    assert pooled.low < 3
    assert pooled.high > 7


def test_strata_are_resampled_independently():
    # The seed that is best on one task is worst on the other. Resampling whole seeds would always give
    # the mean 5; resampling each task gives 0, 2.5, 5, 7.5, 10 with 1, 4, 6, 4, 1 sixteenths.
    scores = np.array([[0.0, 10.0], [10.0, 0.0]])
    assert bootstrap_interval(scores, np.mean, strata=True) == Interval(5, 0, 10)
    assert bootstrap_interval(scores, np.mean, confidence=0.8, strata=True) == Interval(5, 2.5, 7.5)


@pytest.mark.parametrize(("shape", "strata"), [((3, 2), False), ((3,), True), ((0,), False), ((), False)])
def test_bootstrap_interval_of_a_wrong_shape(shape, strata):
    with pytest.raises(BadInputError, match="seeds"):
        bootstrap_interval(np.zeros(shape), strata=strata)


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_confidence_is_a_probability(confidence):
    for call in (
        lambda: bootstrap_interval([1, 2], confidence=confidence),
        lambda: wilson_interval(1, 2, confidence),
        lambda: learning_curve([[1, 2]], confidence),
        lambda: probability_of_improvement([1], [2], confidence),
    ):
        with pytest.raises(BadInputError, match=r"such as 0\.95"):
            call()


# Learning curves


def test_learning_curve_has_the_exact_distribution_s_quantiles():
    # As in the bootstrap test above; the second evaluation is shifted, in another order of seeds.
    metric = np.array([[0, 0, 10, 0], [11, 1, 1, 1], [3, 3, 3, 3]])
    centre, low, high = learning_curve(metric)
    np.testing.assert_allclose(centre, [0, 1, 3])
    np.testing.assert_allclose(low, [0, 1, 3])
    np.testing.assert_allclose(high, [10, 11, 3])
    np.testing.assert_allclose(learning_curve(metric, confidence=0.8)[2], [5, 6, 3])


def test_learning_curve_agrees_with_bootstrap_interval_at_every_evaluation():
    metric = np.random.default_rng(3).normal(size=(5, 21)) * np.arange(1, 6)[:, None]
    centre, low, high = learning_curve(metric, resamples=20_000)
    for index, values in enumerate(metric):
        expected = bootstrap_interval(values, resamples=20_000)
        width = expected.high - expected.low
        assert centre[index] == pytest.approx(expected.value)
        assert low[index] == pytest.approx(expected.low, abs=0.04 * width)
        assert high[index] == pytest.approx(expected.high, abs=0.04 * width)


def test_learning_curve_of_one_seed_and_of_diverged_seeds():
    for curve in learning_curve([[1.5], [2.5]]):
        np.testing.assert_array_equal(curve, [1.5, 2.5])
    nan, inf = math.nan, math.inf
    centre, low, high = learning_curve([[1, 2, 3, 4], [1, nan, 3, 4], [1, 2, inf, 3]])
    np.testing.assert_array_equal(centre, [2.5, nan, 2.5])
    np.testing.assert_array_equal(np.isnan(low), [False, True, True])
    np.testing.assert_array_equal(np.isnan(high), [False, True, True])


def test_learning_curve_is_fast():
    metric = np.random.default_rng(0).normal(size=(100, 256))
    start = time.process_time()
    centre, low, high = learning_curve(metric)
    assert time.process_time() - start < 1
    assert ((low < centre) & (centre < high)).all()


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_learning_curve_moves_with_its_metric(seeds, seed):
    metric = np.random.default_rng(seed).normal(size=(3, seeds))
    centre, low, high = learning_curve(metric, resamples=200)
    assert (low <= centre + 1e-12).all()
    assert (centre <= high + 1e-12).all()
    for curve, moved in zip((centre, low, high), learning_curve(2 * metric + 1, resamples=200), strict=True):
        np.testing.assert_allclose(moved, 2 * curve + 1, atol=1e-9)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (3, 0), (0, 3)])
def test_learning_curve_of_a_wrong_shape(shape):
    with pytest.raises(BadInputError, match="seeds"):
        learning_curve(np.zeros(shape))


# Probability of improvement


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([3, 4], [1, 2], 1),
        ([1, 2], [3, 4], 0),
        ([5, 5, 5], [5, 5], 0.5),
        ([1, 3], [2], 0.5),
        ([1, 2, 3], [2, 0], 0.75),  # wins 0 1 / .5 1 / 1 1, in all 4.5 of 6
    ],
)
def test_probability_of_improvement(x, y, expected):
    interval = probability_of_improvement(x, y)
    assert interval.value == pytest.approx(expected)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_probability_of_improvement_is_mann_whitney_s_u():
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 6, size=17), rng.integers(0, 5, size=11)
    expected = stats.mannwhitneyu(x, y).statistic / (17 * 11)
    assert probability_of_improvement(x, y).value == pytest.approx(expected)
    assert probability_of_improvement(y, x).value == pytest.approx(1 - expected)


def test_probability_of_improvement_has_the_exact_distribution_s_quantiles():
    # y is one run, so the estimate is the share of ones among 4 draws from (0, 0, 1, 1): Bin(4, 1/2)/4,
    # whose cumulative probabilities are .0625, .3125, .6875, .9375, 1.
    x, y = [0, 2, 0, 2], [1]
    assert probability_of_improvement(x, y) == Interval(0.5, 0, 1)
    assert probability_of_improvement(x, y, confidence=0.8) == Interval(0.5, 0.25, 0.75)
    assert probability_of_improvement(x, y, confidence=0.3) == Interval(0.5, 0.5, 0.5)
    assert probability_of_improvement([3, 3], [1, 2]) == Interval(1, 1, 1)


def test_probability_of_improvement_resamples_both_sides():
    # One run against (0, 1, 2, 3): only y varies.
    interval = probability_of_improvement([1.5], [0, 1, 2, 3], confidence=0.8)
    assert interval == Interval(0.5, 0.25, 0.75)


@pytest.mark.parametrize(("x", "y"), [([], [1]), ([1], []), ([1, math.nan], [1]), ([[1]], [1])])
def test_probability_of_improvement_needs_numbers(x, y):
    with pytest.raises(BadInputError, match="seed"):
        probability_of_improvement(x, y)


def test_many_values_are_resampled_in_parts(monkeypatch):
    """The interval is as wide as with all at once: 1.96 standard errors of the mean to either side."""
    values = np.random.default_rng(0).normal(size=1000)
    monkeypatch.setattr(statistics, "MAX_RESAMPLED", 10_000)
    interval = statistics.bootstrap_interval(values, np.mean)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert interval.low == pytest.approx(interval.value - half, abs=0.1 * half)
    assert interval.high == pytest.approx(interval.value + half, abs=0.1 * half)
