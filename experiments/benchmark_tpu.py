"""Compile training for TPUs that are not there: memory, work and compile times.

python experiments/benchmark.py tpu [--topology v5e:4x4 ...] [--algo ID --env ID] [--seeds N]
    [--fit line|bisection|none] [--resume] [--out DIR]

The compiler for TPUs, libtpu, runs without one. For each topology and pair of algorithm and game this
compiles the three functions that `train` runs (start, chunk, evaluation), with the seeds spread over all
chips, and writes the memory that the chunk takes on each chip, the largest number of seeds that fits on one,
and the work of an iteration. The exit status is 1 if chips would have to communicate, or if a chunk copies
replay.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from tqdm import tqdm

import baselines
import envs
import envs.registry as environments
from envs.errors import BadInputError
from experiments.without_tpu import LIBTPU
from jaxmarl_fac import cli
from jaxmarl_fac.experiment import MAX_SEEDS, Experiment, seed_numbers
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.memory.packing import tree_bytes
from jaxmarl_fac.parallel import AXIS, lane_sharding
from jaxmarl_fac.program import Program
from jaxmarl_fac.settings import leaves

#: Algorithm, game, and seeds on each chip.
PAIRS = (
    ("qtran-alt", "predator-prey-2", 64),
    ("qmix", "stag-hunt-p2", 16),
    ("qtran-base", "matrix-qtran", 64),
    ("qplex", "predator-prey-4", 16),
    ("ltql", "catch-prey", 16),
    ("rommeo-ac", "differential", 16),
)
#: Generations of one device a chip, and the most chips along each axis of a slice; libtpu aborts on more.
LARGEST = {"v5e": (16, 16), "v5p": (16, 20, 28), "v6e": (16, 16)}
#: Instructions by which chips communicate.
COLLECTIVES = re.compile(
    r" (all-reduce|all-gather|(?:ragged-)?all-to-all|reduce-scatter|collective-(?:permute|broadcast))"
    r"(?:-start)?\("
)
#: The compiler's message if a program does not fit.
EXHAUSTED, AVAILABLE = "RESOURCE_EXHAUSTED", re.compile(r"available HBM \(([\d.]+)([MGT])\)")
#: The number of seeds that fits is searched for until so much more does not fit.
TOLERANCE = 0.02
#: Seeds of which one iteration is compiled to count its work.
COUNTED_SEEDS = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """What to compile, and for which chips.

    Attributes:
        topology: TPU generation and chips along each axis, several if you like: v5e:4x4, v5p:4x4x4.
        algo: id of the algorithm, with `--env`; six pairs of the suite if not given.
        env: id of the game.
        seeds: seeds on all chips together; if not given, a number on each chip that suits the pair.
        fit: how to find the largest number of seeds that fits: by the line through the bytes of `seeds` and
            of half as many, or by bisection, which compiles for the number found; compiling for thousands of
            seeds on a chip takes long.
        resume: whether to keep the rows that an interrupted run has written to `out`.
        out: folder for benchmark.md and benchmark.json.
    """

    topology: tuple[str, ...] = ("v5e:4x4",)
    algo: str | None = None
    env: str | None = None
    seeds: int | None = None
    fit: Literal["line", "bisection", "none"] = "line"
    resume: bool = False
    out: Path = Path("runs/benchmark-tpu")


def main(argv: Sequence[str]) -> int:
    """Compile everything, and write the table; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    if (options.algo is None) != (options.env is None):
        raise BadInputError("--algo and --env belong together: give both, or neither")
    if not options.topology:
        raise BadInputError("--topology needs at least one, such as v5e:4x4")
    suited = {(algo, env): per_chip for algo, env, per_chip in PAIRS}
    pair = options.algo or "", options.env or ""
    pairs = PAIRS if options.algo is None else ((*pair, suited.get(pair, 16)),)
    for algo, env, per_chip in pairs:
        experiment_of(algo, env, options.seeds if options.seeds is not None else per_chip)
    check_libtpu()
    meshes = {name: topology_mesh(name) for name in options.topology}
    # Build all of them first: bad input must not be found after minutes of compiling.
    planned = []
    for name, mesh in meshes.items():
        for algo, env, per_chip in pairs:
            seeds = options.seeds if options.seeds is not None else per_chip * mesh.size
            planned.append((name, mesh, algo, env, experiment_of(algo, env, seeds)))
    prepare_folder(options.out)
    machine: dict[str, Any] = {
        "libtpu": importlib.metadata.version("libtpu"),
        "jax": jax.__version__,
        "chips": {name: mesh.devices.flat[0].device_kind for name, mesh in meshes.items()},
        "hbm_bytes": {name: hbm_bytes(one_chip(mesh)) for name, mesh in meshes.items()},
    }
    done = finished_rows(options.out, machine) if options.resume else {}
    rows: list[dict[str, Any]] = []
    fits: dict[Any, int | None] = {}  # without communication these are the same in a larger slice
    work: dict[Any, dict[str, float | None]] = {}
    for name, mesh, algo, env, experiment in tqdm(planned, disable=None):
        kind = (machine["chips"][name], algo, env)
        row = done.get((name, algo, env, experiment.lanes))
        if row is None:
            row = {"topology": name, "algo": algo, "env": env, **compile_all(experiment, mesh)}
            if kind not in fits:
                needs = functools.partial(chip_bytes, algo, env, one_chip(mesh))
                find = {"none": no_fit, "line": on_the_line, "bisection": most_that_fit}[options.fit]
                hbm = machine["hbm_bytes"][name]
                fits[kind] = find(needs, hbm, row["seeds_per_chip"], needed(row))
                work[kind] = work_of(experiment, one_chip(mesh))
            row |= {"seeds_that_fit_on_a_chip": fits[kind], **work[kind]}
        fits.setdefault(kind, row["seeds_that_fit_on_a_chip"])
        work.setdefault(kind, {name: row[name] for name in ("flops", "bytes_accessed")})
        rows.append(row)
        write_text(options.out / "benchmark.json", json.dumps({"machine": machine, "rows": rows}, indent=1))
        write_text(options.out / "benchmark.md", markdown(rows, machine))
    print(markdown(rows, machine))
    print(f"written to {options.out}")
    wrong = [row for row in rows if row["collectives"] or row["copies_of_replay"]]
    for row in wrong:
        found = [*row["collectives"], *(["copies of replay"] if row["copies_of_replay"] else [])]
        print(f"{row['algo']} on {row['env']}, {row['topology']}: the chunk has {', '.join(found)}")
    return cli.FAILED if wrong else cli.DONE


