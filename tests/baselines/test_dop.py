"""DOP: its linear critic, its exact gradient, its two targets, and what it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
from baselines.dop import LinearCritic, LinearValues
from baselines.policy_gradient import CriticInputs
from envs.matrix_games import matrix_game
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.program import step_example
from jaxmarl_fac.targets import tree_backup_returns
from tests.baselines.learners import random_state
from tests.engine.memory.games import stages_at_random
from tests.helpers import but_slow, clock_at, first_observation, transitions


def tree_backup(rewards, discounts, values, next_values, probs, length, gamma, lambda_, steps):
    """The definition, step by step."""
    found = []
    for t in range(length):
        total, weight = values[t], 1.0
        for j in range(t, min(t + steps, length)):
            if j > t:
                weight *= gamma * lambda_ * probs[j]
            total += weight * (rewards[j] + gamma * discounts[j] * next_values[j] - values[j])
            if discounts[j] == 0:
                break
        found.append(total)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 7),
    st.integers(1, 6),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_tree_backup_against_its_definition(seed, length, steps, lambda_, gamma):
    rng, rows = np.random.default_rng(seed), 7
    rewards, values, next_values = rng.normal(size=(3, rows))
    probs, mask = rng.uniform(size=rows), np.arange(rows) < length
    discounts = np.where((np.arange(rows) == length - 1) & (seed % 2 == 0), 0.0, 1.0)
    rows_of = [np.float32(each) for each in (rewards, discounts, values, next_values, probs, mask)]
    returns = tree_backup_returns(*rows_of, gamma, lambda_, steps)
    expected = tree_backup(rewards, discounts, values, next_values, probs, length, gamma, lambda_, steps)
    np.testing.assert_allclose(returns[:length], expected, rtol=1e-4, atol=1e-4)


def test_tree_backup_of_one_step_is_the_expected_target():
    ones, found = np.ones(2, np.float32), np.float32([1, 2])
    returns = tree_backup_returns(found, ones, 5 * ones, 10 * ones, ones, ones, 0.5, 1.0, 1)
    np.testing.assert_allclose(returns, [1 + 5, 2 + 5])
    # Two steps: the second error, 2 + 5 - 5, by gamma and the probability 1.
    returns = tree_backup_returns(found, ones, 5 * ones, 10 * ones, ones, ones, 0.5, 1.0, 2)
    np.testing.assert_allclose(returns, [1 + 5 + 0.5 * 2, 2 + 5])


WORKED = LinearValues(
    utilities=jnp.float32([[1, 2], [0, 3]]), weights=jnp.float32([0.6, 0.4]), bias=jnp.float32(0.5)
)
POLICIES = jnp.float32([[0.3, 0.7], [0.8, 0.2]])


def test_the_values_of_a_worked_critic():
    assert float(WORKED.expected(POLICIES)) == pytest.approx(1.76)
    of_all = {joint: float(WORKED.of(jnp.array(joint))) for joint in itertools.product(range(2), repeat=2)}
    assert of_all == pytest.approx({(0, 0): 1.1, (0, 1): 2.3, (1, 0): 1.7, (1, 1): 2.9})
    slopes = jax.grad(lambda logits: WORKED.expected(jax.nn.softmax(logits)))(jnp.log(POLICIES))
    np.testing.assert_allclose(slopes, [[-0.126, 0.126], [-0.192, 0.192]], atol=1e-6)


def test_weights_are_positive_and_sum_to_one():
    env = stages_at_random()
    critic, observation = LinearCritic(4, (5,)), first_observation(env)
    inputs = CriticInputs(jnp.zeros((2, 4)), observation, jnp.zeros(2, jnp.int32))
    read = jax.jit(lambda seed, inputs: critic.apply(critic.init(jax.random.key(seed), inputs), inputs))
    for seed in range(20):
        values = read(seed, inputs)
        assert np.sum(values.weights) == pytest.approx(1, abs=1e-6)
        assert (values.weights > 0).all()
        other = inputs._replace(actions=jnp.ones(2, jnp.int32))
        again = read(seed, other)
        np.testing.assert_array_equal(values.utilities, again.utilities)  # it reads no actions


#: One step of Adam with these is a step of 1 along the gradient: sqrt(v) + eps is eps in float32.
PLAIN_STEPS = {"learning_rate": 1e8, "critic_learning_rate": 1e8, "adam_eps": 1e8, "max_grad_norm": 0.0}


@pytest.mark.parametrize("counts", but_slow([(3, 2), (2, 3, 2)], [(3, 2)]))
@pytest.mark.parametrize("seed", but_slow(range(3), [0]))
def test_the_mean_gradient_is_that_of_the_expected_critic(counts, seed):
    """Over all joint actions by their probabilities: of `E Q_tot`, exactly, because the critic is linear."""
    env = matrix_game(np.random.default_rng(seed).normal(size=counts))
    algorithm = baselines.make(
        "dop", entropy_coefficient=0.0, rollout_length=1, random_start=0.0, random_end=0.0, **PLAIN_STEPS
    )
    game = GameSpec.of(env)
    learner = algorithm.bind(game)
    state = random_state(algorithm, env, seed, target_seed=seed + 50)
    network, observation = algorithm.network(game), first_observation(env)
    mask = observation.action_mask

    def policies(agent):
        params = {"params": {**state.params["params"], "agent": agent}}
        logits = network.bind(params).utilities(observation)
        return jax.nn.softmax(jnp.where(mask, logits, -1e9))

    def expected(agent):
        bound = network.bind(state.params)
        nobody = jnp.zeros(len(counts), jnp.int32)
        return bound.evaluate(bound.utilities(observation), observation, nobody).expected(policies(agent))

    agent = state.params["params"]["agent"]
    exact, current = jax.jit(jax.grad(expected))(agent), np.asarray(jax.jit(policies)(agent))
    joints = jnp.asarray(list(itertools.product(*map(range, counts))), jnp.int32)

    def step(joint):
        batch = transitions(observation, joint[None], jnp.ones(1), jnp.zeros(1), observation)
        store = learner.memory.bind(env, step_example(env, learner, state.params), 1, 100)
        drawn = store.sample(store.init(), jnp.int32(1), jax.random.key(0))
        after, _ = learner.update(
            state, {"fresh": batch, "replay": drawn["replay"]}, clock_at(), jax.random.key(0)
        )
        old = state.params["params"]["agent"]
        return jax.tree.map(jnp.subtract, after.params["params"]["agent"], old)

    steps = jax.jit(jax.vmap(step))(joints)
    weights = np.prod(current[np.arange(len(counts)), np.asarray(joints)], axis=1)
    mean = jax.tree.map(lambda leaf: np.tensordot(weights, leaf, 1), steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), mean, exact)


@pytest.mark.slow
@pytest.mark.parametrize(("recurrent", "seeds"), [(False, 16), (True, 16)])
def test_dop_finds_a_joint_optimum(recurrent, seeds):
    """Two of three actions of each agent agree well: 4 or 3, by 16 seeds of which 15 must."""
    env = matrix_game([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    algorithm = baselines.make(
        "dop",
        hidden=(16,),
        critic_hidden=(16,),
        recurrent=recurrent,
        learning_rate=5e-3,
        critic_learning_rate=5e-3,
        rollout_length=8,
        random_steps=4000,
        target_period=50,
    )
    experiment = Experiment(
        algorithm=algorithm,
        environment=env,
        seeds=tuple(range(seeds)),
        env_steps=16_000,
        num_envs=4,
        evaluations=1,
        evaluation_episodes=1,
    )
    returns = train(experiment).history.last["episode_return"]
    assert (returns >= 3).mean() >= 15 / 16


def test_a_batch_that_is_larger_than_the_replay_is_refused(bad_input):
    with bad_input("replay"):
        baselines.make("dop", batch_size=64, replay_size=32)
