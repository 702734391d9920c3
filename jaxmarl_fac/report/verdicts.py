"""Rules, each declared once for a claim's sentence, verdict and reasons; and what figures measure for one."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxmarl_fac.statistics import Interval, wilson_interval

#: "undecided" is a run in which nothing was learned that a rule could judge.
Verdict = Literal["reproduced", "partly", "not reproduced", "undecided"]
#: What a rule judges: estimates with intervals, plain numbers, or whether something holds, by name.
Measured = Mapping[str, Any]
#: A number, or the names of other measured things.
Bound = float | str | Sequence[str]

_BOUNDS = ("at_least", "at_most", "above", "below", "before", "inside", "equals")


@dataclasses.dataclass(frozen=True)
class Part:
    """One condition on something measured: at most one bound, and with none it has to be true.

    Example:
        >>> part = Part("win rate of LTQL", at_least=0.85)
        >>> part.sentence
        'win rate of LTQL at least 0.85'
        >>> part.holds({"win rate of LTQL": Interval(0.9, 0.8, 0.95)})
        True

    Attributes:
        what: the thing measured, in words.
        measured: its name among what the figure measured, if that is not `what` itself.
        at_least: of numbers and estimates.
        at_most: of numbers and estimates.
        above: strictly; the whole interval lies above the bound, or above the intervals of these names.
        below: strictly; the whole interval lies below.
        before: strictly; of numbers that are times, infinite for never.
        inside: two numbers, both included, between which the whole interval lies.
        equals: of numbers and estimates, to `within`.
        within: see `equals`.

    Raises:
        ValueError: for more than one bound.
    """

    what: str
    measured: str = ""
    _: dataclasses.KW_ONLY
    at_least: Bound | None = None
    at_most: Bound | None = None
    above: Bound | None = None
    below: Bound | None = None
    before: Bound | None = None
    inside: tuple[float, float] | None = None
    equals: Bound | None = None
    within: float = 0.0

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in _BOUNDS) > 1:
            raise ValueError(f"the part {self.what!r} of a rule has more than one bound")

    @property
    def sentence(self) -> str:
        """The condition in words."""
        kind, bound = self._bound()
        if kind is None:
            return self.what
        if kind == "inside":
            return f"{self.what} inside [{bound[0]:g}, {bound[1]:g}]"
        words = self._words(bound)
        if kind == "equals":
            return (
                f"{self.what} within {self.within:g} of {words}"
                if self.within
                else f"{self.what} equal to {words}"
            )
        apart = kind in ("above", "below") and not _is_number(bound)
        return f"{self.what} {kind.replace('_', ' ')} {words}{', intervals apart' if apart else ''}"

    def holds(self, measured: Measured) -> bool:
        """Whether it is so; never for NaN.

        Raises:
            KeyError: for something that was not measured.
        """
        kind, bound = self._bound()
        value = measured[self.measured or self.what]
        if kind is None:
            return bool(value)
        if kind == "inside":
            return bool(bound[0] <= _low(value) and _high(value) <= bound[1])
        return all(self._compare(kind, value, other) for other in self._others(bound, measured))

    def failures(self, measured: Measured) -> list[str]:
        """The sentence with what was measured, if it does not hold."""
        if self.holds(measured):
            return []
        kind, bound = self._bound()
        if kind is None:
            return [self.sentence]
        value = format_measured(measured[self.measured or self.what])
        others = [] if kind == "inside" else [o for o in _listed(bound) if not _is_number(o)]
        against = f" against {_enumerated([format_measured(measured[o]) for o in others])}" if others else ""
        return [f"{self.sentence} (measured {value}{against})"]

    def names(self) -> Iterator[str]:
        """All that has to be measured."""
        kind, bound = self._bound()
        yield self.measured or self.what
        if kind is not None and kind != "inside":
            yield from (other for other in _listed(bound) if not _is_number(other))

    def _bound(self) -> tuple[str | None, Any]:
        for name in _BOUNDS:
            if (bound := getattr(self, name)) is not None:
                return name, bound
        return None, None

    def _words(self, bound: Bound) -> str:
        if _is_number(bound):
            return f"{bound:g}"
        names = _listed(bound)
        label = f"{self.what.rpartition(' of ')[0]} of "
        if all(name.startswith(label) for name in names):  # "win rate of LTQL above that of IQL"
            return f"that of {_enumerated([name.removeprefix(label) for name in names])}"
        return _enumerated(names)

    def _others(self, bound: Bound, measured: Measured) -> list[Any]:
        return [other if _is_number(other) else measured[other] for other in _listed(bound)]

    def _compare(self, kind: str, value: Any, other: Any) -> bool:
        match kind:
            case "at_least":
                return bool(_value(value) >= _value(other))
            case "at_most":
                return bool(_value(value) <= _value(other))
            case "above":
                return bool(_low(value) > _high(other))
            case "below":
                return bool(_high(value) < _low(other))
            case "before":
                return bool(_value(value) < _value(other))
            case _:
                return bool(abs(_value(value) - _value(other)) <= self.within)


@dataclasses.dataclass(frozen=True)
class Every:
    """A condition that holds if all of its parts do, and counts as one."""

    parts: tuple["Condition", ...]

    @property
    def sentence(self) -> str:
        """The condition in words."""
        return ", and ".join(part.sentence for part in self.parts)

    def holds(self, measured: Measured) -> bool:
        """Whether all parts hold."""
        return all(part.holds(measured) for part in self.parts)

    def failures(self, measured: Measured) -> list[str]:
        """The parts that do not hold."""
        return [text for part in self.parts for text in part.failures(measured)]

    def names(self) -> Iterator[str]:
        """All that has to be measured."""
        for part in self.parts:
            yield from part.names()


@dataclasses.dataclass(frozen=True)
class Either:
    """A condition that holds if one of its parts does."""

    parts: tuple["Condition", ...]

    @property
    def sentence(self) -> str:
        """The condition in words."""
        return ", or ".join(part.sentence for part in self.parts)

    def holds(self, measured: Measured) -> bool:
        """Whether one of the parts holds."""
        return any(part.holds(measured) for part in self.parts)

    def failures(self, measured: Measured) -> list[str]:
        """The parts as one failure, if none holds."""
        if self.holds(measured):
            return []
        return [", nor ".join(text for part in self.parts for text in part.failures(measured))]

    def names(self) -> Iterator[str]:
        """All that has to be measured."""
        for part in self.parts:
            yield from part.names()


Condition = Part | Every | Either


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a reproduction is judged by, written before the run.

    Example:
        >>> rule = Rule((Part("wins of LTQL", at_least=0.85), Part("wins of IQL", at_most=0.1)))
        >>> rule.accept
        'Wins of LTQL at least 0.85; wins of IQL at most 0.1. Reproduced if all hold, partly if some do.'
        >>> rule.judge({"wins of LTQL": 0.9, "wins of IQL": 0.5})
        ('partly', 'Does not hold: wins of IQL at most 0.1 (measured 0.5).')

    Attributes:
        parts: the claim is reproduced if all hold.
        partly: what makes it partly reproduced; by default that some of the parts hold.
        learned: that something was learned, without which a run decides nothing; None for claims that train
            nothing.
        given: words before the parts: after how many steps, and how things are measured.
    """

    parts: tuple[Condition, ...]
    partly: Condition | None = None
    learned: Condition | None = None
    given: str = ""

    @property
    def accept(self) -> str:
        """The rule in words."""
        parts = "; ".join(part.sentence for part in self.parts)
        whole, one = "Reproduced if all hold", "Reproduced if it holds"
        text = f"{self.given}{parts if self.given else parts[0].upper() + parts[1:]}. "
        text += whole if len(self.parts) > 1 else one
        if self.partly is not None:
            text += f", partly if {self.partly.sentence}"
        elif len(self.parts) > 1:
            text += ", partly if some do"
        if self.learned is not None:
            text += f". Undecided unless {self.learned.sentence}"
        return f"{text}."

    def judge(self, measured: Measured) -> tuple[Verdict, str]:
        """The verdict, and every condition that does not hold with what was measured.

        Raises:
            KeyError: for something that was not measured.
        """
        if missing := self.names() - measured.keys():
            raise KeyError(f"the rule judges what was not measured: {', '.join(sorted(missing))}")
        holding = [part.holds(measured) for part in self.parts]
        some = any(holding) if self.partly is None else self.partly.holds(measured)
        verdict: Verdict = "reproduced" if all(holding) else "partly" if some else "not reproduced"
        failures = [text for part in self.parts for text in part.failures(measured)]
        unlearned = [] if self.learned is None else self.learned.failures(measured)
        if unlearned:
            verdict = "undecided"
        why = "Undecided, as nothing was learned. " if unlearned else ""
        if failures or unlearned:
            why += f"Does not hold: {'; '.join([*unlearned, *failures])}."
        return verdict, why

    def check(self, measured: Measured) -> dict[str, bool]:
        """Which conditions hold, by their sentences; the learned one is the last."""
        conditions = self.parts if self.learned is None else (*self.parts, self.learned)
        return {condition.sentence: condition.holds(measured) for condition in conditions}

    def names(self) -> set[str]:
        """All that has to be measured."""
        conditions = (*self.parts, self.partly, self.learned)
        return {name for condition in conditions if condition is not None for name in condition.names()}


