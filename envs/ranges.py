"""Ranges that annotations state, checked in one place: for settings and for the parameters of games.

Example:
    >>> @checks_parameters
    ... def tag(agents: Annotated[int, at_least(2)] = 3, time_limit: Steps = 100) -> str:
    ...     return f"{agents} agents for {time_limit} steps"
    >>> tag(agents=1)
    Traceback (most recent call last):
    envs.errors.BadInputError: agents must be at least 2, not 1
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import jax
import numpy as np

from envs.errors import BadInputError

P = ParamSpec("P")
T = TypeVar("T")

#: What counts, periods and numbers become on a device.
LARGEST_COUNT = int(np.iinfo(np.int32).max)
LARGEST_NUMBER = float(np.finfo(np.float32).max)
#: Smaller ones are 0 on a device.
LEAST_NUMBER = float(np.finfo(np.float32).tiny)
#: Numbers in one setting, such as seeds.
MOST_ITEMS = 2**24


class Must(NamedTuple):
    """What a number must be, as metadata of `Annotated`; in a tuple, each of them.

    Attributes:
        words: completes "NAME must be ...".
        holds: whether a number is so.
        unbounded: whether infinities and numbers beyond 32 bits are not refused of themselves.
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


def from_to(low: int, high: int) -> Must:
    """From `low` to `high`, both included; of any size."""
    return Must(f"from {low} to {high}", lambda value: low <= value <= high, unbounded=True)


#: A number of things, or a period.
Count = Annotated[int, at_least(1)]
Probability = Annotated[float, between(0, 1)]
#: Makes a key: JAX takes 32 bits of it.
KEY = Must("in [0, 4294967295]", lambda number: 0 <= number < 2**32, unbounded=True)
Seed = Annotated[int, KEY]
#: Steps of the longest episode that there can be: states count them in at most 16 bits.
MOST_STEPS = int(np.iinfo(np.int16).max)
#: The time limit of an episode.
Steps = Annotated[int, from_to(1, MOST_STEPS)]


def checks_parameters(build: Callable[P, T]) -> Callable[P, T]:
    """`build`, whose arguments are checked by their annotations before it is called; see `checked`."""
    signature, hints = inspect.signature(build), get_type_hints(build, include_extras=True)

    @functools.wraps(build)
    def checks_and_builds(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            given.arguments[name] = checked(name, hints[name], value)
        return build(*given.args, **given.kwargs)

    return checks_and_builds


def checked(name: str, hint: Any, value: Any) -> Any:
    """`value` as its hint wants it.

    Without a range a number must fit into 32 bits; a `Literal` is one of its choices.
    NumPy's numbers become Python's, lists become tuples; arrays of JAX, which may be traced, and what has
    another hint are left alone.

    Raises:
        BadInputError: if it is not what it must be.
    """
    must: Sequence[Any] = ()
    if get_origin(hint) is Annotated:
        hint, *must = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        if value is None or len(choices) > 1:
            return value
        return checked(name, Annotated[choices[0], *must] if must else choices[0], value)
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
    if isinstance(value, jax.Array) and not _traced(value):
        value = np.asarray(value)
    listed = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim)
    if isinstance(value, str | bytes) or not listed:
        raise BadInputError(f"{name} must be {words}, not {shown(value)}")
    count = _length(value)
    if count > MOST_ITEMS:
        raise BadInputError(f"{name} must be at most {MOST_ITEMS}, not {count} of them")
    if filled and not count:
        raise BadInputError(f"{name} must be {words}, not {shown(tuple(value))}")
    try:
        return tuple(checked(name, Annotated[hint, *limits] if limits else hint, item) for item in value)
    except BadInputError:
        if not limits:
            raise
        raise BadInputError(f"{name} must be {words}, not {shown(tuple(value))}") from None


def _checked_number(name: str, kind: type, value: Any, limits: list[Must]) -> Any:
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not value.ndim and not _traced(value):
        value = value.item()
    if isinstance(value, jax.Array):  # of a batch of settings, or known only when it runs
        return value
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
    if 0 < abs(number) < LEAST_NUMBER and limits:
        raise BadInputError(
            f"{name} must be 0 or at least {LEAST_NUMBER:.2g}, to fit into 32 bits, not {shown(value)}"
        )
    if abs(number) <= LARGEST_NUMBER or any(must.unbounded for must in limits):
        return number
    bound = (
        f"at most {LARGEST_NUMBER:.2g}, to fit into 32 bits" if math.isfinite(number) else "a finite number"
    )
    raise BadInputError(f"{name} must be {bound}, not {shown(value)}")


def _traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _length(value: Any) -> int:
    if isinstance(value, range):  # `len` overflows beyond 63 bits
        return max(0, -(-(value.stop - value.start) // value.step))
    return len(value)


def shown(value: Any) -> str:
    """A value in a message: of a very long one, the start."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
