"""MAVEN: its networks, loss and latents, against the reference and by its equations; what it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
import envs
from baselines.maven import Latent, episode_with_latent, with_latent
from envs.matrix_games import matrix_game, n_step_matrix_game, two_step_game
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.program import Program
from tests.baselines.episodes import EPISODES, LONGEST, batch_of, only, padded
from tests.baselines.learners import GAMMA, STAGED, at_stage, batch_loss, random_params
from tests.helpers import but_slow, clock_at
from tests.reference import maven as reference

K = 3
SMALL = {"hidden": (5, 4), "mixer_embed": 3, "num_latents": K, "discriminator_hidden": (6,), "gamma": GAMMA}
FEED_FORWARD = {"recurrent_discriminator": False, "latent_hidden": (4,)}
RECURRENT = {"recurrent": True, "aggregator": 5, "mi_coefficient": 0.5, "latent_entropy": 0.25}
UNIFORM = {"latent_policy": "uniform"}
#: One latent for each of EPISODES, and log-probabilities with which they were drawn.
LATENTS = np.random.default_rng(1).integers(K, size=len(EPISODES))
LOG_PROBS = np.log(np.random.default_rng(2).uniform(0.1, 0.9, len(EPISODES)))


def small(**changes):
    return baselines.make("maven", **{**SMALL, **changes})


def with_extras(batch, latents, log_probs):
    """The batch of episodes, each of whose steps stores its latent; nonsense after the end."""
    mask = np.asarray(batch.mask)
    values = np.where(mask, np.asarray(latents)[:, None], K - 1 - np.asarray(latents)[:, None])
    probs = np.where(mask, np.asarray(log_probs)[:, None], 99.0)
    return batch._replace(extras=Latent(jnp.asarray(values, jnp.int8), jnp.asarray(probs, jnp.float32)))


BATCH = with_extras(batch_of(EPISODES, 0), LATENTS, LOG_PROBS)


def of_memory(algorithm, replay=BATCH, fresh=BATCH):
    """What the algorithm's memory gives."""
    return replay if algorithm.method.latent_policy == "uniform" else {"replay": replay, "fresh": fresh}


def two_params(algorithm):
    return random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)


# The loss


@pytest.mark.parametrize(
    "changes",
    [
        RECURRENT,
        pytest.param({**FEED_FORWARD, "mi_reward": 0.75}, marks=pytest.mark.slow),
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                FEED_FORWARD,
                {**RECURRENT, **UNIFORM},
                {**FEED_FORWARD, **UNIFORM, "mi_reward": 0.75},
            )
        ),
    ],
    ids=["recurrent", "reward", "feed-forward", "uniform", "uniform-reward"],
)
def test_the_loss_is_the_references(changes):
    algorithm = small(**changes)
    method, (online, target) = algorithm.method, two_params(algorithm)
    loss, metrics = jax.jit(batch_loss(algorithm, STAGED))(online, target, of_memory(algorithm))
    online, target = (jax.tree.map(np.asarray, params["params"]) for params in (online, target))
    found = [
        reference.terms(online, target, episode, latent, K, GAMMA, method.mi_reward)
        for episode, latent in zip(EPISODES, LATENTS, strict=True)
    ]
    cross_entropy = -np.mean(np.concatenate([terms.log_q for terms in found]))
    expected = np.mean(np.concatenate([terms.td for terms in found])) + method.mi_coefficient * cross_entropy
    entropy = np.log(K)
    if method.latent_policy == "learned":
        fresh = list(zip(EPISODES, LATENTS, LOG_PROBS, strict=True))
        policy_loss, entropy = reference.policy_loss(online, fresh, K, method.latent_entropy)
        assert metrics["latent_entropy"] == pytest.approx(entropy, rel=1e-5)
        expected += policy_loss
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["mi_bound"], entropy - cross_entropy, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_step_along_the_loss_makes_latents_easier_to_tell_apart():
    """The cross-entropy is added: both the discriminator's step and the agents' own raise the bound."""
    algorithm = small(**FEED_FORWARD, **UNIFORM)
    (online, target), loss = two_params(algorithm), jax.jit(batch_loss(algorithm, STAGED))

    def of_mi(params):  # with the TD loss subtracted
        without = batch_loss(small(**FEED_FORWARD, **UNIFORM, mi_coefficient=0.0), STAGED)
        return batch_loss(algorithm, STAGED)(params, target, BATCH)[0] - without(params, target, BATCH)[0]

    gradient = jax.jit(jax.grad(of_mi))(online)["params"]
    before = float(loss(online, target, BATCH)[1]["mi_bound"])
    for part in ("discriminator", "agent"):
        step = jax.tree.map(lambda p, g: p - 1e-2 * g, online["params"][part], gradient[part])
        stepped = {"params": {**online["params"], part: step}}
        assert float(loss(stepped, target, BATCH)[1]["mi_bound"]) > before + 1e-4
    for leaf in jax.tree.leaves(gradient["mixer"]):  # the difference of two equal gradients
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


