"""Benchmark training speed.

python experiments/benchmark.py [matrix|predator-prey|pursuit|mpe] [--env ID] [--algos ID ...]
    [--seeds N ...] [--seconds S] [--out DIR]
python experiments/benchmark.py peers --peer-python PYTHON --peer-checkout DIR ...
python experiments/benchmark.py tpu [--topology v5e:4x4 ...] ...
python experiments/benchmark.py variants [--setting NAME] [--count N] ...

For each algorithm and number of seeds: seed-updates per second (one update of one seed, including acting,
environment steps and replay), compile seconds, bytes per seed, and, except for recurrent agents, the floating
point operations and the bytes that XLA counts, their rate relative to a large matrix product in the same run,
and the roofline: what bounds an update, a matrix product's rate or a large copy's, and what share of that
bound is reached (above 100 % where caches serve what XLA counts as memory). The suites predator-prey and
pursuit add the speed of the environment alone, the size of replay, and the share of each part of an
iteration. The suite mpe trains with the settings of JaxMARL's scripts, and adds environment steps per second.
`benchmark.py peers --help` tells of JaxMARL's own learners beside ours, `benchmark.py tpu --help` of training
that is compiled for TPUs that are not there, `benchmark.py variants --help` of many settings in one program.
"""

# First: they have no effect once JAX is initialised.
import experiments.without_tpu  # noqa: F401
import jaxmarl_fac.all_cores  # noqa: F401

# isort: split
import dataclasses
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro
from matplotlib.ticker import EngFormatter, LogLocator
from tqdm import tqdm

import baselines
import envs
import envs.registry as environments
from envs.errors import BadInputError
from experiments import benchmark_peers, benchmark_tpu, benchmark_variants
from jaxmarl_fac import cli
from jaxmarl_fac.experiment import Experiment, seed_numbers
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.memory import Transitions
from jaxmarl_fac.memory.packing import plain_step, tree_bytes
from jaxmarl_fac.parallel import PER_LANE, REPLICATED, lane_mesh, per_device
from jaxmarl_fac.program import Program
from jaxmarl_fac.report.figures import panels, save
from jaxmarl_fac.report.styles import line_styles
from jaxmarl_fac.settings import leaves, replaced

#: Side of the square matrices whose product measures the machine's peak rate.
SIDE = 2048
#: What is copied to measure the rate of memory: more than caches hold.
COPY_BYTES = 2**28
#: Repetitions of each measurement; we report the minimum, since interference only ever slows a run down.
REPETITIONS = 5
#: Parallel environments per device where the environment is measured alone.
PARALLEL_ENVS = 512


@dataclasses.dataclass(frozen=True)
class Suite:
    """The defaults of one benchmark suite.

    Attributes:
        env: id of the game.
        algos: ids of the algorithms.
        seeds: numbers of seeds.
        parts: whether to measure the environment, replay and the parts of an iteration too.
        peers: speed of other code on the same game, measured on 2 CPU cores.
        settings: settings of some algorithms by id; `num_envs` is passed to the experiment.
    """

    env: str
    algos: tuple[str, ...]
    seeds: tuple[int, ...]
    parts: bool = False
    peers: str = ""
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


