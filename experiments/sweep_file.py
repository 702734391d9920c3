"""W&B sweep files: parsing, validation, and the settings of each run."""

import dataclasses
import itertools
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from envs.errors import BadInputError

#: Runs of one sweep, and values of one parameter on a grid.
MAX_RUNS = 10_000
#: Up to here a float represents every whole number, and NumPy can draw them.
MAX_EXACT_INT = 2**53
#: Flags of train.py that sweep.py sets itself, or that are not settings of a run.
RESERVED = (
    *("out", "list", "help", "combine"),
    *("coordinator", "num-processes", "process-id", "connect-seconds"),
)
#: W&B's keys of a sweep file. Those that are not read here affect W&B's pages and its own search only.
KEYS = (
    *("method", "parameters", "run_cap", "program", "command", "metric", "early_terminate", "controller"),
    *("name", "description", "project", "entity"),
)

Draw = Callable[[np.random.Generator], Any]


@dataclasses.dataclass(frozen=True)
class Distribution:
    """One of W&B's numeric distributions.

    Attributes:
        needs: names of its two parameters: bounds, or mean and standard deviation.
        draw: one value from a generator and the two parameters.
        least, most: range of the parameters.
        whole: whether the parameters must be whole numbers.
        rounded: whether draws are rounded to multiples of `q`, which is 1 if not given.
    """

    needs: tuple[str, str]
    draw: Callable[[np.random.Generator, Any, Any], Any]
    least: float = -1e100
    most: float = 1e100
    whole: bool = False
    rounded: bool = False


def _uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(generator.uniform(low, high))


def _int_uniform(generator: np.random.Generator, low: int, high: int) -> int:
    return int(generator.integers(low, high + 1))


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(generator.uniform(low, high)))


def _inv_log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(-generator.uniform(low, high)))


