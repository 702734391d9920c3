"""Benchmark hyper-parameters as a batch axis: many settings in one program, and one after the other.

python experiments/benchmark.py variants [--algo ID --env ID] [--setting NAME] [--count N] [--seeds N]
    [--env-steps N] [--singles N] [--out DIR]

Trains `count` values of a setting with all seeds by one call of train.py, and some of them by a call each, as
runs one after the other are: all of those would take so many times their mean. Also compares the returns.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import baselines
import envs.registry as environments
from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.settings import can_vary, leaves

TRAIN = Path(__file__).with_name("train.py")


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
    known = leaves(baselines.make(options.algo, environments.lookup(options.env).family))
    if options.setting not in known or not can_vary(known[options.setting]):
        raise BadInputError(f"{options.algo} has no real-valued setting {options.setting!r} that can vary")
    values = [float(value) for value in known[options.setting].value * np.logspace(-1, 1, options.count)]
    prepare_folder(options.out)
    together, returns = timed(options, values)
    returns = returns.reshape(len(returns), options.count, options.seeds)
    singles, same = [], []
    for index in tqdm(np.linspace(0, options.count - 1, options.singles).round().astype(int), disable=None):
        seconds, single = timed(options, [values[index]])
        singles.append(seconds)
        same.append(np.isclose(returns[:, index], single, atol=1e-5))
    row = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "together_seconds": together,
        "single_seconds": float(np.mean(singles)),
        "ratio": float(np.mean(singles)) * options.count / together,
        "equal_returns": float(np.mean(same)),
        "equal_last_returns": float(np.mean([each[-1] for each in same])),
    }
    settings = dataclasses.asdict(options) | {"out": str(options.out)}
    write_text(options.out / "benchmark.json", json.dumps({"options": settings, **row}, indent=1))
    table = markdown(options, row)
    write_text(options.out / "benchmark.md", table)
    print(table)
    return cli.DONE


def timed(options: Options, values: Sequence[float]) -> tuple[float, np.ndarray]:
    """Seconds of a call of train.py from the shell, and the returns that it measured `(evaluations, lanes)`.

    Raises:
        BadInputError: if it fails.
    """
    flags = {
        "algo": [options.algo],
        "env": [options.env],
        "seeds": [str(options.seeds)],
        "env-steps": [str(options.env_steps)],
        options.setting.replace("_", "-"): [repr(value) for value in values],
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(TRAIN), "--out", folder]
        for name, texts in flags.items():
            command += [f"--{name}", *texts]
        start = time.perf_counter()
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(TRAIN.parents[1])},
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise BadInputError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
        return seconds, np.load(Path(folder) / "metrics.npz")["episode_return"]


def markdown(options: Options, row: dict[str, Any]) -> str:
    """What was measured, as text."""
    return (
        f"{options.count} values of {options.setting} of {options.algo} on {options.env}, {options.seeds} "
        f"seeds each, {options.env_steps:,} steps, on {row['device']}, from the shell.\n\n"
        "| | seconds |\n|---|---|\n"
        f"| all in one program | {row['together_seconds']:.1f} |\n"
        f"| one run, mean of {options.singles} | {row['single_seconds']:.1f} |\n"
        f"| {options.count} runs one after the other | {options.count * row['single_seconds']:.1f} |\n\n"
        f"Together is {row['ratio']:.1f} times as fast. {row['equal_last_returns']:.1%} of the last returns "
        f"and {row['equal_returns']:.1%} of all equal those of the single runs; with `--bitwise-seeds` all "
        "would, to the last bit.\n"
    )
