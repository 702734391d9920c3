"""Train an algorithm on an environment.

python experiments/train.py --algo ID (--env ID | --payoff FILE) [--seeds N] [--env-steps N] [--out DIR]
    [--wandb online|offline|disabled] [any hyper-parameter as a flag] [--list] [--help]

Several values of a real-valued hyper-parameter, such as `--learning-rate 1e-4 3e-4 1e-3`, train side by side
in one program, each with all seeds; of several such hyper-parameters all combinations do, or with --combine
zip the first values, the second ones and so on.
"""

import jaxmarl_fac.all_cores  # noqa: F401  first: it has no effect once JAX is initialised

# isort: split
import dataclasses
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import jax
import numpy as np

import baselines.registry as algorithms
import envs.registry as environments
from baselines.families import FAMILY_ENV_STEPS
from envs.adapters import ADAPTED_IDS
from envs.base import TeamEnvironment
from envs.errors import BadInputError
from envs.matrix_games import MatrixGame, load_game
from jaxmarl_fac import cli
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import Experiment, MatmulPrecision, grid, seed_numbers
from jaxmarl_fac.files import prepare_folder
from jaxmarl_fac.hosts import Hosts, on_main
from jaxmarl_fac.job import is_main, warn
from jaxmarl_fac.loop import InterruptedRunError, train
from jaxmarl_fac.saved import to_json
from jaxmarl_fac.settings import flags_class, is_float, leaves, replaced
from jaxmarl_fac.statistics import bootstrap_interval
from jaxmarl_fac.tracking import PerVariant, WandbTracker

WandbMode = Literal["online", "offline", "disabled"]

#: An environment with more numbers than this, such as payoffs, is left out of the W&B config.
MAX_CONFIG_NUMBERS = 10_000


@dataclasses.dataclass(frozen=True)
class Pair:
    """The algorithm and the environment.

    Attributes:
        algo: id of the algorithm; --list shows all ids.
        env: id of the environment; --list shows all ids.
        payoff: .json, .npy or .npz file with a payoff tensor, instead of --env: one axis per agent. For a
            reward per agent, .json with {"payoffs": [R1, R2]}, one tensor per agent, or .npz with an array
            for each.
        list: only list the ids.
    """

    algo: str | None = None
    env: str | None = None
    payoff: Path | None = None
    list: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """How to run them.

    Attributes:
        seeds: number of seeds; more can be added to a finished run.
        first_seed: number of the first seed; a seed's results do not depend on the others, up to rounding.
        bitwise_seeds: make them bitwise independent, by running every seed in a program of its own (slower).
        combine: of hyper-parameters with several values: all combinations (grid), or the first value of each,
            the second of each and so on (zip).
        matmul_precision: of float32 products on TPUs and GPUs, which round the factors if it is "default".
        env_steps: environment steps of each seed; the paper's number if not given. A higher number extends a
            run; schedules that span training, such as a linear learning rate, then stretch to the new end.
        num_envs: parallel environments of each seed.
        updates_per_step: gradient steps after each step of those environments, at most 256.
        evaluations: number of greedy evaluations, evenly spread, in addition to the one before training.
        evaluation_episodes: episodes in one evaluation.
        root_key: random key that the seeds' keys are derived from.
        out: folder for metrics.npz, experiment.json and checkpoints, runs/train if not given; a run in it is
            resumed. Under `wandb agent` every run has a folder of its own in runs/train.
        checkpoint_seconds: minimum time between two checkpoints.
        keep: number of newest checkpoints to keep, or all.
        keep_best: also keep the checkpoint with the best mean return; play.py --step best plays it.
        wandb: Weights & Biases: online, offline (kept in the output folder for `wandb sync`) or disabled.
            If not given, disabled; under `wandb agent` the value of WANDB_MODE, or online.
        project: W&B project.
        group: W&B group; the environment's id if not given.
        tags: W&B tags, in addition to the ids.
    """

    seeds: int = 1
    first_seed: int = 0
    env_steps: int | None = None
    num_envs: int = 1
    updates_per_step: int = 1
    evaluations: int = 20
    evaluation_episodes: int = 32
    root_key: int = 0
    bitwise_seeds: bool = False
    combine: Literal["grid", "zip"] = "grid"
    matmul_precision: MatmulPrecision = "highest"
    out: Path | None = None
    checkpoint_seconds: float = 60.0
    keep: int | Literal["all"] = 1
    keep_best: bool = False
    wandb: WandbMode | None = None
    project: str = "jaxmarl_fac"
    group: str | None = None
    tags: tuple[str, ...] = ()


