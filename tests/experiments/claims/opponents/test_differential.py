"""The rule of ROMMEO's figure 2, and a small run of it."""

import json

import numpy as np
import pytest

from experiments.claims.opponents import differential
from jaxmarl_fac.report import script

ITERATIONS = np.arange(5.0)


def curve(final, since):
    """Returns of 20 seeds: -4 until `since`, then the final ones."""
    return np.where(ITERATIONS[:, None] < since, -4.0, np.asarray(final, float))


def rows(rommeo=10.0, pr2=10.0, ddpg=0.0, rommeo_since=1, pr2_since=3):
    finals = {
        "rommeo-ac": (rommeo, rommeo_since),
        "pr2-ac": (pr2, pr2_since),
        **dict.fromkeys(differential.AT_LOCAL_OPTIMUM, (ddpg, 1)),
    }
    return {
        name: differential.summary(ITERATIONS, curve(np.broadcast_to(final, 20), since))
        for name, (final, since) in finals.items()
    }


HALF = np.repeat([0.0, 10.0], 10)
FEW = np.repeat([0.0, 10.0], [14, 6])


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "reproduced"),
        ({"pr2_since": 1}, "partly"),  # not later than ROMMEO-AC
        ({"pr2": 0.0}, "partly"),
        ({"pr2": 0.0, "rommeo": HALF}, "partly"),  # 10 of 20 seeds against none: intervals apart
        ({"rommeo": FEW, "ddpg": np.repeat([0.0, 10.0], [18, 2])}, "not reproduced"),
        ({"ddpg": 10.0}, "not reproduced"),
        ({"rommeo": 0.0}, "not reproduced"),
        ({"rommeo": -4.0, "pr2": -4.0, "ddpg": -4.0}, "undecided"),  # where it was before training
    ],
)
def test_the_rule(changes, verdict):
    assert differential.RULE.judge(differential.measure(rows(**changes)))[0] == verdict


def test_the_summary():
    row = differential.summary(ITERATIONS, curve(HALF, since=2))
    assert row["found_peak"].value == row["on_the_hill"].value == 0.5
    assert row["iteration_halfway"] == 2
    assert differential.summary(ITERATIONS, curve(FEW, since=2))["iteration_halfway"] is None


@pytest.mark.slow
def test_a_small_run(tmp_path):
    assert script.main("deep", differential.CLAIMS, tmp_path, ["--scale", "smoke"]) == 0
    record = json.loads((tmp_path / "rommeo_fig2.json").read_text())
    assert record["seeds"] == 2
    assert set(record["ours"]["paper"]) == {*differential.LEARNERS, differential.PER_STEP}
    assert (tmp_path / "rommeo_fig2.png").stat().st_size > 10_000
