"""Agents without shared parameters, ids or last actions: who can have them, and what they can learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.fop import FOP
from baselines.maddpg_discrete import MADDPGDiscrete
from baselines.maven import MAVEN
from baselines.policy_gradient import PolicyGradient
from baselines.pqn import PQN
from baselines.q_learning import QLearning
from baselines.registry import ALGORITHMS, lookup, own_settings
from envs.matrix_games import matrix_game
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import AgentNetwork, RecurrentAgentNetwork
from jaxmarl_fac.settings import leaves
from tests.helpers import clock_at, first_observation, flat, transitions

#: All deep learners of teams but LTQL, whose networks are its own.
LEARNERS = [name for name in ALGORITHMS if {"agent_ids", "last_actions"} <= set(leaves(lookup(name)))]
FLAGS = {"share_parameters": False, "agent_ids": False}
ENV = matrix_game([[0, 10], [2, 0]])
GAME = GameSpec.of(ENV)


def test_who_the_deep_learners_are():
    learners = {name: type(lookup(name)) for name in LEARNERS}
    assert set(learners.values()) == {QLearning, MAVEN, PQN, PolicyGradient, FOP, MADDPGDiscrete}
    for name, entry in ALGORITHMS.items():
        assert (name in learners) == (type(entry.algorithm) in learners.values() and name != "ltql")


@pytest.mark.parametrize("algorithm_id", LEARNERS)
def test_every_deep_learner_gives_its_agents_the_flags(algorithm_id):
    """And the unrestricted joint value's agents too."""
    defaults = vars(flat(lookup(algorithm_id)))
    assert all(defaults[name] is True for name in (*FLAGS, "last_actions"))
    settings = {"hidden": (5, 4), **FLAGS, **own_settings(algorithm_id, {"consumes": "episodes"})}
    feed_forward = baselines.make(algorithm_id, **settings).network(GAME)
    recurrent = baselines.make(algorithm_id, **settings, recurrent=True, last_actions=False).network(GAME)
    method = getattr(lookup(algorithm_id), "method", None)
    outputs = 2 + getattr(method, "extra_outputs", 0)
    for network, wanted in (
        (feed_forward, AgentNetwork(outputs, (5, 4), share_parameters=False, agent_ids=False)),
        (recurrent, RecurrentAgentNetwork(outputs, (5, 4), False, False, last_actions=False)),
    ):
        own = getattr(network.agent, "agent", network.agent)  # MAVEN's is within what shapes its utilities
        agents = [own, *([network.central_agent] if hasattr(network, "central_agent") else [])]
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
    assert not flat(baselines.make("ltql", "pursuit")).agent_ids
    assert flat(baselines.make("ltql", "pursuit", agent_ids=True)).agent_ids
    for algorithm_id in LEARNERS:
        assert flat(baselines.make(algorithm_id, "pursuit")).agent_ids


@pytest.mark.parametrize(
    ("algorithm_id", "flags", "optimal"),
    [
        ("vdn", {"share_parameters": True, "agent_ids": False}, False),
        pytest.param("vdn", {"share_parameters": True, "agent_ids": True}, True, marks=pytest.mark.slow),
        pytest.param("vdn", {"share_parameters": False, "agent_ids": False}, True, marks=pytest.mark.slow),
        ("iql", {"share_parameters": False, "agent_ids": False}, True),
        pytest.param("ltql", {"share_parameters": False, "agent_ids": False}, True, marks=pytest.mark.slow),
    ],
)
def test_agents_must_differ_to_do_different_things(algorithm_id, flags, optimal):
    """Where both do the same, the game pays nothing; (0, 1) is best. 16 seeds, on all joint actions."""
    algorithm = baselines.make(algorithm_id, hidden=(8,), learning_rate=0.03, **flags)
    learner, observation = algorithm.bind(GAME), first_observation(ENV)
    joints = [[0, 0], [0, 1], [1, 0], [1, 1]]
    batch = transitions(observation, joints, ENV.payoff.reshape(-1), jnp.zeros(4), observation)

    @jax.jit
    @jax.vmap
    def learned(key):
        def step(state, _):
            state, _ = learner.update(state, batch, clock_at(), key)
            return state.replace(target_params=state.params), None

        state, _ = jax.lax.scan(step, learner.init(key), length=200)
        return learner.act_greedily(state.params, (), observation, key).actions

    played = np.asarray(learned(jax.random.split(jax.random.key(1), 16)))
    if optimal:
        assert (played == [0, 1]).all(axis=1).sum() >= 15
    else:
        assert (played[:, 0] == played[:, 1]).all()


def test_distributed_agents_of_their_own_start_at_the_initial_value():
    algorithm = baselines.make("distributed", hidden=(8,), initial_value=-7.0, **FLAGS)
    params = algorithm.bind(GAME).init(jax.random.key(0)).params
    found = np.asarray(algorithm.utilities(GAME, params, first_observation(ENV)))
    assert np.abs(found + 7).max() < 3 and np.abs(found[0] - found[1]).max() > 1e-3