@pytest.mark.slow
def test_agents_learn_from_the_auxiliary_reward_or_from_the_cross_entropy():
    """With the reward no gradient of the cross-entropy reaches the agents, and the discriminator gets it."""
    gradients = {}
    for reward in (0.0, 0.5):
        for coefficient in (0.0, 2.0):
            algorithm = small(**FEED_FORWARD, **UNIFORM, mi_reward=reward, mi_coefficient=coefficient)
            online, target = two_params(algorithm)
            loss = batch_loss(algorithm, STAGED)
            gradient = jax.jit(jax.grad(lambda p, loss=loss, t=target: loss(p, t, BATCH)[0]))(online)
            gradients[reward, coefficient] = gradient["params"]

    def differ(part, one, other):
        pairs = zip(*(jax.tree.leaves(gradients[each][part]) for each in (one, other)), strict=True)
        return max(float(jnp.abs(a - b).max()) for a, b in pairs) > 1e-6

    assert differ("agent", (0.0, 0.0), (0.0, 2.0))
    assert not differ("agent", (0.5, 0.0), (0.5, 2.0))
    assert differ("discriminator", (0.5, 0.0), (0.5, 2.0))
    assert not np.any(
        [np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients[0.5, 0.0]["discriminator"])]
    )


def test_the_auxiliary_reward_pays_for_being_told_apart():
    """Log q_v(z|sigma) - log p(z): where the discriminator is right y is higher than where it is wrong.

    With `mi_reward` w and latents that it is sure of, y changes by w log K; for wrong ones it falls.
    """
    algorithm = small(**FEED_FORWARD, **UNIFORM, mi_reward=0.5, hidden=(4,))
    params = random_params(algorithm, STAGED, 1)["params"]
    sure = jax.tree.map(jnp.zeros_like, params["discriminator"])
    last = max(sure["MLP_0"])
    # Every Q is 0, and the target's too: the TD loss is the mean of y squared.
    zeros = {**jax.tree.map(jnp.zeros_like, params)}
    loss = jax.jit(batch_loss(algorithm, STAGED))
    rewardless = BATCH._replace(reward=jnp.zeros_like(BATCH.reward))
    right = with_extras(rewardless, np.zeros(len(EPISODES), int), LOG_PROBS)
    wrong = with_extras(rewardless, np.ones(len(EPISODES), int), LOG_PROBS)
    sure["MLP_0"][last]["bias"] = jnp.asarray([20.0, 0.0, 0.0])
    both = {"params": {**zeros, "discriminator": sure}}
    nothing = {"params": zeros}
    told, _ = loss(both, nothing, right)
    mistaken, _ = loss(both, nothing, wrong)
    assert float(told) == pytest.approx((0.5 * np.log(K)) ** 2, rel=1e-4)  # its cross-entropy is 0
    assert float(mistaken) == pytest.approx((0.5 * (np.log(K) - 20)) ** 2 + 20, rel=1e-4)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
def test_the_bound_on_mutual_information_is_never_above_log_k(seed, scale):
    for loss, algorithm in compiled_losses():
        params = jax.tree.map(lambda leaf: scale * leaf, random_params(algorithm, STAGED, seed))
        _, metrics = loss(params, params, of_memory(algorithm))
        assert float(metrics["mi_bound"]) <= np.log(K) + 1e-5


@functools.cache
def compiled_losses():
    made = [small(**RECURRENT), small(**FEED_FORWARD, **UNIFORM)]
    return [(jax.jit(batch_loss(algorithm, STAGED)), algorithm) for algorithm in made]


def test_the_bound_is_log_k_for_latents_that_are_told_apart_for_certain():
    algorithm = small(**FEED_FORWARD, **UNIFORM)
    zeros = jax.tree.map(jnp.zeros_like, random_params(algorithm, STAGED, 0))
    loss = jax.jit(batch_loss(algorithm, STAGED))
    _, metrics = loss(zeros, zeros, BATCH)
    assert float(metrics["mi_bound"]) == pytest.approx(0, abs=1e-6)  # a guess at random
    bias = zeros["params"]["discriminator"]["MLP_0"]["Dense_1"]["bias"]
    zeros["params"]["discriminator"]["MLP_0"]["Dense_1"]["bias"] = bias.at[1].set(50.0)
    _, metrics = loss(zeros, zeros, with_extras(BATCH, np.ones(len(EPISODES), int), LOG_PROBS))
    assert float(metrics["mi_bound"]) == pytest.approx(np.log(K), abs=1e-5)


