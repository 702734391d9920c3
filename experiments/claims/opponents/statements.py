"""What the groups of the thesis's statements have in common: how each is judged, counted and worded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

#: What "exact" means of a statement in float64.
EXACT = 1e-9
#: Of what is itself found by an iteration.
SOLVED = 1e-6


class Statement(NamedTuple):
    """One statement of a source."""

    words: str  # its place, and what it says as printed
    counterexample: str = ""  # the smallest, with its numbers; empty if the statement is true


class Group(NamedTuple):
    """What became of the statements of a section."""

    fails: dict[str, np.ndarray]  # by statement, whether it fails in each of the games tried, (tried,) bool
    numbers: dict[str, Any]  # for the record
    shown: dict[str, Any] = {}  # noqa: RUF012  arrays for the picture


def failures(words: str) -> str:
    """What the rule calls the number of games in which a statement fails."""
    return f"failures of {words}"


def tried_and_failed(fails: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """For the record."""
    return {name: {"tried": len(each), "failures": int(each.sum())} for name, each in fails.items()}


def apart(first: Any, second: Any) -> np.ndarray:
    """The largest difference of each pair of arrays, as a share of the second's or of 1, `(games,)`."""
    left, right = (np.asarray(each).reshape(len(each), -1) for each in (first, second))
    return np.abs(left - right).max(1) / np.maximum(np.abs(right).max(1), 1.0)
