import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from envs.errors import BadInputError
from experiments import check_runs, sweep, sweep_engines, sweep_file, sweep_picture
from jaxmarl_fac import cli
from jaxmarl_fac.files import locked

SWEEPS = Path(sweep.__file__).parent / "sweeps"


def read(tmp_path, text):
    file = tmp_path / "sweep.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return sweep_file.read_sweep(file)


def runs_of(tmp_path, text, runs=None, seed=0):
    return list(sweep_file.choices(read(tmp_path, text), runs, seed))


# Which runs a file asks for


def test_the_grid_is_the_product_of_its_values():
    runs = list(sweep.choices(sweep.read_sweep(SWEEPS / "learning_rate.yaml"), None, 0))
    assert len(runs) == 12
    assert {(run["algo"], run["learning_rate"]) for run in runs} == {
        (algo, rate) for algo in ("vdn", "qmix", "qtran-base", "qtran-alt") for rate in (1e-4, 5e-4, 2e-3)
    }
    assert all(run["env"] == "matrix-21x21" for run in runs)


def test_random_choices_stay_in_their_ranges_and_follow_the_seed():
    file = sweep.read_sweep(SWEEPS / "qtran_weights.yaml")
    runs = list(sweep.choices(file, None, 0))
    assert len(runs) == 8
    assert all(0.01 <= run[name] <= 10 for run in runs for name in ("opt_weight", "nopt_weight"))
    assert len({run["opt_weight"] for run in runs}) == 8
    assert runs == list(sweep.choices(file, None, 0)) != list(sweep.choices(file, None, 1))


def test_a_file_as_wandb_writes_it(tmp_path):
    grid = runs_of(
        tmp_path,
        "method: grid\nrun_cap: 7\nparameters:\n  env: matrix-qtran\n  double_q: {values: [true, false]}\n"
        "  hidden: {values: [[16, 16], [32]]}\n  learning_rate: {values: [1e-5, 2.5E+3]}\n"
        "  env_steps: {value: 1e4}\n  max_grad_norm: {distribution: constant, value: null}\n",
    )
    assert len(grid) == 7  # of 8
    assert grid[0] == {
        "env": "matrix-qtran",
        "double_q": True,
        "hidden": [16, 16],
        "learning_rate": 1e-5,
        "env_steps": 10_000.0,
        "max_grad_norm": None,
    }
    assert grid[1]["learning_rate"] == 2500
    assert sweep.flags_of(grid[0])[1:5] == [
        "--double_q=True",
        "--hidden=[16, 16]",
        "--learning_rate=1e-05",
        "--env_steps=10000.0",
    ]
    assert [
        run["seeds"] for run in runs_of(tmp_path, "method: grid\nparameters: {seeds: {min: 2, max: 4}}")
    ] == [
        2,
        3,
        4,
    ]


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ("{min: 1, max: 3}", lambda x: set(x) == {1, 2, 3} and all(type(each) is int for each in x)),
        ("{distribution: int_uniform, min: 1e0, max: 3}", lambda x: set(x) == {1, 2, 3}),
        ("{min: 1.0, max: 3}", lambda x: min(x) > 1 and max(x) < 3 and len(set(x)) == len(x)),
        ("{distribution: q_uniform, min: 0, max: 1, q: .25}", lambda x: set(x) == {0, 0.25, 0.5, 0.75, 1}),
        ("{distribution: q_uniform, min: 0, max: 9, q: 3}", lambda x: set(x) == {0, 3, 6, 9}),
        ("{distribution: log_uniform, min: -9, max: -2}", lambda x: abs(np.log(x).mean() + 5.5) < 0.5),
        (
            "{distribution: log_uniform_values, min: 1e-4, max: 1e-2}",
            lambda x: abs(np.log10(x).mean() + 3) < 0.15 and min(x) > 1e-4 and max(x) < 1e-2,
        ),
        (
            "{distribution: inv_log_uniform_values, min: 1e-4, max: 1e-2}",
            lambda x: abs(np.log10(x).mean() + 3) < 0.15 and min(x) > 1e-4 and max(x) < 1e-2,
        ),
        (
            "{distribution: q_log_uniform_values, min: 1, max: 64, q: 2}",
            lambda x: all(type(each) is int and each % 2 == 0 for each in x) and np.median(x) < 16,
        ),
        ("{distribution: normal}", lambda x: abs(np.mean(x)) < 0.2 and abs(np.std(x) - 1) < 0.2),
        ("{distribution: normal, mu: 5, sigma: 0}", lambda x: set(x) == {5}),
        ("{distribution: log_normal, mu: 2, sigma: .1}", lambda x: abs(np.log(x).mean() - 2) < 0.1),
        ("{distribution: q_normal, mu: 10, sigma: 3}", lambda x: all(type(each) is int for each in x)),
        ("{values: [a, b], probabilities: [0, 1]}", lambda x: set(x) == {"b"}),
        (
            "{distribution: categorical, values: [1, 2], probabilities: [.1, .9]}",
            lambda x: 0.8 < np.mean([each == 2 for each in x]) < 1,
        ),
        ("{distribution: constant, value: 3}", lambda x: set(x) == {3}),
    ],
)
def test_distributions(tmp_path, said, holds):
    runs = runs_of(tmp_path, f"method: random\nparameters: {{x: {said}}}", runs=200)
    assert holds([run["x"] for run in runs])


