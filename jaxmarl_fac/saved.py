"""Experiments as JSON. What they are made of is saved by name, never by where it stands in this suite.

A class or function of the suite is saved as its own name, `QLearning`; one of somebody else's as
`my_module:MyAlgorithm`, whose module the caller has to name before it is imported.
"""

import dataclasses
import functools
import importlib
import json
import pkgutil
import re
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.errors import BadInputError
from envs.outside import find_outside
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import write_text

#: Where the suite's own names are looked for.
ROOMS = ("baselines", "envs", "jaxmarl_fac")


def to_json(value: Any) -> Any:
    """An experiment, or any part of one, as plain JSON from which `from_json` rebuilds it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": name_of(type(value)), **fields}
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        return {
            "type": "array",
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "data": array.tolist(),
        }
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if callable(getattr(value, "bind", None)):  # an algorithm without settings
        return {"type": name_of(type(value))}
    if callable(value):
        return {"type": "function", "name": name_of(value)}
    return value


def from_json(value: Any, modules: Collection[str] = ()) -> Any:
    """The inverse of `to_json`: lists become tuples, arrays come back with the same bits.

    Args:
        value: the JSON.
        modules: outside of the suite, from which names may be taken.

    Raises:
        BadInputError: for a name from another module.
    """
    if isinstance(value, list):
        return tuple(from_json(item, modules) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value["type"]
    if kind == "array":
        array = np.asarray(value["data"], value["dtype"]).reshape(value["shape"])
        # A float64 model stays in NumPy: JAX would round it to float32.
        return array if array.dtype == np.float64 else jnp.asarray(array)
    if kind == "function":
        return find(value["name"], modules)
    fields = {name: from_json(item, modules) for name, item in value.items() if name != "type"}
    old = _registry("baselines").from_old_class(kind, fields)
    return find(kind, modules)(**fields) if old is None else old


def name_of(thing: Any) -> str:
    """The name of a class or function, by which `find` finds it."""
    ours = thing.__module__.split(".")[0] in ROOMS
    return thing.__qualname__ if ours else f"{thing.__module__}:{thing.__qualname__}"  # type: ignore[no-any-return]


def find(name: str, modules: Collection[str] = ()) -> Any:
    """The class or function of a name.

    Args:
        name: of the suite's own, or `module:name`; of old runs also `module:name` of a module of the suite.
        modules: outside of the suite, from which names may be taken.

    Raises:
        BadInputError: if there is none, or its module is not among `modules`.
    """
    module, _, attribute = name.rpartition(":")
    if module and module.split(".")[0] not in ROOMS:
        if module not in modules:
            raise BadInputError(f"{name} is not a part of this suite: name its module {module} to load it")
        return find_outside(name)
    found = _find_ours(attribute)
    if found is None:
        raise BadInputError(f"{name} is not a part of this suite")
    return found


def outside_modules(experiment: Experiment) -> set[str]:
    """Modules outside of the suite that an experiment's parts are from."""
    text = json.dumps(to_json(dataclasses.replace(experiment, seeds=(0,))))
    return {name.partition(":")[0] for name in re.findall(r'"(?:type|name)": "([\w.]+:[\w.]+)"', text)}


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    write_text(path, json.dumps(to_json(experiment)))


def load_experiment(path: Path, modules: Collection[str] = ()) -> Experiment:
    """Read what `save_experiment` wrote.

    Args:
        path: of the file.
        modules: outside of the suite, from which its parts may be taken.

    Raises:
        BadInputError: if the file is missing, cannot be read, or holds no experiment, or one with parts from
            other modules.
    """
    try:
        experiment = from_json(json.loads(path.read_text(encoding="utf-8")), modules)
    except FileNotFoundError as error:
        raise BadInputError(f"there is no {path}: give the folder of a run") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror}): give the folder of a run") from error
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise BadInputError(f"{path} holds no experiment: {error}") from error
    if not isinstance(experiment, Experiment):
        raise BadInputError(f"{path} holds no experiment")
    return experiment


def _registry(room: str) -> ModuleType:
    """A room's registry; by name, because rooms above the engine import it."""
    return importlib.import_module(f"{room}.registry")


@functools.cache
def _find_ours(name: str) -> Any:
    """A class or function of the suite; only modules whose source defines the name are imported."""
    defines = re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.MULTILINE)
    for room in ROOMS:
        package = importlib.import_module(room)
        for info in pkgutil.walk_packages(package.__path__, f"{room}."):
            spec = info.module_finder.find_spec(info.name, None)  # type: ignore[call-arg, union-attr]
            source = Path(spec.origin) if spec and spec.origin else None
            if source and defines.search(source.read_text(encoding="utf-8")):
                return getattr(importlib.import_module(info.name), name)
    return None
