"""What the algorithms learn on small games, with budgets of seconds and rules that were fixed beforehand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.probes import joint_tables
from envs.matrix_games import LTQL_PAYOFF, QTRAN_PAYOFF, matrix_game, random_state_game, two_step_game
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from tests.helpers import but_slow, first_observation

PAYOFF = np.asarray(QTRAN_PAYOFF, float)
#: Large steps that shrink to nothing; all exploration.
FAST = {"learning_rate": 5e-3, "learning_rate_schedule": "linear", "hidden": (16,)}


def learn(algorithm_id, env, seeds, env_steps, probe=joint_tables, **settings):
    experiment = Experiment(
        algorithm=baselines.make(algorithm_id, **{**FAST, **settings}),
        environment=env,
        seeds=tuple(range(seeds)),
        env_steps=env_steps,
        evaluations=1,
        evaluation_episodes=8,
        probe=probe,
    )
    result = train(experiment)
    return experiment, result.learner, result.history.last


def assert_fits(tables, closed_form, payoff):
    """Seeds scatter by less than 5 % of the payoff's range, and their mean is the closed form.

    Each seed fits the transitions that it happened to draw; the mean of N seeds may be off by 4.5 of its
    standard errors (1 in 10,000 for each entry by chance) and by .5 % of the range for what is left to learn.
    """
    span = np.ptp(payoff)
    spread = tables.std(axis=0)
    assert spread.max() < 0.05 * span
    error = np.abs(tables.mean(axis=0) - closed_form)
    assert (error <= 4.5 * spread / np.sqrt(len(tables)) + 0.005 * span).all()


RNG = np.random.default_rng(0)
PAYOFFS = {
    "qtran": PAYOFF,
    "ltql-2x3": np.asarray(LTQL_PAYOFF, float),
    "3-agents": RNG.uniform(-5, 5, (3, 2, 3)),
    "4-agents": RNG.uniform(-5, 5, (2, 3, 2, 3)),
}


@functools.cache
def learned_by_vdn(game):
    return learn("vdn", matrix_game(PAYOFFS[game]), seeds=64, env_steps=2000, batch_size=64)[-1]


@pytest.mark.parametrize("game", but_slow(PAYOFFS, ["qtran"]))
def test_vdn_learns_the_additive_least_squares_fit(game):
    payoff, last = PAYOFFS[game], learned_by_vdn(game)
    fit = additive_fit(payoff)
    tables = last["q_tot"][(slice(None), *(slice(count) for count in payoff.shape))]
    assert_fits(tables, np.asarray(fit.q_tot), payoff)
    # The greedy joint action is that of the fit, but for fits that nearly tie (QTRAN's B and C do exactly).
    reached = np.asarray(fit.q_tot)[tuple(last["greedy_actions"].T)]
    assert (reached >= np.asarray(fit.q_tot).max() - 0.15 * np.ptp(payoff)).all()


def test_vdn_fails_on_qtrans_game_as_its_fit_says():
    assert np.asarray(additive_fit(PAYOFF).q_tot)[0, 0] == pytest.approx(-56 / 9, abs=1e-5)
    last = learned_by_vdn("qtran")
    assert (last["episode_return"] == 0).mean() >= 0.95
    assert (last["greedy_actions"] > 0).mean() >= 0.95


@pytest.mark.slow
def test_iql_learns_every_actions_mean_reward():
    """With the other uniform: A pays (8 - 24) / 3 on average, B and C -4."""
    _, _, last = learn("iql", matrix_game(PAYOFF), seeds=64, env_steps=2000, batch_size=64)
    assert_fits(last["utilities"], np.asarray([-16 / 3, -4, -4]), PAYOFF)


def stage_0_values(experiment, learner):
    """Mean over seeds of Q_tot of the two-step game's first step, by agent 1's action, `(2,)`."""
    env, algorithm = experiment.environment, experiment.algorithm
    game, observation = GameSpec.of(env), first_observation(env)

    def values(params):
        joints = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
        q_tot = jax.vmap(lambda joint: algorithm.joint_values(game, params, observation, joint)["q_tot"])
        return q_tot(joints).reshape(2, 2).mean(axis=1)

    return np.asarray(jax.jit(jax.vmap(values))(learner.params)).mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm_id", "pays", "values"), [("vdn", 7, (6.93, 6.435)), ("qmix", 8, (6.93, 7.92))]
)
def test_two_step_game(algorithm_id, pays, values):
    """VDN cannot represent [[0, 1], [1, 8]] and takes the sure 7; QMIX can and takes 8."""
    experiment, learner, last = learn(
        algorithm_id,
        two_step_game(),
        seeds=32,
        env_steps=4000,
        probe=None,
        target_period=200,
        replay_size=4000,
    )
    assert (last["episode_return"] == pays).mean() >= 0.95
    assert (last["episode_length"] == 2).all()
    np.testing.assert_allclose(stage_0_values(experiment, learner), values, atol=0.15)


@pytest.mark.slow
def test_vdn_tells_states_apart():
    """Either payoff of the random-state game has its 10 in another corner."""
    _, _, last = learn("vdn", random_state_game(), seeds=16, env_steps=2000, probe=None)
    assert (last["episode_return"] == 10).mean() >= 0.95


QTRAN = {"hidden": (16, 16), "joint_hidden": (16, 16), "learning_rate": 3e-3}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm_id", ["qtran-base", "qtran-alt"])
def test_qtran_solves_its_game(algorithm_id):
    """QTRAN, section 3.5: greedy (A, A), the joint value within .1 of the payoff, its gap at least -.05."""
    _, _, last = learn(algorithm_id, matrix_game(PAYOFF), seeds=32, env_steps=3000, **QTRAN)
    assert (last["greedy_actions"] == 0).all(axis=1).mean() >= 0.95
    assert (last["episode_return"] == 8).mean() >= 0.95
    np.testing.assert_allclose(last["q_jt"].mean(axis=0), PAYOFF, atol=0.1)
    gap = (last["q_prime"] - last["q_jt"]).mean(axis=0)
    assert gap.min() >= -0.05
    assert gap[0, 0] == pytest.approx(0, abs=0.05)
    assert (last["v_jt"] == 0).all()  # all is observed
    if algorithm_id == "qtran-alt":  # equal agents find the symmetric one of its solutions
        closed_form = [[8, 4, 4], [4, 0, 0], [4, 0, 0]]
        np.testing.assert_allclose(last["q_prime"].mean(axis=0), closed_form, atol=0.1)


@pytest.mark.slow
def test_the_printed_loss_of_alt_goes_wrong():
    """The loss as printed has zero-loss solutions whose greedy joint action is wrong, and seeds end there."""
    _, _, last = learn(
        "qtran-alt", matrix_game(PAYOFF), seeds=32, env_steps=3000, nopt_min="printed", **QTRAN
    )
    wrong = (last["greedy_actions"] != 0).any(axis=1)
    assert wrong.mean() > 0.25
    np.testing.assert_allclose(
        last["q_jt"].mean(axis=0), PAYOFF, atol=0.1
    )  # the joint value is learned all the same


@pytest.mark.slow
def test_qplex_with_attention_is_exact_where_vdn_cannot_be():
    """Of [[0, 1], [1, 8]], which is no sum, every entry."""
    small = {"kernels": 2, "kernel_hidden": (8,), "attention_heads": 4, "attention_embed": 8}
    payoff = np.asarray([[0.0, 1], [1, 8]])
    _, _, last = learn("qplex", matrix_game(payoff), seeds=8, env_steps=1500, **small)
    assert (last["episode_return"] == 8).all()
    np.testing.assert_allclose(last["q_tot"], np.broadcast_to(payoff, (8, 2, 2)), atol=0.1)


@pytest.mark.slow
def test_qmix_is_monotone_after_training_too():
    _, _, last = learn("qmix", matrix_game(PAYOFF), seeds=32, env_steps=2000, batch_size=64)
    for utilities, q_tot in zip(last["utilities"], last["q_tot"], strict=True):
        order = np.ix_(*np.argsort(utilities, axis=1))
        assert (np.diff(q_tot[order], axis=0) >= -1e-3).all()
        assert (np.diff(q_tot[order], axis=1) >= -1e-3).all()
    best = last["q_tot"].max(axis=(1, 2))
    greedy = [table[tuple(joint)] for table, joint in zip(last["q_tot"], last["greedy_actions"], strict=True)]
    np.testing.assert_allclose(greedy, best, atol=1e-3)
