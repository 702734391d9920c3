import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac import parallel
from jaxmarl_fac.parallel import (
    PER_LANE,
    REPLICATED,
    block_sizes,
    each_lane_alone,
    lane_mesh,
    lane_sharding,
    over_lanes,
    padded_count,
    per_device,
    shard,
    to_host,
)

ROOT = Path(__file__).parents[2]
#: Bytes of a learner that is small enough for blocks of any size.
SMALL = 1_000
#: Bytes of a batch that is too large to update several lanes with at once on an accelerator.
LARGE = 10**9
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# One device per core


def number_from(code, **variables):
    """The number that a fresh process prints, which has two minutes."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout)


def devices_of(code, **variables):
    """How many devices a fresh process counts after `code`."""
    return number_from(f"{code}\nimport jax\nprint(len(jax.devices('cpu')))", **variables)


def test_a_cpu_counts_as_one_device_per_core():
    assert devices_of("import jaxmarl_fac.all_cores") == CORES


def test_xla_flags_have_the_last_word():
    flags = "--xla_force_host_platform_device_count=3"
    assert devices_of("import jaxmarl_fac.all_cores", XLA_FLAGS=flags) == 3


def test_too_late_it_changes_nothing():
    assert devices_of("import jax; jax.devices(); import jaxmarl_fac.all_cores") == 1


# Lanes over devices


def mesh_of(devices, platform="cpu"):
    return SimpleNamespace(size=devices, devices=np.asarray([SimpleNamespace(platform=platform)] * devices))


def test_the_mesh_has_no_more_devices_than_lanes():
    assert [lane_mesh(lanes).size for lanes in (1, 2, 3, 1000)] == [1, 2, 2, 2]
    assert lane_mesh(4).axis_names == ("seeds",)


@pytest.mark.parametrize(
    ("lanes", "devices", "block", "total"),
    [
        (1, 1, 1, 1),
        (3, 2, 2, 4),
        (64, 2, 16, 64),
        (17, 1, 9, 18),
        (310, 2, 16, 320),
        (33, 2, 9, 36),
        (32, 8, 4, 32),
    ],
)
def test_blocks_of_lanes(monkeypatch, lanes, devices, block, total):
    monkeypatch.setattr(parallel, "CPU_BLOCK", 16)
    mesh = mesh_of(devices)
    assert block_sizes(lanes, mesh, SMALL, lambda: LARGE) == (block, block)
    assert padded_count(lanes, mesh, block) == total


@pytest.mark.parametrize(
    ("learner_bytes", "block"), [(93_750, 16), (93_751, 15), (312_900, 4), (488_250, 3), (10**9, 1)]
)
def test_large_learners_run_in_small_blocks(monkeypatch, learner_bytes, block):
    monkeypatch.setattr(parallel, "CPU_BLOCK", 16)
    monkeypatch.setattr(parallel, "CPU_BLOCK_BYTES", 1_500_000)
    assert block_sizes(2 * 16 * 15, mesh_of(2), learner_bytes, lambda: LARGE) == (block, block)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_blocks_are_even_and_waste_little(devices):
    mesh = mesh_of(devices)
    for lanes in range(devices, 400):
        block, _ = block_sizes(lanes, mesh, SMALL, lambda: LARGE)
        total = padded_count(lanes, mesh, block)
        blocks = total // (devices * block)
        assert 1 <= block <= parallel.CPU_BLOCK
        assert total == blocks * devices * block >= lanes
        assert total - lanes < devices * (
            blocks + 1
        )  # idle lanes: at most one per block and device, and a rest


def test_an_accelerator_runs_all_its_lanes_at_once():
    assert block_sizes(1000, mesh_of(4, "gpu"), 10**7, lambda: SMALL) == (250, 250)
    assert block_sizes(1001, mesh_of(4, "tpu"), 10**7, lambda: SMALL) == (251, 251)
    assert padded_count(1001, mesh_of(4, "tpu"), 251) == 1004


@pytest.mark.parametrize(
    ("batch_bytes", "sizes"),
    [
        (1_280_000, (25, 25)),
        (1_280_001, (26, 13)),
        (4_000_000, (28, 7)),
        (32_000_000, (25, 1)),
        (10**9, (25, 1)),
    ],
)
def test_an_accelerator_updates_as_many_as_their_batches_allow(monkeypatch, batch_bytes, sizes):
    monkeypatch.setattr(parallel, "ACCELERATOR_BATCH_BYTES", 32_000_000)
    assert block_sizes(100, mesh_of(4, "tpu"), 10**7, lambda: batch_bytes) == sizes


def test_every_device_works_on_its_own_lanes_only():
    mesh = lane_mesh(6)
    assert mesh.size == 2

    def share(lanes, scale):
        return jnp.full_like(lanes, lanes.sum()) * scale

    run = jax.jit(per_device(share, mesh, (PER_LANE, REPLICATED), PER_LANE))
    np.testing.assert_array_equal(run(jnp.arange(6.0), 10.0), [30, 30, 30, 120, 120, 120])


def test_each_lane_alone_sees_one_lane_and_keeps_the_layout():
    mesh, shapes = lane_mesh(4), []

    def run(lanes, keys, scale):
        shapes.append(lanes.shape)
        return {"scaled": lanes * scale, "draws": jax.vmap(jax.random.uniform)(keys), "keys": keys}

    lanes, keys = jnp.arange(12.0).reshape(4, 3), jax.random.split(jax.random.key(0), 4)
    alone = each_lane_alone(run, mesh, (PER_LANE, PER_LANE, REPLICATED))
    result = alone(shard(lanes, mesh), shard(keys, mesh), jnp.float32(2))
    assert set(shapes) == {(1, 3)}
    np.testing.assert_array_equal(result["scaled"], 2 * lanes)
    np.testing.assert_array_equal(result["draws"], jax.vmap(jax.random.uniform)(keys))
    np.testing.assert_array_equal(jax.random.key_data(result["keys"]), jax.random.key_data(keys))
    assert {leaf.sharding for leaf in jax.tree.leaves(result)} == {lane_sharding(mesh)}


START = """
import jaxmarl_fac.all_cores
import jax
from jaxmarl_fac.parallel import PER_LANE, over_lanes, per_device, lane_mesh

