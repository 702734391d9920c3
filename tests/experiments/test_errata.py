import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from envs.errors import BadInputError
from experiments import errata
from experiments.errata import BY_ID, COMMAND, ERRATA
from jaxmarl_fac.report.errata import Shown, compute, page, show
from tests.helpers import but_slow

PAGE = Path(__file__).parents[2] / "docs" / "errata.md"
#: What compiles for a second or more, or trains nothing but takes as long.
COSTLY = {
    "ltql-equation-2",
    "lecture-2x2",
    "qtran-theorem-2",
    "qtran-predator-prey-end",
    "remix-lemma-1",
    "remix-lemma-3",
    "remix-equation-5",
    "remix-equation-18",
    "remix-objective",
    "remix-equation-24",
    "remix-equation-25",
    "remix-multiplier",
    "remix-sign",
    "remix-theorem-1",
    "remix-mask",
    "thesis-2.66",
    "thesis-2.67",
    "thesis-figure-3.1",
    "thesis-figure-3.2b",
    "thesis-corollary-1",
    "thesis-b.1",
    "lecture-theorem-1",
    "lecture-dilemma",
    "thesis-2.68",
    "thesis-m-step",
    "thesis-2.8",
    "thesis-2.68-friends",
    "thesis-3.44",
    "thesis-3.5.1",
    *(erratum.id for erratum in ERRATA if erratum.source in ("Thesis, chapter 4", "Thesis, chapter 5")),
}
#: Independently computed, to the digits given.
NUMBERS = {
    "lecture-2x2": {"aa": -6.2222, "ab": -4.8889, "bb": -3.5556, "fit": [[0, -4], [-4, -8]]},
    "qtran-theorem-2": {"pairs": 100},
    "qtran-qmix-3x3": {"best": 288, "learned": 320, "corner": 8, "rest": -6},
    "qtran-release-qmix": {"right": -2.006199, "released": -0.177296},
    "qtran-mgs-half": {"low": 5.04927, "high": 8.00870, "at_low": 5.09808, "at_high": 8.01551},
    "qtran-gs-sigma": {"paper": 8.03107, "at_paper": 8.06202, "release": 8.00780, "at_release": 8.01559},
    "qtran-20-actions": {"actions": 21, "row": 5, "column": 15, "best": 10},
    "remix-lemma-1": {"printed": [0.448082, 0.896164], "right": [0.382236, 0.764471]},
    "remix-lemma-2": {"left": 11, "right": 1},
    "remix-lemma-4": {
        "two": 0.278465,
        "four": 0.603546,
        "eight": 0.973139,
        "nine": 1.040113,
        "many": 1.908848,
        "hunt": 10.9415,
    },
    "remix-equation-5": {"regret": 4.356233, "bound": 4.077768},
    "remix-equation-18": {"regret": 10.196617, "bound": 10.156504},
    "remix-jensen": {"mean": 1, "bound": 0.566219},
    "remix-equation-24": {"printed": 128, "own": 71.111, "other": -3.556},
    "remix-sign": {"bracket": -0.8, "value": -1.318977},
    "remix-capture": {"ten": 40, "one": 4},
    "thesis-2.66": {"row": [0.7, 0.3], "value": 3.2},
    "thesis-2.67": {"below": 3, "above": 1, "coarse": 10, "fine": 100},
    "thesis-2.68": {"right": 2},
    "thesis-2.2": {"printed": 1.1, "right": 0.55},
    "thesis-2.8": {
        "limit": -31.570200,
        "last": [0.796789, 0.519583],
        "one": [0.713012, 0.581339],
    },
    "thesis-m-step": {"before": -33.093863},
    "thesis-2.68-friends": {"printed": 1, "right": 2},
    "thesis-3.5.1": {"soft": -1, "foe": 0},
    "thesis-figure-3.1": {"policy": [0.317717, 0.291454, 0.390830], "value": 0.315749},
    "thesis-figure-3.2b": {"limit": 1, "balancing": 2},
    "thesis-corollary-1": {"agent": 2.335223, "other": 2.890022, "independent": 2.606757},
    "thesis-b.1": {"printed": [0.19, 0.20, 0.61], "right": [0.002, 0.003, 0.995]},
    "rommeo-differential": {"paper": -4.4444, "code": -13.3333},
    "thesis-4.6": {"printed": 1.039721, "right": 1.386294, "total": 1.414214},
    "thesis-4.20": {
        "q": [[3.006501, 1.723205], [2.326987, 1.837825]],
        "w": [[2.807173, 2.225270], [2.225270, 1.984293]],
    },
    "thesis-5.4": {"right": 0.969799},
    "thesis-5.24": {"right": -2.141743},
}


