import importlib.util
import json

import pytest

import baselines
from envs.errors import BadInputError
from experiments import benchmark
from tests.helpers import flat


@pytest.mark.slow
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
        assert row["bytes_per_update"] > row["flops_per_update"] / 100
        assert row["bound"] in ("arithmetic", "memory") and row["bound_share"] > 0
        # 20,000 transitions of 2 actions, a float32 reward and a discount, 18 of them in a row of 128 bytes,
        # and the learner beside them.
        assert 20_000 * 128 / 18 < row["bytes_per_seed"] < 20_000 * 128 / 18 + 50_000
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
    assert machine["bytes_per_transition"] == 2 * 5 + 2 + 4 + 1
    # Seven of them in a row of 128 bytes.
    assert machine["replay_mb_per_million"] == pytest.approx(128 / 7, rel=1e-3)
    assert machine["env_steps_per_s"] > 10_000
    # Table 5's replay: a million transitions, and the learner beside them.
    kept = 1e6 * machine["replay_mb_per_million"]
    assert kept < row["bytes_per_seed"] < kept + 500_000
    assert row["acting_share"] + row["sampling_share"] + row["update_share"] == pytest.approx(1)
    assert row["acting_share"] > 0 and row["sampling_share"] > 0
    table = (tmp_path / "benchmark.md").read_text()
    assert (
        "409 times a second" in table and f"{machine['bytes_per_transition']} bytes per transition" in table
    )


def test_the_roofline_is_the_slower_of_arithmetic_and_memory():
    """1e6 FLOPs take 10 us at 100 GFLOP/s; 3e6 bytes 30 us at 100 GB/s, 3e5 bytes 3 us."""
    row = {"flops_per_update": 1e6, "bytes_per_update": 3e6, "seed_updates_per_s": 20_000.0}
    assert benchmark.roofline(row, 100.0, 100.0) == {"bound": "memory", "bound_share": pytest.approx(0.6)}
    row["bytes_per_update"] = 3e5
    assert benchmark.roofline(row, 100.0, 100.0) == {"bound": "arithmetic", "bound_share": pytest.approx(0.2)}
    uncounted = benchmark.roofline(row | {"flops_per_update": None}, 100.0, 100.0)
    assert uncounted == {"bound": None, "bound_share": None}


def test_iterations_come_in_whole_updates():
    """16 iterations at least, and as many as fill the time, each a multiple of what one update takes."""
    asked: list[int] = []

    def run(iterations: int) -> None:
        asked.append(iterations)

    assert benchmark.fastest(run, 1e-12, multiple=26) >= 0
    assert asked == [26] * (benchmark.REPETITIONS + 2)
    asked.clear()
    benchmark.fastest(run, 1e-12, multiple=5)
    assert set(asked) == {20}


def test_the_suite_of_mpe_has_jaxmarls_settings():
    suite = benchmark.SUITES["mpe"]
    assert (suite.env, suite.algos, suite.seeds) == ("mpe:simple_spread", ("qmix", "vdn"), (1, 8))
    qmix, vdn = (
        flat(baselines.make(name, **{k: v for k, v in suite.settings[name].items() if k != "num_envs"}))
        for name in ("qmix", "vdn")
    )
    assert (suite.settings["qmix"]["num_envs"], suite.settings["vdn"]["num_envs"]) == (8, 32)
    assert (qmix.update_period, qmix.batch_size, qmix.consumes, qmix.recurrent) == (26, 32, "episodes", True)
    assert (qmix.hidden, qmix.mixer_embed, qmix.hypernet_hidden) == ((64,), 32, (128,))
    assert (vdn.update_period, vdn.batch_size, vdn.consumes, vdn.hidden) == (16, 32, "transitions", (64, 64))
    assert not vdn.recurrent


@pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is not None, reason="JaxMARL is installed")
def test_the_suite_of_mpe_says_how_to_get_jaxmarl(tmp_path, bad_input):
    with bad_input("mpe:simple_spread needs JaxMARL: pip install"):
        benchmark.main(["mpe", "--out", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is None, reason="needs JaxMARL")
def test_the_suite_of_mpe(tmp_path):
    flags = ["mpe", "--seeds", "1", "2", "--seconds", "0.02", "--out", str(tmp_path)]
    assert benchmark.main(flags) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert [(row["algo"], row["seeds"]) for row in result["rows"]] == [
        *(("qmix", 1), ("qmix", 2)),
        *(("vdn", 1), ("vdn", 2)),
    ]
    for row in result["rows"]:
        steps = {"qmix": 8 * 26, "vdn": 32 * 16}[row["algo"]]
        assert row["env_steps_per_s"] == pytest.approx(steps * row["seed_updates_per_s"])
    table = (tmp_path / "benchmark.md").read_text()
    assert "environment steps/s" in table and "`benchmark.py peers`" in table


@pytest.mark.slow
def test_variants_and_single_runs_have_the_same_returns(tmp_path):
    flags = ["variants", "--algo", "iql-tabular", "--setting", "step_size", "--out", str(tmp_path)]
    small = ["--count", "3", "--seeds", "2", "--env-steps", "40", "--singles", "2"]
    assert benchmark.main([*flags, *small]) == 0
    row = json.loads((tmp_path / "benchmark.json").read_text())
    assert row["equal_returns"] == row["equal_last_returns"] == 1
    assert row["ratio"] == pytest.approx(3 * row["single_seconds"] / row["together_seconds"])
    assert "3 values of step_size of iql-tabular" in (tmp_path / "benchmark.md").read_text()


def test_bad_input_of_the_benchmark_of_variants(bad_input):
    with bad_input("iql-tabular has no real-valued setting 'learning_rate'"):
        benchmark.main(["variants", "--algo", "iql-tabular"])
    with bad_input("--singles must be 2 to --count, 64, not 1"):
        benchmark.main(["variants", "--singles", "1"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--algos", "sarsa"], "unknown algorithm 'sarsa'"),
        (["--seeds", "0"], "the number of seeds must be at least 1"),
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--env", "chess"], "unknown environment 'chess'"),
    ],
)
def test_bad_input(tmp_path, flags, said):
    with pytest.raises(BadInputError, match=said):
        benchmark.main([*flags, "--out", str(tmp_path)])
