"""Statistics over tasks, against worked numbers and slow references."""

import itertools

import numpy as np
import pytest

from envs.errors import BadInputError
from jaxmarl_fac.across_tasks import (
    aggregate,
    average_ranks,
    improvement_over_tasks,
    optimality_gap,
    performance_profile,
    sample_efficiency,
)
from jaxmarl_fac.statistics import bootstrap_interval, iqm, probability_of_improvement

#: Four seeds on two tasks.
A = np.array([[0.0, 0.5], [0.2, 0.5], [0.4, 0.75], [1.0, 1.0]])
B = np.array([[0.1, 0.5], [0.1, 0.4], [0.1, 0.4], [0.1, 0.4]])


def test_the_optimality_gap_counts_scores_above_1_as_1():
    assert optimality_gap([0.5, 1.0, 1.5, 0.0]) == pytest.approx((0.5 + 0 + 0 + 1) / 4)


def test_aggregates_pool_the_runs_of_all_tasks():
    # Sorted: 0, .2, .4, .5, .5, .75, 1, 1; without two at each end .4, .5, .5, .75.
    assert aggregate(A).value == pytest.approx((0.4 + 0.5 + 0.5 + 0.75) / 4)
    assert aggregate(A, np.mean).value == pytest.approx(A.mean())


def test_every_resample_of_a_tiny_table_is_counted():
    """All 4 x 4 equally likely resamples of 2 seeds on 2 tasks give the distribution that is drawn from."""
    table = np.array([[0.0, 10.0], [1.0, 30.0]])
    pairs = list(itertools.product([0, 1], repeat=2))
    exact = [table[list(one), 0].sum() / 4 + table[list(two), 1].sum() / 4 for one in pairs for two in pairs]
    found = aggregate(table, np.mean, resamples=20_000)
    assert (found.low, found.high) == tuple(np.quantile(exact, [0.025, 0.975], method="inverted_cdf"))


def test_intervals_agree_with_scipys_stratified_bootstrap():
    table = np.random.default_rng(1).normal(size=(12, 3))
    ours, scipys = (
        aggregate(table, iqm, 20_000),
        bootstrap_interval(table, iqm, resamples=20_000, strata=True),
    )
    assert ours.value == scipys.value
    np.testing.assert_allclose([ours.low, ours.high], [scipys.low, scipys.high], atol=0.02)


def test_large_tables_are_resampled_in_blocks(monkeypatch):
    whole = aggregate(A, np.mean, resamples=50)
    monkeypatch.setattr("jaxmarl_fac.across_tasks.MAX_RESAMPLED", 3 * A.size)
    assert aggregate(A, np.mean, resamples=50) == whole


def test_a_profile_is_the_fraction_of_runs_above():
    centre, low, high = performance_profile(A, [-1, 0.0, 0.3, 0.5, 0.99, 1.0])
    np.testing.assert_allclose(centre, [1, 7 / 8, 6 / 8, 3 / 8, 2 / 8, 0])
    slow = [np.mean([score > 0.3 for score in A.reshape(-1)])]
    assert centre[2] == slow[0]
    assert np.all(low <= centre) and np.all(centre <= high)
    assert low[0] == high[0] == 1 and low[-1] == high[-1] == 0


def test_improvement_is_the_mean_over_tasks_of_mann_whitneys_u():
    def slow(task):
        wins = [0.5 if x == y else float(x > y) for x in A[:, task] for y in B[:, task]]
        return np.mean(wins)

    found = improvement_over_tasks(A, B)
    assert found.value == pytest.approx((slow(0) + slow(1)) / 2)
    assert slow(0) == 0.75 and slow(1) == (2 * 3.5 + 8) / 16
    assert improvement_over_tasks(B, A).value == pytest.approx(1 - found.value)
    assert found.low <= found.value <= found.high


def test_on_one_task_it_is_the_probability_of_improvement():
    ours = improvement_over_tasks(A[:, :1], B[:, :1])
    assert ours == probability_of_improvement(A[:, 0], B[:, 0])


def test_ranks_share_ties():
    scores = {"a": [[1.0, 0.0], [1.0, 0.0]], "b": [[0.5, 0.0], [0.5, 0.0]], "c": [[0.5, -1.0], [0.5, -1.0]]}
    ranks = average_ranks(scores)
    # On task 1: 1, 2.5, 2.5; on task 2: 1.5, 1.5, 3. No seed differs, so nothing is uncertain.
    assert {name: rank.value for name, rank in ranks.items()} == {"a": 1.25, "b": 2.0, "c": 2.75}
    assert all(rank.low == rank.value == rank.high for rank in ranks.values())


def test_ranks_add_up_whatever_the_seeds():
    generator = np.random.default_rng(0)
    scores = {name: generator.normal(size=(5, 4)) for name in "abcd"}
    ranks = average_ranks(scores, resamples=100)
    assert sum(rank.value for rank in ranks.values()) == pytest.approx(1 + 2 + 3 + 4)
    assert all(1 <= rank.low <= rank.high <= 4 for rank in ranks.values())


def test_sample_efficiency_is_the_aggregate_at_every_evaluation():
    centre, low, high = sample_efficiency(np.stack([0 * A, A]))
    assert (centre[0], low[0], high[0]) == (0, 0, 0)
    assert centre[1] == aggregate(A).value and low[1] == aggregate(A, resamples=500).low < high[1]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: aggregate([1.0, 2.0]), r"scores have shape \(2,\)"),
        (lambda: aggregate([[np.nan]]), "must be finite"),
        (lambda: sample_efficiency(A), r"curves have shape \(4, 2\)"),
        (lambda: improvement_over_tasks(A, A[:, :1]), "on 2 and on 1 tasks"),
        (lambda: average_ranks({"a": A, "b": A[:, :1]}), "on the same tasks"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(BadInputError, match=message):
        call()
