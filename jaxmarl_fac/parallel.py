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

#: Lanes that a CPU core runs at a time.
CPU_BLOCK = 16


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


def block_size(lanes: int, mesh: Mesh) -> int:
    """How many lanes a device should run at a time: all of them on an accelerator, few on a CPU.

    A CPU core is fastest while the parameters and optimiser states of its lanes fit into its cache; an
    accelerator while it has as many lanes as possible.
    """
    each = -(-lanes // mesh.size)
    if mesh.devices.flat[0].platform != "cpu":
        return each
    return -(-each // -(-each // CPU_BLOCK))


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
