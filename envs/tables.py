"""Tables given by users: lists of lists, or NumPy or JAX arrays."""

from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from envs.errors import BadInputError

#: Maximum number of agents of a tabular game, whose table has an axis per agent: arrays have at most 64 axes.
MAX_AXES = 32
#: Tolerance on the sum of a row of probabilities; rows in float32 stay well below it.
SUM_TOLERANCE = 1e-5


def numeric_array(
    values: ArrayLike, name: str, dtype: DTypeLike = np.float64, *, booleans: bool = False
) -> np.ndarray:
    """`values` in `dtype`; with `booleans`, True and False are 1 and 0.

    Raises:
        BadInputError: if they are ragged, or not all plain numbers that are finite in float32.
    """
    try:
        table = values if isinstance(values, np.ndarray | jax.Array) else np.asarray(values, object)
        mixed = table.dtype == object
        kinds = {type(entry) for entry in table.ravel()} if mixed else {np.dtype(table.dtype).type}
        if not all(booleans if kind in (bool, np.bool_) else _is_real(kind) for kind in kinds):
            raise TypeError("not all are numbers")
        with np.errstate(over="ignore"):  # to infinity, which is refused below
            array = np.asarray(table, dtype)
            finite = bool(np.isfinite(np.asarray(array, np.float32)).all())  # as on a device
    except (ValueError, TypeError) as error:
        raise BadInputError(
            f"{name} is ragged or not numeric: every row needs the same number of plain numbers"
        ) from error
    except OverflowError:  # an integer too large for a float
        finite = False
    if not finite:
        raise BadInputError(f"{name} holds NaN or infinite entries: every entry must be a finite number")
    return array


def _is_real(kind: type) -> bool:
    # np.timedelta64 is a subclass of NumPy's integers, and JAX has floats of its own.
    real = issubclass(kind, Real | jax.Array) or jnp.issubdtype(kind, jnp.floating)
    return real and not issubclass(kind, np.timedelta64)


def check_probabilities(table: np.ndarray, name: str) -> None:
    """Check that every row of the last axis is a distribution.

    Raises:
        BadInputError: if a row has a negative entry or does not sum to 1.
    """
    if table.min() < 0:
        where = tuple(int(index) for index in np.unravel_index(table.argmin(), table.shape))
        raise BadInputError(f"{name} has a negative probability, {table.min():g} at {where}: give 0 or more")
    sums = np.atleast_1d(table.sum(axis=-1))
    wrong = np.abs(sums - 1)
    if wrong.max() > SUM_TOLERANCE:
        where = tuple(int(index) for index in np.unravel_index(wrong.argmax(), sums.shape))
        row = f"row {where}" if table.ndim > 1 else "it"
        raise BadInputError(f"{name} does not sum to 1: {row} sums to {sums[where]:g}")
