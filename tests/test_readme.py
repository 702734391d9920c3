"""Every command of the README is run here, with flags that make it small."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
import envs
from experiments.claims.qtran import game_3x3, game_21x21, random_games
from tests.helpers import but_slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
#: What each script is given besides, so that it is done in seconds; flags given twice count last.
SMALLER = {
    "reproduce_qtran.py": ["--figures", "fig5", "--scale", "smoke"],
    "benchmark.py": ["--algos", "iql", "--seeds", "1", "--seconds", "0.01"],
    "sweep.py": ["--runs", "1"],
    "compare.py": ["--seeds", "2", "--env-steps", "40"],
    "results_page.py": [],
    "errata.py": [],
    "play.py": ["--episodes", "2"],
    "plot.py": [],
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's first run was made, with fewer steps."""
    folder = tmp_path_factory.mktemp("first")
    (line,) = [line for line in SHELL if "--out runs/first" in line]
    _, script, *flags = shlex.split(line)
    command = [sys.executable, str(ROOT / script), *flags, "--env-steps", "40", "--evaluations", "1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_there_are_commands_to_test():
    assert len(SHELL) >= 9


@pytest.mark.parametrize("command", [line for line in SHELL if line.startswith("make")])
def test_make_targets_exist(command):
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_make_reproduce_makes_the_matrix_games_and_nothing_that_takes_hours():
    done = subprocess.run(
        ["make", "reproduce", "--dry-run"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "reproduce_qtran.py" in line]
    flags = shlex.split(line)
    figures = flags[flags.index("--figures") + 1 : flags.index("--scale")]
    assert figures == [claim.id for module in (game_3x3, game_21x21, random_games) for claim in module.CLAIMS]


#: These take half a minute each, or are run elsewhere too.
COSTLY = [
    line
    for line in SHELL
    if line.startswith(tuple(f"python experiments/{name}.py" for name in ("sweep", "benchmark", "compare")))
    or "--out runs/first" in line  # see `first`
]
SCRIPTS = [line for line in SHELL if not line.startswith("make")]


@pytest.mark.parametrize("command", but_slow(SCRIPTS, set(SCRIPTS) - set(COSTLY)))
def test_scripts_run(command, tmp_path, request, monkeypatch):
    """In this process, as importing the suite takes seconds; the first run is made in one of its own."""
    python, script, *flags = shlex.split(command)
    assert python == "python"
    name = Path(script).name
    if "runs/first" in flags:
        first = request.getfixturevalue("first") / "runs" / "first"
        if name == "train.py":
            assert (first / "metrics.npz").exists()
            return
        flags[flags.index("runs/first")] = str(first)
    if "--list" not in flags:
        flags += SMALLER[name]
    if "--out" in flags:
        out = tmp_path / flags[flags.index("--out") + 1]  # the same suffix, if it is a file
        flags += ["--out", str(out)]
    if name == "play.py":
        flags[flags.index("--gif") + 1] = str(tmp_path / "game.gif")
    if name == "sweep.py":
        small = tmp_path / "sweep.yaml"  # the file's own form, with fewer steps
        text = (ROOT / flags[0]).read_text()
        small.write_text(
            re.sub(r"value: (10000|16|10)\b", "value: 1", text.replace("value: 10000", "value: 40"))
        )
        flags[0] = str(small)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(script, run_name="__main__")
    assert not done.value.code


def test_the_python_example_runs():
    code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    small = code.replace("20_000", "40").replace("range(100)", "range(2)")
    namespace: dict = {}
    exec(small, namespace)
    assert namespace["result"].history.last["episode_return"].shape == (2,)


def test_the_example_of_playing_runs(first, monkeypatch, capsys):
    _, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(first)
    exec(code.replace("100", "2"), {})
    assert -40 <= float(capsys.readouterr().out) <= 10
    assert (first / "game.gif").read_bytes().startswith(b"GIF8")


def test_every_id_is_in_the_readme():
    for name in [*baselines.ALGORITHMS, *(name for name in envs.ENVIRONMENTS if not name.endswith("-full"))]:
        assert f"`{name}`" in README


def test_links_and_pictures_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
