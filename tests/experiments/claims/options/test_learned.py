"""Figures of learned soft options: what they measure, and small runs."""

import json

import jax
import numpy as np
import pytest

import baselines
import envs
from envs.option_mdp import coordination_options, two_state_options
from experiments.claims.options import doors, four_rooms, learning
from experiments.claims.options.learned import (
    errors_of,
    exact_solution,
    game_of_lane,
    return_of,
)
from jaxmarl_fac.report import script

EXAMPLES = {
    "soft-options": (two_state_options(), {"gamma": 0.9}),
    "delayed-options": (coordination_options(), {"gamma": 0.5}),
}


def changed(solution, kind, name, by):
    """A solution of one agent with one table replaced."""
    tables = dict(getattr(solution, kind))
    tables[name] = by(np.asarray(tables[name]))
    return solution._replace(**{kind: tables})


@pytest.mark.parametrize("name", EXAMPLES)
def test_errors(name):
    env, settings = EXAMPLES[name]
    exact = exact_solution(baselines.make(name, **settings), env)
    solutions = tuple(jax.tree.map(np.asarray, solution) for solution in exact.solutions)
    assert len(solutions) == env.num_agents
    nothing = errors_of(solutions, exact)
    assert nothing.values == 0 and abs(nothing.divergence) < 1e-12
    # The last agent's first and last tables count.
    for choice in ("action", "termination"):
        off = (*solutions[:-1], changed(solutions[-1], "values", choice, lambda table: table + 0.2))
        assert errors_of(off, exact).values == pytest.approx(0.2)
        even = changed(solutions[-1], "policies", choice, lambda table: np.full(table.shape, 0.5))
        assert errors_of((*solutions[:-1], even), exact).divergence > 0.01


def test_worked_numbers_are_found_by_learners_settings():
    env, settings = EXAMPLES["delayed-options"]
    exact = exact_solution(baselines.make("delayed-options", **settings), env)
    expected = [[2.807173, 2.225270], [2.225270, 1.984293]]
    np.testing.assert_allclose(exact.solutions[1].values["termination"][0], expected, atol=1e-6)


def test_the_message_is_worth_something_at_the_doors():
    returns = {}
    env = envs.make(doors.GAME)
    for message in (True, False):
        algorithm = doors.doors_experiment(message, "quick", (0,)).algorithm
        exact = exact_solution(algorithm, env)
        returns[message] = return_of(exact.solutions, env, exact)
    assert returns[True] > returns[False] + 1 > 10


def test_game_of_lane():
    experiment = learning.random_experiment("soft-options", "smoke")
    assert experiment.lanes == 2
    np.testing.assert_array_equal(game_of_lane(experiment, 1).reward, experiment.environment.reward[1])
    single = learning.example_experiment("soft-options", "smoke", (0, 1))
    assert game_of_lane(single, 1) is single.environment


def test_both_near():
    assert learning.both_near(learning.Errors(np.array(0.04), np.array(0.009)))
    assert not learning.both_near(learning.Errors(np.array(0.06), np.array(0.009)))
    assert not learning.both_near(learning.Errors(np.array(0.04), np.array(0.02)))


def test_the_difference_of_seeds():
    found = doors.difference(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.low, found.high) == (2, 2, 2)


def test_four_rooms_beside_itself():
    env = envs.make(four_rooms.GAME)
    exact = exact_solution(four_rooms.rooms_experiment("quick", (0,)).algorithm, env)
    (solution,) = (jax.tree.map(np.asarray, each) for each in exact.solutions)
    total = return_of((solution,), env, exact)
    found = four_rooms.compare(solution, env, exact, total)
    assert (found.distance, found.same_option) == (0, 1)
    assert found.return_share == pytest.approx(1)
    # The master policy draws another option in place of each.
    shuffled = changed(solution, "policies", "option", lambda table: table[:, [1, 2, 3, 0]])
    other = four_rooms.compare(shuffled, env, exact, total)
    assert other.return_share < 1 and other.same_option < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["four_rooms", "doors", "learning"])
def test_small_runs(figure, tmp_path):
    claims = {"four_rooms": four_rooms, "doors": doors, "learning": learning}[figure].CLAIMS
    assert script.main("options", claims, tmp_path, ["--scale", "smoke"]) == 0
    record = json.loads((tmp_path / f"{figure}.json").read_text())
    assert record["seeds"] == (1 if figure == "four_rooms" else 2)
    assert (tmp_path / f"{figure}.png").stat().st_size > 10_000
