import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import baselines
from envs.matrix_games import two_step_game
from envs.predator_prey import predator_prey
from jaxmarl_fac.algorithm import Periods, periods
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Episodes, Rollout, Together, Transitions
from jaxmarl_fac.schedule import Schedule, evenly_spread
from jaxmarl_fac.settings import replaced

EXPERIMENT = Experiment(
    algorithm=baselines.make("vdn", learning_starts=10, target_period=7, batch_size=8),
    environment=two_step_game(),
    seeds=(0,),
    env_steps=205,
    evaluations=4,
)


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ({"env_steps": 205, "evaluations": 4}, (0, 52, 103, 154, 205)),
        ({"env_steps": 100, "evaluations": 5, "num_envs": 3}, (0, 7, 14, 21, 28, 34)),
        ({"env_steps": 7, "evaluations": 7}, tuple(range(8))),
        ({"env_steps": 7, "evaluations": 1}, (0, 7)),
        ({"env_steps": 20_000, "evaluations": 3}, (0, 6667, 13334, 20_000)),
    ],
)
def test_evaluation_points(fields, points):
    schedule = dataclasses.replace(EXPERIMENT, **fields).schedule
    assert schedule.eval_iterations == points
    for iteration in range(points[-1]) if points[-1] < 1000 else (0, 6666, 6667, 13334):
        assert schedule.next_evaluation(iteration) == min(point for point in points if point > iteration)


@given(
    warmup=st.integers(0, 50), every=st.integers(1, 9), each=st.integers(1, 4), iteration=st.integers(0, 100)
)
def test_updates_are_those_counted_one_by_one(warmup, every, each, iteration):
    schedule = Schedule(100, warmup, every, each, 0, evenly_spread(100, 1))
    due = [i for i in range(iteration) if i >= warmup and (i - warmup) % every == 0]
    assert schedule.updates(iteration) == each * len(due)


def with_settings(target_period, update_period=1, **fields):
    algorithm = replaced(EXPERIMENT.algorithm, target_period=target_period, update_period=update_period)
    return dataclasses.replace(EXPERIMENT, algorithm=algorithm, **fields)


def test_what_an_experiment_asks_for():
    assert EXPERIMENT.schedule == Schedule(205, 10, 1, 1, 7, (0, 52, 103, 154, 205))
    several = with_settings(target_period=6, num_envs=4, updates_per_step=3).schedule
    assert (several.iterations, several.warmup, several.target_every) == (52, 3, 2)  # 10 / 4 up, 6 / 3
    settings = {"consumes": "episodes", "update_period": 20, "learning_starts": 10}
    episodes = dataclasses.replace(
        EXPERIMENT,
        algorithm=baselines.make("vdn", **settings),
        environment=predator_prey(time_limit=30),
    ).schedule
    assert (episodes.warmup, episodes.update_every) == (29, 20)  # the first episode ends in iteration 29


@pytest.mark.parametrize(("target_period", "updates"), [(7, 3), (2, 4), (10_000, 3)])
def test_targets_are_never_copied_amid_the_updates_of_one_iteration(bad_input, target_period, updates):
    with bad_input(f"target_period must be a multiple of updates_per_step ({updates}), not {target_period}"):
        _ = with_settings(target_period, updates_per_step=updates).schedule


@pytest.mark.parametrize(("target_period", "updates", "update_period"), [(6, 3, 1), (8, 2, 5), (3, 1, 4)])
def test_a_target_period_counts_updates(target_period, updates, update_period):
    """Whatever their number in an iteration, and however seldom such an iteration is."""
    schedule = with_settings(target_period, update_period, updates_per_step=updates).schedule
    begun = schedule.warmup  # copies follow the iterations begun + target_every - 1, ...
    for copies in (1, 2, 3):
        assert schedule.updates(begun + copies * schedule.target_every) == copies * target_period


@pytest.mark.parametrize(
    ("memory", "learning_starts", "update_period", "expected"),
    [
        (Transitions(9, 3), 0, 1, (0, 1)),
        (Transitions(9, 3), 10, 2, (4, 2)),  # 10 steps of 3 environments, rounded up
        (Rollout(), 0, 1, (0, 1)),
        (Rollout(8), 0, 1, (7, 8)),  # the first one is whole in the eighth iteration
        (Rollout(8), 24, 1, (15, 8)),  # 8 iterations of 3 environments: the next one that is whole
        (Rollout(8), 21, 1, (7, 8)),
        (Rollout(8), 0, 3, (7, 24)),
        (Episodes(9, 3), 0, 1, (49, 1)),
        (Together(fresh=Rollout(8), replay=Episodes(9, 3)), 0, 2, (55, 16)),
        (Together(one=Rollout(4), other=Rollout(6)), 0, 1, (11, 12)),
    ],
)
def test_every_update_is_fed_from_whole_batches(memory, learning_starts, update_period, expected):
    game = GameSpec.of(predator_prey(time_limit=50))
    found = periods(
        memory, game, 3, learning_starts=learning_starts, update_period=update_period, target_period=5
    )
    assert found == Periods(*expected, target_every=5)
    assert (found.warmup + 1) % memory.period == found.update_every % memory.period == 0


def test_far_beyond_32_bits():
    """The loop counts iterations in 32 bits and steps only here: 4,096 environments for 2^31 iterations."""
    long = dataclasses.replace(EXPERIMENT, env_steps=4096 * (2**31 - 10), num_envs=4096)
    assert long.schedule.iterations == 2**31 - 10
    assert long.schedule.eval_iterations == (0, 536870910, 1073741819, 1610612729, 2147483638)
    assert long.schedule.updates(2**31 - 10) == 2**31 - 10 - 1  # ten steps are over in the first iteration
