import jax
import numpy as np
import pytest

import envs
from jaxmarl_fac.random_play import random_actions, random_return


def test_random_play_of_a_matrix_game_earns_the_mean_payoff():
    game = envs.make("matrix-qtran")
    mean, spread = float(np.mean(game.payoff)), float(np.std(game.payoff))
    assert random_return(game) == pytest.approx(mean, abs=4 * spread / np.sqrt(20_000))


def test_masked_actions_are_never_drawn():
    game = envs.make("matrix-ltql")  # two and three actions
    keys = jax.random.split(jax.random.key(0), 500)
    mask = game.observe(game.reset(keys[0])[0]).action_mask
    drawn = jax.vmap(lambda key: random_actions(game, mask, key))(keys)
    shares = [np.bincount(column, minlength=3) / 500 for column in np.asarray(drawn).T]
    np.testing.assert_allclose(shares, np.asarray(mask) / np.sum(mask, axis=1, keepdims=True), atol=0.1)
    assert shares[int(np.argmin(game.action_counts))][2] == 0


def test_actions_that_are_numbers_fill_their_bounds():
    game = envs.make("differential")
    payoffs = np.asarray(game.grid(101))
    assert random_return(game) == pytest.approx(payoffs.mean(), rel=0.05)
