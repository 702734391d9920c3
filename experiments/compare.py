"""Compare algorithms on games: train all pairs, and report who wins and how sure that is.

python experiments/compare.py --algos ID ... --envs ID ... [--seeds N] [--scale smoke|quick|paper]
    [--env-steps N] [--overrides FILE.yaml] [--from DIR ...] [--out DIR]

Every pair is trained with its family's settings, all of its seeds in one program; pairs that do not work are
listed and left out. The same command goes on where a stopped one was, and a higher number of seeds or steps
extends it. The report is one HTML page: learning curves, scores with stratified bootstrap intervals,
performance profiles, probabilities of improvement, ranks, sample efficiency and times. marl_eval.json beside
it has the raw numbers for marl-eval. The exit status is 1 if a pair diverged or failed.
"""

import jaxmarl_fac.all_cores  # noqa: F401  first: it has no effect once JAX is initialised

# isort: split
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

import envs.registry as environments
from baselines.families import FAMILY_ENV_STEPS
from envs.errors import BadInputError
from experiments.compare_plan import Plan, make_plan, read_overrides
from experiments.compare_runs import (
    Found,
    check_comparable,
    check_folders,
    finished,
    merged,
    read_folders,
    train_pair,
    yardsticks,
)
from jaxmarl_fac import cli
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.files import prepare_folder
from jaxmarl_fac.hosts import Hosts, as_main, on_main
from jaxmarl_fac.job import all_failed, is_main, warn
from jaxmarl_fac.loop import InterruptedRunError
from jaxmarl_fac.report.comparison import Comparison, FinishedRun
from jaxmarl_fac.report.comparison_page import write_comparison
from jaxmarl_fac.statistics import bootstrap_interval

#: Of every pair, unless asked for otherwise.
SEEDS = 10


@dataclasses.dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        algos: ids of algorithms, or module:name for your own; `train.py --list` shows all.
        envs: ids of games, likewise.
        seeds: number of seeds of each pair, 10 if not given; more can be added later.
        scale: smoke learns hardly anything, in seconds; quick, if not given, trains 20,000 environment steps;
            paper as many as the paper of the game's family.
        env_steps: environment steps of every pair, instead of a scale.
        overrides: YAML file with settings that differ from the family's. Its parts are algos, envs and pairs:
            settings by algorithm, by game, and by algorithm and game.
        others: folders with finished runs of train.py or compare.py to compare as well.
        out: folder for report.html, its numbers, and the runs.
        modules: modules of your own that define what the runs of --from are made of.
        hosts: other processes to train with.
    """

    algos: tuple[str, ...] = ()
    envs: tuple[str, ...] = ()
    seeds: int | None = None
    scale: Literal["smoke", "quick", "paper"] | None = None
    env_steps: int | None = None
    overrides: Path | None = None
    others: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = ()
    out: Path = Path("runs/compare")
    modules: tuple[str, ...] = ()
    hosts: Hosts = dataclasses.field(default_factory=Hosts)


def main(argv: Sequence[str]) -> int:
    """Train what is missing, and write the report; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    found = read_folders(options.others, options.modules)
    plan = plan_of(options)
    check_comparable(found, plan.pairs)
    check_folders(options.out, plan.pairs)
    on_main(lambda: prepare_folder(options.out))
    for (algorithm, env), reason in plan.left_out.items():
        print(f"left out: {algorithm} on {env}: {reason}", flush=True)
    failed = {}
    for number, pair in enumerate(plan.pairs, start=1):
        title = f"{number} of {len(plan.pairs)}  {pair.name}"
        try:
            done = finished(options.out, pair) if is_main() else None
            if not as_main(done is not None):
                done = train_pair(options.out, pair, title)
        except InterruptedRunError as stop:
            steps = f"{stop.result.env_steps:,} of {pair.experiment.env_steps:,} steps"
            warn(f"{title}: stopped after {steps}; the same command goes on")
            return cli.STOPPED
        except (BadInputError, DivergedError) as error:  # the other pairs can still be compared
            if not all_failed():  # the other processes are still training this one
                raise
            failed[pair.algorithm, pair.env] = str(error)
            warn(f"{title}: {error}")
            continue
        if done and is_main():
            found.append(done)
            print(line_of(title, done), flush=True)
    if not found and len(failed) == len(plan.pairs):
        raise BadInputError(f"no pair could be trained: {next(iter(failed.values()))}")
    status = cli.FAILED if failed else cli.DONE
    if not is_main():
        return status
    comparison = comparison_of(found, plan, failed)
    report = write_comparison(
        comparison, "Comparison of algorithms", summary_of(comparison.runs.values()), options.out
    )
    print(f"report: {report}")
    return status


