"""Greedy play without exploration."""

from typing import Any

import jax
import jax.numpy as jnp

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Algorithm, Params


def greedy_return(
    algorithm: Algorithm, env: TeamEnvironment, params: Params, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One episode of the greedy joint policy: its undiscounted return and its length `()`.

    The return is `()`, or `(n,)` in a game with a reward per agent.
    """
    state, timestep = env.reset(key)

    def play(carry: tuple[Any, ...], _: None) -> tuple[Any, None]:
        state, memory, going, total, length = carry
        actions, memory = algorithm.act_greedily(env, params, memory, env.observe(state))
        state, timestep = env.step(state, actions)
        total = total + jnp.where(going, timestep.reward, 0)
        return (state, memory, going & ~timestep.last(), total, length + going), None

    memory, nothing = algorithm.initial_carry(env), jnp.zeros(env.reward_spec.shape)
    start = (state, memory, ~timestep.last(), nothing, jnp.zeros((), jnp.int32))
    (*_, total, length), _ = jax.lax.scan(play, start, length=env.time_limit)
    return total, length


def evaluate(
    algorithm: Algorithm, env: TeamEnvironment, params: Params, key: jax.Array, episodes: int
) -> dict[str, jax.Array]:
    """Mean over `episodes` greedy episodes: `episode_return` (see `greedy_return`), `episode_length ()`."""
    returns, lengths = jax.vmap(lambda key: greedy_return(algorithm, env, params, key))(
        jax.random.split(key, episodes)
    )
    return {
        "episode_return": jnp.mean(returns, axis=0),
        "episode_length": jnp.mean(lengths.astype(jnp.float32)),
    }