GRID = "method: grid\nparameters: "
RANDOM = "method: random\nparameters: "
#: Each of these is one line, and nothing runs.
BAD_FILES = [
    (b"\xff\xfe\xfa", "is not valid YAML"),
    (b"method: \x80", "is not valid YAML"),
    ("a: [", "is not valid YAML"),
    ("[" * 5000, "is not valid YAML"),
    ("a: 2025-13-45", "is not valid YAML"),
    ("", "needs `parameters`"),
    ("3", "needs `parameters`"),
    ("- a", "needs `parameters`"),
    ("method: grid", "needs `parameters`"),
    ("method: grid\nparameters:", "needs `parameters`"),
    ("method: grid\nparameters: 3", "needs `parameters`"),
    (GRID + "[1, 2]", "needs `parameters`"),
    (GRID + "{}", "`parameters` is empty"),
    ("parameters: {a: 1}", "method is None: it must be grid or random"),
    ("method: [grid]\nparameters: {a: 1}", "method is ['grid']: it must be grid or random"),
    (
        "method: bayes\nparameters: {a: 1}",
        "method bayes runs at W&B only (`wandb sweep`): grid and random run here",
    ),
    ("run_cap: 1.5\n" + GRID + "{a: 1}", "run_cap must be a whole number from 1 to 10000, not 1.5"),
    ("run_cap: many\n" + GRID + "{a: 1}", "run_cap must be a whole number from 1 to 10000, not 'many'"),
    ("run_cap: true\n" + GRID + "{a: 1}", "run_cap must be a whole number from 1 to 10000, not True"),
    ("run_cap: 0\n" + GRID + "{a: 1}", "run_cap must be a whole number from 1 to 10000, not 0"),
    ("run_cap: .nan\n" + RANDOM + "{a: 1}", "run_cap must be a whole number from 1 to 10000, not nan"),
    (
        "run_cap: 1e9\n" + RANDOM + "{a: 1}",
        "run_cap must be a whole number from 1 to 10000, not 1000000000.0",
    ),
    (GRID + "{1: 2}", "parameter 1: a name is a letter, then letters, digits, "),
    (GRID + "{'--a': 2}", "parameter '--a': a name is a letter, then letters, digits, "),
    (GRID + "{'a b': 2}", "parameter 'a b': a name is a letter, then letters, digits, "),
    (GRID + "{null: 2}", "parameter None: a name is a letter, then letters, digits, "),
    (GRID + "{process_id: 1}", "parameter process_id: leave it out, the sweep itself says that to each run"),
    (GRID + "{out: x}", "parameter out: leave it out, the sweep itself says that to each run"),
    (GRID + "{a: null}", "parameter a: None needs value: or values: before it"),
    (GRID + "{a: [1, 2]}", "parameter a: [1, 2] needs value: or values: before it"),
    (GRID + "{a: 2025-11-26}", "parameter a: datetime.date(2025, 11, 26) needs value: or values: before it"),
    (GRID + "{a: !!binary aGk=}", "parameter a: b'hi' needs value: or values: before it"),
    (GRID + "{a: {}}", "parameter a: it needs value, values, or min and max, but has neither"),
    (
        GRID + "{a: {value: !!binary aGk=}}",
        "a value must be a number, text, true, false or a list, not b'hi'",
    ),
    (GRID + "{a: {value: {b: 1}}}", "a value must be a number, text, true, false or a list, not {'b': 1}"),
    (GRID + '{a: {value: "x\\0"}}', "a value must be a number, text, true, false or a list, not 'x\\x00'"),
    (GRID + '{a: {value: "\\ud800"}}', "a value must be a number, text, true, false or a list"),
    (GRID + "{a_b: 1, a-b: 2}", "parameter a-b appears twice, with - and with _"),
    ("run_caps: 3\n" + GRID + "{a: 1}", "'run_caps' is not a key of a sweep file: choose from method, "),
    ("1: 3\n" + GRID + "{a: 1}", "1 is not a key of a sweep file: choose from method, "),
    ("program: mine.py\n" + GRID + "{a: 1}", "program is 'mine.py': it must be experiments/train.py"),
    ("program: [a]\n" + GRID + "{a: 1}", "program is ['a']: it must be experiments/train.py"),
    ("command: [python, --seeds=4]\n" + GRID + "{a: 1}", "command has '--seeds=4': make it one of the"),
    ("command: python\n" + GRID + "{a: 1}", "command has 'python': make it one of the parameters"),
    (GRID + "{a: {values: [[[1]]]}}", "a value must be a number, text, true, false or a list, not [[1]]"),
    (GRID + "{a: {values: &b [*b]}}", "a value must be a number"),
    (GRID + "{a: {values: [2025-11-26]}}", "a value must be a number"),
    (GRID + "{a: {values: []}}", "values must be a list of 1 to 10000, not []"),
    (GRID + "{a: {values: 3}}", "values must be a list of 1 to 10000, not 3"),
    (GRID + "{a: {values: abc}}", "values must be a list of 1 to 10000, not 'abc'"),
    (GRID + "{a: {values: null}}", "values must be a list of 1 to 10000, not None"),
    (GRID + "{a: {values: {b: 1}}}", "values must be a list of 1 to 10000, not {'b': 1}"),
    (GRID + "{a: {value: 1, values: [1]}}", "constant takes value, not 'values'"),
    (GRID + "{a: {vals: [1]}}", "it needs value, values, or min and max, but has vals"),
    (GRID + "{a: {value: 1, min: 2}}", "constant takes value, not 'min'"),
    (
        GRID + "{a: {distribution: uniform, values: [1]}}",
        "distribution 'uniform' cannot be combined with values",
    ),
    (
        GRID + "{a: {distribution: constant, values: [1]}}",
        "distribution 'constant' cannot be combined with values",
    ),
    (GRID + "{a: {parameters: {b: {value: 1}}}}", "nested parameters do not run here"),
    (GRID + "{a: {min: 0.0, max: 1}}", "a grid needs value, values, or int_uniform"),
    (GRID + "{a: {min: 0, max: 99999999}}", "a grid needs value, values, or int_uniform"),
    (GRID + "{a: {values: [1], probabilities: [1]}}", "a grid needs value, values, or int_uniform"),
    (RANDOM + "{a: {values: [1, 2], probabilities: [1]}}", "probabilities must be a list of 2, not [1]"),
    (RANDOM + "{a: {values: [1, 2], probabilities: .5}}", "probabilities must be a list of 2, not 0.5"),
    (
        RANDOM + "{a: {values: [1, 2], probabilities: [2, -1]}}",
        "a probability must be a number from 0 to 1, not 2",
    ),
    (RANDOM + "{a: {values: [1, 2], probabilities: [.5, .4]}}", "probabilities must add up to 1, not 0.9"),
    (RANDOM + "{a: {min: 1}}", "it needs value, values, or min and max, but has min"),
    (RANDOM + "{a: {max: 1}}", "it needs value, values, or min and max, but has max"),
    (RANDOM + "{a: {min: null, max: 1}}", "it needs value, values, or min and max, but has min, max"),
    (RANDOM + "{a: {distribution: uniform, max: 1}}", "uniform needs min and max, but has max"),
    (RANDOM + "{a: {min: 2, max: 1}}", "min must not be above max, but they are 2 and 1"),
    (RANDOM + "{a: {min: x, max: 1}}", "min must be a number from -1e+100 to 1e+100, not 'x'"),
    (RANDOM + "{a: {min: true, max: 2}}", "min must be a number from -1e+100 to 1e+100, not True"),
    (RANDOM + "{a: {min: 0.0, max: .inf}}", "max must be a number from -1e+100 to 1e+100, not inf"),
    (RANDOM + "{a: {min: .nan, max: 1}}", "min must be a number from -1e+100 to 1e+100, not nan"),
    (
        RANDOM + "{a: {min: 0.0, max: 1" + "0" * 400 + "}}",
        "max must be a number from -1e+100 to 1e+100, not 1",
    ),
    (RANDOM + "{a: {min: 0, max: 1" + "0" * 20 + "}}", "max must be a whole number from -9.0072e+15"),
    (RANDOM + "{a: {distribution: int_uniform, min: .5, max: 2}}", "min must be a whole number"),
    (RANDOM + "{a: {distribution: log_uniform_values, min: 0, max: 1}}", "min must be a number from 1e-100"),
    (RANDOM + "{a: {distribution: log_uniform, min: 0, max: 1000}}", "max must be a number from -700 to 700"),
    (RANDOM + "{a: {distribution: q_uniform, min: 0, max: 1, q: 0}}", "q must be a number from 1e-100"),
    (RANDOM + "{a: {distribution: normal, sigma: -1}}", "sigma must be 0 or above, not -1"),
    (RANDOM + "{a: {distribution: normal, min: 0, max: 1}}", "normal takes mu and sigma, not 'min'"),
    (RANDOM + "{a: {distribution: beta, min: 0, max: 1}}", "distribution 'beta' does not run here"),
    (RANDOM + "{a: {distribution: constant, min: 0, max: 1}}", "distribution 'constant' does not run here"),
    (RANDOM + "{a: {distribution: [1], min: 0, max: 1}}", "distribution [1] does not run here"),
]


