import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import baselines
import envs
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report import page, script
from jaxmarl_fac.report.claims import Claim, Outcome
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.statistics import Interval
from jaxmarl_fac.tracking import History

COST = {"smoke": "1 s", "quick": "2 s", "paper": "3 s"}


RULE = Rule((Part("score", at_least=1),), learned=Part("gain", above=0))


def claim(name, score=1.0, calls=None, error=None, gain=1.0, games=0):
    def make(workshop):
        if error:
            raise error
        if calls is not None:
            calls.append((name, workshop.scale, workshop.seeds(smoke=2, quick=3, paper=4)))
        ours = {"vdn": {"score": Interval(np.float32(1.23456789), 1.0, float("nan")), "table": np.eye(2)}}
        measured = {"score": Interval(score, 0, 2), "gain": gain}
        return Outcome(panels()[0], {"score": 2}, ours, measured, f"because of {name}", games)

    return Claim(name, "A paper", f"claim of {name}", RULE, COST, make)


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_each_figure_gets_a_picture_a_record_and_a_place_in_the_report(tmp_path, capsys):
    claims = [claim("one"), claim("two", score=0.5), claim("three", gain=0.0)]
    assert script.main("Title", claims, tmp_path, ["--scale", "smoke"]) == 0  # whatever the verdicts
    record = read(tmp_path, "one")
    assert {"id", "source", "claim", "accept", "scale", "paper", "ours", "verdict", "why", "seeds"} <= set(
        record
    )
    assert {"env_steps", "seconds", "experiment", "versions", "device"} <= set(record)
    assert record["ours"]["vdn"] == {
        "score": {"value": 1.23457, "low": 1.0, "high": None},
        "table": [[1.0, 0.0], [0.0, 1.0]],
    }
    assert record["accept"] == RULE.accept
    assert record["verdict"] == "reproduced" and record["why"] == "because of one"
    assert record["measured"] == {"score": {"value": 1.0, "low": 0.0, "high": 2.0}, "gain": 1.0}
    assert record["parts"] == {"score at least 1": True, "gain above 0": True}
    two, three = read(tmp_path, "two"), read(tmp_path, "three")
    assert two["verdict"] == "not reproduced" and three["verdict"] == "undecided"
    assert two["why"] == "because of two Does not hold: score at least 1 (measured 0.5 [0, 2])."
    assert "Undecided, as nothing was learned. Does not hold: gain above 0 (measured 0)." in three["why"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert page.count('class="verdict undecided"') == 2 and ".undecided {" in page
    assert "✓ score at least 1" in page and "✗ score at least 1" in page
    assert "http" not in page.split("</style>")[1]  # self-contained
    assert "claim of two" in page and "because of one" in page
    said = capsys.readouterr().out
    assert "not reproduced" in said and "undecided" in said


def test_games_that_stand_for_seeds_are_counted_as_games(tmp_path):
    assert script.main("Title", [claim("one", games=1000), claim("two")], tmp_path, []) == 0
    one, two = read(tmp_path, "one"), read(tmp_path, "two")
    assert one["games"] == 1000 and "seeds" not in one
    assert two["seeds"] == 0 and "games" not in two
    assert "1,000 games" in (tmp_path / "report.html").read_text()
    assert script.main("Title", [claim("one", games=1000)], tmp_path, ["--scale", "quick"]) == 0  # read again


def test_a_record_made_before_rules_were_declared_is_still_read(tmp_path):
    assert script.main("Title", [claim("one")], tmp_path, []) == 0
    old = {key: value for key, value in read(tmp_path, "one").items() if key not in ("measured", "parts")}
    (tmp_path / "one.json").write_text(json.dumps(old))
    assert script.read_record(tmp_path / "one.json") == old
    assert script.main("Title", [claim("one"), claim("two")], tmp_path, ["--figures", "two"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "claim of one" in page and page.count("<dt>parts</dt>") == 1


def test_a_figure_that_is_done_is_made_again_only_when_asked_or_at_another_scale(tmp_path):
    calls: list = []
    claims = [claim("one", calls=calls)]
    for flags in (
        ["--scale", "smoke"],
        ["--scale", "smoke"],
        ["--scale", "quick"],
        ["--scale", "quick", "--again"],
    ):
        assert script.main("Title", claims, tmp_path, flags) == 0
    assert [scale for _, scale, _ in calls] == ["smoke", "quick", "quick"]
    script.main("Title", claims, tmp_path, ["--scale", "quick", "--seeds", "2"])
    assert calls[-1] == ("one", "quick", (0, 1))


def test_only_the_wanted_figures_are_made(tmp_path):
    calls: list = []
    script.main(
        "Title", [claim("one", calls=calls), claim("two", calls=calls)], tmp_path, ["--figures", "two"]
    )
    assert [name for name, *_ in calls] == ["two"]


def test_figures_share_a_run_that_is_read_once(tmp_path, monkeypatch):
    asked = []

    def train(experiment, folder, **_):
        asked.append((folder.name, experiment.env_steps))
        return Result(History(), LearnerState({}, {}, ()), True, 1000.0)

    monkeypatch.setattr("jaxmarl_fac.report.claims.train", train)

    def sharing(name, env_steps):
        def make(workshop):
            experiment = Experiment(
                algorithm=baselines.make("vdn"),
                environment=envs.make("matrix-qtran"),
                seeds=(0, 1),
                env_steps=env_steps,
            )
            workshop.train("vdn", experiment)
            return Outcome(panels()[0], {}, {}, {"score": 1, "gain": 1}, "")

        return dataclasses.replace(claim(name), make=make)

    claims = [sharing("one", 40), sharing("two", 40), sharing("three", 60)]
    assert script.main("Title", claims, tmp_path, ["--scale", "smoke"]) == 0
    # The third is another experiment in the same folder, which `train` itself has to refuse.
    assert asked == [("vdn-smoke-2", 40), ("vdn-smoke-2", 60)]
    records = [read(tmp_path, name) for name in ("one", "two", "three")]
    assert [record["env_steps"] for record in records] == [80, 80, 120]
    # A record counts what its run took, whenever that was, and the figure itself.
    assert all(1000 <= record["seconds"] < 1100 for record in records)


def test_list_names_figures_claims_and_costs_and_makes_nothing(tmp_path, capsys):
    assert script.main("Title", [claim("one")], tmp_path / "out", ["--list"]) == 0
    said = capsys.readouterr().out
    assert "one" in said and "claim of one" in said and "quick: 2 s" in said
    assert not (tmp_path / "out").exists()


def test_a_diverged_figure_does_not_stop_the_others(tmp_path, capsys):
    error = DivergedError(["seed 3"], 100, History())
    status = script.main("Title", [claim("one", error=error), claim("two")], tmp_path, [])
    assert status == 1
    assert "seed 3" in capsys.readouterr().err
    assert (tmp_path / "two.json").exists() and not (tmp_path / "one.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--figures", "three"], "unknown figure 'three': choose from one"),
        (["--scale", "huge"], "unknown scale 'huge': choose from smoke, quick, long, paper"),
        (["--seeds", "0"], "the number of seeds must be at least 1, not 0"),
        (["--out", "/proc/nowhere"], "output folder /proc/nowhere cannot be written"),
    ],
)
def test_bad_input(tmp_path, flags, said):
    with pytest.raises(BadInputError, match=said):
        script.main("Title", [claim("one")], tmp_path, flags)


