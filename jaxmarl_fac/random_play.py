"""Returns of uniformly random play, to which those of learners are compared."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import TeamEnvironment

#: Environment steps after which episodes of random play are enough, and bounds on the number of episodes.
STEPS, FEWEST, MOST = 200_000, 200, 20_000


def random_return(env: TeamEnvironment, seed: int = 0) -> float:
    """The mean undiscounted return of a team of which each agent draws uniformly from its available actions.

    Estimated from 200 to 20,000 episodes, more of short ones. Actions that are numbers are drawn uniformly
    between their bounds. With a reward per agent it is the agents' mean.

    Args:
        env: the game, without a leading axis.
        seed: of the draws.

    Example:
        >>> import envs
        >>> round(random_return(envs.make("two-step")))  # half of 7 and half of 10 / 4: 4.75
        5
    """
    episodes = int(np.clip(STEPS // env.time_limit, FEWEST, MOST))
    keys = jax.random.split(jax.random.key(seed), episodes)
    # One episode after the other within a block, so that large games fit into memory.
    returns = jax.jit(lambda keys: jax.lax.map(lambda key: _episode(env, key), keys, batch_size=FEWEST))(keys)
    return float(np.mean(np.asarray(returns, np.float64)))


def random_actions(env: TeamEnvironment, mask: jax.Array, key: jax.Array) -> jax.Array:
    """A uniform draw from the available actions `(n, A)`, `(n,)`; from the bounds if actions are numbers."""
    if env.num_actions:
        return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf)).astype(env.action_dtype)
    spec = env.action_spec
    return jax.random.uniform(key, (env.num_agents,), minval=spec.minimum, maxval=spec.maximum)  # type: ignore[attr-defined]


def _episode(env: TeamEnvironment, key: jax.Array) -> jax.Array:
    """The return `()` or `(n,)` of one episode."""
    start, draws = jax.random.split(key)
    state, timestep = env.reset(start)

    def play(playing: tuple, step: jax.Array) -> tuple[tuple, None]:
        state, going, total = playing
        mask = env.observe(state).action_mask
        actions = random_actions(env, mask, jax.random.fold_in(draws, step))
        state, timestep = env.step(state, actions)
        total = total + jnp.where(going, timestep.reward, 0)
        return (state, going & ~timestep.last(), total), None

    first = (state, ~timestep.last(), jnp.zeros(env.reward_spec.shape))
    (_, _, total), _ = jax.lax.scan(play, first, jnp.arange(env.time_limit))
    return total
