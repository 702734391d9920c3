"""What experiments look at in a learner besides its return: functions for `Experiment.probe`.

They stand here, and not in the scripts, so that a saved experiment can name them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params
from jaxmarl_fac.evaluation import greedy_return

#: Episodes in which `wins` looks, the same for every learner.
WIN_EPISODES = 256


def tables(algorithm: Any, env: TeamEnvironment, params: Params) -> Metrics:
    """All tables of a tabular learner: itself as `table`, or each under its name."""
    return params._asdict() if hasattr(params, "_asdict") else {"table": params}


def noise_free_return(algorithm: Any, env: Any, params: Params) -> Metrics:
    """`noise_free_return ()`: what one greedy episode earns where rewards are without noise.

    Args:
        algorithm: the learner's.
        env: a `TeamMDP` that always starts in the same state.
        params: the learner's.
    """
    total, _ = greedy_return(algorithm, env.without_noise(), params, jax.random.key(0))
    return {"noise_free_return": total}


def wins(algorithm: Any, env: TeamEnvironment, params: Params) -> Metrics:
    """`win_rate ()`: the share of greedy episodes with a positive return, from the same starts."""
    keys = jax.random.split(jax.random.key(0), WIN_EPISODES)
    returns, _ = jax.vmap(lambda key: greedy_return(algorithm, env, params, key))(keys)
    return {"win_rate": jnp.mean(returns > 0)}