def finished_rows(out: Path, machine: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    """The rows that an interrupted run of the same compiler has written, by what they compile."""
    try:
        saved = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if any(saved["machine"][name] != machine[name] for name in ("libtpu", "jax")):
        raise BadInputError(f"{out} is of another compiler: leave --resume out, or choose another folder")
    return {(row["topology"], row["algo"], row["env"], row["seeds"]): row for row in saved["rows"]}


def check_libtpu() -> None:
    """Check that libtpu is installed.

    Raises:
        BadInputError: if it is not.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise BadInputError(
            "libtpu, the compiler for TPUs, is not installed: pip install -c constraints.txt -e '.[tpu]'"
        )


def topology_mesh(name: str) -> Mesh:
    """The lanes' mesh over the chips of a topology such as "v5e:4x4".

    Raises:
        BadInputError: for a topology that libtpu does not know.
    """
    generation, _, shape = name.partition(":")
    chips = [int(length) for length in shape.split("x") if re.fullmatch(r"[1-9]\d{0,2}", length)]
    largest = LARGEST.get(generation, ())
    if not len(largest) == len(chips) == len(shape.split("x")) or any(np.greater(chips, largest)):
        raise _no_topology(name, "")
    whole_hosts = chips[0] % 2 == 0 and chips[1] % 2 == 0
    bounds: dict[str, Any] = {} if whole_hosts else {"chips_per_host_bounds": (1, 1, 1)}
    os.environ.update(LIBTPU)
    try:
        devices = topologies.get_topology_desc(name, platform="tpu", **bounds).devices
    except Exception as error:  # libtpu has several types for it
        raise _no_topology(name, str(error).splitlines()[0]) from error
    if len(devices) != np.prod(chips):
        raise _no_topology(name, f"it has {len(devices)} devices for {np.prod(chips)} chips")
    return Mesh(np.asarray(devices), (AXIS,))


def _no_topology(name: str, reason: str) -> BadInputError:
    because = f" ({reason})" if reason else ""
    largest = ", ".join(f"{generation}:{'x'.join(map(str, chips))}" for generation, chips in LARGEST.items())
    return BadInputError(
        f"there is no TPU topology {name}{because}: give a generation and the chips along each axis, such as "
        f"v5e:4x4, of at most {largest}"
    )


def one_chip(mesh: Mesh) -> Mesh:
    """The first chip of a mesh alone."""
    return Mesh(mesh.devices[:1], (AXIS,))


def experiment_of(algo: str, env: str, seeds: int) -> Experiment:
    """The experiment to compile.

    Raises:
        BadInputError: for an unknown id or number of seeds, or if the algorithm cannot play the game.
    """
    experiment = Experiment(
        algorithm=baselines.make(algo, environments.lookup(env).family),
        environment=envs.make(env),
        seeds=seed_numbers(seeds),
        env_steps=2**30,
    )
    experiment.bind()
    return experiment


def compile_all(experiment: Experiment, mesh: Mesh) -> dict[str, Any]:
    """Compile what `train` runs for the devices of a mesh.

    Returns:
        Part of a row of the table: sizes in bytes on each chip, times in seconds.
    """
    program = Program(experiment, mesh)
    row: dict[str, Any] = {
        "seeds": experiment.lanes,
        "seeds_per_chip": -(-experiment.lanes // mesh.size),
        "seeds_that_update_at_once": program.updating,
    }
    compiled = {}
    for name, lowered in program.lowered().items():
        start = time.perf_counter()
        compiled[name] = lowered.compile()
        row[f"{name}_compile_seconds"] = time.perf_counter() - start
    text, buffer = compiled["chunk"].as_text() or "", program.abstract_lanes().buffer
    row |= chip_memory(compiled["chunk"])
    row["replay_bytes"] = tree_bytes(buffer) // mesh.size
    row["collectives"] = sorted(set(COLLECTIVES.findall(text)))
    row["copies_of_replay"] = len(
        copies_of(text, [chips_part(leaf, mesh) for leaf in jax.tree.leaves(buffer)])
    )
    return row


def chip_memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes that a program takes on each chip."""
    memory: Any = compiled.memory_analysis()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "scratch_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }


def needed(row: dict[str, Any]) -> int:
    """All bytes of `chip_memory`."""
    return sum(row[f"{kind}_bytes"] for kind in ("argument", "output", "scratch", "code"))


def work_of(experiment: Experiment, chip: Mesh) -> dict[str, float | None]:
    """FLOPs and bytes of one seed's iteration with an update, as XLA counts them on one chip.

    XLA counts the body of a loop once: recurrent agents, which loop over an episode's steps, have none.
    """
    settings = leaves(experiment.algorithm)
    if "recurrent" in settings and settings["recurrent"].value:
        return {"flops": None, "bytes_accessed": None}
    lanes = min(COUNTED_SEEDS, experiment.lanes)
    costs = Program(dataclasses.replace(experiment, seeds=seed_numbers(lanes)), chip).iteration_costs()
    return {"flops": costs["flops"] / lanes, "bytes_accessed": costs["bytes accessed"] / lanes}


def chips_part(leaf: Any, mesh: Mesh) -> tuple[int, ...]:
    """The shape of a chip's part of an array with a leading lane axis."""
    return lane_sharding(mesh).shard_shape(leaf.shape)


def copies_of(text: str, shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """Instructions of a compiled program that copy an array of one of these shapes of at least a megabyte.

    What a TPU calls a copy in an array's own place, to see it in tiles of another height, is none.
    """
    large = {",".join(map(str, shape)) for shape in shapes if np.prod(shape) >= 1e6}
    in_place = set(re.findall(r"output_to_operand_aliasing=\{\{\}: \(0, \{\}\)\}, calls=(%[\w.-]+)", text))
    found, computation = [], ""
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            computation = line.removeprefix("ENTRY ").split(" ", 1)[0]
        match = re.search(r"(%[\w.-]+) = \w+\[([\d,]+)\]\S* (?:copy|copy-start|transpose|pad)\(", line)
        if match and match[2] in large and computation not in in_place:
            found.append(match[1])
    return found


def hbm_bytes(chip: Mesh) -> int:
    """The memory of a chip for programs, as the compiler tells it when it refuses one that needs 1 TB."""
    too_large = jax.ShapeDtypeStruct((1, 2**38), jnp.float32, sharding=lane_sharding(chip))
    try:
        jax.jit(lambda array: array + 1).lower(too_large).compile()
    except jax.errors.JaxRuntimeError as error:
        found = AVAILABLE.search(str(error))
        if found:
            return int(float(found[1]) * {"M": 2**20, "G": 2**30, "T": 2**40}[found[2]])
        raise
    raise AssertionError("an array of 1 TB fits")


def chip_bytes(algo: str, env: str, chip: Mesh, seeds: int) -> int | None:
    """Bytes of the chunk with so many seeds on a chip; None if they do not fit."""
    program = Program(experiment_of(algo, env, seeds), chip)
    try:
        return needed(chip_memory(program.lowered()["chunk"].compile()))
    except jax.errors.JaxRuntimeError as error:
        if EXHAUSTED in str(error):
            return None
        raise


def most_that_fit(needs: Callable[[int], int | None], available: int, seeds: int, needed: int) -> int:
    """The largest number of seeds that fits on a chip, up to `TOLERANCE`.

    A bisection between numbers that were compiled. Memory grows almost linearly with the seeds, so that the
    next number to try is where the line through the last two that fit reaches what there is, and the search
    is over where that is what was tried last.

    Args:
        needs: the bytes of a number of seeds, None if they do not fit.
        available: bytes of a chip.
        seeds: a number that fits.
        needed: its bytes.
    """
    fewer, fit, most = (0, 0), (seeds, needed), MAX_SEEDS + 1
    while True:
        slope = max(1.0, (fit[1] - fewer[1]) / (fit[0] - fewer[0]))
        guess = min(fit[0] + int((available - fit[1]) / slope), MAX_SEEDS)
        if guess >= most:  # there memory grows faster than the line
            guess = (fit[0] + most) // 2
        if guess - fit[0] <= TOLERANCE * fit[0]:
            return fit[0]
        taken = needs(guess)
        if taken is None:
            most = guess
        else:
            fewer, fit = fit, (guess, taken)


def on_the_line(needs: Callable[[int], int | None], available: int, seeds: int, needed: int) -> int | None:
    """As `most_that_fit`, by the line through what `seeds` and half as many need; None for a single seed."""
    half = seeds // 2
    fewer = needs(half) if half else None
    if fewer is None:
        return None
    return min(MAX_SEEDS, seeds + int((available - needed) / max(1.0, (needed - fewer) / (seeds - half))))


def no_fit(needs: Callable[[int], int | None], available: int, seeds: int, needed: int) -> None:
    """Not asked for."""


def markdown(rows: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The table, preceded by the compiler's versions."""
    hbm = {machine["chips"][name]: size / 2**30 for name, size in machine["hbm_bytes"].items()}
    lines = [
        f"Compiled by libtpu {machine['libtpu']} for JAX {machine['jax']}, without a device. Memory of a "
        f"chip: {', '.join(f'{kind} {size:.2f} GiB' for kind, size in hbm.items())}. Sizes are those of the "
        "chunk on one chip; FLOPs and bytes are one seed's iteration with an update (not counted for "
        "recurrent agents, whose loop over steps XLA counts once).",
        "",
    ]

    def megabytes(size: float) -> str:
        return f"{size / 1e6:,.1f}"

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}"

    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "topology": lambda row: row["topology"],
        "algorithm": lambda row: row["algo"],
        "game": lambda row: row["env"],
        "seeds": lambda row: f"{row['seeds']:,}",
        "seeds per chip": lambda row: f"{row['seeds_per_chip']:,}",
        "of them updating at once": lambda row: f"{row['seeds_that_update_at_once']:,}",
        "arguments MB": lambda row: megabytes(row["argument_bytes"]),
        "replay MB": lambda row: megabytes(row["replay_bytes"]),
        "scratch MB": lambda row: megabytes(row["scratch_bytes"]),
        "code MB": lambda row: megabytes(row["code_bytes"]),
        "seeds that fit on a chip": lambda row: number(row["seeds_that_fit_on_a_chip"]),
        "FLOPs": lambda row: number(row["flops"]),
        "bytes": lambda row: number(row["bytes_accessed"]),
        "collectives": lambda row: ", ".join(row["collectives"]) or "none",
        "copies of replay": lambda row: f"{row['copies_of_replay'] or 'none'}",
        "compile s (start, chunk, evaluation)": lambda row: ", ".join(
            f"{row[f'{name}_compile_seconds']:.0f}" for name in ("start", "chunk", "evaluation")
        ),
    }
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(show(row) for show in columns.values())} |" for row in rows]
    return "\n".join(lines) + "\n"
