"""The actor-critics: what each network learns from, exact games of two states, and small games of numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.actor_critic import AgentTransition, AgentView, Networks, agent_orderings, agent_views
from baselines.stein import stein_loss
from envs.differential_game import differential_game
from envs.matrix_games import matrix_game
from envs.team_mdp import team_mdp
from jaxmarl_fac.experience import Step
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.memory.packing import plain_step
from jaxmarl_fac.networks import SquashedNormal
from jaxmarl_fac.soft.planning import TwoPlayerModel, soft_value_iteration
from jaxmarl_fac.soft.stages import agent_first
from tests.baselines.learners import one_hill
from tests.helpers import but_slow, clock_at, first_observation, sets_but_slow, transitions

CONTINUOUS = ("ddpg", "ddpg-om", "maddpg", "td3", "matd3", "masql", "sac", "pr2-ac", "rommeo-ac")
DISCRETE = ("sac-discrete", "balancing-ac")
GAME, MATRIX = differential_game(), matrix_game([[1.0, 2.0], [3.0, 4.0]])
GAMMA = 0.8


# What each network learns from


def first_view(env, agent=0):
    """The game's first observation as an agent knows it."""
    return jax.tree.map(lambda leaf: leaf[agent], agent_views(first_observation(env)))


def one_agent(algorithm, env, seed=0):
    """The networks of the first of all agents, with random parameters: fresh heads would be 0."""
    game = GameSpec.of(env)
    shapes = jax.eval_shape(algorithm.bind(game).init, jax.random.key(0)).params
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jax.device_put(np.asarray(0.5 * rng.normal(size=leaf.shape[1:]), np.float32))

    return algorithm.network(game), jax.tree.map(draw, shapes), jax.tree.map(draw, shapes)


def loss_of(algorithm, network, params, target, transition, progress=0.0, key=0):
    """The loss of one transition, and what is logged of it."""
    networks = Networks(*(network.bind(each) for each in (params, jax.lax.stop_gradient(params), target)))
    clock = clock_at(progress=progress)
    return algorithm.method.loss(networks, transition, algorithm.gamma, clock, jax.random.key(key))


def transition_of(env, **changes):
    """A transition of the first of two agents that goes on."""
    view, numbers = first_view(env), env.num_actions == 0
    transition = AgentTransition(
        view=view,
        own=jnp.float32(0.3) if numbers else jnp.int32(1),
        others=jnp.asarray([-0.6] if numbers else [0]),
        reward=jnp.float32(2.0),
        discount=jnp.float32(1.0),
        next_view=view,
        next_actions=jnp.asarray([0.1, -0.4] if numbers else [0, 1]),
    )
    return transition._replace(**changes)


@functools.cache
def differentiated(name, env):
    """A jitted function of a transition: gradients of the loss and of the critic's error, and that error."""
    algorithm = baselines.make(name, hidden=(8,), batch_size=2)
    network, params, target = one_agent(algorithm, env)

    def losses(params, transition):
        total, metrics = loss_of(algorithm, network, params, target, transition, progress=0.5, key=1)
        return jnp.stack([total, metrics["critic_loss"]])

    @jax.jit
    def differentiate(transition):
        values, pull = jax.vjp(lambda params: losses(params, transition), params)
        return jax.vmap(pull)(jnp.eye(2))[0], values[1]

    return differentiate


def gradients(name, env, transition):
    """The gradient of the loss, and of the critic's error alone, by network and flat; and the error."""
    both, error = differentiated(name, env)(transition)

    def flat(which):
        return {
            network: np.concatenate([np.ravel(leaf[which]) for leaf in jax.tree.leaves(part)])
            for network, part in both["params"].items()
        }

    return flat(0), flat(1), float(error)


@pytest.mark.parametrize("name", but_slow([*CONTINUOUS, *DISCRETE], {"ddpg-om", "sac", "balancing-ac"}))
def test_critics_learn_from_their_error_alone_and_actors_never_from_the_reward(name):
    env = GAME if name in CONTINUOUS else MATRIX
    total, alone, error = gradients(name, env, transition_of(env))
    richer, _, other_error = gradients(name, env, transition_of(env, reward=jnp.float32(7.0)))
    np.testing.assert_allclose(total["critic"], alone["critic"], atol=1e-4)
    assert np.abs(alone["critic"]).max() > 1e-3
    assert error != pytest.approx(other_error)
    for network in total:
        if network in ("critic", "prior"):
            continue
        np.testing.assert_allclose(total[network], richer[network], atol=1e-6)
        if (name, network) != ("ddpg-om", "opponent"):  # its model learns in `model_loss`
            assert np.abs(total[network]).max() > 1e-4, network
            np.testing.assert_array_equal(alone[network], 0)