def main(argv: Sequence[str]) -> int:
    """Train; returns the exit status."""
    pair = cli.peek(Pair, argv)
    if pair.list:
        list_ids()
        return cli.DONE
    if pair.algo is None and ("--help" in argv or "-h" in argv):
        cli.parse(Pair, argv, description=f"{__doc__}\nAdd --algo and --env to see their flags too.")
    options, experiment = prepare(argv)
    run: Run = options.run
    out, mode = folder_and_mode(run)
    experiment.bind()  # refuses a game that the algorithm cannot play
    on_main(lambda: prepare_folder(out))
    if isinstance(experiment.environment, MatrixGame) and pair.payoff is not None:
        describe_payoff(pair.payoff, experiment.environment)
    name = f"{pair.algo} on {pair.env or pair.payoff}"
    if line := describe_updates(experiment):
        print(f"{name}: {line}", flush=True)
    tracker = None if mode == "disabled" or not is_main() else wandb_tracker(mode, out, options, experiment)

    def finish(exit_code: int) -> None:
        if tracker:
            tracker.finish(exit_code)

    try:
        result = train(
            experiment,
            out,
            tracker=tracker,
            title=name,
            show_progress=True,
            checkpoint_seconds=run.checkpoint_seconds,
            keep=run.keep,
            keep_best=run.keep_best,
        )
    except InterruptedRunError as stop:
        finish(cli.FAILED)
        steps = f"{stop.result.env_steps:,} of {experiment.env_steps:,}"
        warn(f"{name}: stopped after {steps} steps; the same command resumes it")
        return cli.STOPPED
    except DivergedError:
        finish(cli.FAILED)
        raise
    returns = result.history.last["episode_return"]  # (variants * seeds,), or (variants * seeds, n)
    of_variants = np.reshape(returns, (len(experiment.groups), run.seeds, -1))
    diverged = [bool(np.isnan(of_variant).any()) for of_variant in of_variants]
    finish(cli.DONE)
    for group, of_variant, lost in zip(experiment.groups, of_variants, diverged, strict=True):
        if lost:
            warn(f"error: {name}, {group}: diverged to NaN or infinity; see {out}")
            continue
        scores = [bootstrap_interval(each) for each in of_variant.T]
        shown = ", ".join(f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}]" for score in scores)
        print(
            f"{name}{group and f', {group}'}: return IQM {shown} over {run.seeds} seed(s) "
            f"after {result.env_steps:,} steps in {result.seconds:.1f} s; see {out}"
        )
    return cli.FAILED if any(diverged) else cli.DONE


def prepare(argv: Sequence[str]) -> tuple[Any, Experiment]:
    """Parse the command line into a `settings_class` and the experiment that it describes.

    Raises:
        BadInputError: if a flag is not valid. Whether the algorithm can play the game is not checked.
    """
    pair = cli.peek(Pair, argv)
    algorithm, family, environment_parameters = resolve(pair)
    options: Any = cli.parse(settings_class(algorithm, environment_parameters), argv)
    run: Run = options.run
    chosen = vars(options.algorithm)
    several = {
        name: chosen[name]
        for name, leaf in leaves(algorithm).items()
        if is_float(leaf) and isinstance(chosen[name], tuple)
    }
    if options.run.combine == "grid":
        for name, values in several.items():
            if len(set(values)) < len(values):
                raise BadInputError(f"--{name.replace('_', '-')} needs different values, each only once")
    experiment = Experiment(
        algorithm=replaced(algorithm, **{name: chosen[name] for name in chosen if name not in several}),
        environment=build_environment(pair, options.environment),
        seeds=seed_numbers(run.seeds, run.first_seed),
        env_steps=run.env_steps if run.env_steps is not None else FAMILY_ENV_STEPS[family],
        num_envs=run.num_envs,
        updates_per_step=run.updates_per_step,
        evaluations=run.evaluations,
        evaluation_episodes=run.evaluation_episodes,
        root_key=run.root_key,
        bitwise_seeds=run.bitwise_seeds,
        matmul_precision=run.matmul_precision,
        variants=grid(**several) if run.combine == "grid" else tuple(several.items()),
    )
    return options, experiment


def describe_payoff(path: Path, game: MatrixGame) -> None:
    """Print what game a payoff file defines, and on stderr a hint if another may have been meant."""
    print(f"{path}: {game.describe()}")
    if game.could_be_payoffs_per_agent():
        print(
            f"{path}: if these are the payoffs of {game.num_agents - 1} agents, one tensor each, "
            'give them as {"payoffs": [...]}',
            file=sys.stderr,
        )


def describe_updates(experiment: Experiment) -> str:
    """How often each seed will learn; empty if never, which `train` refuses."""
    schedule = experiment.schedule
    updates = schedule.updates(experiment.iterations)
    first = (schedule.warmup + 1) * experiment.num_envs
    return f"{updates:,} update(s) of each seed, the first one after {first:,} steps" if updates else ""


def list_ids() -> None:
    """Print every id with a one-line description."""
    print("algorithms (--algo):")
    for name, algorithm in algorithms.ALGORITHMS.items():
        print(f"  {name:<30} {algorithm.about}")
    print("environments (--env):")
    for name, entry in environments.ENVIRONMENTS.items():
        print(f"  {name:<30} {entry.about}")
    for name, about in ADAPTED_IDS.items():
        print(f"  {name:<30} {about}")


