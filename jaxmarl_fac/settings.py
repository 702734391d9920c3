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
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from envs.ranges import Count, Must, Probability, above, at_least, between, checked

__all__ = [
    "AnyWidths",
    "Beta",
    "Count",
    "EvenCount",
    "Must",
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
]

Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0, "0 or above")]
#: Of a step towards a target: 1 is the whole way.
StepSize = Annotated[float, between(0, 1, open_low=True)]
EvenCount = Annotated[int, Must("even and above 0", lambda count: count >= 2 and count % 2 == 0)]
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

    See `envs.ranges.checked`.

    Raises:
        BadInputError: for the first field that is not what it must be.
    """

    def __post_init__(self) -> None:
        settings: Any = self
        hints = _hints(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(settings):
            value = checked(field.name, hints[field.name], getattr(self, field.name))
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
