"""Available memory, checked before anything large is allocated."""

import os
from pathlib import Path

from envs.errors import BadInputError

#: Files with a container's memory limit and usage in bytes, and the name of the part of the usage that is
#: reclaimable file cache: cgroups version 2 and 1.
CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes() -> int | None:
    """Bytes of host memory that this process can still allocate; None if the system does not report it."""
    found = []
    for folder, limit, used, cached in CGROUPS:
        try:
            most, now = (int(Path(folder, name).read_text(encoding="ascii")) for name in (limit, used))
            statistics = Path(folder, "memory.stat").read_text(encoding="ascii").split()
        except (OSError, ValueError):  # not there, or "max"
            continue
        dropped = int(statistics[statistics.index(cached) + 1]) if cached in statistics else 0
        found.append(most - now + dropped)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:  # not Linux
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(found)) if found else None


def check_fits(needed: int, what: str, free: int | None = None) -> None:
    """Refuse an allocation that does not fit into memory.

    Args:
        needed: bytes.
        what: subject of the message, such as "1,000 seeds"; names the number to reduce.
        free: available bytes; those of the host if None.

    Raises:
        BadInputError: if more is needed than is free.
    """
    free = free_bytes() if free is None else free
    if free is not None and needed > free:
        raise BadInputError(
            f"{what} would take {_format_bytes(needed)} of memory, and {_format_bytes(free)} are free"
        )


def _format_bytes(size: int) -> str:
    unit = min(4, max(0, (len(str(size)) - 1) // 3))
    return f"{size / 1000**unit:,.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
