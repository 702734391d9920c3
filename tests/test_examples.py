"""The examples in docstrings are run."""

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import baselines
import envs
from envs.matrix_games import matrix_game
from jaxmarl_fac.algorithm import Algorithm, Learner
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
from jaxmarl_fac.play import load_player
from jaxmarl_fac.statistics import bootstrap_interval

ROOT = Path(__file__).parents[1]
#: The classes and functions that users meet first.
FIRST_MET = (
    *(Algorithm, Experiment, Learner, Trajectory, baselines.make, bootstrap_interval, envs.make),
    *(load_player, matrix_game, train),
)


def find_examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for package in ("envs", "jaxmarl_fac", "baselines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                yield from (test for test in finder.find(importlib.import_module(name)) if test.examples)


EXAMPLES = list(find_examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example):
    report: list[str] = []
    results = doctest.DocTestRunner().run(example, out=report.append)
    assert results.attempted and not results.failed, "".join(report)


def test_what_users_meet_first_has_an_example():
    names = {f"{each.__module__}.{each.__qualname__}" for each in FIRST_MET}
    assert names <= {example.name for example in EXAMPLES}
