"""What XLA has compiled is kept on disk, so that the same command starts sooner the next time."""

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax

#: Of all that is kept.
MAX_BYTES = 2**31


def use_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX is told otherwise.

    JAX_COMPILATION_CACHE_DIR names another folder; JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = cache_folder() / _processor()
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Half of a small run's time goes into programs that take less than the second that JAX sets.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # An entry that was cut off, by a full disk or a killed process, is compiled anew in every run from then
    # on, which is no reason to worry anybody.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def _make_room(folder: Path) -> None:
    """Remove what was compiled longest ago, if there is too much.

    JAX's own limit locks the folder for every entry, and fails for ever once a process was killed amid one.
    """
    entries = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(folder)]
    kept = 0
    for _, size, path in sorted(entries, reverse=True):
        kept += size
        if kept > MAX_BYTES:
            Path(path).unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where programs are kept; `make clean` removes it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "jaxmarl_fac")


def _processor() -> str:
    """A name for this kind of CPU: machines that share a home folder must not run each other's programs."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = platform.processor() + platform.machine()
    facts = sorted(
        {line for line in text.splitlines() if line.startswith(("model name", "flags", "Features"))}
    )
    return hashlib.sha256("\n".join(facts or [text]).encode()).hexdigest()[:12]
