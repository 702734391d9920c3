"""Greedy play without exploration."""

from typing import Any

import jax
import jax.numpy as jnp

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Learner, Params

#: Folded into an episode's key for what the agents draw, which leaves the game's own draws as they are.
#: Larger than the number of keys that a game splits its own into: `split(key, n)[i]` is `fold_in(key, i)`.
AGENTS = 2**31 - 1


def greedy_return(
    learner: Learner, env: TeamEnvironment, params: Params, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One episode of the greedy joint policy: its undiscounted return and its length `()`.

    The return is `()`, or `(n,)` in a game with a reward per agent.
    """
    state, timestep = env.reset(key)
    agents_key = jax.random.fold_in(key, AGENTS)

    def play(playing: tuple[Any, ...], step: jax.Array) -> tuple[Any, None]:
        state, carry, going, total, length = playing
        key = jax.random.fold_in(agents_key, step + 1)
        decision = learner.act_greedily(params, carry, env.observe(state), key)
        state, timestep = env.step(state, decision.actions)
        total = total + jnp.where(going, timestep.reward, 0)
        return (state, decision.carry, going & ~timestep.last(), total, length + going), None

    carry = learner.begin(params, env.observe(state), jax.random.fold_in(agents_key, 0))
    start = (state, carry, ~timestep.last(), jnp.zeros(env.reward_spec.shape), jnp.zeros((), jnp.int32))
    (*_, total, length), _ = jax.lax.scan(play, start, jnp.arange(env.time_limit))
    return total, length


def evaluate(
    learner: Learner, env: TeamEnvironment, params: Params, key: jax.Array, episodes: int
) -> dict[str, jax.Array]:
    """Mean over `episodes` greedy episodes: `episode_return` (see `greedy_return`), `episode_length ()`."""
    returns, lengths = jax.vmap(lambda key: greedy_return(learner, env, params, key))(
        jax.random.split(key, episodes)
    )
    return {
        "episode_return": jnp.mean(returns, axis=0),
        "episode_length": jnp.mean(lengths.astype(jnp.float32)),
    }