@pytest.mark.parametrize(
    ("name", "hears", "asks"),
    sets_but_slow(
        [("ddpg", 0, 0), ("maddpg", 1, 1), ("ddpg-om", 1, 0), ("td3", 0, 0), ("matd3", 1, 1)],
        [("maddpg", 1, 1), ("ddpg-om", 1, 0)],
    ),
)
def test_what_the_critics_of_ddpgs_family_see(name, hears, asks):
    """`hears`: of the other's action in the sample; `asks`: for what the other's target policy does next."""
    env = GAME
    plain = gradients(name, env, transition_of(env))[2]
    heard = gradients(name, env, transition_of(env, others=jnp.asarray([0.9])))[2]
    asked = gradients(name, env, transition_of(env, next_actions=jnp.asarray([0.1, 0.9])))[2]
    assert (plain != heard) == hears
    assert (plain != asked) == asks
    assert plain != gradients(name, env, transition_of(env, own=jnp.float32(-0.8)))[2]


@pytest.mark.slow
def test_models_learn_from_the_newest_transitions():
    """The prior has the maximum likelihood of the newest actions, whatever else is in the batch."""
    game, observation = GameSpec.of(GAME), first_observation(GAME)
    algorithm = baselines.make("rommeo-ac", batch_size=64, hidden=(8,))
    learner = algorithm.bind(game)
    rng = np.random.default_rng(0)
    drawn, newest = rng.uniform(-1, 1, (64, 2)), np.tanh(0.5 + 0.3 * rng.normal(size=(64, 2)))
    batch = {
        name: transitions(observation, jnp.float32(10 * actions), jnp.zeros(64), jnp.zeros(64), observation)
        for name, actions in (("replay", drawn), ("newest", newest))
    }

    @jax.jit
    def fit(key):
        def update(state, key):
            return learner.update(state, batch, clock_at(progress=1), key)[0], None

        return jax.lax.scan(update, learner.init(key), jax.random.split(key, 300))[0]

    params = fit(jax.random.key(0)).params
    raw = np.arctanh(newest)
    for agent in (0, 1):
        network = algorithm.network(game).bind(jax.tree.map(lambda leaf, i=agent: leaf[i], params))
        prior = network.prior(observation.agents_view[agent])
        found = prior.distribution.loc, prior.distribution.scale
        np.testing.assert_allclose(found, (raw[:, 1 - agent].mean(), raw[:, 1 - agent].std()), atol=0.02)


