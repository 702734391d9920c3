"""MADDPG with discrete actions: losses and gradients beside a NumPy reference, masks, and what it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import baselines
import envs
from envs.matrix_games import general_sum_game, matrix_game, two_step_game
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.targets import fresh_moments
from tests.baselines.learners import (
    STAGED,
    concatenated,
    random_params,
    random_state,
    randomised,
    staged_steps,
)
from tests.baselines.test_recurrent import EPISODES, RECURRENT, Recall, batch_of
from tests.helpers import clock_at, first_observation, transitions
from tests.reference import maddpg_discrete as reference
from tests.reference.recurrent import Episode

SETTINGS = reference.Settings(gamma=0.9, temperature=0.7, logit_penalty=0.2, others_from="replay")


def small(settings=SETTINGS, **others):
    return baselines.make(
        "maddpg-discrete", hidden=(4,), critic_hidden=(5, 4), **settings._asdict(), **others
    )


def only(batch):
    """The trajectory of a batch of one."""
    return jax.tree.map(lambda leaf: leaf[0], batch)


def loss_of(algorithm, env=STAGED):
    """The critic and policy loss of each step, `(T,)`, as a function of parameters and a trajectory."""
    network = algorithm.network(GameSpec.of(env))

    def losses(params, target, trajectory, key):
        frozen = jax.lax.stop_gradient(params)
        rewards = trajectory.reward if trajectory.reward.ndim == 2 else trajectory.reward[:, None]
        rewards = jnp.broadcast_to(rewards, trajectory.actions.shape)
        bound = (network.bind(each) for each in (params, frozen, target))
        found = algorithm.losses(*bound, trajectory, rewards, key)
        return found["critic_loss"], found["policy_loss"]

    return losses


def noise_of(trajectory, key):
    """The Gumbel noise that the loss draws from the key."""
    shape = (*trajectory.actions.shape, trajectory.observation.action_mask.shape[-1])
    return reference.Noise(*(np.asarray(jax.random.gumbel(each, shape)) for each in jax.random.split(key)))


def episode_of(trajectory: Trajectory) -> Episode:
    observation = trajectory.observation
    leaves = observation.agents_view, observation.global_state, observation.action_mask
    return Episode(*map(np.asarray, (*leaves, trajectory.actions, trajectory.reward, trajectory.discount)))


def plain(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), params["params"])


def masked_transition(per_agent):
    """One step of STAGED's shape, in which some actions are not available."""
    trajectory = only(staged_steps()[0])
    masks = trajectory.observation.action_mask.at[0, 1, 0].set(False).at[1, 2, 1:].set(False)
    trajectory = trajectory._replace(observation=trajectory.observation._replace(action_mask=masks))
    if per_agent:
        trajectory = trajectory._replace(reward=jnp.asarray([[1.5, -2.0, 0.5]]))
    return trajectory