def plan_of(options: Options) -> Plan:
    """The pairs to train; none if only runs made elsewhere are compared.

    Raises:
        BadInputError: for missing, contradicting or bad flags, or if no pair works.
    """
    if options.scale is not None and options.env_steps is not None:
        raise BadInputError("give either --scale or --env-steps")
    overrides = read_overrides(options.overrides)
    if not options.algos and not options.envs and options.others:
        for flag in ("seeds", "scale", "env_steps", "overrides"):
            if getattr(options, flag) is not None:
                name = flag.replace("_", "-")
                raise BadInputError(
                    f"--{name} is for pairs to train: give --algos and --envs, or leave it out"
                )
        return Plan((), {})
    if not options.algos or not options.envs:
        raise BadInputError("give at least one id with --algos and one with --envs, or runs with --from")
    return make_plan(
        tuple(dict.fromkeys(options.algos)),
        tuple(dict.fromkeys(options.envs)),
        SEEDS if options.seeds is None else options.seeds,
        options.scale or "quick",
        options.env_steps,
        overrides,
    )


def comparison_of(found: Sequence[Found], plan: Plan, failed: dict[tuple[str, str], str]) -> Comparison:
    """All runs together, in the order of the command line, runs made elsewhere last.

    Raises:
        BadInputError: if runs cannot be compared, see `merged`.
    """
    runs = merged(found)
    planned = [*((pair.algorithm, pair.env) for pair in plan.pairs), *plan.left_out]
    games = {each.run.task: each.experiment.environment for each in found}
    left_out = {pair: reason for pair, reason in plan.left_out.items() if pair not in runs}
    names = [name for name, _ in planned] + [name for name, _ in runs]
    tasks = [task for _, task in planned] + [task for _, task in runs]
    return Comparison(
        tuple(dict.fromkeys(name for name in names if any(name == other for other, _ in runs))),
        tuple(dict.fromkeys(task for task in tasks if task in games)),
        runs,
        yardsticks(runs, games),
        left_out,
        failed,
    )


def line_of(title: str, done: Found) -> str:
    """A finished pair as one line of text."""
    score = bootstrap_interval(done.run.last)
    seconds = "" if done.run.seconds is None else f", {done.run.seconds:.1f} s"
    return f"{title}: last return {score.value:.4g} [{score.low:.4g}, {score.high:.4g}]{seconds}"


def summary_of(runs: Iterable[FinishedRun]) -> str:
    """What was compared, as a sentence."""
    runs = tuple(runs)
    algorithms = {run.algorithm for run in runs}
    tasks = {run.task for run in runs}
    lanes = sum(len(run.seeds) for run in runs)
    steps = sum(len(run.seeds) * int(run.env_steps[-1]) for run in runs)
    shorter = []
    for task in dict.fromkeys(run.task for run in runs):
        known = environments.ENVIRONMENTS.get(task)
        whole = FAMILY_ENV_STEPS[known.family] if known else 0
        lengths = {int(run.env_steps[-1]) for run in runs if run.task == task}
        least, most = min(lengths), max(lengths)
        if least < whole:
            given = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            shorter.append(f"{task} ({given} of {whole:,})")
    less = f" Trained for less than the paper of the game's family: {', '.join(shorter)}."
    return (
        f"{len(algorithms)} algorithm(s) on {len(tasks)} task(s): {lanes:,} training runs with {steps:,} "
        f"environment steps in all.{less if shorter else ''}"
    )


if __name__ == "__main__":
    cli.run(main)
