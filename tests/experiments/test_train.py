import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from envs.errors import BadInputError
from envs.matrix_games import load_game
from experiments import play, plot, train
from jaxmarl_fac import cli
from jaxmarl_fac.saved import from_json, load_experiment
from jaxmarl_fac.settings import leaves

ROOT = Path(__file__).parents[2]
SMALL = ["--env-steps", "64", "--evaluations", "4", "--evaluation-episodes", "1", "--seeds", "2"]


def run(*flags):
    return train.main([*map(str, flags)])


def test_metrics_and_experiment_are_written(tmp_path, capsys):
    assert run("--algo", "vdn", "--env", "matrix-ltql", *SMALL, "--out", tmp_path, "--first-seed", "7") == 0
    with np.load(tmp_path / "metrics.npz") as metrics:
        assert metrics["env_steps"].tolist() == [0, 16, 32, 48, 64]
        assert metrics["episode_return"].shape == (5, 2)
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["seeds"] == [7, 8]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "vdn on matrix-ltql: 32 update(s) of each seed, the first one after 33 steps"
    assert said[1].startswith("vdn on matrix-ltql: return IQM")


def test_the_same_command_goes_on_and_another_one_is_refused(tmp_path):
    flags = ["--algo", "iql", "--env", "matrix-qtran", *SMALL, "--out", tmp_path]
    assert run(*flags) == 0
    first = dict(np.load(tmp_path / "metrics.npz"))
    assert run(*flags) == 0  # done already
    for name, rows in np.load(tmp_path / "metrics.npz").items():
        np.testing.assert_array_equal(rows, first[name])
    with pytest.raises(
        BadInputError, match=r"holds another experiment \(it differs in algorithm.optimiser.learning_rate\)"
    ):
        run(*flags, "--learning-rate", "0.1")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "8 update(s) of each seed, the first one after 33 steps"),  # 32 steps without learning
        (["--update-period", 100_000], "1 update(s) of each seed, the first one after 33 steps"),
        (
            ["--learning-starts", 9, "--num-envs", 4, "--updates-per-step", 2],
            "14 update(s) of each seed, the first one after 16 steps",  # in 7 of 10 iterations, of 4 steps
        ),
        (["--learning-starts", 40], ""),
    ],
)
def test_the_number_of_updates_is_said_before_training(flags, says):
    small = ["--algo", "vdn", "--env", "matrix-ltql", "--env-steps", 40, "--evaluations", 1]
    _, experiment = train.prepare([*map(str, [*small, "--batch-size", 1, "--target-period", 2, *flags])])
    assert train.describe_updates(experiment) == says


@pytest.mark.slow
def test_any_payoff_can_be_played(tmp_path, capsys):
    """What it makes is said, as a pair of matrices may have been meant for two agents."""
    payoff = tmp_path / "game.json"
    payoff.write_text("[[[1, 2], [3, 4]], [[5, 6], [7, 8.5]]]")
    assert run("--algo", "vdn", "--payoff", payoff, *SMALL, "--out", tmp_path / "run") == 0
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert record["environment"]["action_counts"] == [2, 2, 2]
    said = capsys.readouterr()
    assert f"{payoff}: a team game of 3 agents with 2, 2 and 2 actions\n" in said.out
    hint = 'if these are the payoffs of 2 agents, one tensor each, give them as {"payoffs": [...]}'
    assert f"{payoff}: {hint}\n" in said.err


@pytest.mark.slow
def test_a_payoff_per_agent_can_be_played(tmp_path, capsys):
    """Three times in an episode."""
    payoff = tmp_path / "game.json"
    payoff.write_text('{"payoffs": [[[0, 3], [1, 2]], [[3, 2], [0, 1]]]}')
    flags = ["--payoff", payoff, "--stages", "3", *SMALL, "--out", tmp_path / "run"]
    assert run("--algo", "balancing-q", *flags, "--beta-other=-inf", "--own-prior", "0.3", "0.7") == 0
    with np.load(tmp_path / "run" / "metrics.npz") as metrics:
        assert metrics["episode_return"].shape == (5, 2, 2)
        assert np.isin(
            metrics["episode_return"].sum(axis=-1), [3, 5, 7, 9]
        ).all()  # 3 or 1 or 5 in each stage
        assert metrics["row_reward"].shape == (5, 2)
    said = capsys.readouterr()
    assert f"{payoff}: a game with a reward per agent, of 2 agents with 2 and 2 actions, in 3" in said.out
    assert "if these" not in said.err
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert record["algorithm"]["rule"]["beta_other"] == -np.inf
    assert record["algorithm"]["rule"]["own_prior"] == [0.3, 0.7]
    assert said.out.count("[") == 2  # one interval for each agent
    for algorithm, says in (("vdn", "one per agent"), ("pr2-q --own-prior 0.3 0.3", "own_prior sums to 0.6")):
        with pytest.raises(BadInputError, match=says):
            run("--algo", *algorithm.split(), *flags)


