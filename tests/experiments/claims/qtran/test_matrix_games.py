import json

import numpy as np
import pytest

from experiments import reproduce_qtran
from experiments.claims.qtran import game_21x21
from experiments.claims.qtran.game_3x3 import PAPER_TABLE_1
from experiments.claims.qtran.random_games import GAMES, PAPER_TABLE_6
from jaxmarl_fac.report.script import SCALES


def made(out, *figures):
    assert reproduce_qtran.main(["--scale", "smoke", "--figures", *figures, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A figure that needs no training."""
    return made(tmp_path_factory.mktemp("qtran"), "fig5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return made(tmp_path_factory.mktemp("qtran"), "table2")


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_the_papers_numbers_are_the_papers():
    """QTRAN, table 1: sums of the printed utilities give the printed tables."""
    for name, table in (("qtran", "q_prime"), ("vdn", "q_tot")):
        first, second = PAPER_TABLE_1[name]["utilities"]
        np.testing.assert_allclose(np.add.outer(first, second), PAPER_TABLE_1[name][table], atol=0.021)
    assert sum(PAPER_TABLE_6.values()) == GAMES


def test_every_claim_states_its_rule_and_cost():
    matrix = ["table1", "table2", "theory", "state_value", "fig2", "fig5", "fig8_11", "table6", "overview"]
    learning = ["fig3a", "fig3b", "fig3c", *(f"fig4{panel}" for panel in "abcdef")]
    learning += ["speed_penalty", "speed_agents", "fig6", "fig7"]
    assert [claim.id for claim in reproduce_qtran.CLAIMS] == matrix + learning
    for claim in reproduce_qtran.CLAIMS:
        assert (
            {"smoke", "quick", "paper"} <= set(claim.cost) <= set(SCALES)
            and claim.rule.accept
            and claim.claim
        )


@pytest.mark.slow
def test_the_construction_of_table_2_works_on_the_papers_own_numbers(trained):
    record = read(trained, "table2")
    paper = record["ours"]["paper_utilities"]
    np.testing.assert_allclose(paper["tightened"][0], [3.84, -2.29, -2.29], atol=1e-4)
    np.testing.assert_allclose(paper["slack_before"][1], [14.10, 0.23, 0.23], atol=1e-4)
    np.testing.assert_allclose(np.min(paper["slack_after"], 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.min(paper["slack_after"], 1), 0, atol=1e-6)


def test_the_reward_surface_is_reproduced(folder):
    record = read(folder, "fig5")
    assert record["verdict"] == "reproduced"
    assert record["ours"]["payoff"]["mean"] == pytest.approx(-5.30285, abs=1e-5)


def test_pictures_and_report_are_there(folder):
    assert (folder / "fig5.png").read_bytes().startswith(b"\x89PNG")
    assert "QTRAN, figure 5" in (folder / "report.html").read_text()


def test_the_gap_is_the_mean_distance_below_the_best():
    q_prime = np.asarray([[[3.0, 1.0], [0.0, 2.0]]])
    np.testing.assert_allclose(game_21x21._gap(q_prime), [2.0])  # of 1, 0, 2 below 3


@pytest.mark.slow
def test_learning_figures_at_smoke_scale(tmp_path):
    flags = ["--scale", "smoke", "--figures", "table1", "fig2", "fig8_11", "--out", str(tmp_path)]
    assert reproduce_qtran.main(flags) == 0
    ours = read(tmp_path, "table1")["ours"]
    assert np.shape(ours["vdn"]["q_tot"]) == (3, 3)
    assert np.shape(ours["qtran-alt"]["q_prime"]) == (3, 3)
    assert ours["exact"]["global_monotone_fit"]["sse"] == pytest.approx(288, abs=1e-6)
    assert ours["exact"]["local_monotone_fit"]["sse"] == pytest.approx(320, abs=1e-6)


@pytest.mark.slow
def test_table_6_counts_every_game_once(tmp_path):
    flags = ["--scale", "smoke", "--figures", "table6", "--out", str(tmp_path)]
    assert reproduce_qtran.main(flags) == 0
    ours = read(tmp_path, "table6")["ours"]
    games = 6  # of smoke scale
    counts = ours["counts"]
    assert sum(counts.values()) == games
    for name in ("vdn", "qmix", "qtran-base", "qtran-base-annealed"):
        assert ours[name]["optimal_games"] <= ours[name]["near_optimal_games"] <= games
        assert ours[name]["greedy_optimal_fraction"]["value"] == pytest.approx(
            ours[name]["optimal_games"] / games, abs=1e-5
        )