@pytest.mark.parametrize(("text", "said"), BAD_FILES)
def test_bad_files(tmp_path, monkeypatch, bad_input, text, said):
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is started
    file = tmp_path / "sweep.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with bad_input(said):
        sweep.main([str(file), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--runs 0", "--runs must be from 1 to 10000, not 0"),
        ("--runs -3", "--runs must be from 1 to 10000, not -3"),
        ("--runs 1e12", "--runs must be from 1 to 10000, not 1000000000000"),
        ("--seed -1", "--seed must be 0 or above, not -1"),
    ],
)
def test_bad_flags(bad_input, flags, said):
    with bad_input(said):
        sweep.main([str(SWEEPS / "qtran_weights.yaml"), *flags.split()])


def test_a_grid_beyond_all_bounds_is_refused_unless_capped(tmp_path):
    text = GRID + "{a: {min: 1, max: 1000}, b: {min: 1, max: 1000}}"
    with pytest.raises(BadInputError, match="the grid has 1000000 runs: cap them with --runs, at most 10000"):
        runs_of(tmp_path, text)
    assert runs_of(tmp_path, text, runs=2) == [{"a": 1, "b": 1}, {"a": 1, "b": 2}]


def test_a_grid_runs_every_point_once(tmp_path):
    text = GRID + "{a: {values: [1, 2, 1, true, [1], [1]]}}"
    assert runs_of(tmp_path, text) == [{"a": 1}, {"a": 2}, {"a": True}, {"a": [1]}]


