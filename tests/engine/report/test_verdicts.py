import doctest
import math

import pytest

from jaxmarl_fac.report import verdicts
from jaxmarl_fac.report.verdicts import Either, Every, Part, Rule, labelled
from jaxmarl_fac.statistics import Interval

NAN = Interval(math.nan, math.nan, math.nan)


def test_examples():
    assert doctest.testmod(verdicts, extraglobs={"Interval": Interval}).failed == 0


@pytest.mark.parametrize(
    ("part", "holding", "failing", "sentence"),
    [
        (Part("x", at_least=2), [2, 3, Interval(2, 0, 9)], [1.99, Interval(1.9, 1, 9)], "x at least 2"),
        (Part("x", at_most=0.1), [0.1, -3, Interval(0.1, 0, 9)], [0.11, True], "x at most 0.1"),
        (Part("x", above=0), [0.01, Interval(1, 0.01, 2)], [0, -1, Interval(1, 0, 2)], "x above 0"),
        (Part("x", below=5), [4.9, Interval(1, 0, 4.9)], [5, 6, Interval(1, 0, 5)], "x below 5"),
        (Part("x", before=30), [20], [30, 40, math.inf], "x before 30"),
        (
            Part("x", inside=(0, 1.2)),
            [0, 1.2, Interval(1, 0, 1.2)],
            [1.21, Interval(1, -0.1, 1), Interval(1, 0, 1.3)],
            "x inside [0, 1.2]",
        ),
        (Part("x", equals=115, within=17), [98, 132, 115], [97, 133], "x within 17 of 115"),
        (Part("x", equals=10), [10, Interval(10, 3, 20)], [10.1], "x equal to 10"),
        (Part("x"), [True, 1], [False, 0], "x"),
    ],
)
def test_a_bound_that_is_a_number(part, holding, failing, sentence):
    assert part.sentence == sentence
    for value in holding:
        assert part.holds({"x": value}) and part.failures({"x": value}) == []
    for value in failing:
        assert not part.holds({"x": value})
    if part.sentence != "x":
        assert not part.holds({"x": NAN}) and not part.holds({"x": math.nan})


def test_bounds_that_are_measured_too():
    scores = {"score of a": Interval(3, 2, 4), "score of b": Interval(1, 0, 1.9), "score of c": 2.5}
    higher = Part("score of a", above="score of b")
    assert higher.sentence == "score of a above that of b, intervals apart"
    assert higher.holds(scores)
    meeting = scores | {"score of b": Interval(1, 0, 2)}
    assert higher.failures(meeting) == [
        "score of a above that of b, intervals apart (measured 3 [2, 4] against 1 [0, 2])"
    ]
    assert Part("score of b", below="score of a").holds(scores)
    assert not Part("score of b", below="score of a").holds(meeting)
    both = Part("score of a", at_least=("score of b", "score of c"))
    assert both.sentence == "score of a at least that of b and c"
    assert both.holds(scores) and not both.holds(scores | {"score of c": 3.1})
    assert (
        Part("best of all", "score of a", at_least="score of c").sentence == "best of all at least score of c"
    )
    assert Part("best of all", "score of a", at_least="score of c").holds(scores)
    near = Part("score of c", equals="score of a", within=0.5)
    assert near.sentence == "score of c within 0.5 of that of a"
    assert near.holds(scores) and not near.holds(scores | {"score of c": 2.4})
    assert set(both.names()) == {"score of a", "score of b", "score of c"}


def test_parts_are_bound_once():
    with pytest.raises(ValueError, match="'x' of a rule has more than one bound"):
        Part("x", at_least=1, at_most=2)


def test_what_was_measured_is_in_the_failure():
    assert Part("x", above=1).failures({"x": Interval(1.23456, -2, 3)}) == [
        "x above 1 (measured 1.235 [-2, 3])"
    ]
    assert Part("x", before=1).failures({"x": math.inf}) == ["x before 1 (measured never)"]
    assert Part("it is so").failures({"it is so": False}) == ["it is so"]


def test_conditions_made_of_parts():
    a, b = Part("a", at_least=1), Part("b", at_least=1)
    every, either = Every((a, b)), Either((a, b))
    assert every.sentence == "a at least 1, and b at least 1"
    assert either.sentence == "a at least 1, or b at least 1"
    for x, y in ((1, 1), (1, 0), (0, 1), (0, 0)):
        measured = {"a": x, "b": y}
        assert every.holds(measured) == bool(x and y)
        assert either.holds(measured) == bool(x or y)
    assert every.failures({"a": 1, "b": 0}) == ["b at least 1 (measured 0)"]
    assert either.failures({"a": 1, "b": 0}) == []
    assert either.failures({"a": 0, "b": 0}) == ["a at least 1 (measured 0), nor b at least 1 (measured 0)"]
    assert set(every.names()) == set(either.names()) == {"a", "b"}


A, B, LEARNED = Part("a", at_least=1), Part("b", at_least=1), Part("learned", above=0)


@pytest.mark.parametrize(
    ("a", "b", "learned", "verdict"),
    [
        (1, 1, 1, "reproduced"),
        (1, 0, 1, "partly"),
        (0, 1, 1, "partly"),
        (0, 0, 1, "not reproduced"),
        (1, 1, 0, "undecided"),
        (1, 0, 0, "undecided"),
        (0, 0, 0, "undecided"),
    ],
)
def test_verdicts(a, b, learned, verdict):
    rule = Rule((A, B), learned=LEARNED)
    measured = {"a": a, "b": b, "learned": learned}
    found, why = rule.judge(measured)
    assert found == verdict
    assert ("Does not hold: " in why) == (verdict != "reproduced")
    for name, value in measured.items():
        assert (f"{name} a" in why and f"(measured {value})" in why) == (not value)
    assert why.startswith("Undecided, as nothing was learned.") == (verdict == "undecided")
    assert list(rule.check(measured).values()) == [bool(a), bool(b), bool(learned)]


def test_what_is_partly_may_be_said():
    half = Rule((A,), partly=Part("a", at_least=0.5))
    assert [half.judge({"a": a})[0] for a in (1, 0.5, 0.4)] == ["reproduced", "partly", "not reproduced"]
    first = Rule((A, B), partly=A)
    assert first.judge({"a": 1, "b": 0})[0] == "partly"
    assert first.judge({"a": 0, "b": 1})[0] == "not reproduced"


def test_the_sentence():
    assert Rule((A,)).accept == "A at least 1. Reproduced if it holds."
    assert Rule((A, B), given="After training: ").accept == (
        "After training: a at least 1; b at least 1. Reproduced if all hold, partly if some do."
    )
    assert Rule((A,), partly=B, learned=LEARNED).accept == (
        "A at least 1. Reproduced if it holds, partly if b at least 1. Undecided unless learned above 0."
    )


def test_all_that_is_judged_has_to_be_measured():
    rule = Rule((A,), partly=B, learned=LEARNED)
    assert rule.names() == {"a", "b", "learned"}
    with pytest.raises(KeyError, match="what was not measured: b, learned"):
        rule.judge({"a": 0})


def test_labels():
    assert labelled("score", {"vdn": 1}) == {"score of vdn": 1}
