"""Run a W&B sweep file locally, without an account or a network.

python experiments/sweep.py experiments/sweeps/NAME.yaml [--runs N] [--seed N] [--out DIR]
    [--wandb online|offline|disabled]

Every run is a call of `experiments/train.py` with its own output folder; at the end a table ranks the runs by
return. `wandb sweep FILE` and `wandb agent ID` run the same files. The exit status is 1 if a run diverged or
failed.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from envs.errors import BadInputError
from experiments.sweep_file import choices, read_sweep
from jaxmarl_fac import cli
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.statistics import bootstrap_interval, iqm

TRAIN = Path(__file__).with_name("train.py")
CHECK = Path(__file__).with_name("check_runs.py")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run, and where.

    Attributes:
        file: the sweep, in W&B's YAML: method grid or random; parameters with value, values (and
            probabilities), or one of W&B's numeric distributions.
        runs: number of runs; if not given the file's run_cap, else the whole grid, or 10 of a random sweep.
        seed: of the random draws.
        out: folder for the runs.
        wandb: W&B mode of each run, unless the file sets it.
    """

    file: Annotated[Path, tyro.conf.Positional]
    runs: int | None = None
    seed: int = 0
    out: Path = Path("runs/sweep")
    wandb: Literal["online", "offline", "disabled"] = "offline"


def main(argv: Sequence[str]) -> int:
    """Run the sweep; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    runs = list(choices(read_sweep(options.file), options.runs, options.seed))
    prepare_folder(options.out)
    unplayable = check(runs, options.file)
    table: list[dict[str, Any]] = []
    for index, settings in enumerate(runs):
        if index in unplayable:
            result = {"status": "not playable", "reason": unplayable[index]}
        else:
            print(f"run {index + 1} of {len(runs)}: {' '.join(flags_of(settings))}", flush=True)
            folder = options.out / f"{index:03d}"
            defaults = [f"--wandb={options.wandb}", f"--tags={options.file.stem}"]
            status = train([*defaults, *flags_of(settings), f"--out={folder}"])
            if status == cli.STOPPED:
                return status
            result = result_of(folder, status)
        table.append(
            {"run": index, "return": None, "low": None, "high": None, **result, **_as_json(settings)}
        )
        ranked = sorted(table, key=lambda row: math.inf if row["return"] is None else -row["return"])
        write_text(options.out / "sweep.json", json.dumps(ranked, indent=1, allow_nan=False))
    for row in ranked:
        print(line_of(row, runs[row["run"]]))
    print(f"table: {options.out / 'sweep.json'}")
    return cli.FAILED if any(row["status"] in ("failed", "no return") for row in table) else cli.DONE


def check(runs: Sequence[Mapping[str, Any]], file: Path) -> dict[int, str]:
    """Find the runs whose algorithm cannot play their game, without training: the reason by index.

    Raises:
        BadInputError: if a run has a bad value, no run has one of the settings, or no run can be played.
    """
    problems = find_problems([flags_of(settings) for settings in runs])
    for index, problem in enumerate(problems):
        if problem["bad"]:
            raise BadInputError(f"sweep file {file}, run {index}: {problem['bad']}")
    unknown = set.intersection(*(set(problem["unknown"]) for problem in problems))
    if unknown:
        raise BadInputError(f"sweep file {file}: no run has a setting {min(unknown)}")
    if all(problem["unplayable"] for problem in problems):
        raise BadInputError(f"sweep file {file}: no run can be played: {problems[0]['unplayable']}")
    return {index: problem["unplayable"] for index, problem in enumerate(problems) if problem["unplayable"]}


def find_problems(command_lines: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The result of `check_runs.problem` for each command line of train.py."""
    done = subprocess.run(
        [sys.executable, str(CHECK)],
        input=json.dumps(command_lines),
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
        env={**os.environ, "JAX_PLATFORMS": "cpu"},  # an accelerator may take a minute to start
    )
    problems: list[dict[str, Any]] = json.loads(done.stdout)
    return problems


def train(command_line: Sequence[str]) -> int:
    """Run train.py; returns its exit status."""
    with subprocess.Popen([sys.executable, str(TRAIN), *command_line]) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child gets the signal too: let it finish its checkpoint
            child.wait()
            return cli.STOPPED


def result_of(folder: Path, status: int) -> dict[str, Any]:
    """The table's entries for a run with exit status `status`; a score only if it is finite."""
    if status != cli.DONE:
        return {"status": "failed", "reason": "it diverged or failed, see its output above"}
    with np.load(folder / "metrics.npz") as metrics:
        returns = metrics["episode_return"][-1]  # (seeds,), or (seeds, n)
    score = bootstrap_interval(returns.reshape(len(returns), -1).mean(axis=1))
    if not math.isfinite(score.value):
        return {"status": "no return", "reason": "its last return is not a finite number"}
    agents = enumerate(returns.T, start=1) if returns.ndim == 2 else ()
    return {
        "status": "finished",
        "return": score.value,
        "low": score.low,
        "high": score.high,
        **{f"return/{agent}": float(iqm(own)) for agent, own in agents},
    }


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """A run's settings as flags of train.py, written as `wandb agent` writes them."""
    return [f"--{name}={value}" for name, value in settings.items()]


def line_of(row: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """A row of the table as one line of text."""
    if row["return"] is None:
        shown = f"{row['status']}: {row['reason']}"
    else:
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        shown = f"return {row['return']:8.3f} {interval:<20}"
        shown += "".join(f" {name} {row[name]:.3f}" for name in row if name.startswith("return/"))
    return f"run {row['run']:03d}  {shown} {dict(settings)}"


def _as_json(value: Any) -> Any:
    """The value with infinities and NaN as text, because JSON has none."""
    if isinstance(value, Mapping):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    cli.run(main)