def test_a_command_of_w_and_bs_own_macros_is_no_other_command(tmp_path):
    text = "command: ['${env}', python, '${program}', '${args}']\nprogram: experiments/train.py\n"
    assert runs_of(tmp_path, text + GRID + "{a: 1}") == [{"a": 1}]


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read: No such file"):
        sweep.main([str(tmp_path / "none.yaml")])


# Running them. Nothing is trained: train.py is stood in for


@pytest.fixture
def sweeping(tmp_path, monkeypatch):
    """Runs a sweep file; the n-th job leaves the n-th of `outcomes`: last returns, or an exit status."""
    monkeypatch.setattr(sweep, "find_problems", lambda lines: [check_runs.problem(line) for line in lines])

    def run(text, outcomes, *flags):
        started = []

        def job(command):
            flags = command[2:]  # after Python and train.py
            outcome = outcomes[len(started)]
            started.append(flags)
            if isinstance(outcome, int):
                return outcome
            folder = Path(flags[-1].removeprefix("--out="))
            folder.mkdir(exist_ok=True)
            (folder / "experiment.json").write_text(json.dumps({"env_steps": 100}))
            returns = np.asarray(outcome, np.float32)
            rows = np.stack([returns * 0, returns])
            np.savez(folder / "metrics.npz", episode_return=rows, env_steps=np.asarray([0, 100]))
            return cli.FAILED if np.isnan(returns).any() else cli.DONE

        monkeypatch.setattr(sweep_engines, "run", job)
        file = tmp_path / "small.yaml"
        file.write_text(text)
        status = sweep.main([str(file), "--out", str(tmp_path / "out"), "--wandb", "disabled", *flags])
        table = tmp_path / "out" / "sweep.json"
        return status, json.loads(table.read_text()) if table.exists() else None, started

    return run


