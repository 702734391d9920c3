"""Environments of other libraries under this suite's ids: `jumanji:NAME`, `smax:MAP` and `mpe:NAME`."""

from collections.abc import Callable
from typing import NamedTuple

from envs.adapters import from_jaxmarl, from_jumanji
from envs.base import TeamEnvironment


class Adapted(NamedTuple):
    """One environment, with the fields of an `Entry` of envs/registry.py."""

    build: Callable[..., TeamEnvironment]
    family: str
    about: str


class RemixMap(NamedTuple):
    """One of ReMIX's StarCraft maps and its counterpart in SMAX."""

    name: str
    difficulty: str
    env_id: str | None  # the same map in SMAX, or None
    nearest: tuple[str, ...]  # ids of substitutes
    why: str


#: The maps of ReMIX's figure 2. SMAX is not SMAC: rewards differ (a return is at most 2), there are
#: no shields, walls kill, and episodes have 101 steps. Only rankings of algorithms can be compared with the
#: paper's, not returns.
REMIX_MAPS = (
    RemixMap("1c3s5z", "easy", None, ("smax:3s5z",), "SMAX has no colossus"),
    RemixMap("3s_vs_5z", "hard", "smax:3s_vs_5z", (), "the same units"),
    RemixMap(
        "another hard map",
        "hard",
        None,
        ("smax:5m_vs_6m",),
        "the paper does not name it; this one is a substitute",
    ),
    RemixMap("6h_vs_8z", "super-hard", "smax:6h_vs_8z", (), "the same units"),
    RemixMap(
        "MMM2",
        "super-hard",
        None,
        ("smax:27m_vs_30m", "smax:3s5z_vs_3s6z"),
        "SMAX has no medivac, so no unit is healed",
    ),
    RemixMap(
        "corridor",
        "super-hard",
        None,
        (),
        "SMAX has its zealots and zerglings but no terrain: without the choke point it is another task",
    ),
)

#: Every form of an id with a line about it, for lists.
ADAPTED_IDS: dict[str, str] = {
    **{f"jumanji:{name}": about for name, about in from_jumanji.about_games().items()},
    "smax:MAP": "JaxMARL's SMAX against its scripted enemy, for example smax:3s_vs_5z; needs JaxMARL",
    "mpe:simple_spread": "JaxMARL's three agents that cover three landmarks; needs JaxMARL",
}


def lookup(env_id: str) -> Adapted:
    """The environment of an id whose prefix is one of `PREFIXES`.

    Raises:
        BadInputError: for an unknown environment or a missing package.
    """
    prefix, _, name = env_id.partition(":")
    return PREFIXES[prefix](name)


def _jumanji(name: str) -> Adapted:
    build, about = from_jumanji.lookup(name)
    return Adapted(build, "jumanji", about)


def _smax(name: str) -> Adapted:
    return Adapted(from_jaxmarl.lookup_map(name), "smax", f"JaxMARL's SMAX, map {name}")


def _mpe(name: str) -> Adapted:
    return Adapted(from_jaxmarl.lookup_mpe(name), "mpe", ADAPTED_IDS["mpe:simple_spread"])


#: What stands before the colon of an id, and how the name after it is looked up.
PREFIXES: dict[str, Callable[[str], Adapted]] = {"jumanji": _jumanji, "smax": _smax, "mpe": _mpe}