@pytest.mark.parametrize("algo", but_slow(DISCRETE, {"sac-discrete"}))
def test_masked_actions_change_no_gradient(algo):
    """Of four actions the last is masked: the rest learns as in a network of three."""
    algorithm = baselines.make(algo, hidden=(5,))
    masked, alone = (matrix_game(np.zeros((count, count))) for count in (4, 3))
    network, params, target = one_agent(algorithm, masked)

    def cut(leaf):
        """The three actions' part of parameters of all four, or of all sixteen pairs."""
        if leaf.shape[-1] == 16:
            return leaf.reshape(*leaf.shape[:-1], 4, 4)[..., :3, :3].reshape(*leaf.shape[:-1], 9)
        return leaf[..., :3] if leaf.shape[-1] == 4 else leaf

    def gradients(network, params, target, transition):
        def loss(params):
            return loss_of(algorithm, network, params, target, transition)[0]

        return jax.jit(jax.grad(loss))(params)

    transition = transition_of(masked)
    view = transition.view._replace(masks=jnp.broadcast_to(jnp.arange(4) < 3, (2, 4)))
    found = gradients(network, params, target, transition._replace(view=view, next_view=view))
    three = algorithm.network(GameSpec.of(alone)), *(jax.tree.map(cut, each) for each in (params, target))
    for leaf, expected in zip(
        jax.tree.leaves(found), jax.tree.leaves(gradients(*three, transition_of(alone))), strict=True
    ):
        np.testing.assert_allclose(cut(leaf), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(jnp.sum(jnp.abs(leaf)), jnp.sum(jnp.abs(expected)), rtol=1e-5)


@pytest.mark.parametrize("algo", but_slow(DISCRETE, {"balancing-ac"}))
def test_masked_actions_and_vanishing_probabilities_leave_gradients_finite(algo):
    """The first agent has two of four actions, and parameters so large that probabilities underflow."""
    scale = 1e4
    env, algorithm = (
        matrix_game([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]),
        baselines.make(algo, hidden=(4,)),
    )
    network, params, target = one_agent(algorithm, env)
    params = jax.tree.map(lambda leaf: np.float32(scale) * np.asarray(leaf), params)

    def loss(params):
        return loss_of(algorithm, network, params, target, transition_of(env))[0] / scale**6

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    head = gradients["params"]["policy"]["Dense_0"]
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    assert (np.asarray(head["bias"])[2:] == 0).all()  # nothing is learned of what the agent does not have


@pytest.mark.slow
def test_a_batch_has_drawn_transitions_and_the_newest():
    algorithm = baselines.make("ddpg-om", batch_size=4, replay_size=5)
    memory = algorithm.bind(GameSpec.of(GAME)).memory.bind(GAME, plain_step(GAME), 1, 10**6)
    buffer, (state, timestep) = memory.init(), GAME.reset(jax.random.key(0))
    for number in range(7):
        actions, last = jnp.full(2, float(number)), jnp.asarray(False)
        step = Step(state, (), actions, (), timestep.reward, timestep.discount, last, ~last, state)
        buffer = memory.add(buffer, jnp.int32(number), jax.tree.map(lambda leaf: leaf[None], step))
        batch = memory.sample(buffer, jnp.int32(number + 1), jax.random.key(number))
        drawn, newest = (batch[name].actions[:, 0, 0] for name in ("replay", "newest"))
        assert set(batch) == {"replay", "newest"} and drawn.shape == (4,)
        assert set(drawn.tolist()) <= set(range(max(0, number - 4), number + 1))
        # Again from the start while they are too few.
        np.testing.assert_array_equal(newest, [number - back % (number + 1) for back in range(4)])


def test_targets_follow_by_a_hundredth():
    learner = baselines.make("maddpg", batch_size=4, hidden=(4,)).bind(GameSpec.of(GAME))
    state = jax.jit(learner.init)(jax.random.key(0))
    state = state.replace(target_params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    observation = first_observation(GAME)
    batch = transitions(observation, jnp.ones((4, 2)), jnp.ones(4), jnp.ones(4), observation)
    after, _ = jax.jit(learner.update)(state, batch, clock_at(), jax.random.key(0))
    for old, new, target in zip(
        *map(jax.tree.leaves, (state.target_params, after.params, after.target_params)), strict=True
    ):
        np.testing.assert_allclose(target, 0.99 * old + 0.01 * new, atol=1e-6)
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True)
    )


# The parts


def test_agents_count_from_themselves():
    np.testing.assert_array_equal(agent_orderings(3), [[0, 1, 2], [1, 0, 2], [2, 0, 1]])


@pytest.mark.parametrize(
    ("iteration", "alpha"),
    [(0, 500.1), (10, 500.1), (60, 0.1 + 500 * math.exp(-5)), (200, 0.1 + 500 * math.exp(-19))],
)
def test_entropy_weight_is_that_of_rommeos_release(iteration, alpha):
    found = baselines.make("rommeo-ac").method.annealing.alpha(clock_at(progress=iteration / 200))
    assert float(found) == pytest.approx(alpha, rel=1e-4)


