import json
from pathlib import Path

import numpy as np
import pytest

from envs.catch_prey import catch_prey
from envs.matrix_games import LTQL_PAYOFF
from experiments import reproduce_ltql
from experiments.claims.ltql import matrix, operators, pursuit
from experiments.claims.ltql.line import LINE_NAMES
from experiments.claims.ltql.matrix import LTQL_LIMITS
from experiments.claims.ltql.pursuit import PAPER_RETURNS, PAPER_WINS
from experiments.reproduce_ltql import CLAIMS
from jaxmarl_fac.report.claims import Workshop
from jaxmarl_fac.report.script import SCALES
from jaxmarl_fac.saved import from_json
from jaxmarl_fac.settings import leaves
from tests.reference import catch_prey as reference

RESULTS = Path(__file__).parents[3] / "results/ltql"


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def run(folder, *figures):
    assert reproduce_ltql.main(["--scale", "smoke", "--figures", *figures, "--out", str(folder)]) == 0


def test_every_claim_states_its_rule_and_cost():
    assert [claim.id for claim in CLAIMS] == ["matrix", "team_mdp", "operators", "catch_prey"]
    for claim in CLAIMS:
        assert (
            {"smoke", "quick", "paper"} <= set(claim.cost) <= set(SCALES)
            and claim.rule.accept
            and claim.claim
        )


def test_the_limits_are_values_against_the_equilibrium():
    """q_U of each action is the payoff beside the other agent's equilibrium action."""
    payoff = np.asarray(LTQL_PAYOFF)
    for (u1, u2), limits in LTQL_LIMITS.items():
        assert limits["q_u"] == (tuple(payoff[:, u2]), tuple(payoff[u1]))


def test_the_authors_numbers_are_theirs():
    """The raw results beside the released code: the mean of the last ten tests, for each of two seeds."""
    assert PAPER_WINS["ltql"] == (0.894, 0.956) and PAPER_WINS["hysteretic"] == (0.834, 0.772)
    assert PAPER_RETURNS["qmix"] == (-1, -1) and PAPER_RETURNS["qtran-base"] == (-0.705, -0.820)


def test_greedy_cells():
    tables = np.zeros((2, 2, 1, 3))
    tables[0, 0, 0] = [1, 2, 9]  # the third entry is no action of agent 1
    tables[0, 1, 0] = [0, 0, 3]
    tables[1, 1, 0] = [0, 2, 2]
    cells = matrix.greedy_cells(tables)
    assert cells.tolist() == [[1, 2], [0, 1]]
    assert matrix.in_cell(cells, (1, 2)).tolist() == [True, False]


def test_what_a_rush_earns():
    """Against 400 games of the NumPy reference, within four standard errors."""
    rng, near, games, won, earned = np.random.default_rng(0), 5.0, 400, [], []
    for _ in range(games):
        angles, distances = rng.uniform(0, 2 * np.pi, 4), rng.uniform(11, 19, 4)
        prey, predators = (
            (0.0, 0.0),
            list(zip(distances * np.sin(angles), distances * np.cos(angles), strict=True)),
        )
        total, caught = 0.0, False
        for _ in range(75):
            prey, predators, _, _ = reference.step(
                prey, predators, [reference.TOWARDS] * 4, rng.random(), rng.uniform(0, 2 * np.pi)
            )
            caught = min(reference.polar(prey, predators)[0]) < near
            total += caught - 1 / 75
            if caught:
                break
        won.append(total > 0)
        earned.append(total)
    rush = pursuit.rush(catch_prey(catch_distance=near, time_limit_terminates=True))
    for ours, theirs in ((rush["win_rate"], won), (rush["return"], earned)):
        assert ours == pytest.approx(np.mean(theirs), abs=4 * np.std(theirs) / games**0.5)


@pytest.mark.parametrize("name", pursuit.HUNTERS)
def test_the_committed_record_of_the_pursuit_has_todays_settings(name):
    """But for temperatures that nothing reads; below the scale "paper" nobody plays by them."""
    record = json.loads((RESULTS / "catch_prey.json").read_text())
    recorded = from_json(record["experiment"][f"pursuit-{name}"])
    for scale in ("quick", "long"):
        today = pursuit.pursuit_experiment(Workshop(scale, None, RESULTS), name)
        found, before = leaves(today.algorithm), leaves(recorded.algorithm)
        changed = {each for each, leaf in found.items() if leaf.value != before[each].value}
        assert changed - {"epsilon_steps"} == {"temperature_steps"}
        assert today.algorithm.boltzmann.never
        assert (scale == "long") == ("epsilon_steps" in changed)  # a tenth of more steps


def test_the_pursuit_as_published_explores_as_the_release():
    for name in pursuit.HUNTERS:
        experiment = pursuit.pursuit_experiment(Workshop("paper", None, RESULTS), name)
        play = experiment.algorithm.boltzmann
        assert (play.boltzmann_share, play.temperature_start, play.temperature_end) == (0.5, 0.5, 0.05)
        explored = experiment.algorithm.exploration
        assert (explored.epsilon_start, explored.epsilon_end) == (0, 0)
        assert play.temperature_steps * 100_000 == 13_500 * experiment.env_steps
        assert getattr(experiment.algorithm.method, "useful_share", True)


@pytest.mark.slow
def test_operators_at_smoke_scale(tmp_path):
    run(tmp_path, "operators")
    ours = read(tmp_path, "operators")["ours"]
    tied = ours["games_with_ties"]
    assert tied["two optima [[0, 2], [2, 0]]"][operators.AT_ONCE]["value"] == 0
    for game in tied.values():
        assert game[operators.IN_TURN]["value"] == 1
    # Fifty applications are enough for most of twenty games where both operators are used.
    for variant in operators.VARIANTS:
        assert ours["optimal_at_the_end"][variant]["p = 0.5"]["value"] >= 0.9
    assert (tmp_path / "operators.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_learning_figures_at_smoke_scale(tmp_path):
    run(tmp_path, "matrix", "team_mdp", "catch_prey")
    matrix = read(tmp_path, "matrix")["ours"]
    assert matrix["ltql-tabular"]["seeds"] == 8
    assert matrix["best_monotone_fit"]["sse"] == pytest.approx(2 / 3, abs=1e-4)
    line = read(tmp_path, "team_mdp")["ours"]
    assert set(line) == set(LINE_NAMES)
    assert all(sum(entry["final_returns"].values()) == 2 for entry in line.values())
    hunt = read(tmp_path, "catch_prey")
    assert hunt["verdict"] in ("partly", "not reproduced", "undecided")
    assert set(hunt["ours"]["ltql"]["win_rate_by_predators"]) == {"4", "5", "7", "10", "13"}