#: JaxMARL's settings for both of its learners on MPE (`ql_rnn_mpe` and `vdn_ff_mpe`).
JAXMARL: dict[str, Any] = {
    "batch_size": 32,
    "learning_rate": 5e-3,
    "learning_rate_schedule": "linear",
    "max_grad_norm": 25.0,
    "gamma": 0.9,
    "target_period": 200,
    "learning_starts": 10_000,
    "epsilon_end": 0.05,
    "epsilon_steps": 1_000_000,
}
SUITES = {
    "matrix": Suite("matrix-qtran", ("vdn", "qmix", "qtran-base", "qtran-alt"), (1, 32, 256, 1024)),
    "predator-prey": Suite(
        "predator-prey-2",
        ("qtran-alt",),
        (1, 8, 64),
        parts=True,
        peers="For comparison, on 2 CPU cores: PyMARL's predator-prey steps 409 times a second without "
        "learning; the QTRAN authors' TF1 code trains at about 450 steps a second, one seed at a time.",
    ),
    "pursuit": Suite("catch-prey", ("ltql", "iql"), (1, 8), parts=True),
    "mpe": Suite(
        "mpe:simple_spread",
        ("qmix", "vdn"),
        (1, 8),
        peers="An update comes after 26 steps of 8 environments (recurrent QMIX, 32 episodes a batch) or 16 "
        "steps of 32 (VDN, 32 transitions), as in JaxMARL's qmix_rnn.py and vdn_ff.py, with settings for "
        "MPE, but VDN's agents have two hidden layers, where theirs have none. `benchmark.py peers` measures "
        "JaxMARL's own learners beside ours.",
        settings={
            "qmix": {
                **JAXMARL,
                "num_envs": 8,
                "consumes": "episodes",
                "recurrent": True,
                "update_period": 26,
                "replay_size": 5000,
                "hidden": (64,),
                "mixer_embed": 32,
                "hypernet_hidden": (128,),
            },
            "vdn": {
                **JAXMARL,
                "num_envs": 32,
                "update_period": 16,
                "replay_size": 100_000,
                "hidden": (64, 64),
            },
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        suite: matrix trains on a matrix game, predator-prey on QTRAN's, pursuit on LTQL's, mpe on
            JaxMARL's simple_spread.
        env: id of the game; the suite's own if not given.
        algos: ids of the algorithms; the suite's own if not given.
        seeds: numbers of seeds; the suite's own if not given.
        seconds: target length of one repetition.
        out: folder for benchmark.md, benchmark.json and benchmark.png.
    """

    suite: Annotated[Literal["matrix", "predator-prey", "pursuit", "mpe"], tyro.conf.Positional] = "matrix"
    env: str | None = None
    algos: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    seconds: float = 1.0
    out: Path = Path("runs/benchmark")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark, and write the table and the plot; returns the exit status."""
    if argv and argv[0] == "tpu":
        return benchmark_tpu.main(argv[1:])
    if argv and argv[0] == "peers":
        return benchmark_peers.main(argv[1:])
    if argv and argv[0] == "variants":
        return benchmark_variants.main(argv[1:])
    options = cli.parse(Options, argv, description=__doc__)
    suite = SUITES[options.suite]
    env = options.env if options.env is not None else suite.env
    algos = options.algos if options.algos is not None else suite.algos
    seeds = options.seeds if options.seeds is not None else suite.seeds
    if not 0 < options.seconds < math.inf:
        raise BadInputError(f"--seconds must be above 0 and finite, not {options.seconds}")
    if not seeds or not algos:
        raise BadInputError("--seeds and --algos need at least one each")
    # Build all of them first: bad input must not be found after minutes of measurements.
    planned = [(algo, experiment_of(suite, algo, env, count)) for algo in algos for count in seeds]
    prepare_folder(options.out)
    product, copy = matrix_product(), memory_copy()
    peak = max(measure_product(product) for _ in range(REPETITIONS))
    bandwidth = max(measure_copy(copy) for _ in range(REPETITIONS))
    rows = []
    for algo, experiment in tqdm(planned, disable=None):
        rows.append({"algo": algo, **measure(experiment, options.seconds, suite.parts)})
        peak, bandwidth = max(peak, measure_product(product)), max(bandwidth, measure_copy(copy))
    for row in rows:
        row["gflops_share"] = row["gflops"] / peak if row["gflops"] else None
        row |= roofline(row, peak, bandwidth)
        alone = [other for other in rows if other["algo"] == row["algo"] and other["seeds"] == 1]
        row["times_one_seed"] = row["seed_updates_per_s"] / alone[0]["seed_updates_per_s"] if alone else None

    machine = {
        "env": env,
        "peers": suite.peers,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind} ({platform.machine()})",
        "matrix_product_gflops": peak,
        "copy_gbytes_per_s": bandwidth,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")},
    }
    if suite.parts:
        machine |= measure_environment(env, options.seconds)
    write_text(options.out / "benchmark.json", json.dumps({"machine": machine, "rows": rows}, indent=1))
    table = markdown(rows, machine)
    write_text(options.out / "benchmark.md", table)
    plot(rows, machine, options.out / "benchmark.png")
    print(table)
    print(f"written to {options.out}")
    return cli.DONE


def experiment_of(suite: Suite, algo: str, env: str, seeds: int) -> Experiment:
    """The experiment of one algorithm and number of seeds.

    Raises:
        BadInputError: for an unknown id or number of seeds, or if the algorithm cannot play the game.
    """
    settings = dict(suite.settings.get(algo, {})) if env == suite.env else {}
    num_envs = settings.pop("num_envs", 1)
    experiment = Experiment(
        algorithm=baselines.make(algo, environments.lookup(env).family, **settings),
        environment=envs.make(env),
        seeds=seed_numbers(seeds),
        env_steps=2**30,
        num_envs=num_envs,
    )
    experiment.bind()  # refuses a game that the algorithm cannot play
    return experiment


def measure(experiment: Experiment, seconds: float, parts: bool = False) -> dict[str, Any]:
    """Train an experiment for a while; its row of the table.

    Args:
        experiment: what to train, for as many steps as the measurement takes.
        seconds: target length of one repetition.
        parts: whether to measure the share of each part of an iteration too.
    """
    seeds, num_envs = experiment.lanes, experiment.num_envs
    program = Program(experiment)
    period = program.schedule.update_every
    training = Training(program)
    start = time.perf_counter()
    compiled: Any = program.compile_chunk(training.lanes)
    compile_seconds = time.perf_counter() - start
    # XLA counts the body of a loop once: a single step of an episode, or a single minibatch.
    settings = leaves(experiment.algorithm)
    loops = "minibatches" in settings or ("recurrent" in settings and settings["recurrent"].value)
    costs = None if loops else program.iteration_costs()
    flops, accessed = (costs[name] / program.block if costs else None for name in ("flops", "bytes accessed"))
    memory = compiled.memory_analysis()
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(training.lanes)) / seeds
    training.run(program.schedule.warmup)
    taken = fastest(training.run, seconds, period)
    row = {
        "seeds": seeds,
        "num_envs": num_envs,
        "update_period": period,
        "seed_updates_per_s": seeds / taken / period,
        "env_steps_per_s": seeds * num_envs / taken,
        "compile_seconds": compile_seconds,
        "bytes_per_seed": kept,
        "scratch_bytes_per_seed": memory.temp_size_in_bytes * program.mesh.size / seeds,
        "flops_per_update": flops,
        "bytes_per_update": accessed,
        "gflops": flops * seeds / taken / period / 1e9 if flops else None,
    }
    if parts:
        never: Any = replaced(experiment.algorithm, learning_starts=2**30)
        without = Training(Program(dataclasses.replace(experiment, algorithm=never)))
        acting = fastest(without.run, seconds, period)
        sampling = seconds_per_sample(program, training.lanes, seconds) / period
        row |= {"acting_share": acting / taken, "sampling_share": sampling / taken}
        row |= {"update_share": 1 - (acting + sampling) / taken}
    return row


class Training:
    """A program on its way."""

    def __init__(self, program: Program):
        self._program, self.lanes, self._at = program, program.initial_lanes(), 0

    def run(self, iterations: int) -> None:
        """Train all lanes for so many iterations more."""
        self.lanes, _ = self._program.chunk(self.lanes, self._at, self._at + iterations)
        self._at += iterations


def fastest(run: Callable[[int], Any], seconds: float, multiple: int = 1) -> float:
    """The minimum over repetitions of the time per iteration, in seconds.

    Args:
        run: does so many iterations.
        seconds: target length of one repetition.
        multiple: iterations come in multiples of this.
    """
    best, iterations = math.inf, -(-16 // multiple) * multiple
    for repetition in range(REPETITIONS + 2):  # the first two find the number of iterations for `seconds`
        start = time.perf_counter()
        run(iterations)
        taken = (time.perf_counter() - start) / iterations
        if repetition < 2:
            iterations = -(-max(16, int(seconds / taken)) // multiple) * multiple
        else:
            best = min(best, taken)
    return best


def seconds_per_sample(program: Program, lanes: Any, seconds: float) -> float:
    """The time to sample one batch for each lane, including recomputed observations."""

    def one(lane: Any, constants: Any, count: jax.Array) -> jax.Array:
        def draw(index: jax.Array, total: jax.Array) -> jax.Array:
            key = jax.random.fold_in(constants.key, index)
            # Sample as from a full buffer, so that memory accesses spread over all of it.
            _, store = program.bind(constants.environment)
            batch = store.sample(lane.buffer, jnp.int32(2**30), key)
            return total + sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(batch))

        return jax.lax.fori_loop(0, count, draw, jnp.zeros(()))

    each = per_device(jax.vmap(one, (0, 0, None)), program.mesh, (PER_LANE, PER_LANE, REPLICATED), PER_LANE)
    draws = jax.jit(each)
    return fastest(
        lambda count: jax.block_until_ready(draws(lanes, program.constants, jnp.int32(count))), seconds
    )


def measure_environment(env_id: str, seconds: float) -> dict[str, float]:
    """Random play on all devices: steps per second with observations; and bytes per transition in replay."""
    env: Any = envs.make(env_id)
    mesh = lane_mesh(jax.device_count())

    def play(key: jax.Array, count: jax.Array) -> jax.Array:
        def step(index: jax.Array, carry: Any) -> Any:
            states, total = carry
            act_key, reset_key = jax.random.split(jax.random.fold_in(key, index))
            shape = (PARALLEL_ENVS, env.num_agents)
            # The remainder of 32 random bits is biased by less than one part in 2^24.
            actions = (jax.random.bits(act_key, shape) % env.num_actions).astype(jnp.int32)
            after, timesteps = jax.vmap(env.step)(states, actions)
            fresh, _ = jax.vmap(env.reset)(jax.random.split(reset_key, PARALLEL_ENVS))
            pick = jax.vmap(lambda over, a, b: jax.tree.map(lambda x, y: jnp.where(over, x, y), a, b))
            states = pick(timesteps.last(), fresh, after)
            # Every part of the observations has to be used, or XLA would drop it.
            total += sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(timesteps))
            return states, total

        states, _ = jax.vmap(env.reset)(jax.random.split(key, PARALLEL_ENVS))
        return jax.lax.fori_loop(0, count, step, (states, jnp.zeros(())))[1]

    every = per_device(jax.vmap(play, (0, None)), mesh, (PER_LANE, REPLICATED), PER_LANE)
    games = jax.jit(every)
    keys = jax.random.split(jax.random.key(0), mesh.size)
    taken = fastest(lambda count: jax.block_until_ready(games(keys, jnp.int32(count))), seconds)
    store = Transitions(1_000_000, 1).bind(env, plain_step(env), num_envs=1, iterations=1_000_000)
    return {
        "env_steps_per_s": mesh.size * PARALLEL_ENVS / taken,
        "bytes_per_transition": store.bytes_per_transition,
        "replay_mb_per_million": tree_bytes(jax.eval_shape(store.init)) / 1e6,
    }


def matrix_product() -> Callable[[], jax.Array]:
    """A function that runs a large float32 matrix product on every device at once, compiled."""
    devices = jax.devices()
    factor = jax.random.normal(jax.random.key(0), (SIDE, SIDE), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    factors = [jax.device_put(factor, device) for device in devices]

    def run() -> jax.Array:
        return jax.block_until_ready([multiply(f) for f in factors])[0]

    run()
    return run


def measure_product(product: Callable[[], jax.Array]) -> float:
    """The rate of `matrix_product` over all devices, in GFLOP/s."""
    start = time.perf_counter()
    product()
    return 2 * SIDE**3 * jax.device_count() / (time.perf_counter() - start) / 1e9


def memory_copy() -> Callable[[], jax.Array]:
    """A function that reads and writes `COPY_BYTES` on every device at once, compiled."""
    add = jax.jit(lambda a: a + 1)
    arrays = [jax.device_put(jnp.zeros(COPY_BYTES // 4, jnp.float32), device) for device in jax.devices()]

    def run() -> jax.Array:
        return jax.block_until_ready([add(array) for array in arrays])[0]

    run()
    return run


def measure_copy(copy: Callable[[], jax.Array]) -> float:
    """The rate of `memory_copy` over all devices, read and written, in GB/s."""
    start = time.perf_counter()
    copy()
    return 2 * COPY_BYTES * jax.device_count() / (time.perf_counter() - start) / 1e9


def roofline(row: Mapping[str, Any], gflops: float, gbytes: float) -> dict[str, Any]:
    """What bounds an update, and what share of the bound's rate is reached; None where XLA counts nothing.

    Args:
        row: of one algorithm and number of seeds.
        gflops: of a matrix product, in GFLOP/s.
        gbytes: of a copy, in GB/s.
    """
    if not row["flops_per_update"]:
        return {"bound": None, "bound_share": None}
    seconds = {
        "arithmetic": row["flops_per_update"] / gflops / 1e9,
        "memory": row["bytes_per_update"] / gbytes / 1e9,
    }
    bound = max(seconds, key=seconds.__getitem__)
    return {"bound": bound, "bound_share": row["seed_updates_per_s"] * seconds[bound]}


def markdown(rows: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The table of results, preceded by the machine's data."""
    lines = [
        f"{machine['env']} on {machine['device']}; a {SIDE} x {SIDE} matrix product runs at "
        f"{machine['matrix_product_gflops']:.0f} GFLOP/s, a large copy at "
        f"{machine['copy_gbytes_per_s']:.0f} GB/s.",
        "",
    ]
    if "env_steps_per_s" in machine:
        lines += [
            "The environment alone, with observations and a random policy: "
            f"{machine['env_steps_per_s']:,.0f} steps/s. "
            f"Replay keeps {machine['bytes_per_transition']} bytes per transition, "
            f"{machine['replay_mb_per_million']:.1f} MB per million.",
            "",
        ]
    if machine["peers"]:
        lines += [machine["peers"], ""]
    columns = {"algorithm": lambda row: row["algo"], "seeds": lambda row: f"{row['seeds']:,}"}
    if any(row["num_envs"] > 1 for row in rows):
        columns |= {
            "environments": lambda row: f"{row['num_envs']}",
            "steps between updates": lambda row: f"{row['update_period']}",
            "environment steps/s": lambda row: f"{row['env_steps_per_s']:,.0f}",
        }
    columns |= {
        "seed-updates/s": lambda row: f"{row['seed_updates_per_s']:,.0f}",
        "times one seed": lambda row: f"{row['times_one_seed']:.1f}" if row["times_one_seed"] else "",
        "share of matrix product": lambda row: f"{row['gflops_share']:.0%}" if row["gflops_share"] else "",
        "FLOPs per update": lambda row: f"{row['flops_per_update']:,.0f}" if row["flops_per_update"] else "",
        "bytes per update": lambda row: f"{row['bytes_per_update']:,.0f}" if row["bytes_per_update"] else "",
        "bound by, share": lambda row: f"{row['bound']}, {row['bound_share']:.0%}" if row["bound"] else "",
        "bytes per seed": lambda row: f"{row['bytes_per_seed']:,.0f}",
        "scratch bytes per seed": lambda row: f"{row['scratch_bytes_per_seed']:,.0f}",
        "compile s": lambda row: f"{row['compile_seconds']:.1f}",
    }
    if rows and "acting_share" in rows[0]:
        columns |= {
            "time acting, stepping, storing": lambda row: f"{row['acting_share']:.0%}",
            "sampling": lambda row: f"{row['sampling_share']:.0%}",
            "updating": lambda row: f"{row['update_share']:.0%}",
        }
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(show(row) for show in columns.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict[str, Any]], machine: dict[str, Any], path: Path) -> None:
    """Plot seed-updates per second against the number of seeds."""
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
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    cli.run(main)
