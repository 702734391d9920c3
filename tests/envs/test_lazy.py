"""Imports that wait until they are needed."""

import subprocess
import sys

import pytest

from envs.lazy import lazily


def test_a_module_that_is_not_there():
    with pytest.raises(ModuleNotFoundError, match="nobody_has_this"):
        lazily("nobody_has_this")


def test_one_that_is_imported_already():
    assert lazily("json") is sys.modules["json"]


def test_a_short_training_imports_neither_distrax_nor_scipys_statistics():
    code = """
import sys
import baselines, envs
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
slow = ("tensorflow_probability", "scipy.stats._stats_py", "scipy.optimize._optimize")
game = envs.make("matrix-qtran")
learner = baselines.make("iql-tabular")
train(Experiment(algorithm=learner, environment=game, seeds=(0,), env_steps=20, evaluations=1))
assert not [name for name in slow if name in sys.modules]
import distrax
assert distrax.Categorical(probs=[0.5, 0.5]).num_categories == 2
assert "tensorflow_probability" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