def test_squashed_normal_is_a_density():
    module = SquashedNormal((4,))
    params = module.init(jax.random.key(0), jnp.ones(2))
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    distribution = module.apply(params, jnp.ones(2))
    loc, scale = float(distribution.distribution.loc), float(distribution.distribution.scale)
    raw = np.linspace(-6, 6, 2001)  # even in what is squashed, since the density rises towards the bounds
    density = np.exp(np.asarray(jax.vmap(distribution.log_prob)(jnp.tanh(raw)), float))
    mass = 0.5 * (1 + math.erf((6 - loc) / scale / math.sqrt(2)))
    mass -= 0.5 * (1 + math.erf((-6 - loc) / scale / math.sqrt(2)))
    assert np.sum(density * (1 - np.tanh(raw) ** 2)) * 0.006 == pytest.approx(mass, abs=5e-3)
    at = 0.25
    raw = (math.atanh(at) - loc) / scale
    by_hand = -0.5 * raw**2 - math.log(scale * math.sqrt(2 * math.pi)) - math.log(1 - at**2)
    assert float(distribution.log_prob(at)) == pytest.approx(by_hand, abs=1e-5)
    assert float(module.apply(params, jnp.ones(2), method="median")) == pytest.approx(math.tanh(loc))


def test_steins_loss_moves_half_of_the_particles():
    raw = jnp.asarray([[-1.0], [1.0], [0.2], [0.7]])
    gradient = np.asarray(jax.grad(stein_loss)(raw, lambda x: 2 * x[0]))[:, 0]
    fixed, moved = np.array([-1.0, 1.0]), np.array([0.2, 0.7])
    bandwidth = 4 / math.log(2)
    score = 2 * (1 - np.tanh(fixed) ** 2) - 2 * np.tanh(fixed)  # of 2 tanh(u) + log(1 - tanh(u)^2)
    away = moved[:, None] - fixed
    kernel = np.exp(-(away**2) / bandwidth)
    direction = np.mean(kernel * (score + 2 / bandwidth * away), axis=1)
    np.testing.assert_allclose(gradient, [0, 0, *(-direction / 2)], atol=1e-5)


# Games of two states against the tables


def two_states(actions, others):
    """A game of two states that never ends, with sure moves: the game, rewards and next states."""
    rng = np.random.default_rng(1)
    reward, following = rng.uniform(-1, 1, (2, actions, others)), rng.integers(0, 2, (2, actions, others))
    return team_mdp(np.eye(2)[following], reward), reward, following


def every_step(env, reward, following, zero_sum):
    """Every state and joint action once, as a batch."""
    state, *joint = (index.reshape(-1) for index in np.indices(reward.shape))
    start, _ = env.reset(jax.random.key(0))
    observe = jax.vmap(lambda number: env.observe(start.replace(state=number)))
    pay = jnp.float32(reward.reshape(-1))
    return transitions(
        observe(jnp.int16(state)),
        jnp.stack(joint, axis=1).astype(jnp.int32),
        jnp.stack([pay, -pay], axis=1) if zero_sum else pay,
        jnp.ones(len(state)),
        observe(jnp.int16(following.reshape(-1))),
    )


def learn(algorithm, env, batch, updates):
    learner = algorithm.bind(GameSpec.of(env))

    @jax.jit
    def run(key):
        def update(state, number):
            return learner.update(state, batch, clock_at(progress=number / updates), key)

        state, _ = jax.lax.scan(update, learner.init(key), jnp.arange(updates))
        return state.params

    return run(jax.random.key(3))


def networks_by_state(algorithm, env, params, agent):
    """The networks of an agent, and its views of both states."""
    network = algorithm.network(GameSpec.of(env)).bind(jax.tree.map(lambda leaf: leaf[agent], params))
    start, _ = env.reset(jax.random.key(0))
    observations = [env.observe(start.replace(state=jnp.int16(number))) for number in (0, 1)]
    return network, [jax.tree.map(lambda leaf: leaf[agent], agent_views(each)) for each in observations]


def exact(reward, following, beta_own, beta_other, agent, zero_sum=False):
    """Tables q `(2, A, B)` and the backups of both states, as the agent sees the game."""
    transition = np.eye(2)[following]
    if agent:
        reward, transition = reward.transpose(0, 2, 1), transition.transpose(0, 2, 1, 3)
    reward = -reward if agent and zero_sum else reward
    model = TwoPlayerModel(*(jnp.float32(part) for part in (reward, transition, GAMMA)))
    stage = functools.partial(agent_first, beta_own=beta_own, beta_other=beta_other)
    return soft_value_iteration(model, stage)


