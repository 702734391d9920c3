"""TD3 and MATD3: their updates beside a NumPy reference, the delayed actor, and the differential game."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.ddpg import CentralCritic
from baselines.registry import id_of
from envs.base import Observation
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from tests.baselines.learners import one_hill, randomised
from tests.helpers import clock_at, sets_but_slow, transitions
from tests.reference.actor_critics import Sample, TD3Agent, mapped

GAME = envs.make("differential")
BATCH, N = 3, 2
SETTINGS = {
    "hidden": (3,),
    "batch_size": BATCH,
    "gamma": 0.9,
    "target_noise": 0.4,
    "target_noise_clip": 0.3,
    "target_rate": 0.2,
    "actor_learning_rate": 0.01,
    "critic_learning_rate": 0.01,
}


def random_batch(seed):
    """Transitions unlike anything that happens in the game: every observation differs, some go on."""
    rng = np.random.default_rng(seed)

    def observation():
        return Observation(
            agents_view=jnp.asarray(rng.normal(size=(BATCH, N, 1)), jnp.float32),
            global_state=jnp.asarray(rng.normal(size=(BATCH, 1)), jnp.float32),
            action_mask=jnp.ones((BATCH, N, 0), bool),
            step_count=jnp.zeros(BATCH, jnp.int32),
        )

    actions = rng.uniform(-10, 10, (BATCH, N))
    return transitions(
        observation(),
        jnp.float32(actions),
        jnp.asarray(rng.normal(size=(BATCH, N)), jnp.float32),
        jnp.asarray([1.0, 0.0, 1.0]),
        observation(),
    )


def samples_of(batch, key):
    """The batch as the reference takes it, with the noise that is drawn from the key."""
    keys = jax.vmap(lambda key: jax.random.split(key, BATCH))(jax.random.split(key, N))  # (n, B)
    noise = SETTINGS["target_noise"] * jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (N,))))(keys)
    leaves = jax.tree.map(lambda leaf: np.asarray(leaf, float), batch)
    return [
        Sample(
            views=leaves.observation.agents_view[b, 0],
            state=leaves.observation.global_state[b, 0],
            actions=leaves.actions[b, 0] / 10,
            rewards=leaves.reward[b, 0],
            discount=leaves.discount[b, 0],
            next_views=leaves.observation.agents_view[b, 1],
            next_state=leaves.observation.global_state[b, 1],
            noise=np.asarray(noise[:, b]),
        )
        for b in range(BATCH)
    ]


CASES = pytest.mark.parametrize(("name", "period"), sets_but_slow([("td3", 2), ("matd3", 3)], [("matd3", 3)]))


@functools.cache
def fresh(name, period):
    """A learner's first state, and its compiled update."""
    learner = baselines.make(name, **SETTINGS, actor_period=period).bind(GameSpec.of(GAME))
    return jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.update)


@CASES
def test_updates_are_those_of_the_reference(name, period):
    """Parameters and targets after each of six updates, from random ones; and what is logged."""
    state, update = fresh(name, period)
    state = state.replace(
        params=randomised(state.params, 1, 0.5), target_params=randomised(state.params, 2, 0.5)
    )

    def part(params, agent):
        return mapped(lambda leaf: np.asarray(leaf[agent], float), params["params"])

    agents = [
        TD3Agent(
            agent,
            part(state.params, agent),
            part(state.target_params, agent),
            centralised=name == "matd3",
            gamma=0.9,
            clip=0.3,
            target_rate=0.2,
            period=period,
            rate=0.01,
        )
        for agent in range(N)
    ]
    for number in range(6):
        batch, key = random_batch(number), jax.random.key(number)
        state, metrics = update(state, batch, clock_at(updates=number), key)
        policies = [agent.target["policy"] for agent in agents]
        logged = [agent.update(samples_of(batch, key), policies) for agent in agents]
        for metric, value in metrics.items():
            assert float(value) == pytest.approx(
                np.mean([each[metric] for each in logged]), rel=1e-3, abs=1e-4
            )
        for agent in agents:
            for found, expected in (
                (state.params, agent.params),
                (state.target_params, agent.target),
            ):
                mapped(
                    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4),
                    part(found, agent.agent),
                    expected,
                )


@CASES
def test_the_actor_and_the_targets_move_at_every_second_update_or_third(name, period):
    state, update = fresh(name, period)
    for number in range(6):
        before = state
        state, _ = update(state, random_batch(number), clock_at(updates=number), jax.random.key(number))
        due = (number + 1) % period == 0
        old, new = before.params["params"], state.params["params"]
        states = before.opt_state.inner_states, state.opt_state.inner_states
        for moves, one, other in (
            (True, old["critic"], new["critic"]),
            (True, states[0]["critic"], states[1]["critic"]),
            (due, old["policy"], new["policy"]),
            (due, states[0]["actor"], states[1]["actor"]),
            (due, before.target_params, state.target_params),
        ):
            same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
            assert not all(same) if moves else all(same)


def test_one_value_makes_td3_matd3():
    td3 = baselines.make("td3")
    central = dataclasses.replace(td3, method=dataclasses.replace(td3.method, critic=CentralCritic()))
    assert central == baselines.make("matd3")
    assert id_of(central) == "matd3"


# What is learned


def final_returns(name, env, seeds, env_steps, **settings):
    """`(seeds,)`."""
    experiment = Experiment(
        algorithm=baselines.make(name, hidden=(32, 32), batch_size=64, **settings),
        environment=env,
        seeds=seeds,
        env_steps=env_steps,
        evaluations=1,
        evaluation_episodes=1,
    )
    return train(experiment).history.last["episode_return"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td3", "matd3"])
def test_a_single_hill_is_climbed(name):
    """With TD3's own step size: from (0, 0), which pays 7.22, to 9.5 on at least 14 of 16 seeds."""
    rates = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
    returns = final_returns(name, one_hill(), tuple(range(16)), 3000, **rates)
    assert np.sum(returns >= 9.5) >= 14


@pytest.mark.slow
def test_the_differential_games_hill_attracts_td3_as_it_does_ddpg():
    """At least half of 32 seeds end within .5 of the hill's 0, and at most a quarter find the peak of 10."""
    for name in ("td3", "ddpg"):
        returns = final_returns(name, GAME, tuple(range(100, 132)), 5000)
        assert np.sum(np.abs(returns) <= 0.5) >= 16, name
        assert np.sum(returns >= 9) <= 8, name
