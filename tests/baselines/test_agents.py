"""Agents without shared parameters, ids or last actions: who can have them, and what they can learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.ltql import LTQL
from baselines.q_learning import QLearner
from baselines.registry import ALGORITHMS
from envs.matrix_games import matrix_game
from jaxmarl_fac.algorithm import Transition
from jaxmarl_fac.networks import AgentNetwork, RecurrentAgentNetwork

#: All deep Q-learners but LTQL, whose networks are its own, and those of them that need episodes.
LEARNERS = [
    name for name, kind in ALGORITHMS.items() if issubclass(kind, QLearner) and not issubclass(kind, LTQL)
]
FLAGS = {"share_parameters": False, "agent_ids": False}
GAME = matrix_game([[0, 10], [2, 0]])


@pytest.mark.parametrize("algorithm_id", LEARNERS)
def test_every_deep_q_learner_gives_its_agents_the_flags(algorithm_id):
    """And the unrestricted joint value's agents too."""
    fields = {field.name: field.default for field in dataclasses.fields(ALGORITHMS[algorithm_id])}
    assert all(fields[name] is True for name in (*FLAGS, "last_actions"))
    feed_forward = baselines.make(algorithm_id, consumes="episodes", hidden=(5, 4), **FLAGS).network(GAME)
    recurrent = baselines.make(
        algorithm_id, consumes="episodes", recurrent=True, hidden=(5, 4), last_actions=False, **FLAGS
    ).network(GAME)
    for network, wanted in (
        (feed_forward, AgentNetwork(2, (5, 4), share_parameters=False, agent_ids=False)),
        (recurrent, RecurrentAgentNetwork(2, (5, 4), False, False, last_actions=False)),
    ):
        agents = [network.agent, *([network.central_agent] if hasattr(network, "central_agent") else [])]
        assert len(agents) == 1 + (algorithm_id in ("cw-qmix", "ow-qmix", "remix"))
        for agent in agents:
            assert type(agent) is type(wanted)
            for name in (
                *FLAGS,
                "num_actions",
                "widths",
                *(["last_actions"] if network is recurrent else []),
            ):
                assert getattr(agent, name) == getattr(wanted, name)


def test_only_recurrent_agents_can_do_without_last_actions(bad_input):
    for settings in ({}, {"consumes": "episodes"}):
        with bad_input("last_actions can be switched off for recurrent agents only"):
            baselines.make("vdn", last_actions=False, **settings)
    baselines.make("vdn", "stag-hunt", last_actions=False)


def test_ids_of_the_pursuit():
    """LTQL's release shows none; the other learners were compared with theirs."""
    assert not baselines.make("ltql", "pursuit").agent_ids
    assert baselines.make("ltql", "pursuit", agent_ids=True).agent_ids
    for algorithm_id in LEARNERS:
        assert baselines.make(algorithm_id, "pursuit").agent_ids


@pytest.mark.parametrize(
    ("algorithm_id", "flags", "optimal"),
    [
        ("vdn", {"share_parameters": True, "agent_ids": False}, False),
        ("vdn", {"share_parameters": True, "agent_ids": True}, True),
        ("vdn", {"share_parameters": False, "agent_ids": False}, True),
        ("iql", {"share_parameters": False, "agent_ids": False}, True),
        ("ltql", {"share_parameters": False, "agent_ids": False}, True),
    ],
)
def test_agents_must_differ_to_do_different_things(algorithm_id, flags, optimal):
    """Where both do the same, the game pays nothing; (0, 1) is best. 16 seeds, on all joint actions."""
    algorithm = baselines.make(algorithm_id, hidden=(8,), learning_rate=0.03, **flags)
    observation = GAME.observe(GAME.reset(jax.random.key(0))[0])
    joints = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
    batch = Transition(observation, joints, GAME.payoff.reshape(-1), jnp.zeros(4), observation)

    @jax.jit
    @jax.vmap
    def learned(key):
        def step(learner, _):
            learner, _ = algorithm.update(GAME, learner, batch, jnp.zeros(()), key)
            return learner.replace(target_params=learner.params), None

        learner, _ = jax.lax.scan(step, algorithm.init(GAME, key), length=200)
        return algorithm.act_greedily(GAME, learner.params, (), observation)[0]

    played = np.asarray(learned(jax.random.split(jax.random.key(1), 16)))
    if optimal:
        assert (played == [0, 1]).all(axis=1).sum() >= 15
    else:
        assert (played[:, 0] == played[:, 1]).all()


def test_distributed_agents_of_their_own_start_at_the_initial_value():
    algorithm = baselines.make("distributed", hidden=(8,), initial_value=-7.0, **FLAGS)
    utilities = functools.partial(algorithm.utilities, GAME)
    observation = GAME.observe(GAME.reset(jax.random.key(0))[0])
    found = np.asarray(utilities(algorithm.init(GAME, jax.random.key(0)).params, observation))
    assert np.abs(found + 7).max() < 3 and np.abs(found[0] - found[1]).max() > 1e-3
