"""Errors in print: where each stands, what is right, and the computation that shows it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Shown(NamedTuple):
    """What a computation came to."""

    shown: bool  # whether it shows the error
    evidence: str  # one or two sentences with the numbers
    numbers: dict[str, Any]  # the same numbers, and perhaps more


@dataclasses.dataclass(frozen=True)
class Erratum:
    """An error in print.

    Attributes:
        id: on the command line.
        source: the paper.
        place: section, equation, figure.
        printed: what is printed there.
        right: what should be.
        check: computes whether it is an error, in float64.
    """

    id: str
    source: str
    place: str
    printed: str
    right: str
    check: Callable[[], Shown]


def show(holds: Any, sentence: str, **numbers: Any) -> Shown:
    """`sentence` with the numbers filled in, as `str.format` does.

    Example:
        >>> show(2 > 1, "{larger:.1f} lies above 1.", larger=2.0).evidence
        '2.0 lies above 1.'
    """
    found = jax.tree.map(_number, numbers)
    return Shown(bool(holds), sentence.format(**found), found)


def compute(erratum: Erratum) -> Shown:
    """Its computation, in float64."""
    with jax.enable_x64(True):
        return erratum.check()


def page(found: Mapping[Erratum, Shown], command: str, head: Iterable[str] = ()) -> str:
    """All errata with their evidence as Markdown, by source.

    Raises:
        ValueError: for one that is not shown.
    """
    if unshown := [erratum.id for erratum, result in found.items() if not result.shown]:
        raise ValueError(f"not shown: {', '.join(unshown)}")
    lines, source = ["# Errata", "", *head, ""], ""
    for erratum, result in found.items():
        if erratum.source != source:
            source = erratum.source
            lines += [f"## {source}", ""]
        lines += [
            f'<a id="{erratum.id}"></a>',
            f"### {erratum.place}",
            "",
            f"- **Printed:** {erratum.printed}",
            f"- **Right:** {erratum.right}",
            f"- **Shown by:** {result.evidence}",
            f"- `{command} {erratum.id}`",
            "",
        ]
    return "\n".join(lines)


def _number(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, jax.Array | np.ndarray | np.generic) else value
