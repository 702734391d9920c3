"""The best returns that games know of themselves, against those of their papers."""

import jax
import numpy as np
import pytest

import envs

OPTIMA = {
    "matrix-qtran": 8,
    "matrix-qplex-10": 10.4,
    "matrix-climbing": 11,
    "matrix-21x21": 10,
    "two-step": 8,
    "n-step-matrix": 13,
    "random-state": 10,
    "team-mdp-line": 10,
    "team-mdp-divergence": 100,  # one in every step
    "stag-hunt-p2": 40,
    "differential": 10,
}


@pytest.mark.parametrize("name", OPTIMA)
def test_registered_games(name):
    assert envs.make(name).optimal_return() == pytest.approx(OPTIMA[name], rel=1e-6)


def test_stages_add_up():
    assert envs.make("matrix-qtran", stages=3).optimal_return() == 24


def test_the_squeeze_asks_its_own_optimum():
    game = envs.make("squeeze")
    assert game.optimal_return() == game.optimum()


@pytest.mark.parametrize("name", ["squeeze-release", "matrix-pr2", "predator-prey-2", "tiger"])
def test_games_that_do_not_know(name):
    assert envs.make(name).optimal_return() is None


@pytest.mark.parametrize("name", ["matrix-qtran", "stag-hunt-p1", "differential", "squeeze"])
def test_a_batch_of_games_has_none(name):
    batch = jax.tree.map(lambda leaf: np.stack([leaf] * 2), envs.make(name))
    assert batch.optimal_return() is None
