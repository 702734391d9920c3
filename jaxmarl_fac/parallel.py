"""Seeds over devices: accelerators where there are any, else one XLA device per CPU core."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "seeds"
SEEDS = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()

#: Lanes that a CPU core runs at a time, at most, and bytes that their learners may take together. Side by
#: side small networks share the cost of starting each operation; large ones push each other out of the cache,
#: and XLA does a batch of their products more slowly than one after the other. Measured with learners of
#: 20 kB to 2.2 MB (parameters, their targets, Adam's moments): the rate is within about a tenth of its best.
CPU_BLOCK, CPU_BLOCK_BYTES = 16, 3_000_000


def use_all_cores() -> None:
    """Let a CPU count as one XLA device per core; scripts do it by `import jaxmarl_fac.all_cores`.

    It only works before anything touches JAX's devices, which importing jumanji does; later it changes
    nothing. `XLA_FLAGS=--xla_force_host_platform_device_count=N`, where set, has the last word.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", _available_cores())


def seed_mesh(lanes: int) -> Mesh:
    """A mesh with the one axis "seeds", over as many devices as there is work for."""
    return Mesh(np.asarray(jax.devices()[: max(1, lanes)]), (AXIS,))


def on_cpu(mesh: Mesh) -> bool:
    """Whether the devices are CPU cores, and no accelerators."""
    return bool(mesh.devices.flat[0].platform == "cpu")


def free_on_devices(mesh: Mesh) -> int | None:
    """Bytes that accelerators have left, all together; None for CPUs, which share the host's memory."""
    stats = [device.memory_stats() for device in mesh.local_devices]
    if on_cpu(mesh) or not all(stats):
        return None
    return sum(each["bytes_limit"] - each["bytes_in_use"] for each in stats)


def block_size(lanes: int, mesh: Mesh, learner_bytes: int) -> int:
    """How many lanes a device should run at a time: all of them on an accelerator, few on a CPU.

    Args:
        lanes: in all.
        mesh: the devices.
        learner_bytes: that one lane's learner takes.
    """
    each = -(-lanes // mesh.size)
    if not on_cpu(mesh):
        return each
    most = min(CPU_BLOCK, max(1, CPU_BLOCK_BYTES // learner_bytes))
    return -(-each // -(-each // most))


def over_lanes(function: Callable[[Any], Any], mesh: Mesh) -> Callable[[Any], Any]:
    """Map `function` of one lane over a leading axis of lanes; sequentially on CPU.

    For the start of training: side by side, a batch of matrix decompositions, such as orthogonal weights
    take, makes threads wait for each other for ever (jaxlib 0.10.2 with two cores).
    """
    return functools.partial(jax.lax.map, function) if on_cpu(mesh) else jax.vmap(function)


def run_once(mesh: Mesh) -> dict[str, Any]:
    """Compiler options for what runs only once: on CPUs LLVM's optimisations take longer than they spare.

    Where every network draws its weights they took 3.4 s instead of 2.2 s (QPLEX), for the same bits.
    """
    return {"xla_backend_optimization_level": 1} if on_cpu(mesh) else {}


def padded(lanes: int, mesh: Mesh, block: int) -> int:
    """The number of lanes, rounded up so that every device has the same number of whole blocks."""
    return -(-lanes // (mesh.size * block)) * mesh.size * block


def over_seeds(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`function`, run by every device on its own seeds, without any communication."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def each_lane_alone(function: Callable[..., Any], mesh: Mesh, in_specs: Any) -> Callable[..., Any]:
    """`function`, called for every lane by itself: one program, compiled for one lane on one device.

    So that a lane's numbers are the same bits whatever other lanes there are, and on any number of devices:
    a program over several lanes or devices is another program, in which XLA may order sums otherwise. The
    price is a dispatch per lane, and no lane side by side with another on a device.

    Args:
        function: of trees with a leading axis of one lane where `in_specs` says `SEEDS`; its results have
            that axis too.
        mesh: the devices; each runs its own lanes one after the other.
        in_specs: `SEEDS` or `EVERYWHERE` for each argument.
    """
    run, sharding = jax.jit(function), seed_sharding(mesh)
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
        lanes = tuple(tree for tree, spec in zip(arguments, in_specs, strict=True) if spec == SEEDS)
        shared = arguments[len(lanes) :]
        parts = [part_of(lanes, device) for device in devices]
        count = jax.tree.leaves(parts[0])[0].shape[0]
        results: list[list[Any]] = [[] for _ in devices]
        for lane in range(count):  # all devices work on their first lane, then on their second
            for part, done in zip(parts, results, strict=True):
                done.append(run(*cut(part, lane), *shared))
        return jax.tree.map(whole, *(join(*done) for done in results))

    return call


def seed_sharding(mesh: Mesh) -> NamedSharding:
    """The layout of an array with a leading seed axis."""
    return NamedSharding(mesh, SEEDS)


def shard(tree: Any, mesh: Mesh) -> Any:
    """Lay arrays with a leading seed axis out over the mesh."""
    return jax.device_put(tree, seed_sharding(mesh))


def to_host(tree: Any) -> Any:
    """Device arrays as NumPy arrays; with several hosts every host gets the whole."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may allow fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