def test_the_policy_over_latents_follows_its_expected_return():
    """Its gradient by enumeration, -d/dtheta (sum_z pi(z) R(z) + c H), though old policies drew the latents.

    One episode in four was drawn with z = 0, one with z = 1 and two with z = 2, in the frequencies of the old
    policy, which is not the present one.
    """
    weight, returns, old = 0.3, jnp.asarray([1.0, -2.0, 4.0]), np.asarray([0.25, 0.25, 0.5])
    algorithm = small(latent_entropy=weight, latent_hidden=(4,))
    params, network = random_params(algorithm, STAGED, 3), algorithm.network(GameSpec.of(STAGED))
    latents = np.asarray([0, 1, 2, 2])
    episode = padded(EPISODES[-1], np.random.default_rng(0))
    batch = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=0), episode)
    batch = batch._replace(reward=jnp.zeros((4, LONGEST)).at[:, 0].set(returns[latents]))
    batch = with_extras(batch, latents, np.log(old[latents]))

    def estimated(params):
        return algorithm.method.policy_loss(network.bind(params), batch)[0]

    def objective(params):
        first = jax.tree.map(lambda leaf: leaf[0, 0], batch.observation)
        log_probs = network.bind(params).log_latents(first)
        probs = jnp.exp(log_probs)
        return jnp.sum(probs * returns) - weight * jnp.sum(probs * log_probs)

    for got, expected in zip(
        *(jax.tree.leaves(jax.jit(jax.grad(f))(params)) for f in (estimated, objective)), strict=True
    ):
        np.testing.assert_allclose(got, -np.asarray(expected), rtol=1e-4, atol=1e-6)


# Latents condition agents and mixer


def test_agents_and_mixer_depend_on_the_latent_and_are_monotone_for_each():
    algorithm = small()
    params = random_params(algorithm, STAGED, 4)
    network, observation = algorithm.network(GameSpec.of(STAGED)).bind(params), at_stage(STAGED, 1)
    seen = [with_latent(observation, z, K) for z in range(K)]
    of_each = [np.asarray(network.utilities(each)) for each in seen]
    q = jnp.asarray(np.random.default_rng(0).normal(size=of_each[0].shape), jnp.float32)
    actions = jnp.asarray([1, 0, 2])
    mixed = [float(network.mix(q, actions, each)) for each in seen]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(of_each[one] - of_each[other]).max() > 0.1
        assert abs(mixed[one] - mixed[other]) > 1e-3
    for each in seen:
        slope = jax.grad(lambda q, each=each: network.mix(q, actions, each))(q)
        assert (np.asarray(slope) >= 0).all() and np.asarray(slope).any()
    np.testing.assert_array_equal(seen[2].agents_view[:, -K:], [[0, 0, 1]] * 3)
    np.testing.assert_array_equal(seen[2].global_state[-K:], [0, 0, 1])
    np.testing.assert_array_equal(seen[2].global_state[:-K], observation.global_state)


@pytest.mark.parametrize("changes", but_slow([{}, {"share_parameters": False, "agent_ids": False}], [{}]))
@pytest.mark.parametrize("recurrent", but_slow([False, True], [True]))
def test_an_unroll_is_acting_step_by_step(changes, recurrent):
    """The utilities of a stored episode are those by which it was played."""
    algorithm = small(recurrent=recurrent, epsilon_start=0.0, epsilon_end=0.0, **changes)
    params, game = random_params(algorithm, STAGED, 5), GameSpec.of(STAGED)
    learner, network = algorithm.bind(game), algorithm.network(game).bind(params)
    episode = only(padded(EPISODES[-1], np.random.default_rng(0)))
    carry = learner.begin(params, jax.tree.map(lambda leaf: leaf[0], episode.observation), jax.random.key(3))
    played = []
    act, latent = jax.jit(learner.act), carry.latent
    for t in range(LONGEST):
        observation = jax.tree.map(lambda leaf, t=t: leaf[t], episode.observation)
        decision = act(params, carry, observation, clock_at(10**6), jax.random.key(t))
        played.append(decision.actions)
        assert decision.extras == latent
        carry = decision.carry
    extras = jax.tree.map(lambda leaf: jnp.stack([leaf] * LONGEST), latent)
    stored = episode._replace(actions=jnp.stack(played), extras=extras)
    utilities = network.unroll(episode_with_latent(stored, K))[:-1]
    masked = np.where(episode.observation.action_mask[:-1], utilities, -np.inf)
    np.testing.assert_array_equal(masked.argmax(axis=-1), np.stack(played))