def _log_uniform_values(generator: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _normal(generator: np.random.Generator, mu: float, sigma: float) -> float:
    return float(generator.normal(mu, sigma))


def _log_normal(generator: np.random.Generator, mu: float, sigma: float) -> float:
    return float(generator.lognormal(mu, sigma))


_BOUNDS, _MOMENTS = ("min", "max"), ("mu", "sigma")
#: By W&B's names. log(1/X) is uniform where log(X) is, so `inv_log_uniform_values` draws as
#: `log_uniform_values` does.
DISTRIBUTIONS = {
    "uniform": Distribution(_BOUNDS, _uniform),
    "q_uniform": Distribution(_BOUNDS, _uniform, rounded=True),
    "int_uniform": Distribution(_BOUNDS, _int_uniform, -MAX_EXACT_INT, MAX_EXACT_INT, whole=True),
    "log_uniform": Distribution(_BOUNDS, _log_uniform, -700, 700),
    "q_log_uniform": Distribution(_BOUNDS, _log_uniform, -700, 700, rounded=True),
    "inv_log_uniform": Distribution(_BOUNDS, _inv_log_uniform, -700, 700),
    "log_uniform_values": Distribution(_BOUNDS, _log_uniform_values, 1e-100),
    "q_log_uniform_values": Distribution(_BOUNDS, _log_uniform_values, 1e-100, rounded=True),
    "inv_log_uniform_values": Distribution(_BOUNDS, _log_uniform_values, 1e-100),
    "normal": Distribution(_MOMENTS, _normal),
    "q_normal": Distribution(_MOMENTS, _normal, rounded=True),
    "log_normal": Distribution(_MOMENTS, _log_normal, -50, 50),
    "q_log_normal": Distribution(_MOMENTS, _log_normal, -50, 50, rounded=True),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        draw: one value for a random sweep.
        grid: all values for a grid; None if they are not finite in number.
    """

    draw: Draw
    grid: Sequence[Any] | None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        method: grid or random.
        parameters: by name.
        run_cap: maximum number of runs; None if not given.
    """

    method: str
    parameters: Mapping[str, Parameter]
    run_cap: int | None


class _Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number; YAML 1.1 requires a dot and a sign."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        BadInputError: if it cannot be read, or is not a sweep that can run locally.
    """
    content = read_yaml(path, "sweep file")
    try:
        return _sweep(content)
    except BadInputError as error:
        raise BadInputError(f"sweep file {path}: {error}") from error


def read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file; `name` says in messages what kind of file it is.

    Raises:
        BadInputError: if it cannot be read, or is not valid YAML.
    """
    try:
        return yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise BadInputError(f"{name} {path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise BadInputError(f"{name} {path} is not valid YAML: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: undecodable bytes, impossible dates
        raise BadInputError(f"{name} {path} is not valid YAML: {str(error).splitlines()[0]}") from error


def choices(sweep: Sweep, runs: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """The settings of `runs` runs, by default `run_cap`, or else the whole grid or 10 random draws.

    Raises:
        BadInputError: if `runs` or `seed` is out of range, or the grid is too large.
    """
    if runs is not None and not 1 <= runs <= MAX_RUNS:
        raise BadInputError(f"--runs must be from 1 to {MAX_RUNS}, not {reprlib.repr(runs)}")
    if seed < 0:
        raise BadInputError(f"--seed must be 0 or above, not {reprlib.repr(seed)}")
    count = runs or sweep.run_cap
    names = list(sweep.parameters)
    if sweep.method == "grid":
        grids = [parameter.grid for parameter in sweep.parameters.values() if parameter.grid is not None]
        size = math.prod(map(len, grids))
        if (count or size) > MAX_RUNS:
            raise BadInputError(f"the grid has {size} runs: cap them with --runs, at most {MAX_RUNS}")
        for values in itertools.islice(itertools.product(*grids), count):
            yield dict(zip(names, values, strict=True))
        return
    generator = np.random.default_rng(seed)
    for _ in range(count or 10):
        yield {name: parameter.draw(generator) for name, parameter in sweep.parameters.items()}


def _sweep(content: Any) -> Sweep:
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise BadInputError("it needs `parameters`, each with a value, values or a distribution")
    method, cap = content.get("method"), content.get("run_cap")
    if method == "bayes":
        raise BadInputError("method bayes runs at W&B only (`wandb sweep`): grid and random run here")
    if method not in ("grid", "random"):
        raise BadInputError(f"method is {reprlib.repr(method)}: it must be grid or random")
    if cap is not None:
        cap = _number("run_cap", cap, 1, MAX_RUNS, whole=True)
    _check_program(content)
    if not content["parameters"]:
        raise BadInputError("`parameters` is empty: it needs at least algo and env")
    parameters: dict[str, Parameter] = {}
    for name, spec in content["parameters"].items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
            raise BadInputError(
                f"parameter {reprlib.repr(name)}: a name is a letter, then letters, digits, - and _ only"
            )
        if name.replace("-", "_") in {known.replace("-", "_") for known in parameters}:
            raise BadInputError(f"parameter {name} appears twice, with - and with _: remove one")
        if name.replace("_", "-") in RESERVED:
            raise BadInputError(f"parameter {name}: leave it out, the sweep itself says that to each run")
        try:
            parameters[name] = _parameter(spec)
        except BadInputError as error:
            raise BadInputError(f"parameter {name}: {error}") from error
        if method == "grid" and parameters[name].grid is None:
            raise BadInputError(
                f"parameter {name}: a grid needs value, values, or int_uniform of at most {MAX_RUNS}"
            )
    return Sweep(method, parameters, cap)


def _check_program(content: Mapping[Any, Any]) -> None:
    """Refuse keys with which W&B would run something else than sweep.py."""
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise BadInputError(
            f"{reprlib.repr(unknown[0])} is not a key of a sweep file: choose from {', '.join(KEYS)}"
        )
    program, command = content.get("program", "train.py"), content.get("command") or []
    if Path(str(program)).name != "train.py":
        raise BadInputError(f"program is {reprlib.repr(program)}: it must be experiments/train.py")
    flags = (
        [word for word in command if str(word).startswith("-")] if isinstance(command, list) else [command]
    )
    if flags:
        raise BadInputError(f"command has {reprlib.repr(flags[0])}: make it one of the parameters")


def _parameter(spec: Any) -> Parameter:
    if isinstance(spec, bool | int | float | str):  # shorthand
        spec = {"value": spec}
    if not isinstance(spec, dict):
        raise BadInputError(f"{reprlib.repr(spec)} needs value: or values: before it")
    if "parameters" in spec:
        raise BadInputError("nested parameters do not run here: move them to the top level")
    kind = spec.get("distribution")
    if "value" in spec:
        _check_keys(spec, "constant", ("value",))
        value = _plain(spec["value"])
        return Parameter(lambda generator: value, [value])
    if "values" in spec:
        if kind == "categorical_w_probabilities":  # an older name
            spec = {**spec, "distribution": "categorical"}
        _check_keys(spec, "categorical", ("values", "probabilities"))
        return _categorical(spec["values"], spec.get("probabilities"))
    if kind is None:
        if any(spec.get(name) is None for name in _BOUNDS):
            raise BadInputError(f"it needs value, values, or min and max, but has {_listed(spec)}")
        kind = "int_uniform" if all(type(spec[name]) is int for name in _BOUNDS) else "uniform"
    if not isinstance(kind, str) or kind not in DISTRIBUTIONS:
        raise BadInputError(
            f"distribution {reprlib.repr(kind)} does not run here without value or values: choose one of "
            f"{', '.join(DISTRIBUTIONS)}"
        )
    return _distributed(spec, kind)


def _categorical(values: Any, probabilities: Any) -> Parameter:
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_RUNS:
        raise BadInputError(f"values must be a list of 1 to {MAX_RUNS}, not {reprlib.repr(values)}")
    plain = [_plain(value) for value in values]
    if probabilities is None:
        once = list({str(value): value for value in plain}.values())  # without duplicates, as in W&B's grids
        return Parameter(lambda generator: plain[generator.integers(len(plain))], once)
    if not isinstance(probabilities, list) or len(probabilities) != len(plain):
        raise BadInputError(
            f"probabilities must be a list of {len(plain)}, not {reprlib.repr(probabilities)}"
        )
    weights = np.asarray([_number("a probability", each, 0, 1) for each in probabilities], float)
    if not math.isclose(weights.sum(), 1, abs_tol=1e-6):
        raise BadInputError(f"probabilities must add up to 1, not {weights.sum():g}")
    weights /= weights.sum()
    return Parameter(lambda generator: plain[generator.choice(len(plain), p=weights)], None)


def _distributed(spec: Mapping[str, Any], kind: str) -> Parameter:
    distribution = DISTRIBUTIONS[kind]
    _check_keys(spec, kind, (*distribution.needs, *(("q",) if distribution.rounded else ())))
    if distribution.needs == _BOUNDS and any(spec.get(name) is None for name in _BOUNDS):
        raise BadInputError(f"{kind} needs min and max, but has {_listed(spec)}")
    step = _number("q", spec.get("q", 1), 1e-100)
    first, second = (
        _number(name, spec.get(name, standard), distribution.least, distribution.most, distribution.whole)
        for name, standard in zip(distribution.needs, (0, 1), strict=True)
    )
    if distribution.needs == _BOUNDS and first > second:
        raise BadInputError(f"min must not be above max, but they are {first} and {second}")
    if distribution.needs == _MOMENTS and second < 0:
        raise BadInputError(f"sigma must be 0 or above, not {second}")

    def draw(generator: np.random.Generator) -> Any:
        drawn = distribution.draw(generator, first, second)
        if not distribution.rounded:
            return drawn
        rounded = round(drawn / step) * step
        return int(rounded) if isinstance(step, int) else rounded

    countable = kind == "int_uniform" and second - first < MAX_RUNS
    return Parameter(draw, range(first, second + 1) if countable else None)


def _check_keys(spec: Mapping[str, Any], kind: str, known: Sequence[str]) -> None:
    if spec.get("distribution", kind) != kind:
        raise BadInputError(
            f"distribution {reprlib.repr(spec['distribution'])} cannot be combined with {_listed(spec)}"
        )
    unknown = [name for name in spec if name not in ("distribution", *known)]
    if unknown:
        raise BadInputError(f"{kind} takes {' and '.join(known)}, not {reprlib.repr(unknown[0])}")


def _listed(spec: Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in spec if name != "distribution") or "neither"


def _plain(value: Any) -> Any:
    """Check that a value can be that of a flag: a scalar, or a list of scalars."""
    for each in value if isinstance(value, list) else [value]:
        if not (each is None or isinstance(each, bool | int | float | str)) or not str(each).isprintable():
            raise BadInputError(
                f"a value must be a number, text, true, false or a list, not {reprlib.repr(value)}"
            )
    return value


def _number(name: str, value: Any, least: float, most: float = 1e100, whole: bool = False) -> Any:
    """Check that `value` is a number in [least, most]; with `whole`, return it as an int, also 1e4."""
    kind = "whole number" if whole else "number"
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most
        or (whole and value != int(value))
    ):
        raise BadInputError(f"{name} must be a {kind} from {least:g} to {most:g}, not {reprlib.repr(value)}")
    return int(value) if whole else value
