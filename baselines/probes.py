"""What experiments measure of a learner besides its return: functions for `Experiment.probe`.

They are in this module, not in the scripts, so that a saved experiment can name them. Each has the signature
`(algorithm, env, params)`, of one learner and one game, and returns arrays by name.
"""

from typing import Any

import jax
import jax.numpy as jnp

from baselines.q_learning import QLearner
from baselines.two_player import TwoPlayerLearning
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Algorithm, Metrics, Params
from jaxmarl_fac.evaluation import greedy_return
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.game import GameSpec

#: Episodes that `wins` plays, the same for every learner.
WIN_EPISODES = 256
#: Joint actions that `start_policies` draws.
POLICY_DRAWS = 1000


def tables(algorithm: Any, env: TeamEnvironment, params: Params) -> Metrics:
    """All tables of a tabular learner: a single one as `table`, or each under its name."""
    return params._asdict() if hasattr(params, "_asdict") else {"table": params}


def noise_free_return(algorithm: Algorithm, env: Any, params: Params) -> Metrics:
    """`noise_free_return ()`: the return of one greedy episode where rewards are without noise.

    Args:
        algorithm: the learner's.
        env: a `TeamMDP` that always starts in the same state.
        params: the learner's.
    """
    env = env.without_noise()
    learner = algorithm.bind(GameSpec.of(env))
    total, _ = greedy_return(learner, env, params, jax.random.key(0))
    return {"noise_free_return": total}


def value_by_starts(algorithm: Algorithm, env: Any, params: Params) -> Metrics:
    """`value ()`: the mean greedy return over all first states of a `TeamPOMDP`, weighed by their chances.

    Exact where nothing but the first state is random, for agents whose greedy play is not. Agents believe in
    the game's own first states.
    """
    learner, start = algorithm.bind(GameSpec.of(env)), jnp.asarray(env.start)

    def from_state(first: jax.Array) -> jax.Array:
        total, _ = greedy_return(learner, env.replace(start=first), params, jax.random.key(0))
        return total

    return {"value": start @ jax.vmap(from_state)(jnp.eye(start.shape[-1], dtype=start.dtype))}


def wins(algorithm: Algorithm, env: TeamEnvironment, params: Params) -> Metrics:
    """`win_rate ()`: the share of greedy episodes with a positive return, from the same starts."""
    learner = algorithm.bind(GameSpec.of(env))
    keys = jax.random.split(jax.random.key(0), WIN_EPISODES)
    returns, _ = jax.vmap(lambda key: greedy_return(learner, env, params, key))(keys)
    return {"win_rate": jnp.mean(returns > 0)}


def joint_tables(algorithm: QLearner, env: TeamEnvironment, params: Params) -> Metrics:
    """All action values of a Q-learner in a small one-shot game.

    `utilities (n, A)`, `greedy_actions (n,)`, and every joint value that the algorithm has (`q_tot`, or
    `q_jt` and `q_prime`) for every joint action, `(A, ..., A)`.
    """
    return _tables_at(algorithm, GameSpec.of(env), params, _first_observation(env))


def tables_of_states(algorithm: QLearner, env: Any, params: Params) -> Metrics:
    """`joint_tables` in every state of a `TeamMDP`, terminal ones too, with a leading axis `(S,)`."""
    game, first = GameSpec.of(env), env.reset(jax.random.key(0))[0]

    def of_state(state: jax.Array) -> Metrics:
        observation = env.observe(first.replace(state=state.astype(first.state.dtype)))
        return _tables_at(algorithm, game, params, observation)

    return jax.vmap(of_state)(jnp.arange(len(env.terminal)))


def greedy_actions_of(algorithm: Algorithm, env: TeamEnvironment, params: Params) -> Metrics:
    """`greedy_actions (n,)`: the greedy joint action at a game's start."""
    learner, observation = algorithm.bind(GameSpec.of(env)), _first_observation(env)
    begin_key, act_key = jax.random.split(jax.random.key(0))
    carry = learner.begin(params, observation, begin_key)
    return {"greedy_actions": learner.act_greedily(params, carry, observation, act_key).actions}


def joint_policy(algorithm: TwoPlayerLearning, env: TeamEnvironment, params: Params) -> Metrics:
    """Both policies in every state, `row_policy (S, A)` and `column_policy (S, B)`, without epsilon.

    And the players' models of each other's policy, `row_model (S, B)` and `column_model (S, A)`, where the
    rule has a model.
    """
    found: Metrics = {}
    time = params["time"]
    for name, rule, player in algorithm.sides(GameSpec.of(env)):
        for kind, function in (("policy", rule.policy), ("model", rule.opponent_model)):
            states = map(jnp.asarray, range(player.states))
            policies = [function(player, params[name], state, time) for state in states]
            if policies[0] is not None:
                found[f"{name}_{kind}"] = jnp.stack(policies)  # type: ignore[arg-type]
    return found


def start_policies(algorithm: Algorithm, env: TeamEnvironment, params: Params) -> Metrics:
    """`start_policies (n, A)`: how often each agent plays each action at a game's start, after training.

    Exact for learning rules of two players, whose epsilon is left out; else of `POLICY_DRAWS` draws.
    """
    if isinstance(algorithm, TwoPlayerLearning):
        found = joint_policy(algorithm, env, params)
        return {"start_policies": jnp.stack([found["row_policy"][0], found["column_policy"][0]])}
    game, observation = GameSpec.of(env), _first_observation(env)
    learner = algorithm.bind(game)
    end = Clock(jnp.int32(0), jnp.int32(0), jnp.float32(1))

    def draw(key: jax.Array) -> jax.Array:
        begin_key, act_key = jax.random.split(key)
        carry = learner.begin(params, observation, begin_key)
        return learner.act(params, carry, observation, end, act_key).actions

    actions = jax.vmap(draw)(jax.random.split(jax.random.key(0), POLICY_DRAWS))  # (draws, n)
    return {"start_policies": jnp.mean(jax.nn.one_hot(actions, game.num_actions), axis=0)}


def _tables_at(algorithm: QLearner, game: GameSpec, params: Params, observation: Any) -> Metrics:
    """What `joint_tables` gives, at one observation."""
    shape = (game.num_actions,) * game.num_agents
    joint_actions = jnp.indices(shape).reshape(game.num_agents, -1).T  # (A^n, n)
    values = jax.vmap(lambda actions: algorithm.joint_values(game, params, observation, actions))(
        joint_actions
    )
    utilities = algorithm.utilities(game, params, observation)
    return {
        "utilities": utilities,
        "greedy_actions": jnp.argmax(utilities, axis=-1),
        **{name: table.reshape(shape) for name, table in values.items()},
    }


def _first_observation(env: TeamEnvironment) -> Any:
    return env.observe(env.reset(jax.random.key(0))[0])
