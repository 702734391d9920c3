"""Compiling for TPUs that are not there."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from experiments import benchmark, benchmark_tpu
from experiments.benchmark_tpu import COLLECTIVES, copies_of, most_that_fit, on_the_line

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the extra tpu, is not installed"
)

#: Of a compiled program: a copy in place, in a computation of its own, a real one, and a small one.
HLO = """\
%copy_fusion (input: u8[16,1,33504,128]) -> u8[16,1,33504,128] {
  ROOT %copy.1 = u8[16,1,33504,128]{3,2,1,0:T(8,128)(4,1)} copy(%input)
}

ENTRY %main (a: u8[16,1,33504,128]) -> u8[16,1,33504,128] {
  %fusion.2 = u8[16,1,33504,128]{3,2,1,0} fusion(%a), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, \
calls=%copy_fusion
  %copy.3 = u8[16,1,33504,128]{0,3,2,1:T(8,128)(4,1)} copy(%fusion.2)
  %copy.4 = s32[16,1]{1,0} copy(%b)
  %add.5 = u8[16,1,33504,128]{3,2,1,0} add(%copy.3, %copy.3), metadata={op_name="all-reduce("}
  %start = (f32[8]{0}, f32[8]{0}) all-reduce-start(%c), replica_groups={}
  %other = f32[8]{0} collective-permute(%c), source_target_pairs={{0,1}}
}
"""


def test_copies_of_replay_are_found():
    assert copies_of(HLO, [(16, 1, 33504, 128), (16, 1)]) == ["%copy.3"]
    assert copies_of(HLO, [(16, 1, 33536, 128)]) == []


def test_communication_is_found():
    assert COLLECTIVES.findall(HLO) == ["all-reduce", "collective-permute"]
    assert not COLLECTIVES.search(HLO.split("%start")[0])


@pytest.mark.parametrize(("fixed", "each", "jump"), [(10, 7, 10**9), (0, 100, 10**9), (500, 3, 200)])
def test_the_most_that_fit_are_found_with_few_compilations(fixed, each, jump):
    """Memory that grows linearly, or twice as fast from some number on."""
    tried = []

    def needs(seeds):
        tried.append(seeds)
        total = fixed + each * (seeds + max(0, seeds - jump))
        return total if total <= 10_000 else None

    found = most_that_fit(needs, 10_000, 16, fixed + each * 16)
    truth = max(n for n in range(16, 4000) if fixed + each * (n + max(0, n - jump)) <= 10_000)
    assert 0.98 * truth - 1 <= found <= truth
    assert found in (16, *tried) and len(tried) <= 9


def test_when_no_more_fit():
    assert most_that_fit(lambda seeds: None, 1000, 10, 999) == 10


def test_the_most_that_fit_by_the_line():
    assert on_the_line(lambda seeds: 100 + 7 * seeds, 10_000, 16, 100 + 7 * 16) == (10_000 - 100) // 7
    assert on_the_line(lambda seeds: 7 * seeds, 10_000, 1, 7) is None


@pytest.mark.parametrize(
    "topology", ["v5e", "v5e:", "v5e:4", "v5e:4x4x4", "v5p:4x4", "v5e:0x4", "v5e:4x32", "v9:4x4", "tpu"]
)
def test_topologies_that_do_not_exist(bad_input, topology):
    with bad_input(f"there is no TPU topology {topology}: give a generation and the chips"):
        benchmark_tpu.topology_mesh(topology)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--algo", "vdn"], "--algo and --env belong together"),
        (["--algo", "vdm", "--env", "two-step"], "unknown algorithm 'vdm'"),
        (["--algo", "sac", "--env", "two-step"], "needs continuous actions"),
        (["--seeds", "0"], "the number of seeds must be at least 1, not 0"),
        (["--topology"], "topology"),
    ],
)
def test_bad_flags(bad_input, flags, says):
    with bad_input(says):
        benchmark.main(["tpu", *flags])


def test_without_the_compiler(bad_input, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with bad_input("libtpu, the compiler for TPUs, is not installed: pip install"):
        benchmark.main(["tpu", "--algo", "vdn", "--env", "two-step"])


@needs_libtpu
@pytest.mark.slow
def test_a_chip_holds_replay_once(tmp_path, capsys):
    """QTRAN's replay of a million transitions: scratch is far below it, and every product is exact."""
    flags = ["--topology", "v5e:1x1", "--algo", "qtran-alt", "--env", "predator-prey-2", "--seeds", "8"]
    assert benchmark.main(["tpu", *flags, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    (row,) = result["rows"]
    assert row["seeds_per_chip"] == row["seeds_that_update_at_once"] == 8
    assert 8 * 1e6 * 17 < row["replay_bytes"] < 8 * 1e6 * 20
    assert row["replay_bytes"] < row["argument_bytes"] < 1.1 * row["replay_bytes"]
    assert row["scratch_bytes"] < 0.1 * row["argument_bytes"]
    assert (row["collectives"], row["copies_of_replay"]) == ([], 0)
    fits, available = row["seeds_that_fit_on_a_chip"], result["machine"]["hbm_bytes"]["v5e:1x1"]
    assert available == 15.75 * 2**30
    assert 0.9 * available < fits * row["argument_bytes"] / 8 < available
    assert row["flops"] > 1e6 and row["bytes_accessed"] > 1e5
    table = (tmp_path / "benchmark.md").read_text()
    assert table in capsys.readouterr().out and table.count("| qtran-alt |") == 1
    # Kept as they are, and nothing compiled again.
    assert benchmark.main(["tpu", *flags, "--out", str(tmp_path), "--resume"]) == 0
    assert json.loads((tmp_path / "benchmark.json").read_text()) == result


@needs_libtpu
@pytest.mark.slow
def test_seeds_spread_over_a_slice():
    mesh = benchmark_tpu.topology_mesh("v5e:2x2")
    assert {device.platform for device in mesh.devices} == {"tpu"}
    row = benchmark_tpu.compile_all(benchmark_tpu.experiment_of("vdn", "matrix-qtran", 30), mesh)
    assert (row["seeds"], row["seeds_per_chip"], row["collectives"]) == (30, 8, [])
    one = benchmark_tpu.chip_bytes("vdn", "matrix-qtran", benchmark_tpu.one_chip(mesh), 8)
    assert benchmark_tpu.needed(row) == pytest.approx(one, rel=0.01)
    assert np.isfinite(row["chunk_compile_seconds"])
    assert jax.default_backend() == "cpu"
