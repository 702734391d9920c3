"""Settings that say what they may be: dataclass fields whose annotations carry their range.

Example:
    >>> @dataclasses.dataclass(frozen=True)
    ... class Optimiser(Settings):
    ...     learning_rate: Annotated[float, above(0)] = 1e-3
    >>> Optimiser(learning_rate=-1)
    Traceback (most recent call last):
    envs.errors.BadInputError: learning_rate must be above 0, not -1
"""

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import jax
import numpy as np

from envs.errors import BadInputError

#: What counts and periods become on a device.
LARGEST_COUNT = int(np.iinfo(np.int32).max)
#: Numbers in one setting, such as seeds.
MOST_ITEMS = 2**24


class Must(NamedTuple):
    """What a number must be, as metadata of `Annotated`; in a tuple, each of them.

    Attributes:
        words: completes "NAME must be ...".
        holds: whether a number is so.
        unbounded: whether infinities, and whole numbers beyond 32 bits, are not refused of themselves.
    """

    words: str
    holds: Callable[[Any], bool]
    unbounded: bool = False


def above(low: float) -> Must:
    """More than `low`."""
    return Must(f"above {low}", lambda value: value > low)


def at_least(low: float, words: str = "") -> Must:
    """`low` or more; `words` such as "0 (off) or above" say so in another way."""
    return Must(words or f"at least {low}", lambda value: value >= low)


def between(low: float, high: float, *, open_low: bool = False) -> Must:
    """From `low` (not itself, if `open_low`) to `high`."""
    return Must(
        f"in {'(' if open_low else '['}{low}, {high}]",
        lambda value: low <= value <= high and not (open_low and value == low),
    )


#: A number of things, or a period.
Count = Annotated[int, at_least(1)]
EvenCount = Annotated[int, Must("even and above 0", lambda count: count >= 2 and count % 2 == 0)]
Probability = Annotated[float, between(0, 1)]
#: 0 switches off what the setting is for.
OffOrAbove = Annotated[float, at_least(0, "0 (off) or above")]
#: Of the hidden layers of a network that has some, and of one that may have none.
Widths = Annotated[tuple[int, ...], at_least(1, "one or more widths, each at least 1"), "not empty"]
AnyWidths = Annotated[tuple[int, ...], at_least(1, "widths, each at least 1")]
#: An inverse temperature.
Beta = Annotated[
    float, Must("a number, which may be 0, negative or infinite", lambda value: not math.isnan(value), True)
]


class Settings:
    """Base of frozen dataclasses whose fields are checked by their annotations, in `__post_init__`.

    Without a range a float must be finite and an int fit into 32 bits; a `Literal` is one of its choices.
    NumPy's numbers become Python's, lists become tuples, and traced numbers are left alone.

    Raises:
        BadInputError: for the first field that is not what it must be.
    """

    def __post_init__(self) -> None:
        settings: Any = self
        hints = _hints(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(settings):
            value = _checked(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of all fields; a subclass that only changes a default keeps the range."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        for name in inspect.get_annotations(base):
            hint, before = get_type_hints(base, include_extras=True)[name], found.get(name)
            plain = get_origin(hint) is not Annotated
            found[name] = before if plain and before is not None and get_args(before)[:1] == (hint,) else hint
    return found


def _checked(name: str, hint: Any, value: Any) -> Any:
    """`value` as its hint wants it."""
    must: Sequence[Any] = ()
    if get_origin(hint) is Annotated:
        hint, *must = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        hint = next(choice for choice in get_args(hint) if choice is not type(None))
        return _checked(name, Annotated[hint, *must] if must else hint, value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise BadInputError(f"{name} must be {' or '.join(map(str, get_args(hint)))}, not {value}")
        return value
    limits = [each for each in must if isinstance(each, Must)]
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        return _checked_tuple(name, get_args(hint)[0], value, limits, "not empty" in must)
    return _checked_number(name, hint, value, limits) if hint in (int, float, bool) else value


def _checked_tuple(name: str, hint: Any, value: Any, limits: list[Must], filled: bool) -> tuple[Any, ...]:
    words = limits[0].words if limits else "plain numbers" if hint in (int, float) else "a list"
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray | range):
        raise BadInputError(f"{name} must be {words}, not {shown(value)}")
    if len(value) > MOST_ITEMS:
        raise BadInputError(f"{name} must be at most {MOST_ITEMS}, not {len(value)} of them")
    if filled and not len(value):
        raise BadInputError(f"{name} must be {words}, not {shown(tuple(value))}")
    try:
        return tuple(_checked(name, Annotated[hint, *limits] if limits else hint, item) for item in value)
    except BadInputError:
        if not limits:
            raise
        raise BadInputError(f"{name} must be {words}, not {shown(tuple(value))}") from None


def _checked_number(name: str, kind: type, value: Any, limits: list[Must]) -> Any:
    if isinstance(value, jax.Array):  # one of a batch of settings, known only when it runs
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if kind is bool:
        if not isinstance(value, bool):
            raise BadInputError(f"{name} must be True or False, not {shown(value)}")
        return value
    allowed, words = ((int,), "a whole number") if kind is int else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise BadInputError(f"{name} must be {words}, not {shown(value)}")
    for must in limits:
        if not must.holds(value):
            raise BadInputError(f"{name} must be {must.words}, not {shown(value)}")
    if kind is int:
        if abs(value) > LARGEST_COUNT and not any(must.unbounded for must in limits):
            raise BadInputError(f"{name} must be at most {LARGEST_COUNT}, not {shown(value)}")
        return value
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond what a float holds
        number = math.inf
    if not math.isfinite(number) and not any(must.unbounded for must in limits):
        raise BadInputError(f"{name} must be a finite number, not {shown(value)}")
    return number


def shown(value: Any) -> str:
    """A value in a message: of a very long one, the start."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
