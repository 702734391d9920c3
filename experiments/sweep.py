"""Run a W&B sweep file here, without an account or a network.

python experiments/sweep.py experiments/sweeps/NAME.yaml [--runs N] [--seed N] [--out DIR]
    [--wandb online|offline|disabled]

Every run is `experiments/train.py` in a folder of its own; at the end a table ranks them. The files are
W&B's own, so that `wandb sweep FILE` and `wandb agent ID` run them as well.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
import yaml

from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.statistics import bootstrap_interval

TRAIN = Path(__file__).with_name("train.py")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run, and where.

    Attributes:
        file: the sweep, in W&B's YAML: method grid or random; parameters with value, values, or the
            distributions uniform, log_uniform_values and int_uniform.
        runs: how many runs; if not given, all of a grid, and the file's run_cap of a random sweep.
        seed: of the random choices.
        out: folder for the runs.
        wandb: how each run is logged.
    """

    file: Annotated[Path, tyro.conf.Positional]
    runs: int | None = None
    seed: int = 0
    out: Path = Path("runs/sweep")
    wandb: Literal["online", "offline", "disabled"] = "offline"


def main(argv: Sequence[str]) -> int:
    """Run the sweep; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    sweep = read_sweep(options.file)
    runs = list(choices(sweep, options.runs, options.seed))
    prepare_folder(options.out)
    table = []
    for index, flags in enumerate(runs):
        folder = options.out / f"{index:03d}"
        shown = " ".join(f"--{name} {value}" for name, value in flags.items())
        print(f"run {index + 1} of {len(runs)}: {shown}", flush=True)
        command = [sys.executable, str(TRAIN), *(f"--{name}={value}" for name, value in flags.items())]
        command += [f"--out={folder}", f"--wandb={options.wandb}", f"--tags={options.file.stem}"]
        status = subprocess.run(command, check=False).returncode
        if status not in (cli.DONE, cli.FAILED):
            return status
        with np.load(folder / "metrics.npz") as metrics:
            score = bootstrap_interval(metrics["episode_return"][-1])
        table.append({"run": index, "return": score.value, "low": score.low, "high": score.high, **flags})
    table.sort(key=lambda row: -row["return"])
    write_text(options.out / "sweep.json", json.dumps(table, indent=1))
    for row in table:
        flags = {name: value for name, value in row.items() if name not in ("run", "return", "low", "high")}
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        print(f"run {row['run']:03d}  return {row['return']:8.3f} {interval:<20} {flags}")
    print(f"table: {options.out / 'sweep.json'}")
    return cli.DONE


def read_sweep(path: Path) -> dict[str, Any]:
    """A sweep file.

    Raises:
        BadInputError: if it cannot be read or is no sweep that runs here.
    """
    try:
        sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"sweep file {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BadInputError(f"sweep file {path} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict):
        raise BadInputError(f"sweep file {path} needs `parameters`")
    if sweep.get("method") not in ("grid", "random"):
        raise BadInputError(
            f"sweep file {path} has method {sweep.get('method')!r}: it must be grid or random"
        )
    return sweep


def choices(sweep: Mapping[str, Any], runs: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """The flags of each run.

    Raises:
        BadInputError: for a number of runs below 1, or a parameter that cannot be drawn.
    """
    if runs is not None and runs < 1:
        raise BadInputError(f"--runs must be at least 1, not {runs}")
    parameters = sweep["parameters"]
    if sweep["method"] == "grid":
        lists = [parameter.get("values", [parameter.get("value")]) for parameter in parameters.values()]
        grid = (dict(zip(parameters, values, strict=True)) for values in itertools.product(*lists))
        yield from itertools.islice(grid, runs)
        return
    generator = np.random.default_rng(seed)
    for _ in range(runs or sweep.get("run_cap", 10)):
        yield {name: _draw(name, parameter, generator) for name, parameter in parameters.items()}


def _draw(name: str, parameter: Mapping[str, Any], generator: np.random.Generator) -> Any:
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return parameter["values"][generator.integers(len(parameter["values"]))]
    low, high = parameter["min"], parameter["max"]
    kind = parameter.get("distribution", "uniform")
    if kind == "uniform":
        return float(generator.uniform(low, high))
    if kind == "log_uniform_values":
        return float(np.exp(generator.uniform(np.log(low), np.log(high))))
    if kind == "int_uniform":
        return int(generator.integers(low, high + 1))
    raise BadInputError(f"parameter {name} has the distribution {kind!r}, which does not run here")


if __name__ == "__main__":
    cli.run(main)