def resolve(pair: Pair) -> tuple[Algorithm, str, dict[str, Any]]:
    """The algorithm with the family's settings, the environment's family, and its parameters' defaults.

    Raises:
        BadInputError: for an unknown id, or a missing flag.
    """
    if pair.algo is None:
        raise BadInputError(f"--algo is missing: choose one of {', '.join(algorithms.ALGORITHMS)}")
    algorithms.lookup(pair.algo)
    if (pair.env is None) == (pair.payoff is None):
        raise BadInputError("give either --env ID or --payoff FILE (--list names the environments)")
    if pair.env is None:
        return algorithms.make(pair.algo, "matrix"), "matrix", {"stages": 1}
    entry = environments.lookup(pair.env)
    defaults = {name: p.default for name, p in inspect.signature(entry.build).parameters.items()}
    # Parameters without a plain default, such as arrays, can be set from Python only.
    plain = {name: value for name, value in defaults.items() if isinstance(value, bool | int | float | str)}
    return algorithms.make(pair.algo, entry.family), entry.family, plain


def settings_class(algorithm: Algorithm, environment_parameters: dict[str, Any]) -> type:
    """A dataclass with all flags of an algorithm and an environment, and their settings as defaults."""
    fields = [(name, type(default), default) for name, default in environment_parameters.items()]
    parameters = dataclasses.make_dataclass("Environment", fields, frozen=True)
    parameters.__doc__ = "Parameters of the environment."
    flags = flags_class("Algorithm", algorithm, floats=cli.OneOrMore)
    settings = dataclasses.make_dataclass(
        "Settings",
        [
            ("pair", Pair, dataclasses.field(default_factory=Pair)),
            ("run", Run, dataclasses.field(default_factory=Run)),
            ("hosts", Hosts, dataclasses.field(default_factory=Hosts)),
            ("algorithm", flags, dataclasses.field(default_factory=flags)),
            ("environment", parameters, dataclasses.field(default_factory=parameters)),
        ],
        frozen=True,
    )
    settings.__doc__ = __doc__
    return settings


def build_environment(pair: Pair, parameters: Any) -> TeamEnvironment:
    """The environment of the pair."""
    if pair.payoff is not None:
        return load_game(pair.payoff, **dataclasses.asdict(parameters))
    return environments.make(str(pair.env), **dataclasses.asdict(parameters))


def folder_and_mode(run: Run) -> tuple[Path, WandbMode]:
    """The output folder, and the mode of W&B.

    `wandb agent` passes WANDB_SWEEP_ID and WANDB_RUN_ID as environment variables, not as flags.

    Raises:
        BadInputError: for an unknown WANDB_MODE.
    """
    in_sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
    out, mode = run.out, run.wandb
    if out is None:
        out = Path("runs/train", os.environ.get("WANDB_RUN_ID", "") if in_sweep else "")
    if mode is None:
        mode = cast(WandbMode, (os.environ.get("WANDB_MODE") or "online") if in_sweep else "disabled")
    if mode not in get_args(WandbMode):
        raise BadInputError(f"WANDB_MODE must be {', '.join(get_args(WandbMode))} or not set, not {mode}")
    return out, mode


def wandb_tracker(
    mode: WandbMode, out: Path, options: Any, experiment: Experiment
) -> WandbTracker | PerVariant:
    """The W&B tracker; its config has the value of every flag, so that sweeps can be plotted over them.

    Variants have a W&B run each, in one group.

    Args:
        mode: online or offline.
        out: folder of the run.
        options: the command line, a `settings_class`.
        experiment: made from the options.
    """
    pair, run = options.pair, options.run
    environment = pair.env or str(pair.payoff)
    settings = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)}
    for part in ("algorithm", "environment", "probe", "variants"):
        del settings[part]
    if sum(np.size(leaf) for leaf in jax.tree.leaves(experiment.environment)) <= MAX_CONFIG_NUMBERS:
        settings["environment"] = to_json(experiment.environment)
    varied = ", ".join(name for name, _ in experiment.variants)
    name, group = f"{pair.algo}-{environment}", f"{environment}: {varied}" if varied else environment

    def of_variant(index: int, out: Path, name: str) -> WandbTracker:
        return WandbTracker(
            mode,
            {
                **dataclasses.asdict(options.environment),
                **{name: leaf.value for name, leaf in leaves(experiment.variant_algorithm(index)).items()},
                **settings,
                "algo": pair.algo,
                "env": environment,
                "seeds": run.seeds,
                "first_seed": run.first_seed,
            },
            experiment.seeds,
            project=run.project,
            group=run.group or group,
            tags=[str(pair.algo), environment, *run.tags],
            name=name,
            out=out,
        )

    if not experiment.variants:
        return of_variant(0, out, name)
    return PerVariant(
        [
            of_variant(index, out / "variants" / str(index), f"{name} {label}")
            for index, label in enumerate(experiment.groups)
        ]
    )


if __name__ == "__main__":
    cli.run(main)