def check(settings, trajectory, steps, **others):
    """Losses of the first `steps` steps, and the derivative of their sum in six random directions."""
    algorithm, key = small(settings, **others), jax.random.key(4)
    params, target = (random_params(algorithm, STAGED, seed) for seed in (1, 2))
    losses, counts = loss_of(algorithm), jnp.arange(len(trajectory.reward)) < steps

    @jax.jit
    def losses_and_gradient(params):
        def total(params):
            each = losses(params, target, trajectory, key)
            return sum(jnp.sum(jnp.where(counts, loss, 0)) for loss in each), each

        return jax.grad(total, has_aux=True)(params)

    gradient, (critic_loss, policy_loss) = losses_and_gradient(params)
    noise, episode = noise_of(trajectory, key), episode_of(trajectory)
    noise = reference.Noise(*(each[:steps] for each in noise))
    episode = Episode(*(each[: steps + 1] for each in episode[:3]), *(each[:steps] for each in episode[3:]))
    at, y = plain(params), reference.targets(plain(target), episode, noise, settings)
    np.testing.assert_allclose(
        critic_loss[:steps], reference.critic_losses(at, y, episode), rtol=1e-3, atol=1e-4
    )
    expected = reference.policy_losses(at, at, episode, noise, settings)
    np.testing.assert_allclose(policy_loss[:steps], expected, rtol=1e-3, atol=1e-4)

    def surrogate(params):
        policy = reference.policy_losses(params, at, episode, noise, settings)
        return np.sum(reference.critic_losses(params, y, episode) + policy)

    rng = np.random.default_rng(0)
    for part in ("agent", "critics") * 3:
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), at)
        direction |= {
            name: jax.tree.map(np.zeros_like, other) for name, other in direction.items() if name != part
        }
        ahead, behind = (surrogate(reference.moved(at, direction, by)) for by in (1e-5, -1e-5))
        slopes = jax.tree.map(lambda g, d: np.sum(g * d), plain(gradient), direction)
        assert sum(jax.tree.leaves(slopes)) == pytest.approx((ahead - behind) / 2e-5, rel=5e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("others_from", "per_agent", "share"), [("replay", False, True), ("policies", True, False)]
)
def test_a_transitions_losses_and_gradients_are_those_of_the_reference(others_from, per_agent, share):
    settings = SETTINGS._replace(others_from=others_from)
    check(settings, masked_transition(per_agent), steps=1, share_parameters=share)


@pytest.mark.parametrize("others_from", ["replay", pytest.param("policies", marks=pytest.mark.slow)])
def test_an_episodes_losses_and_gradients_are_those_of_the_reference(others_from):
    """Of three steps in a trajectory of four, with recurrent agents."""
    settings = SETTINGS._replace(others_from=others_from)
    check(settings, only(batch_of(EPISODES[4:5], 0)), steps=3, **RECURRENT)


@pytest.mark.parametrize("others_from", [pytest.param("replay", marks=pytest.mark.slow), "policies"])
def test_no_policy_learns_from_another_agents_critic(others_from):
    """With parameters of their own, another critic of the third agent changes its policy's gradient alone."""
    algorithm = small(SETTINGS._replace(others_from=others_from), share_parameters=False)
    params, target = (random_params(algorithm, STAGED, seed) for seed in (1, 2))
    other = randomised(params, 3)["params"]["critics"]
    changed = jax.tree.map(lambda own, new: own.at[2].set(new[2]), params["params"]["critics"], other)
    trajectory, losses = masked_transition(True), loss_of(algorithm)

    @jax.jit
    def gradient(params):
        def policy_loss(params):
            return jnp.sum(losses(params, target, trajectory, jax.random.key(0))[1])

        return jax.grad(policy_loss)(params)["params"]

    before = gradient(params)
    after = gradient({"params": params["params"] | {"critics": changed}})
    for one_leaf, other_leaf in zip(*map(jax.tree.leaves, (before["agent"], after["agent"])), strict=True):
        np.testing.assert_array_equal(one_leaf[:2], other_leaf[:2])
        assert (one_leaf[2] != other_leaf[2]).any()
    assert not any(leaf.any() for leaf in jax.tree.leaves(before["critics"]))  # critics learn to fit alone


@pytest.mark.slow
def test_what_comes_after_an_episodes_end_changes_nothing():
    """Neither parameters nor what is logged, to the bit; with standardised rewards too."""
    algorithm = small(**RECURRENT, standardise_rewards=True, batch_size=len(EPISODES), replay_size=100)
    learner = algorithm.bind(GameSpec.of(STAGED))
    update, state = jax.jit(learner.update), jax.jit(learner.init)(jax.random.key(0))
    batches = batch_of(EPISODES, 0), batch_of(EPISODES, 1)
    assert (batches[0].reward != batches[1].reward).any()
    one_state, other = (update(state, batch, clock_at(), jax.random.key(1)) for batch in batches)
    jax.tree.map(np.testing.assert_array_equal, one_state, other)
    seen = np.concatenate([episode.rewards for episode in EPISODES])
    np.testing.assert_allclose(one_state[0].opt_state[1].mean, [seen.mean()] * 3, rtol=1e-3)
    np.testing.assert_allclose(one_state[0].opt_state[1].variance, [seen.var()] * 3, rtol=1e-2)


