"""Measure how fast the suite trains, as rates and as ratios within one run.

python experiments/benchmark.py [matrix] [--env ID] [--algos ID ...] [--seeds N ...] [--seconds S] [--out DIR]

For each algorithm and number of seeds: seed-updates per second (one update of one seed, with the acting,
the environment step and the replay that go with it), compile seconds, bytes per seed, and the floating
point operations that XLA counts, as a share of the rate of a large matrix product in the same run.
"""

import jaxmarl_fac.all_cores  # noqa: F401  first of all: once JAX has its devices it is too late

# isort: split
import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.ticker import EngFormatter, LogLocator
from tqdm import tqdm

import baselines
import envs
from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.checkpoints import prepare_folder
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.figures import line_styles, panels, save
from jaxmarl_fac.loop import Program

#: Side of the square matrices whose product says what the machine can do.
SIDE = 2048
#: Repetitions of each measurement; the fastest counts, as what slows one down is somebody else.
REPETITIONS = 5


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        suite: matrix trains on a matrix game.
        env: id of the game.
        algos: ids of the algorithms.
        seeds: numbers of seeds.
        seconds: that one repetition should take.
        out: folder for benchmark.md, benchmark.json and benchmark.png.
    """

    suite: Annotated[Literal["matrix"], tyro.conf.Positional] = "matrix"
    env: str = "matrix-qtran"
    algos: tuple[str, ...] = ("vdn", "qmix", "qtran-base", "qtran-alt")
    seeds: tuple[int, ...] = (1, 32, 256, 1024)
    seconds: float = 1.0
    out: Path = Path("runs/benchmark")


def main(argv: Sequence[str]) -> int:
    """Measure, and write the table and the plot; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    if not options.seeds or min(options.seeds) < 1:
        raise BadInputError("--seeds must be numbers of at least 1")
    if not options.seconds > 0:
        raise BadInputError(f"--seconds must be above 0, not {options.seconds}")
    prepare_folder(options.out)
    product = matrix_product()
    peak = max(measure_product(product) for _ in range(REPETITIONS))
    rows = []
    for algo, seeds in tqdm([(algo, seeds) for algo in options.algos for seeds in options.seeds]):
        rows.append(measure(algo, options.env, seeds, options.seconds))
        peak = max(peak, measure_product(product))
    for row in rows:
        row["gflops_share"] = row["gflops"] / peak
        alone = [other for other in rows if other["algo"] == row["algo"] and other["seeds"] == 1]
        row["times_one_seed"] = row["seed_updates_per_s"] / alone[0]["seed_updates_per_s"] if alone else None

    machine = {
        "env": options.env,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind} ({platform.machine()})",
        "matrix_product_gflops": peak,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")},
    }
    (options.out / "benchmark.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    table = markdown(rows, machine)
    (options.out / "benchmark.md").write_text(table)
    plot(rows, machine, options.out / "benchmark.png")
    print(table)
    print(f"written to {options.out}")
    return cli.DONE


def measure(algo: str, env: str, seeds: int, seconds: float) -> dict[str, Any]:
    """Train `seeds` seeds for a while; what that took, by name."""
    experiment = Experiment(
        algorithm=baselines.make(algo),
        environment=envs.make(env),
        seeds=tuple(range(seeds)),
        env_steps=2**30,
    )
    program = Program(experiment)
    lanes = program.initial_lanes()
    start = time.perf_counter()
    compiled: Any = program.compile_chunk(lanes)
    compile_seconds = time.perf_counter() - start
    flops = program.flops_per_iteration()
    memory = compiled.memory_analysis()
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(lanes)) / seeds

    at, per_iteration, iterations = 0, np.inf, 64
    for repetition in range(REPETITIONS + 2):  # the first two find how many iterations fill the time
        start = time.perf_counter()
        lanes, _ = program.chunk(lanes, at, at + iterations)
        taken = (time.perf_counter() - start) / iterations
        at += iterations
        if repetition < 2:
            iterations = max(16, int(seconds / taken))
        else:
            per_iteration = min(per_iteration, taken)
    return {
        "algo": algo,
        "seeds": seeds,
        "seed_updates_per_s": seeds / per_iteration,
        "compile_seconds": compile_seconds,
        "bytes_per_seed": kept,
        "scratch_bytes_per_seed": memory.temp_size_in_bytes * program.mesh.size / seeds,
        "flops_per_update": flops,
        "gflops": flops * seeds / per_iteration / 1e9,
    }


def matrix_product() -> Callable[[], jax.Array]:
    """A large float32 matrix product, compiled, on every device at once."""
    devices = jax.devices()
    factor = jax.random.normal(jax.random.key(0), (SIDE, SIDE), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    factors = [jax.device_put(factor, device) for device in devices]

    def run() -> jax.Array:
        return jax.block_until_ready([multiply(f) for f in factors])[0]

    run()
    return run


def measure_product(product: Callable[[], jax.Array]) -> float:
    """Its rate in GFLOP/s, over all devices."""
    start = time.perf_counter()
    product()
    return 2 * SIDE**3 * jax.device_count() / (time.perf_counter() - start) / 1e9


def markdown(rows: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The table."""
    lines = [
        f"{machine['env']} on {machine['device']}; a {SIDE} x {SIDE} matrix product runs at "
        f"{machine['matrix_product_gflops']:.0f} GFLOP/s.",
        "",
        "| algorithm | seeds | seed-updates/s | times one seed | share of matrix product | FLOPs per update "
        "| bytes per seed | scratch bytes per seed | compile s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = "" if row["times_one_seed"] is None else f"{row['times_one_seed']:.1f}"
        lines.append(
            f"| {row['algo']} | {row['seeds']:,} | {row['seed_updates_per_s']:,.0f} | {times} "
            f"| {row['gflops_share']:.0%} | {row['flops_per_update']:,.0f} | {row['bytes_per_seed']:,.0f} "
            f"| {row['scratch_bytes_per_seed']:,.0f} | {row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict[str, Any]], machine: dict[str, Any], path: Path) -> None:
    """Seed-updates per second against seeds."""
    figure, axes = panels(1, 1, (6.0, 4.0), f"{machine['env']} on {machine['device']}")
    algos = list(dict.fromkeys(row["algo"] for row in rows))
    for algo, (colour, dashes) in line_styles(algos).items():
        mine = [row for row in rows if row["algo"] == algo]
        x, y = [row["seeds"] for row in mine], [row["seed_updates_per_s"] for row in mine]
        axes[0, 0].plot(x, y, dashes, color=colour, marker="o", label=algo)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="seeds", ylabel="seed-updates per second")
    axes[0, 0].set_xticks([row["seeds"] for row in rows], [f"{row['seeds']:,}" for row in rows])
    axes[0, 0].minorticks_off()
    axes[0, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[0, 0].yaxis.set_major_formatter(EngFormatter(sep=""))  # 200k
    axes[0, 0].grid(alpha=0.25)
    axes[0, 0].legend(frameon=False)
    save(figure, path)


if __name__ == "__main__":
    cli.run(main)
