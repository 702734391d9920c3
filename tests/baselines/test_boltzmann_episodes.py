"""Q-learners that play a part of their episodes by Boltzmann policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.q_learning import EpisodeMemory
from envs.base import Observation
from envs.matrix_games import LTQL_PAYOFF, matrix_game
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.networks import AgentMemory
from jaxmarl_fac.program import Program
from tests.baselines.learners import random_params, randomised
from tests.baselines.recall import Recall
from tests.helpers import but_slow, clock_at, first_observation

#: Agent 1 has two actions; the third one is never available.
ENV = matrix_game(LTQL_PAYOFF)
GAME = GameSpec.of(ENV)
OBSERVATION: Observation = first_observation(ENV)
#: Temperature .8 at step 100, .4 from step 500 on; greedy in the other episodes.
HALF = {
    "boltzmann_share": 0.5,
    "temperature_start": 0.9,
    "temperature_end": 0.4,
    "temperature_steps": 500,
    "epsilon_start": 0.0,
    "epsilon_end": 0.0,
}
DRAWS = 20_000
#: Five standard errors of a share of them.
CLOSE = 5 * np.sqrt(0.25 / DRAWS)
IDS = ("ltql", "iql", "qmix")


def made(algorithm_id="ltql", **settings):
    return baselines.make(algorithm_id, hidden=(4,), **HALF | settings)


def params_of(algorithm, env=ENV):
    """Random, with utilities that are not far from each other."""
    return randomised(random_params(algorithm, env, 3), 3, scale=0.4)


def played(learner, params, boltzmann, env_steps):
    """How often each action is played in such an episode, `(2, 3)`."""
    carry, clock = EpisodeMemory(jnp.asarray(boltzmann), ()), clock_at(env_steps=env_steps)
    act = jax.jit(jax.vmap(lambda key: learner.act(params, carry, OBSERVATION, clock, key).actions))
    actions = np.asarray(act(jax.random.split(jax.random.key(1), DRAWS)))
    return np.stack([np.bincount(actions[:, agent], minlength=3) for agent in range(2)]) / DRAWS


@pytest.mark.parametrize("algorithm_id", IDS)
def test_who_plays_how(algorithm_id):
    """softmax(Q_i / T) over the available actions, T falling on a line, or the best action."""
    algorithm = made(algorithm_id)
    learner, params = algorithm.bind(GAME), params_of(algorithm)
    utilities = np.asarray(algorithm.utilities(GAME, params, OBSERVATION), np.float64)
    best = np.eye(3)[utilities.argmax(axis=1)]
    for env_steps, temperature in ((0, 0.9), (100, 0.8), (500, 0.4), (10**6, 0.4)):
        weights = np.exp((utilities - utilities.max(axis=1, keepdims=True)) / temperature)
        expected = weights / weights.sum(axis=1, keepdims=True)
        found = played(learner, params, True, env_steps)
        np.testing.assert_allclose(found, expected, atol=CLOSE)
        assert found[0, 2] == 0 and found[0, :2].min() > 0
        np.testing.assert_array_equal(played(learner, params, False, env_steps), best)


def test_the_other_episodes_are_epsilon_greedy():
    algorithm = made(epsilon_start=0.3, epsilon_end=0.3)
    learner, params = algorithm.bind(GAME), params_of(algorithm)
    best = np.asarray(algorithm.utilities(GAME, params, OBSERVATION)).argmax(axis=1)
    expected = 0.7 * np.eye(3)[best] + 0.3 * np.asarray([[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(played(learner, params, False, 0), expected, atol=CLOSE)


def test_boltzmann_policies_look_at_utilities_where_epsilon_is_1():
    algorithm = made(epsilon_start=1.0, epsilon_end=1.0, temperature_start=1e-3, temperature_end=1e-3)
    learner, params = algorithm.bind(GAME), params_of(algorithm)
    best = np.asarray(algorithm.utilities(GAME, params, OBSERVATION)).argmax(axis=1)
    np.testing.assert_array_equal(played(learner, params, True, 0), np.eye(3)[best])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_share_of_boltzmann_episodes(share):
    algorithm = made(boltzmann_share=share)
    learner, params = algorithm.bind(GAME), params_of(algorithm)
    begin = jax.jit(jax.vmap(lambda key: learner.begin(params, OBSERVATION, key)))
    drawn = np.asarray(begin(jax.random.split(jax.random.key(2), DRAWS)).boltzmann)
    assert drawn.dtype == bool
    assert drawn.mean() == pytest.approx(share, abs=CLOSE if share < 1 else 0)


def test_evaluation_is_greedy_whatever_the_coin():
    algorithm = made(temperature_start=100.0, temperature_end=100.0)
    learner, params = algorithm.bind(GAME), params_of(algorithm)
    best = np.asarray(algorithm.utilities(GAME, params, OBSERVATION)).argmax(axis=1)
    greedily = jax.jit(learner.act_greedily)
    for coin in (True, False):
        for key in jax.random.split(jax.random.key(0), 20):
            decision = greedily(params, EpisodeMemory(jnp.asarray(coin), ()), OBSERVATION, key)
            np.testing.assert_array_equal(decision.actions, best)
            assert bool(decision.carry.boltzmann) == coin


@pytest.mark.parametrize("recurrent", but_slow([False, True], [False]))
def test_a_coin_is_kept_for_an_episode(recurrent):
    """And thrown anew in each: episodes of three steps, in the loop."""
    settings = {"consumes": "episodes", "recurrent": True} if recurrent else {}
    experiment = Experiment(
        algorithm=made("vdn", boltzmann_share=0.25, batch_size=2, **settings),
        environment=Recall(),
        seeds=tuple(range(8)),
        env_steps=8 * 60,
        num_envs=8,
        evaluations=1,
    )
    program = Program(experiment)
    lanes, coins = program.initial_lanes(), []
    for iteration in range(60):
        coins.append(np.asarray(program.unpad(lanes.carries.boltzmann)))  # (8, 8)
        lanes, healthy = program.chunk(lanes, iteration, iteration + 1)
        assert healthy.all()
    episodes = np.asarray(coins).reshape(20, 3, 64)
    assert (episodes == episodes[:, :1]).all()
    assert episodes[:, 0].mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / (20 * 64)))
    both = episodes[:-1, 0] & episodes[1:, 0]  # one episode after the other
    assert both.mean() == pytest.approx(1 / 16, abs=5 * np.sqrt(1 / 16 / (19 * 64)))


def test_recurrent_agents_remember_what_they_played():
    settings = {"consumes": "episodes", "recurrent": True}
    algorithm = made("vdn", temperature_start=1e6, temperature_end=1e6, **settings)
    plain = made("vdn", **settings | {"boltzmann_share": 0.0})
    env = Recall()
    game, observation = GameSpec.of(env), first_observation(env)
    learner, other = algorithm.bind(game), plain.bind(game)
    params = params_of(algorithm, env)
    act, act_plainly, clock = jax.jit(learner.act), jax.jit(other.act), clock_at()
    seen = set()
    for key in jax.random.split(jax.random.key(0), 20):
        fresh = other.begin(params, observation, key)
        decision = act(params, EpisodeMemory(jnp.asarray(True), fresh), observation, clock, key)
        alike = act_plainly(params, fresh, observation, clock, key)
        assert isinstance(alike.carry, AgentMemory)
        np.testing.assert_array_equal(decision.carry.agents.last_actions, decision.actions)
        np.testing.assert_allclose(decision.carry.agents.hidden, alike.carry.hidden, atol=1e-6)
        greedy = act(params, EpisodeMemory(jnp.asarray(False), fresh), observation, clock, key)
        np.testing.assert_array_equal(greedy.actions, alike.actions)
        seen.add(tuple(decision.actions.tolist()))
    assert len(seen) > 4  # of nine joint actions


def test_without_such_episodes_nothing_is_kept():
    learner = made("vdn", boltzmann_share=0.0).bind(GAME)
    assert learner.begin(None, OBSERVATION, jax.random.key(0)) == ()


def test_the_pursuit_has_epsilon_greedy_play_by_its_flags():
    """As the documentation says."""
    algorithm = baselines.make("iql", "pursuit", boltzmann_share=0, epsilon_start=1, epsilon_end=0.05)
    assert algorithm.boltzmann_episodes is None
    assert float(algorithm.exploration.epsilon(clock_at(env_steps=75_000))) == pytest.approx(0.525)
    assert baselines.make("iql", "pursuit").boltzmann_episodes is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"boltzmann_share": 1.5}, "boltzmann_share must be in [0, 1], not 1.5"),
        ({"temperature_start": 0.0}, "temperature_start must be above 0"),
        ({"temperature_end": -1.0}, "temperature_end must be above 0"),
        ({"temperature_steps": 0}, "temperature_steps must be at least 1"),
    ],
)
def test_settings_that_cannot_be(settings, says, bad_input):
    with bad_input(says):
        made("iql", **settings)


@pytest.mark.slow
def test_ltql_learns_from_such_episodes():
    """Greedy play earns 2 on >= 14 of 16 seeds; without exploration on fewer, by a rule fixed beforehand."""
    earned = {}
    for share in (0.5, 0.0):
        experiment = Experiment(
            algorithm=made(
                boltzmann_share=share, learning_rate=0.02, target_period=20, temperature_steps=1000
            ),
            environment=ENV,
            seeds=tuple(range(16)),
            env_steps=1500,
            evaluations=1,
            evaluation_episodes=1,
        )
        earned[share] = (train(experiment).history.last["episode_return"] == 2).sum()
    assert earned[0.5] >= 14 and earned[0.0] < earned[0.5]
