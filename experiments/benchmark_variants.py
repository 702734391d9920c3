"""Benchmark hyper-parameters as a batch axis: many settings in one program, and one after the other.

python experiments/benchmark.py variants [--algo ID --env ID] [--setting NAME] [--count N] [--seeds N]
    [--env-steps N] [--singles N] [--out DIR]

Trains `count` values of a setting with all seeds in one program, and some of them by themselves, each with
its own start and compilation, as runs one after the other have: all would take so many times their mean. Also
compares the returns.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import baselines
import envs
import envs.registry as environments
from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.experiment import Experiment, seed_numbers
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.loop import train
from jaxmarl_fac.settings import is_float, leaves


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train.

    Attributes:
        algo: id of the algorithm.
        env: id of the game.
        setting: a real number among the algorithm's settings; its values are a tenth of its default to ten
            times that, evenly spread on a logarithmic scale.
        count: number of values.
        seeds: number of seeds of each.
        env_steps: of each seed.
        singles: how many of the values are trained by themselves as well.
        out: folder for benchmark.md and benchmark.json.
    """

    algo: str = "qtran-base"
    env: str = "matrix-qtran"
    setting: str = "learning_rate"
    count: int = 64
    seeds: int = 4
    env_steps: int = 20_000
    singles: int = 4
    out: Path = Path("runs/benchmark-variants")


def main(argv: Sequence[str]) -> int:
    """Train both ways, and write the table; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    if not 2 <= options.singles <= options.count:
        raise BadInputError(f"--singles must be 2 to --count, {options.count}, not {options.singles}")
    algorithm = baselines.make(options.algo, environments.lookup(options.env).family)
    known = leaves(algorithm)
    if options.setting not in known or not is_float(known[options.setting]):
        raise BadInputError(f"{options.algo} has no real-valued setting {options.setting!r}")
    default = known[options.setting].value
    values = [float(value) for value in default * np.logspace(-1, 1, options.count)]
    experiment = Experiment(
        algorithm=algorithm,
        environment=envs.make(options.env),
        seeds=seed_numbers(options.seeds),
        env_steps=options.env_steps,
        variants=((options.setting, tuple(values)),),
    )
    prepare_folder(options.out)
    together, history = timed(experiment)
    chosen = np.linspace(0, options.count - 1, options.singles).round().astype(int)
    singles, differences = [], []
    for index in tqdm(chosen, disable=None):
        alone = dataclasses.replace(experiment, algorithm=experiment.variant_algorithm(index), variants=())
        seconds, single = timed(alone)
        singles.append(seconds)
        lanes = slice(index * options.seeds, (index + 1) * options.seeds)
        differences.append(largest_difference(history["episode_return"][:, lanes], single["episode_return"]))
    row = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "together_seconds": together,
        "single_seconds": float(np.mean(singles)),
        "ratio": float(np.mean(singles)) * options.count / together,
        "largest_difference_of_returns": max(differences),
    }
    settings = dataclasses.asdict(options) | {"out": str(options.out)}
    write_text(options.out / "benchmark.json", json.dumps({"options": settings, **row}, indent=1))
    table = markdown(options, row)
    write_text(options.out / "benchmark.md", table)
    print(table)
    return cli.DONE


def timed(experiment: Experiment) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds of a whole training, from nothing to its last evaluation, and what it measured."""
    start = time.perf_counter()
    history = train(experiment).history.arrays()
    return time.perf_counter() - start, history


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two tables of returns."""
    return float(np.max(np.abs(one - other)))


def markdown(options: Options, row: dict[str, Any]) -> str:
    """What was measured, as text."""
    return (
        f"{options.count} values of {options.setting} of {options.algo} on {options.env}, {options.seeds} "
        f"seeds each, {options.env_steps:,} steps, on {row['device']}.\n\n"
        "| | seconds |\n|---|---|\n"
        f"| all in one program | {row['together_seconds']:.1f} |\n"
        f"| one run, mean of {options.singles} | {row['single_seconds']:.1f} |\n"
        f"| {options.count} runs one after the other | {options.count * row['single_seconds']:.1f} |\n\n"
        f"One program is {row['ratio']:.1f} times as fast. The returns of evaluations differ by at most "
        f"{row['largest_difference_of_returns']:.3g} from those of the single runs.\n"
    )