def test_rewards_may_be_standardised():
    """The first update is that of a learner without, given rewards of mean 0 and variance 1."""
    batch = concatenated(staged_steps())
    standard = (batch.reward - jnp.mean(batch.reward)) / jnp.std(batch.reward)
    logged = []
    for flag, reward in ((True, batch.reward), (False, standard)):
        algorithm = small(standardise_rewards=flag)
        update, state = (
            jax.jit(algorithm.bind(GameSpec.of(STAGED)).update),
            random_state(algorithm, STAGED, 1),
        )
        if flag:
            state = state.replace(opt_state=(state.opt_state[0], fresh_moments(3)))
        logged.append(update(state, batch._replace(reward=reward), clock_at(), jax.random.key(1))[1])
    for name, value in logged[0].items():
        assert float(value) == pytest.approx(float(logged[1][name]), rel=2e-3, abs=1e-4), name


def test_an_exact_critic_may_slope_the_wrong_way():
    """Q is 3 at action 0 and 5 at action 1 but falls at first between them: the policy stays at action 0."""
    env = matrix_game([3.0, 5.0])
    algorithm = baselines.make("maddpg-discrete", hidden=(1,), critic_hidden=(2,), logit_penalty=0.0)
    params = jax.tree.map(np.zeros_like, random_params(algorithm, env, 0))
    first, last = (params["params"]["critics"]["critic"][name] for name in ("Dense_0", "Dense_1"))
    first["kernel"][-2], first["bias"][:] = 1, (1, -0.5)  # the last input but one is u_1, the last an id
    last["kernel"][:, 0], last["bias"][:] = (-1, 6), 4  # 4 - relu(u_1 + 1) + 6 relu(u_1 - 1/2)
    params["params"]["agent"]["Dense_0"]["bias"][:] = 4, 0

    observation = first_observation(env)
    network = algorithm.network(GameSpec.of(env)).bind(params)
    values = [float(network.values(observation, jnp.eye(2)[None, action])[0]) for action in range(2)]
    assert values == [3, 5]
    one = jax.tree.map(lambda leaf: leaf[None], observation)
    trajectory, losses = only(transitions(one, [[0]], [3.0], [0.0], one)), loss_of(algorithm, env)

    @jax.jit
    def mean_loss(params):
        keys = jax.random.split(jax.random.key(0), 4000)
        return jnp.mean(jax.vmap(lambda key: losses(params, params, trajectory, key)[1])(keys))

    gradient = jax.grad(mean_loss)(params)["params"]["agent"]["Dense_0"]["bias"]
    assert gradient[1] > 0.01 > -0.01 > gradient[0]  # a step makes action 1 still rarer


# Acting


def test_actions_are_drawn_from_the_masked_softmax():
    """In training; the most probable one in evaluation. The second of two agents has two of three actions."""
    env = matrix_game(np.zeros((3, 2)))
    algorithm, observation = small(), first_observation(env)
    learner, params = algorithm.bind(GameSpec.of(env)), random_params(algorithm, env, 5)

    @jax.jit
    def drawn(keys):
        act = functools.partial(learner.act, params, (), observation, clock_at())
        return jax.vmap(lambda key: act(key).actions)(keys)

    actions = np.asarray(drawn(jax.random.split(jax.random.key(0), 20_000)))
    logits = np.asarray(algorithm.network(GameSpec.of(env)).bind(params).utilities(observation), float)
    for agent, count in ((0, 3), (1, 2)):
        weights = np.exp(logits[agent, :count])
        shares = np.bincount(actions[:, agent], minlength=3) / len(actions)
        np.testing.assert_allclose(shares[:count], weights / weights.sum(), atol=0.02)
        assert (shares[count:] == 0).all()
        greedy = learner.act_greedily(params, (), observation, jax.random.key(0)).actions
        assert greedy[agent] == np.argmax(weights)


# What is learned

