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
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser

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
    "flags_class",
    "leaves",
    "replaced",
]

S = TypeVar("S")

Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0, "0 or above")]
#: Step size towards a target; 1 replaces the old value.
StepSize = Annotated[float, between(0, 1, open_low=True)]
EvenCount = Annotated[int, Constraint("even and above 0", lambda count: count >= 2 and count % 2 == 0)]
#: 0 switches the feature off.
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

    Names are unique within an algorithm, so that they can be flags and keys of a sweep.
    """
    found: dict[str, Leaf] = {}
    if not dataclasses.is_dataclass(settings):
        return found
    kind: Any = type(settings)
    hints = _hints(kind)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value)
        else:
            found[field.name] = Leaf(hints[field.name], value, _about(kind, field.name))
    return found


def replaced(settings: S, **changes: Any) -> S:
    """A copy with some settings, nested or not, or whole parts replaced.

    Raises:
        BadInputError: for a value out of its range.
        KeyError: for an unknown setting.
    """
    parts: dict[str, Any] = {}
    nested_or_own = dataclasses.fields(settings) if dataclasses.is_dataclass(settings) else ()
    for field in nested_or_own:
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(changes.get(field.name)):  # a whole part
            parts[field.name] = changes.pop(field.name)
        elif dataclasses.is_dataclass(value):  # which may contain a setting of the same name
            known = leaves(value)
            nested = {name: changes.pop(name) for name in list(changes) if name in known}
            if nested:
                parts[field.name] = replaced(value, **nested)
        elif field.name in changes:
            parts[field.name] = changes.pop(field.name)
    if changes:
        raise KeyError(next(iter(changes)))
    return dataclasses.replace(settings, **parts) if parts else settings  # type: ignore[type-var]


def flags_class(name: str, settings: Any) -> type:
    """A flat dataclass of all settings of `settings`, with its values as defaults, for a command line."""
    found = leaves(settings)
    fields = [(each, leaf.hint, dataclasses.field(default=leaf.value)) for each, leaf in found.items()]
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
