"""Colours, dashes and labels: a table of algorithms, and what the others get."""

import itertools

import pytest

from jaxmarl_fac.report import styles
from jaxmarl_fac.report.styles import DASHES, PALETTE, Style, line_styles

#: Seven algorithms in each colour, seven more with dashes, and one of a colour of its own.
KNOWN = {
    **{f"known-{index}": Style(colour) for index, colour in enumerate(PALETTE)},
    **{f"dashed-{index}": Style(colour, "--") for index, colour in enumerate(PALETTE)},
    "wine": Style("#882255"),
}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(styles, "STYLES", KNOWN)
    monkeypatch.setattr(styles, "LABELS", {"wine": "Wine-QMIX"})


def test_registered_algorithms_always_look_the_same():
    assert line_styles(list(KNOWN)) == KNOWN
    for name, style in KNOWN.items():
        assert line_styles(["something", "else", name])[name] == style


def test_labels_are_the_ids_where_none_is_given():
    assert [styles.label_of(name) for name in ("wine", "known-0")] == ["Wine-QMIX", "known-0"]


def test_other_algorithms_are_told_apart_in_one_figure():
    pairs = len(PALETTE) * len(DASHES)
    names = [f"variant-{index}" for index in range(pairs - 14)] + list(KNOWN)
    found = line_styles(names)
    assert list(found) == names
    assert len(set(found.values())) == pairs + 1
    assert len(line_styles([f"variant-{index}" for index in range(40)])) == 40


def test_of_two_other_algorithms_of_one_colour_the_later_one_moves():
    alone = {name: line_styles([name])[name] for name in (f"variant-{index}" for index in range(29))}
    assert {style.dashes for style in alone.values()} == {"-"}
    pairs = [pair for pair in itertools.combinations(alone, 2) if alone[pair[0]] == alone[pair[1]]]
    assert pairs
    for first, second in pairs:
        found = line_styles([first, second])
        assert found[first] == alone[first]
        assert found[second].colour != alone[second].colour and found[second].dashes == "-"


def test_up_to_seven_algorithms_of_which_two_are_registered_differ_in_colour():
    names = ["known-5", "known-0", *(f"variant-{index}" for index in range(5))]
    assert len({style.colour for style in line_styles(names).values()}) == 7


def test_other_algorithms_have_the_same_colour_in_every_process():
    # `sha256sum` of the id, its first 16 hex digits modulo 7 colours: 6, 1, 0.
    ids = ["no-bellman", "no-gradient", "my-algorithm"]
    assert [PALETTE.index(line_styles([name])[name].colour) for name in ids] == [6, 1, 0]
