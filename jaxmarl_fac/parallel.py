"""Seeds over devices: accelerators where there are any, else one XLA device per CPU core."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
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


def lane_by_lane(function: Callable[[Any], Any], mesh: Mesh) -> Callable[[Any], Any]:
    """`function` of one lane, for a leading axis of lanes where each runs once: at a start, not in a loop.

    On CPUs one after the other: side by side, a batch of matrix decompositions, such as orthogonal weights
    take, makes threads wait for each other for ever (jaxlib 0.10.2 with two cores).
    """
    if not on_cpu(mesh):
        return jax.vmap(function)
    return lambda lanes: jax.lax.map(function, lanes)


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
