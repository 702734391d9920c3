import json

import pytest

from envs.errors import BadInputError
from experiments import benchmark


def test_the_benchmark_writes_a_table_that_adds_up(tmp_path, capsys):
    flags = ["--algos", "vdn", "--seeds", "1", "4", "--seconds", "0.02", "--out", str(tmp_path)]
    assert benchmark.main(flags) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    one, four = result["rows"]
    assert four["times_one_seed"] == pytest.approx(four["seed_updates_per_s"] / one["seed_updates_per_s"])
    for row in result["rows"]:
        assert row["gflops"] == pytest.approx(row["flops_per_update"] * row["seed_updates_per_s"] / 1e9)
        assert row["gflops_share"] == pytest.approx(
            row["gflops"] / result["machine"]["matrix_product_gflops"]
        )
        # 20,000 transitions of 2 actions, a float32 reward and a discount, and the learner beside them.
        assert 20_000 * 7 < row["bytes_per_seed"] < 20_000 * 7 + 50_000
    table = (tmp_path / "benchmark.md").read_text()
    assert table in capsys.readouterr().out and table.count("| vdn |") == 2
    assert (tmp_path / "benchmark.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--algos", "sarsa"], "unknown algorithm 'sarsa'"),
        (["--seeds", "0"], "--seeds must be numbers of at least 1"),
        (["--seconds", "0"], "--seconds must be above 0"),
    ],
)
def test_bad_input(tmp_path, flags, said):
    with pytest.raises(BadInputError, match=said):
        benchmark.main([*flags, "--out", str(tmp_path)])
