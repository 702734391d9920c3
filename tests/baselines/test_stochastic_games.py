"""Learners of two players on games with a reward per agent and several states, against the exact solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.opponent_modelling import BalancingRule
from baselines.two_player import SelfPlay
from envs.stochastic_games import stochastic_game
from jaxmarl_fac.exact.stochastic_games import iterate_backup, minimax_solution, nash_backup, player_side
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
from jaxmarl_fac.soft.planning import TwoPlayerModel, soft_value_iteration
from jaxmarl_fac.soft.stages import agent_first
from tests.baselines.test_actor_critics import FAST, networks_by_state

GAMMA = 0.8
ZERO_SUM = envs.make("two-state-zero-sum")
#: Sure moves; in the stages that Nash-Q meets the equilibria are pure ones, and it settles.
GENERAL_SUM = stochastic_game(
    np.eye(2)[[[[0, 1], [1, 0]], [[1, 0], [0, 0]]]],
    [[[[3.0, 0], [5, 1]], [[0, 2], [1, 0]]], [[[3, 5], [0, 1]], [[1, 0], [0, 2]]]],
    start=[0.5, 0.5],
    time_limit=50,
)


def learned(algorithm, env, seeds=2, env_steps=4000):
    """The parameters of every seed after training, leading axis `(seeds,)`."""
    experiment = Experiment(
        algorithm=algorithm, environment=env, seeds=tuple(range(seeds)), env_steps=env_steps, evaluations=1
    )
    return train(experiment).learner.params


def exact_minimax(env):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, minimax_solution(player_side(env.game_model(), 0), GAMMA))


def exact_nash(env):
    """Q of both players `(2, S, A, B)`, where the operator settles."""
    with jax.enable_x64(True):
        model = env.game_model()
        path = iterate_backup(lambda q: nash_backup(model, GAMMA, q), model.reward, 200)
        assert np.abs(path[-1] - path[-2]).max() < 1e-9
        return np.asarray(path[-1])


def exact_balancing(env, agent, beta_own, beta_other):
    """The soft game that an agent sees, its own action first: q `(S, A, B)` and the backups."""
    model = env.game_model()
    reward, transition = model.reward[agent], model.transition
    if agent:
        reward, transition = jnp.swapaxes(reward, 1, 2), jnp.swapaxes(transition, 1, 2)
    side = TwoPlayerModel(reward, transition, jnp.float32(GAMMA))
    return soft_value_iteration(side, lambda q: agent_first(q, beta_own, beta_other))


@pytest.mark.slow
def test_foe_q_is_minimax_iteration():
    """With steps of 1 on sure moves, by random play; both agents have to mix."""
    exact = exact_minimax(ZERO_SUM)
    params = learned(baselines.make("foe-q", gamma=GAMMA, learning_rate=1.0), ZERO_SUM)
    for seed in range(2):
        np.testing.assert_allclose(params["row"]["q"][seed], exact.q, atol=1e-4)
        np.testing.assert_allclose(params["column"]["q"][seed], -np.swapaxes(exact.q, 1, 2), atol=1e-4)
    assert np.ptp(exact.row, axis=1).max() < 0.9  # mixed


@pytest.mark.slow
def test_nash_q_is_minimax_iteration_where_the_sum_is_0():
    exact = exact_minimax(ZERO_SUM)
    params = learned(baselines.make("nash-q", gamma=GAMMA, learning_rate=1.0), ZERO_SUM)
    for player in ("row", "column"):
        np.testing.assert_allclose(params[player]["q"][0], [exact.q, -exact.q], atol=1e-3)


@pytest.mark.slow
def test_nash_q_solves_a_general_sum_game_of_two_states():
    exact = exact_nash(GENERAL_SUM)
    params = learned(baselines.make("nash-q", gamma=GAMMA, learning_rate=1.0), GENERAL_SUM)
    for player in ("row", "column"):
        np.testing.assert_allclose(params[player]["q"][0], exact, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "env", [pytest.param(ZERO_SUM, id="zero-sum"), pytest.param(GENERAL_SUM, id="general-sum")]
)
def test_balancing_q_is_soft_value_iteration(env):
    """Each agent learns the soft values of its own rewards; it explores by its policy."""
    betas = 0.5, -0.8
    rule = BalancingRule(
        beta=betas[0], beta_other=betas[1], beta_growth=1.0, learning_rate=1.0, gamma=GAMMA, epsilon=0.5
    )
    params = learned(SelfPlay(rule=rule), env)
    for agent, player in enumerate(("row", "column")):
        q, _ = exact_balancing(env, agent, *betas)
        np.testing.assert_allclose(params[player]["q"][1], q, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "env", [pytest.param(ZERO_SUM, id="zero-sum"), pytest.param(GENERAL_SUM, id="general-sum")]
)
def test_balancing_ac_finds_the_soft_values_of_two_states_by_playing(env):
    """Through the loop and replay, both agents against each other: V within .02 on the mean of 8 seeds."""
    betas = 1.0, -1.0
    settings = {**FAST, "gamma": GAMMA, "hidden": (32,), "target_rate": 0.05, "learning_starts": 200}
    algorithm = baselines.make(
        "balancing-ac", beta_own=betas[0], beta_other=betas[1], batch_size=64, replay_size=50_000, **settings
    )
    params = learned(algorithm, env, seeds=8, env_steps=6000)
    for agent in (0, 1):
        _, backup = exact_balancing(env, agent, *betas)
        found = []
        for seed in range(8):
            lane = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params)
            network, states = networks_by_state(algorithm, env, lane, agent)
            found.append([float(network.v(view)) for view in states])
        np.testing.assert_allclose(np.mean(found, axis=0), backup.value, atol=2e-2)


def test_learners_of_a_team_refuse_a_reward_per_agent(bad_input):
    game = baselines.make("vdn")
    with bad_input(
        "the algorithm learns from a reward of the whole team, and StochasticGame has one per agent"
    ):
        learned(game, ZERO_SUM, env_steps=10)