def test_plain_rounds_and_drops_what_json_cannot_hold():
    assert page.plain({"a": np.float64(1 / 3), 2: [np.int64(3), np.nan, Path]})["a"] == 0.333333
    assert page.plain([np.int64(3), float("inf"), (1.0,)]) == [3, None, [1.0]]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"5", b"{}", b'{"id": "two"}'])
def test_a_broken_record_costs_neither_a_figure_nor_the_report(tmp_path, capsys, content):
    """The record of a figure that is asked for is made anew."""
    claims = [claim("one"), claim("two"), claim("three")]
    assert script.main("Title", claims, tmp_path, []) == 0
    (tmp_path / "two.json").write_bytes(content)
    (tmp_path / "three.png").unlink()
    capsys.readouterr()
    assert script.main("Title", claims, tmp_path, ["--figures", "one", "--again"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [f"{name}.json" in line for name, line in zip(("two", "three"), lines, strict=True)] == [True] * 2
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "claim of one" in page and "claim of two" not in page and "claim of three" not in page

    assert script.main("Title", claims, tmp_path, []) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("data:image/png;base64,") == 3


def test_our_numbers_are_the_same_whenever_they_are_measured(tmp_path, monkeypatch):
    """What training took has a place of its own."""
    experiment = Experiment(
        algorithm=baselines.make("vdn"), environment=envs.make("matrix-qtran"), seeds=(0,), env_steps=40
    )

    def make(workshop):
        workshop.train("vdn", experiment)
        return Outcome(panels()[0], {}, {"return": 8.0}, {"score": 1, "gain": 1}, "")

    monkeypatch.setattr(
        "jaxmarl_fac.report.claims.train",
        lambda *_, **__: Result(History(), LearnerState({}, {}, ()), True, 7.5),
    )
    assert script.main("Title", [dataclasses.replace(claim("one"), make=make)], tmp_path, []) == 0
    record = read(tmp_path, "one")
    assert record["training_seconds"] == {"vdn": 7.5}
    assert record["ours"] == {"return": 8.0}
