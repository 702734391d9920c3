"""Looking into a trained learner."""

import jax
import jax.numpy as jnp

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params, QLearner


def joint_tables(algorithm: QLearner, env: TeamEnvironment, params: Params) -> Metrics:
    """All that the learner believes of a small one-shot game: a probe for experiments.

    `utilities (n, A)`, `greedy_actions (n,)`, and every joint value that the algorithm has (`q_tot`, or
    `q_jt` and `q_prime`) for every joint action, `(A, ..., A)`.
    """
    observation = env.observe(env.reset(jax.random.key(0))[0])
    shape = (env.num_actions,) * env.num_agents
    joint_actions = jnp.indices(shape).reshape(env.num_agents, -1).T  # (A^n, n)
    values = jax.vmap(lambda actions: algorithm.joint_values(env, params, observation, actions))(
        joint_actions
    )
    utilities = algorithm.utilities(env, params, observation)
    return {
        "utilities": utilities,
        "greedy_actions": jnp.argmax(utilities, axis=-1),
        **{name: table.reshape(shape) for name, table in values.items()},
    }
