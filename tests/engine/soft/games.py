"""Random games and models in float64, and ways to solve them, for the tests of soft backups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from jaxmarl_fac.soft import planning, stages

SIGNS = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
betas = st.sampled_from([-np.inf, -30.0, -2.0, -0.1, -1e-9, 0.0, 1e-9, 0.1, 2.0, 30.0, np.inf])


@functools.cache
def jitted(function):
    return jax.jit(function)


@functools.cache
def batched(function):
    return jax.jit(jax.vmap(function))


def under_jit(function, *arguments):
    return jitted(function)(*map(jnp.asarray, arguments))


def under_vmap(function, *arguments):
    """The second of two games that are solved together."""
    both = [jnp.stack([jnp.ones_like(x), x]) for x in map(jnp.asarray, arguments)]
    return jax.tree.map(lambda leaf: leaf[1], batched(function)(*both))


both_ways = pytest.mark.parametrize("run", [under_jit, under_vmap])


def random_game(seed, shape=(3, 4), scale=5.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


def random_prior(seed, shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


def random_model(seed, states=3, own=2, other=3, gamma=0.8):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(states, own, other))
    reward = rng.normal(size=(states, own, other)) * 2
    return planning.TwoPlayerModel(jnp.asarray(reward), jnp.asarray(transition), jnp.asarray(gamma))


@functools.partial(jax.jit, static_argnames="order")
def value_iteration(model, beta_own, beta_other, order=stages.agent_first):
    return planning.soft_value_iteration(model, lambda q: order(q, beta_own, beta_other))
