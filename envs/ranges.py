"""Ranges stated in annotations and checked in one place, for settings and for the parameters of games.

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

#: Integers are int32 and floats float32 on a device.
MAX_INT = int(np.iinfo(np.int32).max)
MAX_FLOAT = float(np.finfo(np.float32).max)
#: Smaller magnitudes are 0 on a device.
MIN_FLOAT = float(np.finfo(np.float32).tiny)
#: Maximum length of a setting that is a list, such as the seeds.
MAX_ITEMS = 2**24


class Constraint(NamedTuple):
    """A constraint on a number, as metadata of `Annotated`; in a tuple, on every item.

    Attributes:
        words: completes "NAME must be ...".
        holds: whether a number satisfies it.
        unbounded: whether infinities and numbers that do not fit into 32 bits are allowed.
    """

    words: str
    holds: Callable[[Any], bool]
    unbounded: bool = False


def above(low: float) -> Constraint:
    """More than `low`."""
    return Constraint(f"above {low}", lambda value: value > low)


def at_least(low: float, words: str = "") -> Constraint:
    """`low` or more; `words` replaces the wording, such as "0 (off) or above"."""
    return Constraint(words or f"at least {low}", lambda value: value >= low)


def between(low: float, high: float, *, open_low: bool = False) -> Constraint:
    """From `low` (excluded if `open_low`) to `high`."""
    return Constraint(
        f"in {'(' if open_low else '['}{low}, {high}]",
        lambda value: low <= value <= high and not (open_low and value == low),
    )


def from_to(low: int, high: int) -> Constraint:
    """From `low` to `high`, both included; they may exceed 32 bits."""
    return Constraint(f"from {low} to {high}", lambda value: low <= value <= high, unbounded=True)


#: A number of things, or a period.
Count = Annotated[int, at_least(1)]
Probability = Annotated[float, between(0, 1)]
#: The seed of a JAX key, which takes 32 bits.
KEY = Constraint("in [0, 4294967295]", lambda number: 0 <= number < 2**32, unbounded=True)
Seed = Annotated[int, KEY]
#: Steps of the longest possible episode: states count them in at most 16 bits.
MAX_STEPS = int(np.iinfo(np.int16).max)
#: The time limit of an episode.
Steps = Annotated[int, from_to(1, MAX_STEPS)]


def checks_parameters(build: Callable[P, T]) -> Callable[P, T]:
    """Decorator that checks the arguments of `build` against their annotations; see `check_value`."""
    signature, hints = inspect.signature(build), get_type_hints(build, include_extras=True)

    @functools.wraps(build)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = check_value(name, hints[name], value)
        return build(*bound.args, **bound.kwargs)

    return wrapper


def check_value(name: str, hint: Any, value: Any) -> Any:
    """Check a value against its annotation `hint` and normalise it.

    A number must satisfy its constraints and, unless one of them is unbounded, fit into 32 bits; a `Literal`
    must be one of its choices. NumPy scalars become Python numbers, and lists become tuples. JAX arrays,
    which may be traced, and values with any other annotation are returned unchanged.

    Raises:
        BadInputError: if a constraint is violated or the type is wrong.
    """
    metadata: Sequence[Any] = ()
    if get_origin(hint) is Annotated:
        hint, *metadata = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        if value is None or len(choices) > 1:
            return value
        return check_value(name, Annotated[choices[0], *metadata] if metadata else choices[0], value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise BadInputError(f"{name} must be {' or '.join(map(str, get_args(hint)))}, not {value}")
        return value
    constraints = [each for each in metadata if isinstance(each, Constraint)]
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        return _check_tuple(name, get_args(hint)[0], value, constraints, "not empty" in metadata)
    return _check_number(name, hint, value, constraints) if hint in (int, float, bool) else value


def _check_tuple(
    name: str, hint: Any, value: Any, constraints: list[Constraint], filled: bool
) -> tuple[Any, ...]:
    words = constraints[0].words if constraints else "plain numbers" if hint in (int, float) else "a list"
    if isinstance(value, jax.Array) and not _is_traced(value):
        value = np.asarray(value)
    listed = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim)
    if isinstance(value, str | bytes) or not listed:
        raise BadInputError(f"{name} must be {words}, not {format_value(value)}")
    count = _length(value)
    if count > MAX_ITEMS:
        raise BadInputError(f"{name} must have at most {MAX_ITEMS} entries, not {count}")
    if filled and not count:
        raise BadInputError(f"{name} must be {words}, not {format_value(tuple(value))}")
    try:
        return tuple(
            check_value(name, Annotated[hint, *constraints] if constraints else hint, item) for item in value
        )
    except BadInputError:
        if not constraints:
            raise
        raise BadInputError(f"{name} must be {words}, not {format_value(tuple(value))}") from None


def _check_number(name: str, kind: type, value: Any, constraints: list[Constraint]) -> Any:
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not value.ndim and not _is_traced(value):
        value = value.item()
    if isinstance(value, jax.Array):  # a batch of settings, or traced
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise BadInputError(f"{name} must be True or False, not {format_value(value)}")
        return value
    allowed, words = ((int,), "a whole number") if kind is int else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise BadInputError(f"{name} must be {words}, not {format_value(value)}")
    for constraint in constraints:
        if not constraint.holds(value):
            raise BadInputError(f"{name} must be {constraint.words}, not {format_value(value)}")
    if kind is int:
        if abs(value) > MAX_INT and not any(constraint.unbounded for constraint in constraints):
            raise BadInputError(f"{name} must be at most {MAX_INT}, not {format_value(value)}")
        return value
    try:
        number = float(value)
    except OverflowError:  # an integer too large for a float
        number = math.inf
    if 0 < abs(number) < MIN_FLOAT and constraints:
        raise BadInputError(
            f"{name} must be 0 or at least {MIN_FLOAT:.2g} in size, to fit into 32 bits, "
            f"not {format_value(value)}"
        )
    if abs(number) <= MAX_FLOAT or any(constraint.unbounded for constraint in constraints):
        return number
    bound = f"at most {MAX_FLOAT:.2g}, to fit into 32 bits" if math.isfinite(number) else "a finite number"
    raise BadInputError(f"{name} must be {bound}, not {format_value(value)}")


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _length(value: Any) -> int:
    if isinstance(value, range):  # `len` overflows beyond 63 bits
        return max(0, -(-(value.stop - value.start) // value.step))
    return len(value)


def format_value(value: Any) -> str:
    """The `repr` of a value for a message, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