@pytest.mark.parametrize("name", but_slow(BY_ID, BY_ID.keys() - COSTLY))
def test_every_error_is_shown_with_the_numbers_on_the_page(name):
    found = compute(BY_ID[name])
    assert found.shown
    assert f"**Shown by:** {found.evidence}\n" in PAGE.read_text(encoding="utf-8")
    for number, value in NUMBERS.get(name, {}).items():
        digits = max(len(f"{each:.12g}".partition(".")[2]) for each in np.ravel(value))
        np.testing.assert_allclose(found.numbers[number], value, rtol=0, atol=0.6 * 10.0**-digits)


def test_ids_are_unique_and_all_is_said():
    assert len(BY_ID) == len(ERRATA) >= 80 and NUMBERS.keys() <= BY_ID.keys() and BY_ID.keys() >= COSTLY
    for erratum in ERRATA:
        assert re.fullmatch(r"[a-z0-9.-]+", erratum.id)
        assert erratum.place and erratum.printed != erratum.right


def test_the_page_lists_what_the_register_holds():
    """All but the evidence, which another test compares."""
    text = PAGE.read_text(encoding="utf-8")
    shown = {erratum: Shown(True, "", {}) for erratum in ERRATA}
    written = page(shown, COMMAND, errata.HEAD)
    assert re.sub(r"(\*\*Shown by:\*\*).*", r"\1 ", text) == written


@pytest.mark.slow
def test_the_page_is_what_the_script_writes(tmp_path, capsys):
    assert errata.main(["--write", "--out", str(tmp_path / "new" / "errata.md")]) == 0
    assert (tmp_path / "new" / "errata.md").read_bytes() == PAGE.read_bytes()
    assert capsys.readouterr().out.count(": shown\n") == len(ERRATA)


def test_one_erratum_is_computed_and_printed(capsys):
    assert errata.main(["remix-jensen"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("remix-jensen: shown\n") and "0.566219" in out and "printed:" in out
    assert errata.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ERRATA)


def test_what_is_not_shown_is_said_and_not_written(tmp_path, capsys, monkeypatch):
    true = dataclasses.replace(BY_ID["remix-jensen"], check=lambda: show(1 > 2, "1 is not above 2."))
    monkeypatch.setattr(errata, "ERRATA", (BY_ID["remix-two-sets"], true))
    assert errata.main(["--write", "--out", str(tmp_path / "errata.md")]) == 1
    out = capsys.readouterr().out
    assert "remix-jensen: NOT SHOWN" in out and "not written: remix-jensen" in out
    assert not (tmp_path / "errata.md").exists()
    with pytest.raises(ValueError, match="not shown: remix-jensen"):
        page({true: compute(true)}, COMMAND)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["qtran-theorem-3"],
            "unknown erratum 'qtran-theorem-3': did you mean qtran-theorem-2? --list shows",
        ),
        (["xyz"], "unknown erratum 'xyz': --list shows all"),
        (["remix-jensen", "--write"], "--write writes all errata: leave out the ids"),
        (["--list", "--write"], "--list lists all errata and computes none: leave out the ids and --write"),
        (["--list", "remix-jensen"], "--list lists all errata and computes none: leave out the ids"),
        (["--out", "page.md"], "--out is for the page: add --write"),
        (["--write", "--out", "/tmp"], "/tmp is a folder: give the path of the page, such as /tmp/errata.md"),
    ],
)
def test_bad_input_is_one_line(argv, message):
    with pytest.raises(BadInputError, match=re.escape(message)) as error:
        errata.main(argv)
    assert "\n" not in str(error.value)