#: Small agents that play at random at first; all else as EPyMARL has it.
SMALL_AGENTS = {"hidden": (64,), "learning_starts": 500}
SEEDS = tuple(range(200, 216))


def learned(env, env_steps, **settings):
    """Returns of greedy play at the end, `(seeds,)`, or `(seeds, n)`."""
    experiment = Experiment(
        algorithm=baselines.make("maddpg-discrete", **{**SMALL_AGENTS, **settings}),
        environment=env,
        seeds=SEEDS,
        env_steps=env_steps,
        num_envs=8 if settings.get("consumes") == "episodes" else 1,
        evaluations=1,
        evaluation_episodes=64,
    )
    return train(experiment).history.last["episode_return"]


@pytest.mark.slow
@pytest.mark.parametrize(("others_from", "least"), [("replay", 14), ("policies", 9)])
def test_a_coordination_game(others_from, least):
    """Both first actions pay 5, both second ones 10: 10 on at least 14 of 16 seeds.

    Among samples of the others' own policies either pair is an equilibrium: one of them on all seeds, and the
    better one on most.
    """
    returns = learned(matrix_game([[5.0, 0.0], [0.0, 10.0]]), 4000, others_from=others_from)
    assert np.isin(returns, (5, 10)).all()
    assert np.sum(returns == 10) >= least


@pytest.mark.slow
def test_the_two_step_game():
    """At least the safe 7 on at least 14 of 16 seeds."""
    assert np.sum(learned(two_step_game(), 4000) >= 7) >= 14


@pytest.mark.slow
def test_agents_with_rewards_of_their_own_follow_them():
    """The prisoners' dilemma: at least 24 of the 32 agents of 16 seeds defect, where a team would cooperate.

    Not all of them: see `test_an_exact_critic_may_slope_the_wrong_way`.
    """
    returns = learned(general_sum_game([[[3.0, 0.0], [5.0, 1.0]], [[3.0, 5.0], [0.0, 1.0]]]), 4000)
    assert np.isin(returns, (1, 5)).sum() >= 24  # who cooperates gets 3 or 0


@struct.dataclass(eq=False)
class ToldRecall(Recall):
    """`Recall` whose state, which the critics see, has the cue in it throughout."""

    def observe(self, state):
        observation = super().observe(state)
        first = (state.step_count == 0).astype(jnp.float32)
        told = jnp.concatenate([jax.nn.one_hot(state.cue, 3), observation.agents_view[0, 3:], first[None]])
        return observation._replace(global_state=told)


@pytest.mark.slow
def test_recurrent_agents_remember():
    """With memory all greedy episodes are right on at least 14 of 16 seeds; without none gets above .6."""
    settings = {
        "consumes": "episodes",
        "hidden": (16,),
        "critic_hidden": (64, 64),
        "logit_penalty": 0.01,
        "learning_rate": 2e-3,
        "replay_size": 1000,
        "target_period": 50,
    }
    assert np.sum(learned(ToldRecall(), 16_000, **settings, recurrent=True) == 1) >= 14
    assert (learned(ToldRecall(), 16_000, **settings) < 0.6).all()


# What is refused


def test_continuous_actions_are_refused(bad_input):
    with bad_input("the algorithm needs discrete actions, but DifferentialGame has continuous ones"):
        baselines.make("maddpg-discrete").bind(GameSpec.of(envs.make("differential")))
    for env_id in ("matrix-pr2", "two-step", "matrix-qtran"):  # with a reward of each agent or of the team
        baselines.make("maddpg-discrete").bind(GameSpec.of(envs.make(env_id)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"recurrent": True}, "recurrent agents learn from what came before: consume episodes"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"logit_penalty": -1e-3}, "logit_penalty must be 0 or above, not -0.001"),
        ({"others_from": "policy"}, "others_from must be replay or policies, not policy"),
        ({"critic_hidden": ()}, "critic_hidden must be one or more widths"),
        ({"target_period": 0}, "target_period must be at least 1, not 0"),
    ],
)
def test_impossible_settings(settings, says, bad_input):
    with bad_input(says):
        baselines.make("maddpg-discrete", **settings)
