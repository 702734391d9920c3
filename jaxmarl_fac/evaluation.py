"""Greedy play without exploration."""

from typing import Any

import jax
import jax.numpy as jnp

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Params, QLearner


def greedy_return(
    algorithm: QLearner, env: TeamEnvironment, params: Params, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One episode of the greedy joint policy: its undiscounted return `()` and its length `()`."""
    state, timestep = env.reset(key)

    def play(carry: tuple[Any, Any, jax.Array, jax.Array], _: None) -> tuple[Any, None]:
        state, going, total, length = carry
        actions = algorithm.act_greedily(env, params, env.observe(state))
        state, timestep = env.step(state, actions)
        total = total + jnp.where(going, timestep.reward, 0)
        return (state, going & ~timestep.last(), total, length + going), None

    start = (state, ~timestep.last(), jnp.zeros(()), jnp.zeros((), jnp.int32))
    (_, _, total, length), _ = jax.lax.scan(play, start, length=env.time_limit)
    return total, length


def evaluate(
    algorithm: QLearner, env: TeamEnvironment, params: Params, key: jax.Array, episodes: int
) -> dict[str, jax.Array]:
    """Mean over `episodes` greedy episodes: `episode_return ()` and `episode_length ()`."""
    returns, lengths = jax.vmap(lambda key: greedy_return(algorithm, env, params, key))(
        jax.random.split(key, episodes)
    )
    return {"episode_return": jnp.mean(returns), "episode_length": jnp.mean(lengths.astype(jnp.float32))}
