"""Ray on a cluster of its own on this machine, submitit with its local executor."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import sweep_engines
from experiments.sweep_engines import OUTPUT, Cluster
from jaxmarl_fac import cli

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "experiments" / "sweep.py"

#: In place of train.py.
SCRIPT = """
import pathlib, sys
*words, out = sys.argv[1:]
place = pathlib.Path(out.removeprefix("--out="))
print(*words)
if "wrong" in words:
    print("error: this is wrong", file=sys.stderr)
    print("and more")
    sys.exit(2)
(place / "done").write_text(pathlib.Path("here.txt").read_text())
"""


#: Runs three jobs on an engine, in a process without JAX, as a sweep is: Ray forks, and JAX has threads.
ENGINE = """
import json, sys
from pathlib import Path
from experiments import sweep_engines
from experiments.sweep_engines import Cluster, Job
local = Cluster(executor="local", hours=0.1)
ray = sys.argv[1] == "ray"
engine = sweep_engines.on_ray(Cluster()) if ray else sweep_engines.on_slurm(local, Path("slurm"))
words = ("wrong", "first", "second")
jobs = [Job((word, "job"), Path("out", word), word, script=Path("script.py")) for word in words]
print(json.dumps({job.about: ended for job, ended in engine(jobs)}))
"""


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_failed_job_is_told_and_does_not_end_the_others(name, tmp_path):
    pytest.importorskip("ray" if name == "ray" else "submitit")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "here.txt").write_text("read")  # where relative paths begin, on a cluster too
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENGINE, name]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE)
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "wrong": [cli.BAD_INPUT, "this is wrong"],
        "first": [cli.DONE, ""],
        "second": [cli.DONE, ""],
    }
    out = tmp_path / "out"
    assert (out / "first" / "done").read_text() == (out / "second" / "done").read_text() == "read"
    assert (out / "first" / OUTPUT).read_text() == "first job\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpus": 0}, "--cpus must be 1 or above"),
        ({"parallel": 0}, "--parallel must be 1 or above"),
        ({"gpus": -1}, "--gpus must be 0 or above, not -1"),
        ({"hours": float("nan")}, "--hours must be above 0, not nan"),
    ],
)
def test_bad_resources(changed, said, bad_input):
    with bad_input(said):
        Cluster(**changed)


def test_a_missing_engine(tmp_path, monkeypatch, bad_input):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with bad_input("--engine ray needs ray: pip install 'jaxmarl_fac[ray]'"):
        sweep_engines.on_ray(Cluster())
    with bad_input("--engine slurm needs submitit: pip install 'jaxmarl_fac[slurm]'"):
        sweep_engines.on_slurm(Cluster(), tmp_path)


def test_without_slurm(tmp_path, monkeypatch, bad_input):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    with bad_input("there is no SLURM here"):
        sweep_engines.on_slurm(Cluster(), tmp_path)
    with bad_input("--gpus must be a whole number under SLURM, not 0.5"):
        sweep_engines.on_slurm(Cluster(executor="local", gpus=0.5), tmp_path)


# Whole sweeps

TEXT = """
method: grid
parameters:
  env: matrix-qtran
  algo: {values: [vdn, iql-tabular]}
  gamma: {values: [0.9, 0.99]}
  seeds: 2
  env_steps: 4000
  bitwise_seeds: true
  evaluations: 4
"""


def sweep(folder, out, *flags):
    (folder / "sweep.yaml").write_text(TEXT)
    command = [sys.executable, str(SWEEP), "sweep.yaml", "--out", out, "--wandb=disabled", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)


def returns(folder):
    """All returns, by the command of the run."""
    found = {}
    for row in json.loads((folder / "sweep.json").read_text()):
        with np.load(folder / row["folder"] / "metrics.npz") as metrics:
            found[row["command"]] = np.split(metrics["episode_return"], 2, axis=1)[row["variant"]].tolist()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    assert sweep(folder, "out").wait() == cli.DONE
    return returns(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray", "slurm"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_goes_on_to_the_same_numbers(engine, number, alone, tmp_path):
    """Killed with all of its jobs, or stopped by Ctrl-C, which they get from a terminal too."""
    flags = ["--engine", engine, *(["--executor", "local"] if engine == "slurm" else [])]
    running = sweep(tmp_path, "out", *flags)
    while not list(tmp_path.glob("out/*/checkpoints")) and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, number)
    status = running.wait()
    assert status in ((cli.STOPPED, cli.DONE) if number == signal.SIGINT else (-number, cli.DONE))
    while True:  # jobs on a cluster may outlive the sweep for a moment
        again = sweep(tmp_path, "out", *flags)
        if again.wait() == cli.DONE:
            break
    assert returns(tmp_path / "out") == alone
