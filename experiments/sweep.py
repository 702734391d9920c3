"""Run a W&B sweep file, without an account or a network.

python experiments/sweep.py experiments/sweeps/NAME.yaml [--runs N] [--seed N] [--out DIR]
    [--wandb online|offline|disabled] [--together N] [--engine local|ray|slurm]

Runs that differ only in real-valued hyper-parameters train side by side in one program; every program is a
call of `experiments/train.py` with its own output folder. The same command goes on where it was stopped,
tries again what failed, and with more runs trains those that are missing. At the end a table ranks the runs
by return, a picture shows all of them, and the command of the best one is printed. `wandb sweep FILE` and
`wandb agent ID` run the same files. The exit status is 1 if a run diverged or failed.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from envs.errors import BadInputError
from experiments import sweep_engines
from experiments.sweep_engines import Cluster, Engine
from experiments.sweep_file import choices, read_sweep
from experiments.sweep_picture import draw
from experiments.sweep_runs import (
    FAILED,
    FINISHED,
    NOT_PLAYABLE,
    TABLE,
    Row,
    Run,
    flags_of,
    grouped,
    read_finished,
    write_table,
)
from jaxmarl_fac import cli
from jaxmarl_fac.files import locked

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
        together: most runs of one program, of those that differ only in real-valued hyper-parameters; 1
            trains each run by itself.
        engine: local trains one program after the other; ray and slurm many at a time, on a cluster.
    """

    file: Annotated[Path, tyro.conf.Positional]
    runs: int | None = None
    seed: int = 0
    out: Path = Path("runs/sweep")
    wandb: Literal["online", "offline", "disabled"] = "offline"
    together: int = 64
    engine: Literal["local", "ray", "slurm"] = "local"
    cluster: Cluster = dataclasses.field(default_factory=Cluster)


def main(argv: Sequence[str]) -> int:
    """Run the sweep; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    if options.together < 1:
        raise BadInputError(f"--together must be 1 or above, not {options.together}")
    chosen = list(choices(read_sweep(options.file), options.runs, options.seed))
    engine = engine_of(options)
    with locked(options.out):
        runs, rows = check(chosen, options.file)
        rows |= read_finished(options.out, runs)
        waiting = [run for run in runs if run.index not in rows]
        if len(waiting) < len(runs):
            print(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already")
        more = [f"--wandb={options.wandb}", f"--tags={options.file.stem}", f"--group={options.file.stem}"]
        together = options.together
        while waiting:
            groups = {group.job: group for group in grouped(waiting, options.out, more, together)}
            waiting = []
            for job in groups:  # a run whose sweep was killed may still be there
                if job.folder.exists():
                    with locked(job.folder):
                        pass
            for number, (job, ended) in enumerate(engine(list(groups)), start=1):
                if ended.status == cli.STOPPED:
                    return cli.STOPPED
                group = groups[job]
                if options.engine != "local":
                    told = f"failed, {ended.said}" if ended.status else "done"
                    print(f"job {number} of {len(groups)} {told}: {job.about}", flush=True)
                if ended.status == cli.BAD_INPUT and len(group.variants) > 1:  # such as for want of memory
                    print(f"{job.about}: refused, {ended.said}; each run will be tried by itself")
                    waiting += group.runs
                    continue
                rows |= {row["run"]: row for row in group.rows(ended)}
                write_table(options.out, rows.values())
            together = 1
        return report(options.out, rows)


def engine_of(options: Options) -> Engine:
    """Where the jobs run."""
    if options.engine == "ray":
        return sweep_engines.on_ray(options.cluster)
    if options.engine == "slurm":
        return sweep_engines.on_slurm(options.cluster, options.out / "slurm")
    return sweep_engines.here


def check(chosen: Sequence[Mapping[str, Any]], file: Path) -> tuple[list[Run], dict[int, Row]]:
    """Check runs without training them: those that can train, and by index the rows of those that cannot.

    Raises:
        BadInputError: if a run has a bad value, no run has one of the settings, or no run can be played.
    """
    problems = find_problems([flags_of(settings) for settings in chosen])
    for index, problem in enumerate(problems):
        if problem["bad"]:
            raise BadInputError(f"sweep file {file}, run {index}: {problem['bad']}")
    unknown = set.intersection(*(set(problem["unknown"]) for problem in problems))
    if unknown:
        raise BadInputError(f"sweep file {file}: no run has a setting {min(unknown)}")
    if all(problem["unplayable"] for problem in problems):
        raise BadInputError(f"sweep file {file}: no run can be played: {problems[0]['unplayable']}")
    runs, rows = [], {}
    for index, (settings, problem) in enumerate(zip(chosen, problems, strict=True)):
        varying = {flag.removeprefix("--"): value for flag, value in problem["varying"].items()}
        run = Run(index, settings, varying, problem["experiment"])
        if problem["unplayable"]:
            rows[index] = run.row(NOT_PLAYABLE, problem["unplayable"])
        else:
            runs.append(run)
    return runs, rows


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


def report(out: Path, rows: Mapping[int, Row]) -> int:
    """Print the ranked runs and the best one's command, and draw them; returns the exit status."""
    ranked = write_table(out, rows.values())
    for row in ranked:
        print(line_of(row))
    print(f"table: {out / TABLE}")
    if picture := draw(ranked, out):
        print(f"picture: {picture}")
    if ranked[0]["status"] == FINISHED:
        print(f"best: {ranked[0]['command']}")
    return cli.FAILED if any(row["status"] == FAILED for row in ranked) else cli.DONE


def line_of(row: Row) -> str:
    """A row of the table as one line of text."""
    if row["return"] is None:
        shown = f"{row['status']}: {row['reason']}"
    else:
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        shown = f"return {row['return']:8.3f} {interval:<20}"
        shown += "".join(f" {name} {row[name]:.3f}" for name in row if name.startswith("return/"))
    return f"run {row['run']:03d}  {shown} {row['settings']}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the jobs save and stop
    cli.run(main)
