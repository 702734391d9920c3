import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import benchmark, benchmark_peers, benchmark_peers_ours, benchmark_peers_theirs
from experiments.benchmark_peers_settings import PAIRS, differences, our_settings, read_settings, warmup
from experiments.benchmark_workers import ROOT, NoAnswerError, Worker

STUB = "tests.experiments.worker_stub"
#: JaxMARL's, with small numbers.
COMMON = {
    "TOTAL_TIMESTEPS": 1000,
    "NUM_ENVS": 2,
    "NUM_STEPS": 4,
    "HIDDEN_SIZE": 8,
    "EPS_START": 1.0,
    "EPS_FINISH": 0.05,
    "EPS_DECAY": 0.1,
    "MAX_GRAD_NORM": 25,
    "NUM_EPOCHS": 1,
    "LR": 0.005,
    "LR_LINEAR_DECAY": True,
    "GAMMA": 0.9,
    "ENV_NAME": "MPE_simple_spread_v3",
    "ENV_KWARGS": {},
    "TEST_INTERVAL": 0.05,
}
REPLAY = {
    "BUFFER_SIZE": 40,
    "BUFFER_BATCH_SIZE": 3,
    "TARGET_UPDATE_INTERVAL": 10,
    "LEARNING_STARTS": 30,
    "TAU": 1.0,
}
MIXER = {"MIXER_EMBEDDING_DIM": 4, "MIXER_HYPERNET_HIDDEN_DIM": 6, "MIXER_INIT_SCALE": 0.001}
SMAX = {
    **COMMON,
    "NUM_STEPS": 16,
    "NUM_EPOCHS": 4,
    "REW_SCALE": 10.0,
    "ENV_NAME": "HeuristicEnemySMAX",
    "MAP_NAME": "3s_vs_5z",
    "ENV_KWARGS": {"see_enemy_actions": True, "walls_cause_death": True, "attack_mode": "closest"},
}
CONFIGS = {
    "vdn-mpe": COMMON | REPLAY | {"NUM_LAYERS": 2, "ALG_NAME": "vdn_ff"},
    "qmix-mpe": COMMON | REPLAY | MIXER,
    "pqn-mpe": COMMON
    | {"NUM_LAYERS": 2, "NUM_EPOCHS": 3, "NUM_MINIBATCHES": 2, "LAMBDA": 0.3, "NORM_TYPE": "layer_norm"},
    "qmix-smax": SMAX | REPLAY | MIXER,
}
#: Stands for a script of JaxMARL's: an update takes two milliseconds of a clock of its own.
SCRIPT = """
from typing import NamedTuple
import jax
import jax.numpy as jnp

wandb = None
clock = 0.0

class State(NamedTuple):
    timesteps: int
    n_updates: int
    grad_steps: int
    params: dict

def env_from_config(config):
    config["ENV_KWARGS"]["written"] = "into"
    return config["ENV_NAME"], None

def make_train(config, env):
    assert env == "MPE_simple_spread_v3"
    steps = config["NUM_ENVS"] * config["NUM_STEPS"]
    updates = config["TOTAL_TIMESTEPS"] // steps
    assert config["TEST_DURING_TRAINING"] == (config["WANDB_MODE"] != "disabled")

    def train(key):
        learned = sum(count * steps > config["LEARNING_STARTS"] for count in range(1, updates + 1))
        def wait(key):
            global clock
            clock += 0.002 * updates
            return key
        key = jax.pure_callback(wait, key, key, vmap_method="sequential")
        def log(key, step):
            tested = config["TEST_NUM_ENVS"] + int(key[1] % 2)
            wandb.log({"update_steps": step, "test_returned_episode_returns": tested, "loss": 0.0})
        if config["TEST_DURING_TRAINING"]:
            period = int(updates * config["TEST_INTERVAL"])
            for step in range(1, updates + 1):
                jax.debug.callback(lambda key, step=step: log(key, step), key)
        state = State(updates * steps, updates, learned, {"w": jnp.zeros((3, 2))})
        return {"runner_state": (state, key), "metrics": None}

    return train
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like a checkout of JaxMARL."""
    for game, pair in PAIRS.items():
        for path, text in (
            (pair.script_in(tmp_path), SCRIPT),
            (pair.config_in(tmp_path), json.dumps(CONFIGS[game])),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return tmp_path


def rewrite(checkout, game, **settings):
    path = PAIRS[game].config_in(checkout)
    path.write_text(json.dumps(CONFIGS[game] | settings), encoding="utf-8")


# Workers


def gone(pid):
    """Whether a process ends within some seconds."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


def test_a_worker_answers_and_what_it_prints_is_no_answer():
    with Worker(sys.executable, STUB) as worker:
        pid = worker.ask(10, "pid")["pid"]
        assert worker.ask(10, "sleep", seconds=0) == {"slept": 0}
        assert worker.ask(10, "pid") == {"pid": pid}
    assert gone(pid)


def test_patience_ends_with_the_worker():
    with Worker(sys.executable, STUB) as worker:
        pid, child = worker.ask(10, "pid")["pid"], worker.ask(10, "child")["pid"]
        with pytest.raises(NoAnswerError, match=r"^no answer$") as failure:
            worker.ask(0.2, "sleep", seconds=60)
        assert 0.2 <= failure.value.seconds < 10
        assert gone(pid) and gone(child)


@pytest.mark.parametrize(
    ("action", "why"),
    [("fail", "first line"), ("killed", "it was ended by SIGKILL"), ("ended", "the last line")],
)
def test_why_a_worker_gives_no_answer(action, why):
    with Worker(sys.executable, STUB) as worker, pytest.raises(NoAnswerError, match=f"^{why}$"):
        worker.ask(10, action)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_with_the_benchmark(by):
    """Even amid a computation, of a parent that had no time to end it; Ctrl-C reaches the parent alone."""
    code = (
        "from experiments.benchmark_workers import Worker\n"
        f"with Worker({sys.executable!r}, {STUB!r}) as worker:\n"
        "    print(worker.ask(10, 'pid')['pid'], flush=True)\n"
        "    worker.ask(60, 'sleep', seconds=60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(by)
    parent.communicate()
    assert gone(pid)


# Settings


@pytest.mark.parametrize(
    ("game", "mapped"),
    [
        ("vdn-mpe", {"hidden": [], "update_period": 4, "learning_starts": 32, "double_q": False}),
        ("vdn-mpe", {"epsilon_steps": 50, "learning_rate_schedule": "linear", "target_period": 10}),
        ("qmix-mpe", {"hidden": [8], "recurrent": True, "hypernet_hidden": [6], "replay_size": 40}),
        ("qmix-mpe", {"mixer_init_scale": 0.001, "mixer_embed": 4}),
        ("pqn-mpe", {"hidden": [8, 8], "rollout_length": 4, "epochs": 3, "minibatches": 2, "td_lambda": 0.3}),
        # Four gradient steps follow each rollout of 16 steps: ours come every 4, and targets after 40.
        ("qmix-smax", {"update_period": 4, "target_period": 40, "learning_starts": 96}),
    ],
)
def test_every_setting_is_mapped(checkout, game, mapped):
    settings = read_settings(PAIRS[game], checkout)
    ours = our_settings(PAIRS[game], settings, 500)
    assert ours["settings"] | mapped == ours["settings"]
    assert (ours["num_envs"], ours["iterations_per_update"]) == (2, settings["NUM_STEPS"])
    assert ours["game"]["time_limit_terminates"]


def test_what_differs_is_named(checkout):
    named = {game: differences(pair, read_settings(pair, checkout)) for game, pair in PAIRS.items()}
    assert any("NUM_STEPS steps later" in text for text in named["vdn-mpe"])
    assert "rewards are as the game gives them, theirs times 10" in named["qmix-smax"]
    assert read_settings(PAIRS["qmix-smax"], checkout)["MAP_NAME"] == "3m"


def test_updates_before_learning(checkout):
    """Eight steps an update: the fourth is the first above 30; a batch of 9 needs 9 rollouts."""
    of = lambda game: warmup(PAIRS[game], read_settings(PAIRS[game], checkout))  # noqa: E731
    assert (of("vdn-mpe"), of("qmix-mpe"), of("pqn-mpe")) == (3, 3, 0)
    rewrite(checkout, "qmix-mpe", BUFFER_BATCH_SIZE=9)
    assert of("qmix-mpe") == 8


@pytest.mark.parametrize(
    ("game", "settings", "said"),
    [
        ("vdn-mpe", {"NOISY_NETS": True}, "has a setting that is not mapped to ours: NOISY_NETS"),
        ("vdn-mpe", {"LAMBDA": 0.5}, "has a setting that is not mapped to ours: LAMBDA"),
        ("vdn-mpe", {"TAU": 0.5}, "TAU must be 1, as it is here, not 0.5"),
        ("pqn-mpe", {"ENV_NAME": "hanabi"}, "ENV_NAME must be 'MPE_simple_spread_v3', as it is here, not"),
        (
            "qmix-smax",
            {"ENV_KWARGS": {"walls_cause_death": False}},
            "walls_cause_death must be True, as it is",
        ),
    ],
)
def test_other_settings_are_refused(checkout, bad_input, game, settings, said):
    rewrite(checkout, game, **settings)
    with bad_input(said):
        read_settings(PAIRS[game], checkout)


# The two sides


def test_jaxmarls_side_times_what_learns(checkout, monkeypatch):
    learner = benchmark_peers_theirs.Learner()
    learner.load(str(PAIRS["vdn-mpe"].script_in(checkout)))
    clock = SimpleNamespace(perf_counter=lambda: vars(learner)["_script"].clock)
    monkeypatch.setattr(benchmark_peers_theirs, "time", clock)
    settings = CONFIGS["vdn-mpe"]
    facts = learner.compile(settings, seeds=2, warmup=3, seconds=0.05)
    counted = {"num_envs": 2, "env_steps_per_update": 8, "gradient_steps_per_update": 1}
    sizes = {"batch_size": 3, "replay_size": 40, "parameters": 6}
    assert facts == {"compile_seconds": 0, **counted, **sizes}
    # Two seeds of 4 updates, one after the other, take .016 s; with 9 more the .05 s are full.
    assert learner.time() == pytest.approx({"before": 0.016, "whole": 0.052, "updates": 9})
    assert settings == COMMON | REPLAY | {"NUM_LAYERS": 2, "ALG_NAME": "vdn_ff"}
    # 12 updates, evaluated after each fourth.
    found = np.asarray(
        learner.returns(settings, seeds=2, env_steps=100, evaluations=3, episodes=5)["returns"]
    )
    keys = np.asarray(jax.random.split(jax.random.PRNGKey(0), 2))
    np.testing.assert_array_equal(found, [5 + keys[:, 1] % 2] * 3)


def linear(checkout):
    """What our side is asked for VDN by the settings above, but on a game that needs no JaxMARL."""
    ours = our_settings(PAIRS["vdn-mpe"], read_settings(PAIRS["vdn-mpe"], checkout), 500)
    return ours | {"env": "two-step", "game": {}}


def test_our_agents_have_no_hidden_layer_where_theirs_have_none(checkout):
    experiment = benchmark_peers_ours.experiment_of(linear(checkout), 1, 500)
    params = jax.eval_shape(lambda: experiment.bind().init(jax.random.key(0)).params)
    game = experiment.game
    kernel = (game.view_size + game.num_agents, game.num_actions)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(params)) == sorted([kernel, kernel[1:]])


@pytest.mark.slow
def test_our_side_counts_the_same(checkout):
    learner = benchmark_peers_ours.Learner()
    facts = learner.compile(linear(checkout), seeds=2, seconds=0.01)
    counted = {"num_envs": 2, "env_steps_per_update": 8, "gradient_steps_per_update": 1}
    assert facts | counted | {"batch_size": 3, "replay_size": 40} == facts
    times = learner.time()
    assert times["whole"] > 0 and times["updates"] >= 1
    found = learner.returns(linear(checkout), seeds=2, env_steps=100, evaluations=3, episodes=2)["returns"]
    assert np.shape(found) == (3, 2)


def test_what_would_not_fit_is_not_run(checkout, monkeypatch):
    monkeypatch.setattr(benchmark_peers_theirs, "free_bytes", lambda: 10)
    learner = benchmark_peers_theirs.Learner()
    learner.load(str(PAIRS["vdn-mpe"].script_in(checkout)))
    with pytest.raises(MemoryError, match=r"^it needs 0\.0 GB of memory, and 0\.0 are free$"):
        learner.compile(CONFIGS["vdn-mpe"], seeds=2, warmup=3, seconds=0.05)


# By turns


class FakeWorker:
    """Answers at once, with times that are given."""

    def __init__(self, side, asked, whole, before=0.0, fails=()):
        self.side, self.asked, self.fails = side, asked, fails
        self.times = [{"before": before, "whole": one, "updates": 10} for one in whole]
        self.parameters = 110 if side == "theirs" else 100

    def ask(self, patience, action, **request):
        self.asked.append((self.side, action))
        if action in self.fails:
            raise NoAnswerError("no answer", patience)
        if action == "time":
            return self.times.pop(0)
        if action == "returns":
            # The first half is not looked at.
            return {"returns": [[100.0] * 8, [100.0] * 8, [-1.0] * 8, [-3.0] * 8]}
        counted = {"env_steps_per_update": 512, "num_envs": 32, "parameters": self.parameters * 10_000}
        return {
            "load": {"cores": [0, 1], "devices": "1 x cpu", "versions": {"jax": "1.2"}},
            "compile": {"compile_seconds": 5.0, **counted},
        }[action]


@pytest.fixture
def both(monkeypatch):
    """Workers of no process; give those that fail by side."""
    fake = SimpleNamespace(asked=[], fails={})

    @contextlib.contextmanager
    def start(python):
        yield SimpleNamespace(
            workers={
                "theirs": FakeWorker(
                    "theirs", fake.asked, [5.0, 3.0, 4.0], 1.0, fake.fails.get("theirs", ())
                ),
                "ours": FakeWorker("ours", fake.asked, [2.0, 1.0, 3.0], 0.0, fake.fails.get("ours", ())),
            }
        )

    monkeypatch.setattr(benchmark_peers, "Both", start)
    return fake


def run(checkout, out, *flags):
    given = ["peers", "--peer-python", sys.executable, "--peer-checkout", str(checkout), "--out", str(out)]
    assert benchmark.main([*given, *flags]) == 0
    return json.loads((out / "benchmark.json").read_text()), (out / "benchmark.md").read_text()


def test_both_take_turns_and_the_minimum_counts(both, checkout, tmp_path):
    out = tmp_path / "out"
    record, table = run(checkout, out, "--games", "vdn-mpe", "--seeds", "2", "--env-steps", "0")
    turns = [side for side, action in both.asked if action == "time"]
    assert turns == ["theirs", "ours"] * 3
    cell = record["cells"]["vdn-mpe 2"]
    # Two seeds by ten updates in 3 - 1 seconds and in 1.
    assert (cell["theirs"]["updates_per_s"], cell["ours"]["updates_per_s"]) == (10, 20)
    assert cell["ours"]["env_steps_per_s"] == 20 * 512
    assert "| vdn-mpe | 2 | this suite | 10,240 | 20.0 | 5.0 |  | 2.00 |" in table
    assert "- the same, counted in both: environments 32, environment steps per update 512" in table
    assert "- different: parameters 1,000,000, theirs 1,100,000" in table
    assert (out / "benchmark.png").stat().st_size > 0


def test_a_side_without_an_answer(both, checkout, tmp_path):
    """The other is measured all the same."""
    both.fails = {"theirs": ("compile",)}
    flags = ["--games", "vdn-mpe", "--seeds", "8", "--env-steps", "0", "--patience", "60"]
    record, table = run(checkout, tmp_path / "out", *flags)
    assert "| vdn-mpe | 8 | JaxMARL | no answer after 60 s |" in table
    assert record["cells"]["vdn-mpe 8"]["ours"]["updates_per_s"] == 80
    assert [side for side, action in both.asked if action == "time"] == ["ours"] * 3


def test_returns_are_those_of_the_last_half(both, checkout, tmp_path):
    flags = ["--games", "vdn-mpe", "--seeds", "1", "--env-steps", "1000"]
    record, table = run(checkout, tmp_path / "out", *flags)
    assert record["returns"]["vdn-mpe"]["ours"]["returns"] == [-2.0] * 8
    assert table.count("-2.00 [-2.00, -2.00]") == 2
    assert "Returns of vdn-mpe over the last half of 1,000 steps" in table


def test_parts_are_measured_one_by_one(both, checkout, tmp_path):
    out = tmp_path / "out"
    run(checkout, out, "--games", "vdn-mpe", "--seeds", "1", "--env-steps", "0")
    both.asked.clear()
    record, table = run(
        checkout, out, "--games", "vdn-mpe", "qmix-mpe", "--seeds", "1", "--resume", "--env-steps", "0"
    )
    assert [cell["game"] for cell in record["cells"].values()] == ["vdn-mpe", "qmix-mpe"]
    assert len([action for _, action in both.asked if action == "time"]) == 6
    assert table.count("this suite") == 3


def test_the_command_for_contributors(both, checkout, tmp_path):
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("python experiments/benchmark.py peers"))
    words = line.split()[2:]
    for flag, value in (
        ("--peer-python", sys.executable),
        ("--peer-checkout", checkout),
        ("--out", tmp_path),
    ):
        words[words.index(flag) + 1] = str(value)
    assert benchmark.main(words) == 0
    assert (tmp_path / "benchmark.md").read_text().count("this suite |") == 2 * len(PAIRS)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--games", "chess"], "unknown game 'chess': choose from vdn-mpe, qmix-mpe, pqn-mpe, qmix-smax"),
        (["--games"], "--games needs at least one"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--rounds", "1"], "--rounds must be at least 2, as both take turns, not 1"),
        (["--patience", "0"], "--patience must be above 0 and finite, not 0"),
        (
            ["--games", "vdn-mpe", "--env-steps", "9"],
            "--env-steps must be 0 (no returns) or at least 40, for vdn-mpe",
        ),
        (
            ["--peer-checkout", "/nowhere"],
            "/nowhere is no checkout of JaxMARL: it has no baselines/",
        ),
        (["--peer-python", "/nowhere"], "--peer-python /nowhere cannot be started: No such file"),
    ],
)
def test_bad_input(checkout, tmp_path, bad_input, flags, said):
    given = ["peers", "--peer-python", sys.executable, "--peer-checkout", str(checkout)]
    with bad_input(said):
        benchmark.main([*given, "--out", str(tmp_path / "out"), *flags])


def test_a_python_that_lacks_what_is_needed(checkout, tmp_path, bad_input):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"No module named 'jax'\" >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    with bad_input("vdn_ff.py: No module named 'jax'; it needs pip install -e '.[peers]'"):
        benchmark.main(
            ["peers", "--peer-python", str(python), "--peer-checkout", str(checkout), "--out", str(tmp_path)]
        )


def test_a_record_of_something_else(both, checkout, tmp_path, bad_input):
    (tmp_path / "benchmark.json").write_text('{"rows": []}', encoding="utf-8")
    with bad_input("benchmark.json is no record of this benchmark"):
        run(checkout, tmp_path)


# With the real one


@pytest.mark.slow
@pytest.mark.skipif(
    "JAXMARL_PEER" not in os.environ,
    reason="name a Python that has JaxMARL, and a checkout of it, as PYTHON:DIR: see CONTRIBUTING.md",
)
@pytest.mark.parametrize("game", ["vdn-mpe", "qmix-mpe", "pqn-mpe"])
def test_jaxmarl_itself(tmp_path, game):
    python, _, folder = os.environ["JAXMARL_PEER"].partition(":")
    flags = ["--peer-python", python, "--peer-checkout", folder, "--games", game, "--out", str(tmp_path)]
    small = ["--seeds", "1", "--env-steps", "20000", "--seconds", "0.2", "--rounds", "2", "--patience", "300"]
    assert benchmark.main(["peers", *flags, *small]) == 0
    record = json.loads((tmp_path / "benchmark.json").read_text())
    theirs, ours = (record["cells"][f"{game} 1"][side] for side in ("theirs", "ours"))
    assert theirs["cores"] == ours["cores"]
    same = ("num_envs", "env_steps_per_update", "gradient_steps_per_update", "batch_size", "replay_size")
    assert [theirs[name] for name in same] == [ours[name] for name in same]
    # An unused batch norm of 21 inputs.
    assert theirs["parameters"] - ours["parameters"] == (2 * 21 if game == "pqn-mpe" else 0)
    for side in ("theirs", "ours"):
        assert -1000 < record["returns"][game][side]["interval"]["value"] < 0