def start(key):  # the recurrent weights of a GRU of 64 units
    return [jax.nn.initializers.orthogonal()(key, (64, 64)) for key in jax.random.split(key, 3)]

mesh = lane_mesh(8)
keys = jax.random.split(jax.random.key(0), 8)
started = jax.jit(per_device(over_lanes(start, mesh), mesh, PER_LANE, PER_LANE))(keys)
print(len(jax.block_until_ready(started)))
"""


def test_lanes_with_orthogonal_weights_start():
    """Several matrix decompositions a core at the same time never end: in a process that can be given up."""
    assert number_from(START) == 3


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_lanes_are_mapped_over(platform):
    roots = over_lanes(lambda lane: {"root": jnp.sqrt(lane["square"])}, mesh_of(2, platform))
    np.testing.assert_array_equal(roots({"square": jnp.asarray([4.0, 9.0])})["root"], [2, 3])


def test_there_and_back():
    mesh = lane_mesh(4)
    tree = {"a": np.arange(8.0).reshape(4, 2), "b": np.asarray([True, False, True, True])}
    there = shard(tree, mesh)
    for leaf in jax.tree.leaves(there):
        assert leaf.sharding == lane_sharding(mesh)
        assert [piece.data.shape[0] for piece in leaf.addressable_shards] == [2, 2]
    back = to_host(there)
    for name, array in tree.items():
        assert isinstance(back[name], np.ndarray)
        np.testing.assert_array_equal(back[name], array)
