"""Games and algorithms of the user's own modules, named `my_module:my_thing`."""

import importlib
import os
import re
import sys
from typing import Any

from envs.errors import BadInputError


def is_outside(name: str) -> bool:
    """Whether `name` has the form `my_module:my_thing`."""
    return re.fullmatch(r"[\w.]*\w:\w+", name) is not None


def find_outside(name: str) -> Any:
    """Import `module:name` from the working directory or the installed packages; returns the object.

    Raises:
        BadInputError: if it cannot be imported, or the module has no such name.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything
        reason = " ".join(str(error).split())
        raise BadInputError(f"{name}: {module} cannot be imported: {reason}") from error
    if not hasattr(imported, attribute):
        raise BadInputError(f"{name}: {module} has no {attribute!r}")
    return getattr(imported, attribute)
