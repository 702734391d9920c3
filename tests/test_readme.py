"""The README: its commands and its example are run, its links lead somewhere, and it stays short."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments.claims.qtran import game_3x3, game_21x21, random_games

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


def test_it_fits_a_screen():
    assert len(README.splitlines()) <= 50


def test_the_commands_are_targets_of_make():
    assert COMMANDS == ["make reproduce", "make test"]
    for command in COMMANDS:
        subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_make_reproduce_makes_the_matrix_games_and_nothing_that_takes_hours():
    done = subprocess.run(
        ["make", "reproduce", "--dry-run"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "reproduce_qtran.py" in line]
    flags = shlex.split(line)
    figures = flags[flags.index("--figures") + 1 : flags.index("--scale")]
    assert figures == [claim.id for module in (game_3x3, game_21x21, random_games) for claim in module.CLAIMS]


@pytest.mark.slow
def test_the_python_example_runs(capsys):
    """Of all blocks: there are no others than these two kinds."""
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    ((_, code),) = [block for block in BLOCKS if block[0] == "python"]
    namespace: dict = {}
    exec(code.replace("20_000", "40").replace("range(100)", "range(2)"), namespace)
    assert namespace["run"].seeds == (0, 1) and len(capsys.readouterr().out.split()) == 2


def test_links_and_pictures_lead_somewhere():
    targets = re.findall(r"\]\((?!https:)([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert len(targets) >= 15
    for target in targets:
        assert (ROOT / target).exists(), target
