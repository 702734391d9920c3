import json

import jax
import numpy as np
import pytest

import envs
from experiments import reproduce_qplex
from experiments.claims.qplex.budget import values_where_not_optimal
from experiments.claims.qplex.games import (
    ALGORITHMS,
    FREE,
    GAMES,
    learner,
    optimal,
    split_by_game,
    stack_games,
    train_long,
)
from experiments.reproduce_qplex import CLAIMS
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Workshop
from jaxmarl_fac.report.script import SCALES
from jaxmarl_fac.tracking import History
from tests.helpers import flat


def test_every_claim_states_its_rule_and_cost():
    assert [claim.id for claim in CLAIMS] == ["curves", "tables", "core_idea", "budget"]
    for claim in CLAIMS:
        assert (
            {"smoke", "quick", "paper"} <= set(claim.cost) <= set(SCALES)
            and claim.rule.accept
            and claim.claim
        )


def test_all_play_at_random_and_learn_from_transitions():
    """So that the exact fits under uniform data are what VDN and Qatten should find."""
    for name in (*ALGORITHMS, FREE):
        algorithm = flat(learner(name))
        assert (algorithm.epsilon_start, algorithm.epsilon_end, algorithm.consumes) == (1, 1, "transitions")
    assert flat(learner("qplex")).stop_gradient
    assert not flat(learner(FREE)).stop_gradient


def test_games_are_stacked_and_split():
    batch = stack_games(tuple(GAMES))
    for k, (game, (_, payoff)) in enumerate(GAMES.items()):
        one = jax.tree.map(lambda leaf, k=k: leaf[k], batch)
        np.testing.assert_array_equal(one.payoff[0], payoff.astype(np.float32))
        np.testing.assert_array_equal(one.payoff, envs.make(game).payoff)
    history = History()
    for step in (0, 10):
        history.append(step, {"episode_return": np.arange(6) + step, "q_tot": np.ones((6, 3, 3))})
    parts = split_by_game(Result(history, None, True, 0.0), tuple(GAMES))  # type: ignore[arg-type]
    assert list(parts) == list(GAMES)
    assert parts["matrix-qplex"].last["episode_return"].tolist() == [12, 13]
    assert parts["matrix-qplex"].last["q_tot"].shape == (2, 3, 3)
    assert parts["matrix-qplex-10"].arrays()["env_steps"].tolist() == [0, 10]


def test_only_the_largest_payoff_is_optimal():
    payoff = GAMES["matrix-qplex-10"][1]
    assert optimal(np.asarray([10.4, 10.0, np.float32(10.4)]), payoff).tolist() == [True, False, True]


def test_what_seeds_short_of_the_optimum_believe():
    payoff = GAMES["matrix-qplex"][1]
    tables = {
        "greedy_actions": np.asarray([[0, 0], [1, 1], [0, 1]]),
        "q_tot": np.stack([payoff, payoff + 1, payoff + 3]),
    }
    tied = values_where_not_optimal(tables, "q_tot", payoff)
    assert tied["seeds"] == 2  # the first plays the optimum
    assert tied["value_of_optimum"].value == pytest.approx((9 + 11) / 2)
    assert tied["value_of_greedy"].value == pytest.approx((7 - 9) / 2)
    assert tied["mean_payoff_of_both"].value == pytest.approx(((6 + 8) / 2 + (-12 + 8) / 2) / 2)
    solved = {name: table[:1] for name, table in tables.items()}
    assert values_where_not_optimal(solved, "q_tot", payoff) == {"seeds": 0}


@pytest.mark.slow
def test_the_long_runs_tables_are_of_their_own_game(tmp_path):
    """Both kinds of run end with the tables of those greedy actions that earn the last rewards."""
    workshop = Workshop("smoke", None, tmp_path)
    for name in ("qtran-base", FREE):
        histories = train_long(workshop, name)
        for game in ("matrix-qtran", "matrix-qplex"):
            last = histories[game].last
            greedy = tuple(last["greedy_actions"].T)
            assert last["utilities"].shape == (2, 2, 3)
            np.testing.assert_allclose(GAMES[game][1][greedy], last["episode_return"])


@pytest.mark.slow
def test_all_figures_at_smoke_scale(tmp_path):
    assert reproduce_qplex.main(["--scale", "smoke", "--out", str(tmp_path)]) == 0
    records = {claim.id: json.loads((tmp_path / f"{claim.id}.json").read_text()) for claim in CLAIMS}
    exact = records["tables"]["ours"]["matrix-qtran"]
    # The sum of row and column means less the mean, and the best fit over all orders of actions.
    assert exact["exact_additive_fit"]["q_tot"][0][0] == pytest.approx(-56 / 9, abs=1e-4)
    assert exact["exact_monotone_fit"]["sse"] == pytest.approx(288, abs=1e-3)
    assert records["tables"]["ours"]["matrix-qplex"]["exact_monotone_fit"]["sse"] == pytest.approx(
        344, abs=1e-3
    )
    for name in ALGORITHMS:
        assert np.shape(records["tables"]["ours"]["matrix-qplex"][name]["table"]) == (3, 3)
        assert 0 <= records["curves"]["ours"]["matrix-qplex"][name]["greedy_optimal_fraction"]["value"] <= 1
    assert list(records["budget"]["ours"]["matrix-qplex"][FREE]["by_budget"]) == ["100", "200"]
    for claim in CLAIMS:
        assert (tmp_path / f"{claim.id}.png").read_bytes().startswith(b"\x89PNG")