SMALL = "method: grid\nparameters:\n  env: matrix-qtran\n  algo: iql-tabular\n"


def test_runs_that_differ_in_numbers_train_in_one_program(sweeping, capsys):
    """The values of a variant are those of a run; a setting that decides shapes makes another program."""
    text = (
        SMALL
        + "  step_size: {values: [.1, .2]}\n  gamma: {values: [.8, .9]}\n  epsilon_steps: {values: [5, 9]}"
    )
    status, table, started = sweeping(text, [[1.0, 2, 3, 4], [5.0, 6, 7, 8]], "--runs", "8")
    assert status == cli.DONE and len(started) == 2
    for flags, steps in zip(started, (5, 9), strict=True):
        assert flags[:3] == ["--wandb=disabled", "--tags=small", "--group=small"]
        assert set(flags[3:-1]) == {
            *("--env=matrix-qtran", "--algo=iql-tabular", f"--epsilon_steps={steps}", "--combine=zip"),
            *("--gamma=[0.8, 0.9, 0.8, 0.9]", "--step_size=[0.1, 0.1, 0.2, 0.2]"),
        }
    by_run = {row["run"]: row for row in table}
    assert [by_run[i]["return"] for i in range(8)] == [1, 5, 2, 6, 3, 7, 4, 8]
    assert by_run[3]["settings"] == {
        "env": "matrix-qtran",
        "algo": "iql-tabular",
        "step_size": 0.1,
        "gamma": 0.9,
        "epsilon_steps": 9,
    }
    assert by_run[3]["variant"] == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (
        "best: python experiments/train.py --env=matrix-qtran --algo=iql-tabular --step_size=0.2 --gamma=0.9 "
        "--epsilon_steps=9"
    )
    assert imread(Path(said[-2].removeprefix("picture: "))).std() > 0