@pytest.mark.parametrize("where", [["--payoff", "game.json"], ["--env", "matrix-pr2"]])
def test_how_often_a_game_is_played_in_an_episode(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    Path("game.json").write_text("[[1, 2], [3, 4]]")
    with pytest.raises(BadInputError, match="stages must be from 1 to 32767, not 0"):
        run("--algo", "friend-q", *where, "--stages", "0")


def test_every_hyper_parameter_and_environment_parameter_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        run("--algo", "qtran-alt", "--env", "matrix-penalty", "--help")
    said = capsys.readouterr().out
    for flag in (
        "--learning-rate",
        "--nopt-min",
        "--opt-weight",
        "--target-period",
        "--k ",
        "--seeds",
        "--wandb",
    ):
        assert flag in said


def test_list_names_every_id(capsys):
    assert run("--list") == 0
    said = capsys.readouterr().out
    for name in ("qtran-alt", "iql", "matrix-21x21", "random-state", "two-step"):
        assert f"  {name} " in said


@pytest.mark.slow
def test_family_defaults_and_environment_parameters(tmp_path):
    flags = [
        "--algo",
        "vdn",
        "--env",
        "matrix-penalty",
        "--k",
        "-7",
        "--env-steps",
        "40",
        "--evaluations",
        "1",
    ]
    assert run(*flags, "--out", tmp_path) == 0
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert -7 in np.ravel(record["environment"]["payoff"]["data"])
    assert record["algorithm"]["replay"]["replay_size"] == 20_000  # table 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--algo", "sarsa", "--env", "two-step"], "unknown algorithm 'sarsa': choose one of iql, vdn"),
        (["--algo", "vdn", "--env", "chess"], "unknown environment 'chess': choose one of matrix-qtran"),
        (["--env", "two-step"], "--algo is missing"),
        (["--algo", "vdn"], "give either --env ID or --payoff FILE"),
        (
            ["--algo", "vdn", "--env", "two-step", "--payoff", "x.json"],
            "give either --env ID or --payoff FILE",
        ),
        (["--algo", "vdn", "--env", "two-step", "--seeds", "0"], "number of seeds must be at least 1"),
        (["--algo", "vdn", "--env", "two-step", "--seeds", "-2"], "number of seeds must be at least 1"),
        (["--algo", "vdn", "--env", "two-step", "--env-steps", "0"], "env_steps must be at least 1, not 0"),
        (["--algo", "vdn", "--env", "two-step", "--learning-rate", "-1"], "learning_rate must be above 0"),
        (["--algo", "vdn", "--env", "matrix-penalty", "--k", "1"], "k must be at most 0, not 1.0"),
        (
            ["--algo", "vdn", "--env", "two-step", "--out", "/proc/x"],
            "output folder /proc/x cannot be written",
        ),
        (["--algo", "vdn", "--payoff", "nowhere.npy"], "payoff file nowhere.npy cannot be read"),
        (["--algo", "vdn", "--env", "two-step", "--evaluations", "50000"], "50000 evaluations do not fit"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError) as error:
        run(*flags)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_from_the_shell_bad_input_is_one_line_and_status_2():
    command = [sys.executable, "experiments/train.py", "--algo", "vdn", "--env", "chess"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown environment 'chess'") and done.stderr.count("\n") == 1
    assert not done.stdout


@pytest.mark.slow
def test_a_run_without_tracking_never_imports_wandb():
    code = (
        "import sys; sys.argv = ['train.py', '--list']\n"
        "from experiments import train\n"
        "train.main(['--list'])\n"
        "assert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("flags", "variables", "wanted"),
    [
        ("", {}, ("runs/train", "disabled")),
        ("--wandb online", {}, ("runs/train", "online")),
        ("", {"WANDB_MODE": "online"}, ("runs/train", "disabled")),
        ("", {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r7"}, ("runs/train/r7", "online")),
        ("--out x", {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r7"}, ("x", "online")),
        ("--wandb offline", {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r7"}, ("runs/train/r7", "offline")),
        ("", {"WANDB_SWEEP_ID": "s", "WANDB_MODE": "offline"}, ("runs/train", "offline")),
        ("", {"WANDB_SWEEP_ID": "s", "WANDB_MODE": "disabled"}, ("runs/train", "disabled")),
        ("--wandb disabled", {"WANDB_SWEEP_ID": "s", "WANDB_MODE": "x"}, ("runs/train", "disabled")),
        ("", {"WANDB_SWEEP_ID": "s", "WANDB_MODE": "x"}, None),
    ],
)
def test_where_a_run_is_kept_and_tracked(fake_wandb, monkeypatch, bad_input, flags, variables, wanted):
    """`wandb agent` sets these variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    parsed = cli.parse(train.Run, flags.split())
    if wanted is None:
        with bad_input("WANDB_MODE must be online, offline, disabled or not set, not x"):
            train.folder_and_mode(parsed)
    else:
        assert train.folder_and_mode(parsed) == (Path(wanted[0]), wanted[1])


@pytest.mark.slow
def test_as_wandb_agent_runs_it(fake_wandb, tmp_path, monkeypatch):
    """A folder of its own, all settings; resumed it is the same run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "first")
    flags = ["--algo=iql-tabular", "--env=matrix-penalty", "--k=-7.0", "--env_steps=64.0", "--num_envs=2"]
    flags += ["--evaluations=4", "--evaluation_episodes=1", "--seeds=2", "--first_seed=3"]
    assert run(*flags) == 0
    assert Path("runs/train/first/metrics.npz").exists()
    options = fake_wandb.options
    assert (options["mode"], options["id"]) == ("online", "first")
    assert options["tags"] == ["iql-tabular", "matrix-penalty"]
    saved = json.loads(Path("runs/train/first/experiment.json").read_text())
    config = json.loads(json.dumps(options["config"]))
    own = {"algo": "iql-tabular", "env": "matrix-penalty", "seeds": 2, "first_seed": 3, "k": -7.0}
    settings = {name: leaf.value for name, leaf in leaves(from_json(saved.pop("algorithm"))).items()}
    for name, value in {**settings, **saved, **own}.items():
        if name not in ("type", "probe"):
            assert config[name] == value, name
    assert [step for step, _ in fake_wandb.logged] == [0, 16, 32, 48, 64]
    assert all("episode_return/iqm" in values for _, values in fake_wandb.logged)

    fake_wandb.starting_step = 33  # as if W&B had lost the last two
    assert run(*flags) == 0
    assert fake_wandb.options["id"] == "first"
    assert [step for step, _ in fake_wandb.logged[5:]] == [48, 64]
    assert fake_wandb.exit_codes == [0, 0]

    monkeypatch.setenv("WANDB_RUN_ID", "second")  # the next run of the sweep is not refused
    assert run(*flags, "--root_key=1") == 0
    assert Path("runs/train/second/metrics.npz").exists()


def test_another_experiment_does_not_touch_the_run_at_wandb(fake_wandb, tmp_path):
    flags = [
        "--algo",
        "iql-tabular",
        "--env",
        "matrix-qtran",
        *SMALL,
        "--out",
        tmp_path,
        "--wandb",
        "offline",
    ]
    assert run(*flags) == 0
    fake_wandb.options = {}
    with pytest.raises(BadInputError, match="holds another experiment"):
        run(*flags, "--root-key", "5")
    assert fake_wandb.options == {}


def test_several_values_train_side_by_side(tmp_path, capsys):
    """Every variant has its line, its curve and its player; the numbers of one value alone."""
    flags = ["--algo", "iql-tabular", "--env", "matrix-qtran", *SMALL, "--epsilon-end", "0.5"]
    out = tmp_path / "both"
    assert train.main([*flags, "--step-size", "0.1", "0.5", "--gamma=[0.9]", "--out", str(out)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "return IQM" in line]
    assert ["step_size 0.1" in lines[0], "step_size 0.5" in lines[1], len(lines)] == [True, True, 2]
    assert train.main([*flags, "--step-size", "0.5", "--gamma", "0.9", "--out", str(tmp_path / "one")]) == 0
    both, one = (np.load(tmp_path / name / "metrics.npz")["episode_return"] for name in ("both", "one"))
    np.testing.assert_array_equal(both[:, 2:], one)
    assert plot.main([str(out), "--out", str(tmp_path / "curves.csv")]) == 0
    curves = (tmp_path / "curves.csv").read_text()
    assert "step_size 0.1" in curves and "step_size 0.5" in curves
    assert play.main(["--run", str(out), "--variant", "1", "--episodes", "2"]) == 0


def test_bad_variants(tmp_path, bad_input):
    flags = ["--algo", "vdn", "--env", "matrix-qtran", *SMALL, "--out", str(tmp_path / "run")]
    with bad_input("--learning-rate needs different values, each only once"):
        train.main([*flags, "--learning-rate", "0.1", "0.1"])
    with bad_input("learning_rate must be above 0, not -1.0"):
        train.main([*flags, "--learning-rate", "0.1", "-1"])
    with bad_input("could not convert string to float: 'fast'"):
        train.main([*flags, "--learning-rate", "0.1", "fast"])
    with bad_input("--learning-rate"):
        train.main([*flags, "--learning-rate"])
    with bad_input("variants need as many values of each setting, not 2 of learning_rate, 3 of gamma"):
        train.main([*flags, "--combine=zip", "--learning-rate=[0.1,0.2]", "--gamma=[0.9,0.8,0.7]"])


def test_variants_are_runs_of_one_group_at_wandb(fake_wandb, tmp_path):
    flags = ["--algo", "iql-tabular", "--env", "matrix-qtran", *SMALL, "--wandb", "offline"]
    assert train.main([*flags, "--step-size", "0.1", "0.5", "--out", str(tmp_path)]) == 0
    options = fake_wandb.options  # of the second one
    assert options["group"] == "matrix-qtran: step_size"
    assert options["name"] == "iql-tabular-matrix-qtran step_size 0.5"
    assert options["config"]["step_size"] == 0.5 and options["config"]["gamma"] == 0.99
    assert len(fake_wandb.logged) == 2 * 5 and fake_wandb.exit_codes == [0, 0]
    ids = {(tmp_path / "variants" / str(index) / "wandb_id").read_text() for index in range(2)}
    assert len(ids) == 2


def test_values_can_be_taken_together_and_a_diverged_variant_fails_alone(fake_wandb, tmp_path, capsys):
    flags = ["--algo", "vdn", "--env", "matrix-qtran", *SMALL, "--hidden", "4", "--combine", "zip"]
    flags += ["--learning-rate", "1e-3", "1e38", "--wandb", "offline", "--out", str(tmp_path)]
    assert train.main([*flags, "--gamma", "0.9", "0.8"]) == cli.FAILED
    assert fake_wandb.exit_codes == [0, 1]
    assert load_experiment(tmp_path / "experiment.json").variant_settings == (
        {"learning_rate": 1e-3, "gamma": 0.9},
        {"learning_rate": 1e38, "gamma": 0.8},
    )
    said = capsys.readouterr()
    assert "vdn on matrix-qtran, learning_rate 0.001, gamma 0.9: return IQM" in said.out
    assert said.out.count("return IQM") == 1
    assert "error: vdn on matrix-qtran, learning_rate 1e+38, gamma 0.8: diverged to NaN" in said.err


@pytest.mark.slow
def test_wandb_offline_leaves_a_run_to_sync(tmp_path):
    flags = ["--algo", "vdn", "--env", "matrix-qtran", *SMALL, "--out", str(tmp_path), "--wandb", "offline"]
    command = [sys.executable, "experiments/train.py", *flags, "--tags", "mine"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run_folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert next(iter(run_folder.glob("*.wandb"))).stat().st_size > 0


@pytest.mark.parametrize(
    ("payoff", "played", "hinted"),
    [
        ([[[0, 3], [1, 2]], [[3, 2], [0, 1]]], "a team game of 3 agents with 2, 2 and 2 actions", True),
        ({"payoffs": [[[0, 3], [1, 2]], [[3, 2], [0, 1]]]}, "a game with a reward per agent, of 2", False),
        ([[1, 2, 3], [4, 5, 6]], "a team game of 2 agents with 2 and 3 actions", False),
    ],
)
def test_what_a_payoff_file_is_taken_for(tmp_path, capsys, payoff, played, hinted):
    """A pair of matrices is a game of three agents, and may be meant for two with a reward each."""
    path = tmp_path / "game.json"
    path.write_text(json.dumps(payoff), encoding="utf-8")
    train.describe_payoff(path, load_game(path))
    said = capsys.readouterr()
    assert said.out.startswith(f"{path}: {played}")
    assert ('give them as {"payoffs": [...]}' in said.err) == hinted
