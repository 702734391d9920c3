"""The games, as pure-functional Jumanji environments."""

import builtins
import importlib
from typing import Any

#: Where each name lives. Loaded on first use: importing jumanji takes a second and starts JAX's backends,
#: which sweep.py must not do while its children need the accelerator.
_HOMES = {
    "ENVIRONMENTS": "envs.registry",
    "BadInputError": "envs.errors",
    "Observation": "envs.base",
    "TeamEnvironment": "envs.base",
    "make": "envs.registry",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def _import_jumanji_quietly() -> None:
    """Import jumanji in a notebook without its `%matplotlib ipympl`.

    That fails where ipympl is not installed, and replaces the notebook's own backend where it is.
    """
    name = "__IPYTHON__"  # what jumanji looks at
    before = getattr(builtins, name)
    setattr(builtins, name, False)
    try:
        importlib.import_module("jumanji")
    finally:
        setattr(builtins, name, before)


if getattr(builtins, "__IPYTHON__", False):
    _import_jumanji_quietly()
