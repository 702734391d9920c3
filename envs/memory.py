"""How much memory there is, asked before anything large is allocated."""

import os
from pathlib import Path

from envs.errors import BadInputError

#: Limits of a container, in bytes: cgroups version 2 and 1.
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_bytes() -> int | None:
    """What this process can still take of the host's memory; None where the system does not say."""
    found = []
    for limit, used in LIMITS:
        if (most := _number(limit)) is not None and (now := _number(used)) is not None:
            found.append(most - now)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:  # not Linux
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(found)) if found else None


def check_fits(needed: int, what: str, free: int | None = None) -> None:
    """Refuse what cannot be held.

    Args:
        needed: bytes.
        what: starts the message, as "1,000 seeds" does, with what to lower in it.
        free: bytes that there are; those of the host if None.

    Raises:
        BadInputError: if more is needed than is free.
    """
    free = free_bytes() if free is None else free
    if free is not None and needed > free:
        raise BadInputError(f"{what} would take {_shown(needed)} of memory, and {_shown(free)} are free")


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _shown(size: int) -> str:
    unit = min(4, max(0, (len(str(size)) - 1) // 3))
    return f"{size / 1000**unit:,.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
