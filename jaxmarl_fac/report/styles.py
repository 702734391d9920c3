"""How figures show algorithms: colours, dashes and names in legends.

The engine knows no algorithm: whoever has some (`baselines/registry.py`) adds them to `STYLES` and `LABELS`.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple


class Style(NamedTuple):
    """A line's colour and dashes, as matplotlib takes them."""

    colour: str
    dashes: str = "-"


#: Okabe and Ito's colours for colour-blind readers, without their yellow, too pale for a line on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
#: Dashes tell algorithms of one colour apart.
DASHES = ("-", "--", ":", "-.")
#: Algorithms that look the same in every figure, by id.
STYLES: dict[str, Style] = {}
#: What legends call algorithms, by id; other ids are shown as they are.
LABELS: dict[str, str] = {}


def label_of(algorithm_id: str) -> str:
    """What a legend calls an algorithm."""
    return LABELS.get(algorithm_id, algorithm_id)


def line_styles(algorithm_ids: Sequence[str]) -> dict[str, Style]:
    """For each algorithm its style in a figure that shows these algorithms.

    Those in `STYLES` always look the same. Others have a solid line of a colour that depends on their id
    alone, unless the figure has that colour already: then the next that it has not, or, when all of `PALETTE`
    is in it, the next free pair of colour and dashes. With more algorithms than pairs some share one.
    """
    styles = {name: STYLES[name] for name in algorithm_ids if name in STYLES}
    for name in algorithm_ids:
        if name not in styles:
            start = _own_colour(name)
            order = PALETTE[start:] + PALETTE[:start]
            pairs = [Style(colour, dashes) for dashes in DASHES for colour in order]
            free = [pair for pair in pairs if pair not in styles.values()]
            colours = {style.colour for style in styles.values()}
            fresh = [pair for pair in free if pair.colour not in colours]
            styles[name] = (fresh or free or pairs)[0]
    return {name: styles[name] for name in algorithm_ids}


def _own_colour(algorithm_id: str) -> int:
    """An index of `PALETTE`, the same in every process: Python salts its own hash anew in each."""
    return int.from_bytes(hashlib.sha256(algorithm_id.encode()).digest()[:8], "big") % len(PALETTE)