def test_each_by_itself(sweeping):
    _, table, started = sweeping(SMALL + "  step_size: {values: [.1, .2]}", [[1.0], [2.0]], "--together=1")
    assert [flags[-2] for flags in started] == ["--step_size=0.1", "--step_size=0.2"]
    assert [row["variant"] for row in table] == [None, None]


def test_at_most_so_many_together_and_equal_runs_share_a_variant(sweeping):
    text = SMALL.replace("grid", "random") + "  gamma: {distribution: q_uniform, min: 0, max: 1, q: .4}"
    _, table, started = sweeping(text, [[1.0, 2], [3.0]], "--runs=12", "--together=2")
    assert "--gamma=[0.8, 0.4]" in started[0] and started[1][-2] == "--gamma=0.0"
    assert sorted((row["settings"]["gamma"], row["return"]) for row in table) == [
        *[(0.0, 3.0)] * 3,
        *[(0.4, 2.0)] * 2,
        *[(0.8, 1.0)] * 7,
    ]


def test_a_diverged_run_ranks_last_without_a_score(sweeping, capsys):
    """Not first, by its evaluation before training. The others of its program keep theirs."""
    text = SMALL + "  step_size: {values: [.1, .2, .3]}\n  initial_value: {values: [0, null]}"
    status, table, started = sweeping(text, [[1.0, np.nan, 5], cli.FAILED])
    assert status == cli.FAILED and len(started) == 2
    assert [row["run"] for row in table] == [4, 0, 1, 2, 3, 5]
    assert [row["return"] for row in table] == [5, 1, None, None, None, None]
    assert [row["status"] for row in table] == ["finished"] * 2 + ["failed"] * 4
    assert table[0]["settings"]["step_size"] == 0.3
    said = capsys.readouterr().out.splitlines()
    assert said[-9].startswith("run 004  return    5.000 [5.000, 5.000]")
    assert said[-7].startswith("run 001  failed: see its output above")
    assert said[-6].startswith("run 002  failed: it diverged to NaN or infinity")


def test_the_same_command_goes_on(sweeping, capsys):
    """With what is not finished: failed runs, and more of them."""
    text = SMALL + "  step_size: {values: [.1, .2, .3]}"
    sweeping(text, [[1.0, 2], cli.STOPPED], "--runs=2", "--together=2")
    status, _, started = sweeping(text, [cli.STOPPED], "--together=2")
    assert status == cli.STOPPED and started[0][-2] == "--step_size=0.3"
    status, table, started = sweeping(text, [cli.FAILED])
    assert status == cli.FAILED and [row["return"] for row in table] == [2, 1, None]
    status, table, started = sweeping(text, [[3.0]])
    assert status == cli.DONE and len(started) == 1 and [row["return"] for row in table] == [3, 2, 1]
    assert "2 of 3 runs are finished already" in capsys.readouterr().out
    assert sweeping(text, [])[0] == cli.DONE


def test_another_file_is_another_run_and_other_sweeps_keep_theirs(sweeping, tmp_path):
    """By the same command: a payoff file has changed. What was finished with the old one is found again."""
    payoff = tmp_path / "game.json"
    text = f"method: grid\nparameters: {{payoff: '{payoff}', algo: iql-tabular"
    text += ", step_size: {values: [.1, .2]}}"
    found = []
    for game, outcomes in (
        ("[[1, 0], [0, 2]]", [[1.0, 2]]),
        ("[[5, 0], [0, 9]]", [[5.0, 9]]),
        ("[[1, 0], [0, 2]]", []),
    ):
        payoff.write_text(game)
        _, table, _ = sweeping(text, outcomes)
        found.append([row["return"] for row in table])
    assert found == [[2, 1], [9, 5], [2, 1]]