FAST = {
    "hidden": (32, 32),
    "gamma": GAMMA,
    "actor_learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "learning_rate_schedule": "linear",
    "target_rate": 0.2,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beta_own", "beta_other", "zero_sum"),
    [
        (2.0, -3.0, True),
        (2.0, 3.0, False),
        (-1.0, 2.0, False),
        (-2.0, -1.0, False),
        (0.0, 1.0, False),
        (1.0, 0.0, True),
    ],
)
def test_balancing_ac_is_the_tabular_solution_of_two_states(beta_own, beta_other, zero_sum):
    env, reward, following = two_states(3, 3)
    algorithm = baselines.make(
        "balancing-ac", beta_own=beta_own, beta_other=beta_other, batch_size=18, **FAST
    )
    params = learn(algorithm, env, every_step(env, reward, following, zero_sum), updates=600)
    for agent in (0, 1):
        q, backup = exact(reward, following, beta_own, beta_other, agent, zero_sum)
        network, states = networks_by_state(algorithm, env, params, agent)
        for state, view in enumerate(states):
            assert float(network.v(view)) == pytest.approx(float(backup.value[state]), abs=1e-2)
            np.testing.assert_allclose(network.q(view), q[state], atol=1e-2)
            np.testing.assert_allclose(network.actor(view).probs, backup.policy[state], atol=1e-2)
            np.testing.assert_allclose(network.model(view).probs, backup.second_policy[state], atol=1e-2)


@pytest.mark.slow
def test_sac_discrete_is_the_tabular_solution_of_two_states():
    """The other agent has one action: V = α log Σ e^{q/α}, which is `agent_first`'s and α log A."""
    alpha = 0.5
    env, reward, following = two_states(3, 1)
    algorithm = baselines.make("sac-discrete", alpha=alpha, batch_size=6, **FAST)
    params = learn(algorithm, env, every_step(env, reward, following, False), updates=600)
    bonus = alpha * math.log(3)
    q, backup = exact(reward, following, 1 / alpha, 1.0, agent=0)
    # Every step earns the bonus once more: q rises by γ bonus / (1 - γ).
    network, states = networks_by_state(algorithm, env, params, agent=0)
    for state, view in enumerate(states):
        want = np.asarray(q)[state, :, 0] + GAMMA * bonus / (1 - GAMMA)
        np.testing.assert_allclose(network.values(view), [want, want], atol=1e-2)
        np.testing.assert_allclose(network.actor(view).probs, backup.policy[state], atol=1e-2)


@pytest.mark.slow
def test_sac_discrete_on_two_actions():
    """Q = (1, 2) and α = 1 make V = 2.313262 and π = (.268941, .731059)."""
    env = matrix_game([[1.0], [2.0]])
    algorithm = baselines.make("sac-discrete", alpha=1.0, batch_size=2, **FAST)
    observation = first_observation(env)
    actions = jnp.asarray([[0, 0], [1, 0]], jnp.int32)
    batch = transitions(observation, actions, jnp.asarray([1.0, 2.0]), jnp.zeros(2), observation)
    params = learn(algorithm, env, batch, updates=400)
    network = algorithm.network(GameSpec.of(env)).bind(jax.tree.map(lambda leaf: leaf[0], params))
    view = first_view(env)
    probs = network.actor(view).probs
    np.testing.assert_allclose(probs[:2], [0.268941, 0.731059], atol=1e-3)
    value = float(jnp.sum(probs * (network.values(view)[0] - jnp.log(probs))))
    assert value == pytest.approx(2.313262, abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("beta_other", [3.0, -3.0])
def test_balancing_ac_finds_the_tables_by_playing(beta_other):
    """Through the loop, replay and both agents' own play: V within .01 on the mean of 8 seeds."""
    env, reward, following = two_states(3, 3)
    settings = {**FAST, "hidden": (32,), "target_rate": 0.05, "learning_starts": 200}
    algorithm = baselines.make(
        "balancing-ac", beta_own=1.0, beta_other=beta_other, batch_size=64, replay_size=50_000, **settings
    )
    experiment = Experiment(
        algorithm=algorithm, environment=env, seeds=tuple(range(8)), env_steps=6000, evaluations=1
    )
    params = train(experiment).learner.params
    for agent in (0, 1):
        _, backup = exact(reward, following, 1.0, beta_other, agent)
        found = []
        for seed in range(8):
            lane = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params)
            network, states = networks_by_state(algorithm, env, lane, agent)
            found.append([float(network.v(view)) for view in states])
        np.testing.assert_allclose(np.mean(found, axis=0), backup.value, atol=1e-2)


