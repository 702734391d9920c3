"""Modules that are imported where they are first used."""

import importlib.util
import sys
from types import ModuleType


def lazily(name: str) -> ModuleType:
    """The module `name`, which is executed when one of its attributes is first read.

    For libraries that take long to import and that most runs never touch (distrax brings TensorFlow
    Probability, .4 s). Type checkers need the import itself, under `if TYPE_CHECKING`.

    Raises:
        ModuleNotFoundError: if there is no such module.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
