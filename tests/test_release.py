"""A release: its version, its commands, and the wheel and sdist installed in clean environments."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from jaxmarl_fac import __main__ as commands

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
#: Scripts that other scripts run.
INTERNAL = {"check_runs", "results_page", "benchmark_peers_ours", "benchmark_peers_theirs"}
EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_there_is_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest is not None and newest.groups() == (VERSION, citation["date-released"])
    assert citation["version"] == VERSION


def test_the_citation_has_what_the_format_asks_for():
    """Citation File Format 1.2.0: four keys are obligatory."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["message"] and citation["title"] and all(each["name"] for each in citation["authors"])


def test_every_script_is_a_command():
    scripts = {
        path.stem
        for path in (ROOT / "experiments").glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert scripts - INTERNAL == set(commands.COMMANDS)
    usage = commands.usage()
    assert all(re.search(rf"^  {name} +\S", usage, re.MULTILINE) for name in commands.COMMANDS)


@pytest.mark.parametrize("module", ["jaxmarl_fac", "jaxmarl_fac.train"])
def test_a_command_is_its_script(module, tmp_path):
    flags = [*(["train"] if module == "jaxmarl_fac" else []), "--algo", "vdn", "--env", "nowhere"]
    done = subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown environment 'nowhere'") and done.stderr.count("\n") == 1


def test_an_unknown_command_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxmarl-fac", "trian", "--env", "two-step"])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'trian': choose one of train, play")


def test_without_a_command_they_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxmarl-fac"])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    assert stopped.value.code == 0
    assert "  train              Train an algorithm on an environment.\n" in capsys.readouterr().out


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The wheel, built from the sdist as `build` does, and the sdist: those in $DIST, or new ones."""
    folder = Path(os.environ.get("DIST") or tmp_path_factory.mktemp("dist")).resolve()
    if "DIST" not in os.environ:
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_the_wheel_has_everything_and_no_tests(distributions):
    wheel, sdist = distributions
    assert wheel.name == f"jaxmarl_fac-{VERSION}-py3-none-any.whl"
    assert sdist.name == f"jaxmarl_fac-{VERSION}.tar.gz"
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ("envs", "jaxmarl_fac", "baselines", "experiments"):
        for pattern in ("*.py", "*.j2", "*.yaml"):
            for path in (ROOT / room).rglob(pattern):
                assert path.relative_to(ROOT).as_posix() in names
    assert {name.split("/")[0] for name in names} == {
        *("envs", "jaxmarl_fac", "baselines", "experiments", f"jaxmarl_fac-{VERSION}.dist-info")
    }


def pythons():
    """The interpreters of this machine that the suite is for, newest first: version and path."""
    paths = {Path(sys.executable).resolve()}
    paths |= {Path(found) for minor in (11, 12, 13) if (found := shutil.which(f"python3.{minor}"))}
    paths |= set(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/*/bin/python"))
    found = {}
    for path in sorted(paths):
        asked = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", asked], capture_output=True, text=True)
        version = done.stdout.strip()
        if done.returncode == 0 and version in ("3.11", "3.12", "3.13"):
            found.setdefault(version, path)
    return dict(sorted(found.items(), reverse=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_clean_environment_trains(version, kind, distributions, tmp_path):
    """As a user would, who has no repository: the first command of the guide, and the README's lines."""
    if version not in pythons():
        pytest.skip(f"there is no Python {version} here")
    if kind == "sdist" and version != "3.12":
        pytest.skip("an sdist is built into a wheel, the same for all Pythons")
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MPLBACKEND"] = "agg"

    def run(*command):
        print(*command, flush=True)
        done = subprocess.run(
            [str(each) for each in command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(pythons()[version], "-m", "venv", tmp_path / "venv")
    package = distributions[0 if kind == "wheel" else 1]
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", package)
    assert run(python, "-c", "import jaxmarl_fac; print(jaxmarl_fac.__file__)").startswith(str(tmp_path))
    flags = ["--algo", "vdn", "--env", "matrix-qtran"]
    out = run(python, "-m", "jaxmarl_fac.train", *flags)
    assert "vdn on matrix-qtran: return IQM" in out and (tmp_path / "runs").is_dir()
    assert "train" in run(tmp_path / "venv" / "bin" / "jaxmarl-fac")
    figure = ["reproduce_fqi", "--figures", "lecture_2x2", "--scale", "smoke", "--out", tmp_path / "fqi"]
    assert "report" in run(tmp_path / "venv" / "bin" / "jaxmarl-fac", *figure)
    assert EXAMPLE is not None
    returns = run(python, "-c", EXAMPLE[1].replace("range(100)", "range(2)").replace("20_000", "2_000"))
    assert len(returns.split()) == 2
    cells = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    played = run(python, "-c", code.replace("%matplotlib inline", "").replace("6_000", "600"))
    assert "mean return of 100 episodes" in played and (tmp_path / "runs/notebook/played.png").exists()