# Games of numbers


def climb(name):
    settings = {"alpha": 0.1} if name == "sac" else {}
    experiment = Experiment(
        algorithm=baselines.make(name, hidden=(16, 16), batch_size=32, **settings),
        environment=one_hill(),
        seeds=tuple(range(8)),
        env_steps=1500,
        evaluations=1,
        evaluation_episodes=1,
    )
    return train(experiment).history.arrays()["episode_return"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTINUOUS)
def test_every_learner_climbs_a_hill(name):
    """From (0, 0), which pays 10 - 25 / 9, to 9.5 on at least 6 of 8 seeds."""
    returns = climb(name)
    if name != "masql":  # its sampler starts anywhere
        np.testing.assert_allclose(returns[0], 10 - 25 / 9, atol=1e-4)
    assert np.sum(returns[-1] >= 9.5) >= 6


# What is refused


@pytest.mark.parametrize("name", CONTINUOUS)
def test_learners_of_continuous_actions_refuse_discrete_games(name, bad_input):
    with bad_input("the algorithm needs continuous actions, but MatrixGame has 3 discrete ones"):
        baselines.make(name).bind(GameSpec.of(envs.make("matrix-qtran")))
    baselines.make(name).bind(GameSpec.of(GAME))


@pytest.mark.parametrize("name", DISCRETE)
def test_learners_of_discrete_actions_refuse_continuous_games(name, bad_input):
    with bad_input("the algorithm needs discrete actions, but DifferentialGame has continuous ones"):
        baselines.make(name).bind(GameSpec.of(GAME))
    baselines.make(name).bind(GameSpec.of(envs.make("matrix-qtran")))


@pytest.mark.parametrize("name", ["ddpg-om", "masql", "pr2-ac", "rommeo-ac"])
def test_models_of_one_other_agent_refuse_three(name, bad_input):
    three = GameSpec.of(one_hill().replace(centres=jnp.zeros((1, 3))))
    with bad_input("models one other agent"):
        baselines.make(name).bind(three)
    for other in ("ddpg", "maddpg", "td3", "matd3", "sac"):
        baselines.make(other).bind(three)


def test_balancing_ac_refuses_three_agents(bad_input):
    three = GameSpec.of(matrix_game(np.zeros((2, 2, 2))))
    with bad_input("models one other agent"):
        baselines.make("balancing-ac").bind(three)
    baselines.make("sac-discrete").bind(three)


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("ddpg", {"noise_start": -1.0}, "noise_start must be 0 or above"),
        ("ddpg", {"target_rate": 0.0}, "target_rate must be in (0, 1]"),
        ("maddpg", {"replay_size": 3}, "replay_size must be at least batch_size (512)"),
        ("td3", {"actor_period": 0}, "actor_period must be at least 1"),
        ("td3", {"target_noise": -0.1}, "target_noise must be 0 or above"),
        ("matd3", {"target_noise_clip": math.nan}, "target_noise_clip must be 0 or above"),
        ("masql", {"particles": 7}, "particles must be even"),
        ("pr2-ac", {"alpha_end": 0.0}, "alpha_end must be above 0"),
        ("sac", {"alpha": 0.0}, "alpha must be above 0"),
        ("rommeo-ac", {"hidden": ()}, "hidden must be one or more widths"),
        ("balancing-ac", {"beta_other": math.inf}, "beta_other must be a finite number"),
        ("ddpg", {"learning_rate_schedule": "cosine"}, "learning_rate_schedule must be constant or linear"),
    ],
)
def test_impossible_settings(name, settings, part, bad_input):
    with bad_input(part):
        baselines.make(name, **settings)


def test_masked_actions_are_never_played():
    """Agent 2 of a 3 x 2 game has no third action; its padding must not draw any probability."""
    env = matrix_game([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    view: AgentView = first_view(env, agent=1)
    for name in DISCRETE:
        network = baselines.make(name, hidden=(4,)).network(GameSpec.of(env))

        @jax.jit
        def probabilities(key, network=network):
            params = network.init(key, view, jnp.int32(0), jnp.zeros(1, jnp.int32))
            return network.bind(params).actor(view).probs

        np.testing.assert_allclose(probabilities(jax.random.key(0)), [0.5, 0.5, 0], atol=1e-6)