def test_a_run_that_goes_on_without_its_sweep_is_not_trained_twice(sweeping, bad_input):
    text = SMALL + "  step_size: {values: [.1, .2]}"
    _, _, started = sweeping(text, [cli.STOPPED])
    folder = Path(started[0][-1].removeprefix("--out="))
    with locked(folder), bad_input("is in use by process"):
        sweeping(text, [])


def test_the_picture_shows_whatever_a_sweep_varies(tmp_path):
    """Among it one setting alone, extremes, text, numbers as text, more than fit, and what is no formula."""
    odd = [1e-4, "1e-3", 10**400, float("inf"), None, True, "a$b_c$d" * 9, [1, 2], 0.5, 1e38]
    rows = [
        {"run": run, "return": None if run % 3 else float(run), "settings": {"one": value, "two": run * 0.01}}
        for run, value in enumerate(odd * 3)
    ]
    assert imread(sweep_picture.draw(rows, tmp_path)).std() > 0
    alone = [
        {"run": run, "return": each, "settings": {"x": 10.0**run}} for run, each in enumerate((1.0, None))
    ]
    assert imread(sweep_picture.draw(alone, tmp_path)).std() > 0
    few = sweep_picture._axis("x", [1e38, "1e-3", 1e-4], np.arange(3))
    assert few.ticks == [(0, "0.0001"), (0.5, "0.001"), (1, "1e+38")] and few.heights.tolist() == [1, 0.5, 0]
    texts = sweep_picture._axis("x", ["e12", "e2", "e0"], np.asarray([2, 1, 0]))
    assert [text for _, text in texts.ticks] == ["e0", "e2", "e12"]
    uniform = sweep_picture._axis("x", list(np.linspace(0.01, 1, 50)), np.arange(50))
    np.testing.assert_allclose(uniform.heights, np.linspace(0, 1, 50), atol=1e-12)
    powers = sweep_picture._axis("x", list(np.logspace(-5, -1, 50)), np.arange(50))
    np.testing.assert_allclose(powers.heights, np.linspace(0, 1, 50), atol=1e-12)


def test_what_is_refused_together_is_tried_by_itself(sweeping):
    """Such as for want of memory."""
    text = SMALL + "  step_size: {values: [.1, .2]}"
    status, table, started = sweeping(text, [cli.BAD_INPUT, [1.0], cli.BAD_INPUT])
    assert status == cli.FAILED and len(started) == 3
    assert [row["status"] for row in table] == ["finished", "failed"]


def test_a_reward_per_agent(sweeping, capsys):
    """Ranked by the mean over agents."""
    text = "method: grid\nparameters: {env: matrix-pr2, algo: balancing-q, beta_other: {values: [1, .inf]}}"
    status, table, _ = sweeping(text, [[[1.0, 5], [3, 5], [4, 0], [4, 8]]])
    assert status == cli.DONE
    assert [(row["return"], row["return/1"], row["return/2"]) for row in table] == [(4, 4, 4), (3.5, 2, 5)]
    assert [row["settings"]["beta_other"] for row in table] == ["inf", 1]  # JSON has no infinity
    assert "return/1 2.000 return/2 5.000" in capsys.readouterr().out


