"""What experiments look at in a learner besides its return: functions for `Experiment.probe`.

They stand here, and not in the scripts, so that a saved experiment can name them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from baselines.q_learning import QLearner
from baselines.two_player import TwoPlayerLearner
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Algorithm, Metrics, Params
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


def greedy_actions_of(algorithm: Algorithm, env: TeamEnvironment, params: Params) -> Metrics:
    """The greedy joint action `(n,)` of a fresh game, `greedy_actions`: a probe for experiments."""
    observation = env.observe(env.reset(jax.random.key(0))[0])
    return {
        "greedy_actions": algorithm.act_greedily(env, params, algorithm.initial_carry(env), observation)[0]
    }


def joint_policy(algorithm: TwoPlayerLearner, env: TeamEnvironment, params: Params) -> Metrics:
    """A probe: both policies in every state, `row_policy (S, A)` and `column_policy (S, B)`, without epsilon.

    And what each expects of the other, `row_model (S, B)` and `column_model (S, A)`, where its rule has an
    opinion.
    """
    found: Metrics = {}
    time = params["time"]
    for name, rule, seat in algorithm.sides(env):
        for kind, look in (("policy", rule.policy), ("model", rule.opponent_model)):
            opinions = [look(seat, params[name], jnp.asarray(state), time) for state in range(seat.states)]
            if opinions[0] is not None:
                found[f"{name}_{kind}"] = jnp.stack(opinions)  # type: ignore[arg-type]
    return found