def format_measured(value: Any) -> str:
    """A number, or an estimate with its interval, in four digits."""
    if isinstance(value, Interval):
        return f"{value.value:.4g} [{value.low:.4g}, {value.high:.4g}]"
    return "never" if math.isinf(value) and value > 0 else f"{value:.4g}"


def labelled(label: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of several algorithms under the names `label of algorithm`."""
    return {f"{label} of {name}": number for name, number in numbers.items()}


def _is_number(bound: Any) -> bool:
    return isinstance(bound, int | float)


def _listed(bound: Bound) -> Sequence[Any]:
    return (bound,) if isinstance(bound, str | int | float) else bound


def _enumerated(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _value(number: Any) -> float:
    return number.value if isinstance(number, Interval) else number


def _low(number: Any) -> float:
    return number.low if isinstance(number, Interval) else number


def _high(number: Any) -> float:
    return number.high if isinstance(number, Interval) else number


def share(good: ArrayLike) -> Interval:
    """How many of the runs `(runs,)` are good, with a Wilson interval."""
    return wilson_interval(int(np.sum(good)), len(np.asarray(good)))


def as_percent(fraction: Interval) -> Interval:
    """The interval times 100."""
    return Interval(100 * fraction.value, 100 * fraction.low, 100 * fraction.high)


#: What "exact" means in float64.
TOLERANCE = 1e-6
#: Games that are worked on side by side; more would only fill memory.
BATCH = 100


def over_games(work: Callable[..., Any], *inputs: Any) -> Any:
    """`work` on every game of `inputs` (leading axis), compiled, as NumPy arrays."""
    mapped = jax.jit(lambda *items: jax.lax.map(lambda item: work(*item), items, batch_size=BATCH))
    return jax.tree.map(np.asarray, mapped(*inputs))