def test_what_probes_see_is_the_most_likely_latent():
    algorithm = small(latent_hidden=(4,))
    params, game, observation = random_params(algorithm, STAGED, 6), GameSpec.of(STAGED), at_stage(STAGED, 0)
    network = algorithm.network(game).bind(params)
    best = int(jnp.argmax(network.log_latents(observation)))
    seen, actions = with_latent(observation, best, K), jnp.asarray([1, 2, 0])
    utilities = algorithm.utilities(game, params, observation)
    np.testing.assert_allclose(
        np.where(observation.action_mask, utilities, 0),
        np.where(observation.action_mask, network.utilities(seen), 0),
        rtol=1e-6,
    )
    values = algorithm.joint_values(game, params, observation, actions)
    assert float(values["q_tot"]) == pytest.approx(float(network.mix(network.utilities(seen), actions, seen)))


# Latents of episodes


@pytest.mark.parametrize("policy", but_slow(["learned", "uniform"], ["learned"]))
def test_latents_are_drawn_by_the_policy_and_greedy_play_follows_the_best(policy):
    algorithm = small(latent_policy=policy, latent_hidden=(4,), hidden=(16,))
    params, observation = random_params(algorithm, STAGED, 7), at_stage(STAGED, 1)
    learner = algorithm.bind(GameSpec.of(STAGED))
    log_probs = algorithm.network(GameSpec.of(STAGED)).bind(params).log_latents(observation)
    keys = jax.random.split(jax.random.key(0), 4000)
    carries = jax.jit(jax.vmap(lambda key: learner.begin(params, observation, key)))(keys)
    values, probs = np.asarray(carries.latent.value), np.exp(log_probs)
    assert values.dtype == np.int8
    # 5 standard deviations of a frequency
    np.testing.assert_allclose(np.bincount(values, minlength=K) / 4000, probs, atol=5 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose(carries.latent.log_prob, np.asarray(log_probs)[values], rtol=1e-6)
    if policy == "uniform":
        np.testing.assert_allclose(probs, 1 / K, rtol=1e-6)
        np.testing.assert_array_equal(carries.best, values)  # drawn
    else:
        assert probs.max() - probs.min() > 0.05
        np.testing.assert_array_equal(carries.best, np.full(4000, probs.argmax()))
    utilities = [
        np.asarray(
            algorithm.network(GameSpec.of(STAGED)).bind(params).utilities(with_latent(observation, z, K))
        )
        for z in range(K)
    ]
    mask = np.asarray(observation.action_mask)
    greedy = [np.where(mask, q, -np.inf).argmax(axis=-1) for q in utilities]
    assert len({tuple(joint) for joint in greedy}) > 1
    for key in keys[:6]:
        carry = learner.begin(params, observation, key)
        decision = learner.act_greedily(params, carry, observation, key)
        np.testing.assert_array_equal(decision.actions, greedy[int(carry.best)])
        assert decision.carry.best == carry.best


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["learned", "uniform"])
def test_stored_episodes_have_one_latent_each(policy):
    """Played through the loop in four environments, where episodes end at different times."""
    algorithm = small(**FEED_FORWARD, latent_policy=policy, learning_starts=4, batch_size=64, replay_size=64)
    experiment = Experiment(
        algorithm=algorithm,
        environment=n_step_matrix_game(steps=4),
        seeds=(0,),
        env_steps=600,
        num_envs=4,
        evaluations=1,
    )
    program = Program(experiment)
    lanes, _ = program.chunk(program.initial_lanes(), 0, 140)
    _, store = program.bind(experiment.environment)
    lane = jax.tree.map(lambda leaf: leaf[0], lanes)
    batches = jax.jit(store.sample)(lane.buffer, jnp.int32(140), jax.random.key(1))
    for batch in batches.values() if policy == "learned" else [batches]:
        values, mask = np.asarray(batch.extras.value), np.asarray(batch.mask) > 0
        probs = np.asarray(batch.extras.log_prob)
        lengths = mask.sum(axis=1)
        assert lengths.min() == 1 and lengths.max() >= 3
        np.testing.assert_array_equal(values[mask], np.repeat(values[:, 0], lengths))
        np.testing.assert_array_equal(probs[mask], np.repeat(probs[:, 0], lengths))
        assert set(values[:, 0]) == set(range(K))


