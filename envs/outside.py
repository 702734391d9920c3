"""Games and algorithms of somebody else, named `my_module:my_thing`."""

import importlib
import os
import re
import sys
from typing import Any

from envs.errors import BadInputError


def is_outside(name: str) -> bool:
    """Whether it has the form `my_module:my_thing`."""
    return re.fullmatch(r"[\w.]*\w:\w+", name) is not None


def find_outside(name: str) -> Any:
    """What `module:name` names, imported from the working folder or from what is installed.

    Raises:
        BadInputError: if it cannot be imported, or the module has no such name.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever somebody's module raises
        complaint = " ".join(str(error).split())
        raise BadInputError(f"{name}: {module} cannot be imported: {complaint}") from error
    if not hasattr(imported, attribute):
        raise BadInputError(f"{name}: {module} has no {attribute!r}")
    return getattr(imported, attribute)
