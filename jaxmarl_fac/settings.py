"""Settings that check themselves: dataclass fields whose annotations carry their range.

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
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser

from envs.errors import BadInputError
from envs.ranges import Constraint, Count, Probability, above, at_least, between, check_value

__all__ = [
    "AnyWidths",
    "Beta",
    "Constraint",
    "Count",
    "EvenCount",
    "Leaf",
    "NotNegative",
    "OffOrAbove",
    "Positive",
    "Probability",
    "Settings",
    "StepSize",
    "Widths",
    "above",
    "at_least",
    "between",
    "can_vary",
    "flags_class",
    "is_float",
    "leaves",
    "replaced",
    "traced",
]

S = TypeVar("S")

Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0, "0 or above")]
#: Step size towards a target; 1 replaces the old value.
StepSize = Annotated[float, between(0, 1, open_low=True)]
EvenCount = Annotated[int, Constraint("even and above 0", lambda count: count >= 2 and count % 2 == 0)]
#: 0 switches the feature off, that is leaves its code out.
OffOrAbove = Annotated[float, at_least(0, "0 (off) or above")]
#: Widths of hidden layers: at least one layer, or possibly none.
Widths = Annotated[tuple[int, ...], at_least(1, "one or more widths, each at least 1"), "not empty"]
AnyWidths = Annotated[tuple[int, ...], at_least(1, "widths, each at least 1")]
#: An inverse temperature.
Beta = Annotated[
    float,
    Constraint("a number, which may be 0, negative or infinite", lambda value: not math.isnan(value), True),
]


class Settings:
    """Base class of frozen dataclasses whose fields are checked against their annotations.

    The check is in `__post_init__`; see `envs.ranges.check_value`.

    Raises:
        BadInputError: for the first field that is out of its range.
    """

    def __post_init__(self) -> None:
        settings: Any = self
        hints = _hints(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(settings):
            value = check_value(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)


class Leaf(NamedTuple):
    """One setting of an algorithm, nested or not."""

    hint: Any
    value: Any
    about: str  # its line in the docstring of its class


def leaves(settings: Any) -> dict[str, Leaf]:
    """All settings of a dataclass by name, including those of nested dataclasses.

    Raises:
        BadInputError: if two parts have a setting of one name, which then can be no flag or key of a sweep.
    """
    values = _values(settings)
    by_field = _leaves_by_field(type(settings), values)
    found: dict[str, Leaf] = {}
    for own in by_field.values():
        _refuse_twice(type(settings), values, by_field, own)
        found |= own
    return found


def replaced(settings: S, **changes: Any) -> S:
    """A copy with some settings changed, wherever they are nested.

    A dataclass under the name of one of the fields of `settings` itself takes the place of that whole part;
    other changes apply to the new part.

    Raises:
        BadInputError: for a value out of its range, or a setting that two parts have.
        KeyError: for an unknown setting, or a part that is nested deeper.
    """
    values = _values(settings)
    parts = {name: changes.pop(name) for name in values if dataclasses.is_dataclass(changes.get(name))}
    values |= parts
    by_field = _leaves_by_field(type(settings), values)
    _refuse_twice(type(settings), values, by_field, changes)
    for name, known in by_field.items():
        own = {each: changes.pop(each) for each in known if each in changes}
        if own:
            nested = dataclasses.is_dataclass(values[name])
            parts[name] = replaced(values[name], **own) if nested else own[name]
    if changes:
        raise KeyError(next(iter(changes)))
    return dataclasses.replace(settings, **parts) if parts else settings  # type: ignore[type-var]


def traced(settings: S, values: Mapping[str, Any]) -> S:
    """A copy in which some numbers, wherever they are nested, are traced scalars of unknown range.

    Args:
        settings: whose numbers have been checked.
        values: scalars by the name of a setting that it has.
    """
    copy: Any = object.__new__(type(settings))
    for name, value in _values(settings).items():
        nested = traced(value, values) if dataclasses.is_dataclass(value) else values.get(name, value)
        object.__setattr__(copy, name, nested)
    return copy  # type: ignore[no-any-return]


def is_float(leaf: Leaf) -> bool:
    """Whether a setting is a real number, and nothing else is allowed."""
    return (get_args(leaf.hint)[0] if get_origin(leaf.hint) is Annotated else leaf.hint) is float


def can_vary(leaf: Leaf) -> bool:
    """Whether a setting is a real number that decides no code; one that is off at 0 does."""
    return is_float(leaf) and leaf.hint != OffOrAbove


def _values(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass by name; none of anything else."""
    fields = dataclasses.fields(settings) if dataclasses.is_dataclass(settings) else ()
    return {field.name: getattr(settings, field.name) for field in fields}


def _leaves_by_field(kind: Any, values: dict[str, Any]) -> dict[str, dict[str, Leaf]]:
    """For each field of a class its settings: itself, or those of the part that is its value."""
    return {
        name: leaves(value)
        if dataclasses.is_dataclass(value)
        else {name: Leaf(_hints(kind)[name], value, _about(kind, name))}
        for name, value in values.items()
    }


def _refuse_twice(
    kind: Any, values: dict[str, Any], by_field: dict[str, dict[str, Leaf]], names: Iterable[str]
) -> None:
    """Refuse settings that more than one field has."""

    def described(field: str) -> str:
        value = values[field]
        return f"{field} ({type(value).__name__})" if dataclasses.is_dataclass(value) else "itself"

    for name in names:
        places = [described(field) for field, own in by_field.items() if name in own]
        if len(places) > 1:
            raise BadInputError(
                f"{kind.__name__} has a setting {name!r} in {places[0]} and in {places[1]}, and a flag can "
                "set only one: rename it in one of them, or replace a whole part"
            )


def flags_class(name: str, settings: Any, floats: type | None = None) -> type:
    """A flat dataclass of all settings of `settings`, with its values as defaults, for a command line.

    Args:
        name: of the class.
        settings: a dataclass.
        floats: the type of flags that are real numbers, if not their own.

    Raises:
        BadInputError: as `leaves`.
    """
    found = leaves(settings)
    fields = [
        (each, floats if floats and is_float(leaf) else leaf.hint, dataclasses.field(default=leaf.value))
        for each, leaf in found.items()
    ]
    made = dataclasses.make_dataclass(name, fields, frozen=True)
    lines = [f"    {each}: {leaf.about}" for each, leaf in found.items()]
    made.__doc__ = "\n".join(["Settings of the algorithm.", "", "Attributes:", *lines])
    return made


def _about(kind: type, name: str) -> str:
    """The description of an attribute in the docstring of a class or of one of its bases."""
    for base in kind.__mro__:
        for parameter in docstring_parser.parse(base.__doc__ or "").params:
            if parameter.arg_name == name:
                return " ".join((parameter.description or "").split())
    return ""


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of all fields; a subclass that only overrides a default keeps the range."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        for name in inspect.get_annotations(base):
            hint, before = get_type_hints(base, include_extras=True)[name], found.get(name)
            plain = get_origin(hint) is not Annotated
            found[name] = before if plain and before is not None and get_args(before)[:1] == (hint,) else hint
    return found