# Settings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_latents": 1}, "num_latents must be at least 2, not 1"),
        ({"num_latents": 2.5}, "num_latents must be a whole number, not 2.5"),
        ({"latent_policy": "bandit"}, "latent_policy must be learned or uniform, not bandit"),
        ({"latent_entropy": -1.0}, "latent_entropy must be 0 or above, not -1.0"),
        ({"latent_episodes": 0}, "latent_episodes must be at least 1, not 0"),
        ({"mi_coefficient": -0.5}, "mi_coefficient must be 0 or above, not -0.5"),
        (
            {"mi_reward": 0.1},
            "mi_reward above 0 pays for every step: set it to 0, or recurrent_discriminator",
        ),
        ({"consumes": "transitions"}, "learn from whole episodes: consume episodes, or take"),
        ({"consumes": "transitions", **UNIFORM}, "learn from whole episodes: consume episodes, or take"),
        (
            {"consumes": "transitions", "recurrent_discriminator": False},
            "learn from whole episodes: consume episodes, or take",
        ),
        ({"batch_size": 64, "replay_size": 8}, "replay_size must be at least batch_size (64), not 8"),
    ],
)
def test_settings_that_cannot_be(bad_input, changes, says):
    with bad_input(says):
        baselines.make("maven", **changes)


@pytest.mark.parametrize(
    ("env_id", "says"),
    [("differential", "the algorithm needs discrete actions"), ("matrix-pr2", "a reward of the whole team")],
)
def test_games_that_it_cannot_play(bad_input, env_id, says):
    with bad_input(says):
        baselines.make("maven").bind(GameSpec.of(envs.make(env_id)))


# What it learns


FAST = {
    "hidden": (16,),
    "learning_rate": 5e-3,
    "batch_size": 32,
    "replay_size": 500,
    "learning_starts": 100,
    "target_period": 50,
    "epsilon_end": 0.05,
    "epsilon_steps": 500,
    "num_latents": 4,
}
COORDINATION = matrix_game([[4, 0, 0], [0, 4, 0], [0, 0, 4]])


def learned(env, env_steps, evaluation_episodes=16, **changes):
    experiment = Experiment(
        algorithm=baselines.make("maven", **{**FAST, **changes}),
        environment=env,
        seeds=tuple(range(16)),
        env_steps=env_steps,
        evaluations=1,
        evaluation_episodes=evaluation_episodes,
    )
    return train(experiment).history.last


@pytest.mark.slow
def test_it_learns_from_transitions_too():
    """A coordination game, uniform latents and a feed-forward discriminator: 15 of 16 seeds coordinate."""
    last = learned(
        COORDINATION, 1500, consumes="transitions", recurrent_discriminator=False, latent_policy="uniform"
    )
    assert (last["episode_return"] == 4).sum() >= 15
    assert (last["mi_bound"] <= np.log(4)).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["learned", "uniform"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_it_solves_the_two_step_game(policy, recurrent):
    """As QMIX does: 8, by at least 15 of 16 seeds."""
    last = learned(two_step_game(), 4000, latent_policy=policy, recurrent=recurrent, mi_coefficient=0.1)
    assert (last["episode_return"] == 8).sum() >= 15


@pytest.mark.slow
def test_latents_come_to_mean_different_joint_actions():
    """Three ways to coordinate are equally good: with the bound latents differ, without it they do not.

    The median over 16 seeds of the bound of 2 uniform latents exceeds half of log 2, and is twice that of a
    loss without the term.
    """
    found = {
        weight: learned(COORDINATION, 3000, latent_policy="uniform", num_latents=2, mi_coefficient=weight)
        for weight in (0.0, 1.0)
    }
    assert np.median(found[1.0]["mi_bound"]) > 0.5 * np.log(2)
    assert (found[1.0]["episode_return"] == 4).sum() >= 15
    assert np.median(found[1.0]["mi_bound"]) > 2 * np.median(found[0.0]["mi_bound"])


@pytest.mark.slow
def test_the_policy_over_latents_settles_on_those_that_pay():
    """MAVEN's game of 4 steps: in the end at least 14 of 16 seeds get 7, and latents are not uniform."""
    last = learned(n_step_matrix_game(steps=4), 8000, num_latents=8, update_period=2)
    assert (last["episode_return"] == 7).sum() >= 14
    assert np.median(last["latent_entropy"]) < np.log(8)
