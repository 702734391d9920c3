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


@pytest.mark.slow
def test_the_suite_of_predator_prey_measures_its_parts(tmp_path):
    flags = ["predator-prey", "--algos", "vdn", "--seeds", "2", "--seconds", "0.02", "--out", str(tmp_path)]
    assert benchmark.main(flags) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    machine, (row,) = result["machine"], result["rows"]
    assert machine["env"] == "predator-prey-2"
    # Two states of 5 bytes (two predators, a prey, its hunters, the step), two actions, reward and discount.
    assert machine["bytes_per_transition"] == machine["replay_mb_per_million"] == 2 * 5 + 2 + 4 + 1
    assert machine["env_steps_per_s"] > 10_000
    # Table 5's replay: a million transitions, and the learner beside them.
    kept = 1_000_000 * machine["bytes_per_transition"]
    assert kept < row["bytes_per_seed"] < kept + 500_000
    assert row["acting_share"] + row["sampling_share"] + row["update_share"] == pytest.approx(1)
    assert row["acting_share"] > 0 and row["sampling_share"] > 0
    table = (tmp_path / "benchmark.md").read_text()
    assert (
        "409 times a second" in table and f"{machine['bytes_per_transition']} bytes per transition" in table
    )


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
