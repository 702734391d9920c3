import json

import jax
import numpy as np
import pytest

from experiments import reproduce_fqi
from experiments.claims.fqi import closed_form, deep, divergence, stability
from experiments.claims.fqi.closed_form import LECTURE_FIT, LECTURE_PAYOFF, weighted_least_squares
from experiments.claims.fqi.divergence import PUBLISHED_VALUES
from experiments.reproduce_fqi import CLAIMS
from jaxmarl_fac.exact.fitted import fma_fqi
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.report.script import SCALES
from tests.reference.projections import additive_by_least_squares

EXACT = ["theorem1", "lecture_2x2", "theorem3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("fqi")
    assert reproduce_fqi.main(["--scale", "smoke", "--figures", *EXACT, "--out", str(out)]) == 0
    return out


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_every_claim_states_its_rule_and_cost():
    assert [claim.id for claim in CLAIMS] == [
        "theorem1",
        "lecture_2x2",
        "theorem2",
        "theorem3",
        "theorem4",
        "deep_mmdp",
    ]
    for claim in CLAIMS:
        assert (
            {"smoke", "quick", "paper"} <= set(claim.cost) <= set(SCALES)
            and claim.rule.accept
            and claim.claim
        )


def test_the_solve_is_least_squares():
    rng = np.random.default_rng(0)
    payoffs = rng.uniform(-5, 5, (3, 3, 2, 4))
    data = [closed_form.random_data(rng, 3, count) for count in (3, 2, 4)]
    solved = weighted_least_squares(payoffs, data)
    for game, payoff in enumerate(payoffs):
        q_tot = solved[0][game][:, None, None] + solved[1][game][:, None] + solved[2][game]
        expected = additive_by_least_squares(payoff, [chances[game] for chances in data])
        np.testing.assert_allclose(q_tot, expected, atol=1e-9)


def test_random_data_are_distributions():
    data = closed_form.random_data(np.random.default_rng(0), 500, 4)
    np.testing.assert_allclose(data.sum(1), 1)
    assert data.min() >= 0.0125


def test_theorem_1_holds_to_rounding(folder):
    record = read(folder, "theorem1")
    assert record["verdict"] == "reproduced"
    for n in (2, 3, 4):
        entry = record["ours"][f"{n} agents"]
        assert entry["largest_q_tot_error"] < 1e-10
        assert entry["largest_sum_of_w_i"] < 1e-10
        assert entry["largest_w_i"] > 0.1  # the solve's utilities are others than the closed form's


def test_the_lectures_example_is_not_the_closed_form(folder):
    record = read(folder, "lecture_2x2")
    assert record["verdict"] == "not reproduced"
    ours = record["ours"]
    np.testing.assert_allclose(ours["closed_form_uniform_data"], [[0, -4], [-4, -8]], atol=1e-12)
    assert ours["nearest"]["largest_difference"] > 0.05
    np.testing.assert_allclose(
        np.diag(ours["qtran_3x3_uniform_data"]), [-56 / 9, -32 / 9, -32 / 9], atol=1e-4
    )
    # The printed fit is additive, and the printed payoff is the lecture's.
    assert LECTURE_FIT[0, 0] + LECTURE_FIT[1, 1] == LECTURE_FIT[0, 1] + LECTURE_FIT[1, 0]
    assert LECTURE_PAYOFF.tolist() == [[8, -12], [-12, 0]]


def test_theorem_3_has_the_published_table(folder):
    """With gamma .7 and .9 by the recursion V' = 3/4 + (5/4) gamma V."""
    record = read(folder, "theorem3")
    assert record["verdict"] == "reproduced"
    table = record["ours"]["table"]
    for gamma, numbers in PUBLISHED_VALUES.items():
        row = table[f"gamma {gamma:g}"]
        np.testing.assert_allclose([row[f"V_{t}"] for t in (1, 2, 3, 4, 10, 100)], numbers, rtol=5e-4)
    assert table["gamma 0.7"]["limit"] == pytest.approx(6)
    assert table["gamma 0.7"]["V_2"] == pytest.approx(0.75 + 0.875 * 0.75)
    assert table["gamma 0.9"]["limit"] is None
    assert table["gamma 0.9"]["V_2"] == pytest.approx(0.75 + 1.125 * 0.75)
    assert record["ours"]["largest_bounded_gamma"] < 0.8


def test_a_stopping_game_by_hand():
    """All stay for ever but at (1, 1): the additive fit of the stay chances is [[1.25, .75], [.75, .25]]."""
    with jax.enable_x64(True):
        stay, reward = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
        np.testing.assert_allclose(additive_fit(stay).q_tot, [[1.25, 0.75], [0.75, 0.25]])
        trace = fma_fqi(divergence.stopping_game(stay, reward), 0.5, 3)
        np.testing.assert_allclose(trace.values[:, 0], [0, 0.75, 1.21875, 1.51171875])
        np.testing.assert_allclose(trace.values[:, 1], 0)


def test_recursions_and_errors():
    values = stability.recursion(np.array([1.0, 2.0]), np.array([0.5, 2.0]), 3)
    np.testing.assert_allclose(values, [[0, 0], [1, 2], [1.5, 6], [1.75, 14]])
    assert stability.relative_error(np.array([0.5, 202.0]), np.array([0.25, 200.0])) == 0.25


def test_the_rule_of_the_networks():
    grown, bounded = np.full((4, 20), 300.0), np.full((4, 20), 40.0)

    def rule(values):
        curves = {"qtran-base": grown, "qplex": grown} | values
        before = np.zeros((1, 20))  # training
        return deep.RULE.judge(
            deep.measure({name: np.concatenate([before, curve]) for name, curve in curves.items()})
        )[0]

    assert rule({"vdn": grown, "qtran-base": bounded}) == "reproduced"
    assert rule({"vdn": grown, "qtran-base": grown, "qplex": bounded}) == "reproduced"
    assert rule({"vdn": bounded, "qtran-base": bounded}) == "partly"
    assert rule({"vdn": grown, "qtran-base": grown}) == "partly"
    assert rule({"vdn": bounded, "qtran-base": grown}) == "not reproduced"
    once = bounded.copy()
    once[1, :2] = 111  # two of twenty seeds, once
    assert rule({"vdn": grown, "qtran-base": once}) == "partly"
    nothing = np.zeros((4, 20))
    assert rule(dict.fromkeys(("vdn", "qtran-base", "qplex"), nothing)) == "undecided"


def test_pictures_and_report_are_there(folder):
    for name in EXACT:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Factored fitted Q-iteration" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_theorems_2_and_4_at_smoke_scale(tmp_path):
    flags = ["--scale", "smoke", "--figures", "theorem2", "theorem4", "--out", str(tmp_path)]
    assert reproduce_fqi.main(flags) == 0
    ours = read(tmp_path, "theorem2")["ours"]
    games = ours["two_state_game"]
    assert games["epsilon 0.1"]["limit"] == pytest.approx(132.558, abs=1e-3)
    assert games["epsilon 0.05"]["limit"] == pytest.approx(106.529, abs=1e-3)
    assert games["epsilon 0.2"]["limit"] == pytest.approx(9900, rel=1e-6)
    assert games["epsilon 0.5"]["slope"] == pytest.approx(1.0519, abs=1e-4)
    assert ours["largest_stable_epsilon"] < 0.2010
    assert ours["random_games"]["epsilon 0.0001"]["settled_at_optimal_policy_fraction"]["value"] == 1
    fourth = read(tmp_path, "theorem4")
    assert fourth["verdict"] == "reproduced"
    assert fourth["ours"]["two_state_game"]["value_after_300"] == pytest.approx(100 * (1 - 0.99**300))


@pytest.mark.slow
def test_networks_at_smoke_scale(tmp_path):
    assert reproduce_fqi.main(["--scale", "smoke", "--figures", "deep_mmdp", "--out", str(tmp_path)]) == 0
    exact = read(tmp_path, "deep_mmdp")["ours"]["exact_after_as_many_iterations"]
    assert exact["additive"] == pytest.approx(2.82668, abs=1e-5)  # V_3 of the recursion
    assert exact["igm"] == pytest.approx(2.9701, abs=1e-4)
