import json

import numpy as np
import pytest

from experiments import reproduce_memarl
from experiments.claims.opponents import thesis_games
from experiments.claims.opponents.thesis_games import Curve, as_simulated, exact_limits
from jaxmarl_fac.report.curves import first_crossing
from jaxmarl_fac.report.script import SCALES

TABULAR = ["fig3_1", "fig3_2a", "fig3_2b", "rommeo_fig1"]


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_every_claim_states_its_rule_and_cost():
    ids = [claim.id for claim in reproduce_memarl.CLAIMS]
    assert ids[:5] == [*TABULAR[:3], "theory", TABULAR[3]] and "rommeo_fig2" in ids
    for claim in reproduce_memarl.CLAIMS:
        assert (
            {"smoke", "quick", "paper"} <= set(claim.cost) <= set(SCALES)
            and claim.rule.accept
            and claim.claim
        )


def test_exact_limits():
    """Thesis, figures 3.1 and 3.2: the rewards of the equilibria that each pair tends to."""
    expected = {"cooperative": 10, "balancing-q": 2, "misrepresenting": 1, "both misrepresenting": 5}
    assert exact_limits() == pytest.approx(expected, abs=1e-9)


def test_without_exp_the_policy_does_not_converge():
    """The thesis's pseudo-code: at ω = 10 the printed line gives (.19, .20, .61)."""
    policies = thesis_games.printed_policies()
    np.testing.assert_allclose(policies["printed"], [0.19, 0.20, 0.61], atol=0.005)
    np.testing.assert_allclose(policies["with exp"], [0.002, 0.003, 0.995], atol=0.0005)


def test_first_crossing_is_for_good():
    means = np.asarray([0.1, 0.6, 0.2, 0.5, 0.7, 0.9])
    curve = np.stack([means - 0.1, means + 0.1], 1)
    assert first_crossing(curve) == 3
    assert first_crossing(curve, 0.05) == 0
    assert first_crossing(curve, 0.95) is None


def test_curves_are_compared_with_the_simulation():
    steps = np.asarray([50, 100, 150, 200, 300])
    means = np.interp(np.arange(1, 301), steps, thesis_games.SIMULATED["balancing-q"])
    nothing = np.zeros((300, 2, 3))
    assert as_simulated(Curve(np.stack([means, means], 1), nothing, nothing), "balancing-q")
    assert not as_simulated(Curve(np.stack([means, means + 0.4], 1), nothing, nothing), "balancing-q")
    assert not as_simulated(Curve(np.zeros((20, 2)), nothing, nothing), "balancing-q")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("memarl")
    flags = ["--scale", "smoke", "--figures", *TABULAR, "--out", str(out)]
    assert reproduce_memarl.main(flags) == 0
    return out


@pytest.mark.slow
def test_pictures_and_report_are_there(folder):
    for name in TABULAR:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Thesis, figure 3.2b" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_pr2_and_rommeo_are_one_learner(folder):
    gap = read(folder, "fig3_1")["ours"]["rommeo minus pr2"]
    assert gap["reward, same seeds, all steps"]["value"] == pytest.approx(0, abs=1e-6)
    assert gap["largest difference of a policy's probability"] < 1e-5


@pytest.mark.slow
def test_climbing_is_measured_for_every_learner(folder):
    ours = read(folder, "rommeo_fig1")["ours"]
    for setting in ("library", "annealed"):
        finals = ours[setting]["final_probability_of_optimum"]
        assert set(finals) == {"rommeo-q", "rommeo-q-emp", "pr2-q", "jal", "wolf-phc", "fmq"}
        assert all(0 <= final["value"] <= 1 for final in finals.values())
