"""Random models for the tests of the exact solvers."""

import functools

import jax.numpy as jnp
import numpy as np

from envs.matrix_games import matrix_game
from envs.team_mdp import TeamModel, from_matrix_game
from jaxmarl_fac.exact.fitted import uniform_policies

GAMMA = 0.9
SHAPES = [(3, (2, 3)), (3, (2, 2, 2)), (2, (3, 1, 2))]  # states, action counts


def one_shot(payoff):
    """The model of a one-shot matrix game: state 0, and the end."""
    return from_matrix_game(matrix_game(payoff)).model()


def zeros(model):
    """Factored q-functions of 0."""
    return tuple(jnp.zeros_like(policy) for policy in uniform_policies(model))


@functools.cache
def random_model(shape, seed, terminal=False):
    """A random model as NumPy arrays, rewards from -1 to 1; the last state ends the episode if asked for."""
    (states, counts), rng = shape, np.random.default_rng(seed)
    return TeamModel(
        transition=rng.dirichlet(np.ones(states), size=(states, *counts)),
        reward=rng.uniform(-1, 1, size=(states, *counts)),
        terminal=np.arange(states) == (states - 1 if terminal else states),
    )


def random_q(model, seed):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(len(model.reward), count)) for count in model.reward.shape[1:])
