"""Lanes (seeds times games) over devices: accelerators if there are any, else one XLA device per CPU core."""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "seeds"
#: Partition specs: a leading lane axis split over the devices, and a copy on every device.
PER_LANE = PartitionSpec(AXIS)
REPLICATED = PartitionSpec()

#: Limits of one block of lanes that a CPU core runs under vmap: lanes, and bytes of their learners. Batching
#: amortises the dispatch of each operation over small networks; large ones evict each other from the cache,
#: and XLA runs a batch of their products more slowly than one after the other. Measured with learners of
#: 0.15 to 1 MB (parameters, their targets, Adam's moments): one of 0.9 MB runs 1.1 to 1.5 times as fast
#: alone as in a block of 2 to 8, those of 0.15 and 0.5 MB as fast or faster in the blocks that follow.
CPU_BLOCK, CPU_BLOCK_BYTES = 16, 1_500_000

#: Bytes of the batches that an accelerator updates with at a time. The intermediate results of an update take
#: about 17 times as much as its batch (recurrent QMIX on stag-hunt-p2, compiled for a TPU v5e: a batch of
#: 24 MB, 400 MB of scratch), and products over batches as large as these fill a device without further lanes.
ACCELERATOR_BATCH_BYTES = 32_000_000


def use_all_cores() -> None:
    """Make one XLA device per CPU core; scripts call it by `import jaxmarl_fac.all_cores`.

    It has no effect once JAX's backends are initialised, which importing jumanji does.
    `XLA_FLAGS=--xla_force_host_platform_device_count=N` takes precedence.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", _available_cores())


def lane_mesh(lanes: int) -> Mesh:
    """A mesh with one axis, "seeds", over at most `lanes` devices, but one of every process.

    Of every process as many as of another, if possible. With fewer lanes than processes some train copies.
    """
    # First one of each process, then another of each. A process knows no local_hardware_id of the others.
    devices = sorted(jax.devices(), key=lambda device: device.id)
    of_processes = [
        [device for device in devices if device.process_index == process]
        for process in range(jax.process_count())
    ]
    by_turns = [device for turn in itertools.zip_longest(*of_processes) for device in turn if device]
    chosen = {device.id for device in by_turns[: max(jax.process_count(), lanes)]}
    return Mesh(np.asarray([device for device in jax.devices() if device.id in chosen]), (AXIS,))


def on_cpu(mesh: Mesh) -> bool:
    """Whether the devices of the mesh are CPU cores."""
    return bool(mesh.devices.flat[0].platform == "cpu")


def free_on_devices(mesh: Mesh) -> int | None:
    """Free bytes on all accelerators together; None on CPU, which shares the host's memory."""
    stats = [device.memory_stats() for device in mesh.local_devices]
    if on_cpu(mesh) or not all(stats):
        return None
    return sum(each["bytes_limit"] - each["bytes_in_use"] for each in stats)


def block_sizes(
    lanes: int, mesh: Mesh, learner_bytes: int, batch_bytes: Callable[[], int]
) -> tuple[int, int]:
    """Number of lanes that a device runs under one vmap, and of those among them that it updates at a time.

    An accelerator runs all of its lanes at once, in updates as many as `ACCELERATOR_BATCH_BYTES` allow; a CPU
    core runs few, and updates them together.

    Args:
        lanes: of the experiment.
        mesh: the devices.
        learner_bytes: size of one lane's learner.
        batch_bytes: gives the size of one lane's batch; asked for on accelerators only.
    """
    each = -(-lanes // mesh.size)
    if not on_cpu(mesh):
        updates = -(-each // max(1, ACCELERATOR_BATCH_BYTES // batch_bytes()))
        updating = -(-each // updates)
        return updates * updating, updating
    most = min(CPU_BLOCK, max(1, CPU_BLOCK_BYTES // learner_bytes))
    block = -(-each // -(-each // most))
    return block, block


def over_lanes(function: Callable[[Any], Any], mesh: Mesh) -> Callable[[Any], Any]:
    """Map `function` of one lane over a leading axis of lanes; sequentially on CPU.

    For initialisation: a batch of matrix decompositions, as orthogonal initialisers need, deadlocks on CPU
    under vmap (jaxlib 0.10.2 with two cores).
    """
    return functools.partial(jax.lax.map, function) if on_cpu(mesh) else jax.vmap(function)


def cheap_compile(mesh: Mesh) -> dict[str, Any]:
    """Compiler options for functions that run once: on CPU LLVM optimisation costs more time than it saves.

    Compiling the initialisation of QPLEX takes 2.2 s instead of 3.4 s, and gives the same bits.
    """
    return {"xla_backend_optimization_level": 1} if on_cpu(mesh) else {}


def padded_count(lanes: int, mesh: Mesh, block: int) -> int:
    """`lanes` rounded up so that every device has the same number of full blocks."""
    return -(-lanes // (mesh.size * block)) * mesh.size * block


def per_device(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Run `function` on each device's own lanes, without communication."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def each_lane_alone(function: Callable[..., Any], mesh: Mesh, in_specs: Any) -> Callable[..., Any]:
    """Call `function` once per lane, with one program compiled for a single lane on a single device.

    A lane's results are then bitwise independent of the other lanes and of the number of devices; programs
    over several lanes or devices may sum in another order. The cost is one dispatch per lane, and no
    batching of lanes on a device.

    Args:
        function: its `PER_LANE` arguments and its results are trees with a leading axis of size 1.
        mesh: the devices; each runs its own lanes one after the other.
        in_specs: `PER_LANE` or `REPLICATED` for each argument, the `PER_LANE` ones first.
    """
    run, sharding = jax.jit(function), lane_sharding(mesh)
    devices = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]

    @jax.jit
    def cut(tree: Any, lane: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, lane, 1), tree)

    @jax.jit
    def join(*trees: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)

    def part_of(tree: Any, device: Any) -> Any:
        return jax.tree.map(
            lambda leaf: next(shard.data for shard in leaf.addressable_shards if shard.device == device), tree
        )

    def whole(*parts: jax.Array) -> jax.Array:
        shape = (parts[0].shape[0] * mesh.size, *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

    def call(*arguments: Any) -> Any:
        lanes = tuple(tree for tree, spec in zip(arguments, in_specs, strict=True) if spec == PER_LANE)
        shared = arguments[len(lanes) :]
        parts = [part_of(lanes, device) for device in devices]
        count = jax.tree.leaves(parts[0])[0].shape[0]
        results: list[list[Any]] = [[] for _ in devices]
        for lane in range(count):  # all devices work on their first lane, then on their second
            for part, done in zip(parts, results, strict=True):
                done.append(run(*cut(part, lane), *shared))
        return jax.tree.map(whole, *(join(*done) for done in results))

    return call


def lane_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array with a leading lane axis."""
    return NamedSharding(mesh, PER_LANE)


def shard(tree: Any, mesh: Mesh) -> Any:
    """Distribute arrays with a leading lane axis over the mesh."""
    return jax.device_put(tree, lane_sharding(mesh))


def to_host(tree: Any) -> Any:
    """Device arrays as NumPy arrays; with several hosts, every host gets the full arrays."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may be limited to some of the cores
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