def test_what_cannot_be_played_is_listed_and_the_rest_runs(sweeping, capsys):
    text = (
        "method: grid\nparameters: {env: matrix-qtran, algo: {values: [sac, vdn, qtran-alt]}, opt_weight: 1}"
    )
    status, table, started = sweeping(text, [[1.0]])
    assert status == cli.DONE
    assert len(started) == 1 and "--algo=qtran-alt" in started[0]
    assert [(row["settings"]["algo"], row["status"]) for row in table] == [
        ("qtran-alt", "finished"),
        ("sac", "not playable"),
        ("vdn", "not playable"),
    ]
    assert table[2]["reason"] == "vdn on matrix-qtran has no --opt_weight"
    text = "method: grid\nparameters: {env: matrix-qtran, algo: {values: [sac, vdn]}}"
    _, table, _ = sweeping(text.replace("sac, vdn", "vdn, sac"), [[1.0]])
    assert "run 001  not playable: the algorithm needs continuous actions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("algo: {values: [vdn, sarsa]}, env: matrix-qtran", "run 1: unknown algorithm 'sarsa'"),
        ("algo: vdn, env: {values: [matrix-qtran, chess]}", "run 1: unknown environment 'chess'"),
        ("algo: vdn", "run 0: give either --env ID or --payoff FILE"),
        (
            "algo: {values: [vdn, iql]}, env: matrix-qtran, learning_rat: .1",
            "no run has a setting --learning_rat",
        ),
        (
            "algo: vdn, env: matrix-qtran, learning_rate: {values: [.1, -1]}",
            "run 1: learning_rate must be above 0",
        ),
        ("algo: vdn, env: matrix-qtran, learning_rate: fast", "run 0: Error parsing --learning-rate"),
        ("algo: vdn, env: matrix-qtran, hidden: {value: [16, a]}", "run 0: Error parsing --hidden"),
        ("algo: vdn, env: matrix-qtran, env_steps: 1.5", "run 0: Error parsing --env-steps"),
        (
            "algo: vdn, env: matrix-qtran, gamma: {value: [.9, .8]}",
            "run 0: gamma must be a number, not a list",
        ),
        ("algo: vdn, env: matrix-qtran, gamma: '[.9, .8]'", "run 0: gamma must be a number, not a list"),
        (
            "algo: {values: [sac, ddpg]}, env: matrix-qtran",
            "no run can be played: the algorithm needs continuous actions",
        ),
    ],
)
def test_bad_settings_are_refused_before_any_run(sweeping, bad_input, parameters, said):
    with bad_input(said):
        sweeping(f"method: grid\nparameters: {{{parameters}}}", [])


@pytest.mark.slow
def test_runs_are_checked_in_a_process_of_their_own():
    lines = [["--algo=vdn", "--env=matrix-qtran", "--hidden=[16, 16]", "--double_q=True"], ["--algo=x"]]
    fine, wrong = sweep.find_problems(lines)
    digest = fine.pop("experiment")
    assert fine == {"bad": "", "unplayable": "", "unknown": [], "varying": {}} and len(digest) == 64
    assert "unknown algorithm 'x'" in wrong["bad"]


@pytest.mark.slow  # the README's own sweep runs in tests/test_readme.py
def test_a_sweep_runs_here_offline(tmp_path, capfd):
    small = tmp_path / "small.yaml"
    small.write_text(
        "method: grid\nparameters:\n  env: {value: matrix-qtran}\n  algo: {values: [iql, vdn]}\n"
        "  env_steps: {value: 40}\n  evaluations: {value: 2}\n"
    )
    assert sweep.main([str(small), "--out", str(tmp_path / "out")]) == 0
    table = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert sorted(row["settings"]["algo"] for row in table) == ["iql", "vdn"]
    assert len(list((tmp_path / "out").glob("*/wandb/offline-run-*"))) == 2
    assert "job 2 of 2" in capfd.readouterr().out


def test_the_sweep_itself_starts_no_backend(tmp_path):
    """It would hold a GPU's memory, or the TPU, that its runs need."""
    code = (
        "import sys, sweep\n"
        "no = {'bad': '', 'unplayable': '', 'unknown': [], 'varying': {}, 'experiment': 'x'}\n"
        "sweep.find_problems = lambda lines: [no for _ in lines]\n"
        "sweep.sweep_engines.run = lambda command: 1\n"
        f"status = sweep.main(['sweeps/qtran_weights.yaml', '--out', {str(tmp_path)!r}])\n"
        "assert status == 1 and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SWEEPS.parent, check=True, capture_output=True)
