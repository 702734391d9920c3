import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import play, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    flags = ["--algo", "vdn", "--env", "matrix-qtran", "--seeds", "2", "--env-steps", "40"]
    flags += ["--evaluations", "1", "--keep", "all", "--keep-best", "--out", str(folder)]
    assert train.main(flags) == 0
    return folder


def test_it_prints_returns_with_an_interval_and_writes_the_animation(run, tmp_path, capsys):
    gif = tmp_path / "game.gif"
    flags = ["--run", str(run), "--seed", "1", "--episodes", "5", "--gif", str(gif)]
    assert play.main(flags) == 0
    printed = capsys.readouterr().out
    # Every episode of a one-shot game is the same: no spread.
    value, low, high = re.search(r"mean return (\S+) \[(\S+), (\S+)\] over 5 episodes", printed).groups()
    assert value == low == high and float(value) in (8, -12, 0)
    assert "after 40 steps of training" in printed
    assert gif.read_bytes().startswith(b"GIF8")


@pytest.mark.parametrize(("step", "steps"), [("0", "0"), ("40", "40")])
def test_it_plays_one_of_the_checkpoints_that_were_kept(run, capsys, step, steps):
    assert play.main(["--run", str(run), "--step", step]) == 0
    assert f"after {steps} steps of training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--run is missing"),
        (["--run", "nowhere"], "there is no nowhere/experiment.json"),
        (["--run", "RUN", "--seed", "2"], "has no seed 2: choose one of 0, 1"),
        (["--run", "RUN", "--step", "7"], "keeps no checkpoint at 7 environment steps: choose 0, 40 or best"),
        (["--run", "RUN", "--episodes", "0"], "episodes must be at least 1"),
    ],
)
def test_bad_input(run, flags, said, bad_input):
    with bad_input(said):
        play.main([str(run) if flag == "RUN" else flag for flag in flags])


@pytest.mark.slow
def test_bad_input_leaves_with_status_2_and_one_line():
    command = [sys.executable, "experiments/play.py", "--run", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
