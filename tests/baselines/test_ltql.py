"""Networks of LTQL and of hysteretic and distributed Q-learning, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from envs.base import Observation
from envs.matrix_games import LTQL_PAYOFF, matrix_game
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from tests.baselines.learners import batch_loss, plain_transition, random_params
from tests.baselines.learners import randomised as normal_numbers
from tests.helpers import transitions
from tests.reference import q_learners as reference

GAMMA, N, FEATURES, ACTIONS = 0.9, 3, 2, 3
SETTINGS = {"hidden": (5, 4), "gamma": GAMMA}
ENV = envs.make("team-mdp-random", states=FEATURES, agents=N, actions=ACTIONS)


def randomised(params, seed):
    return normal_numbers(params, seed, scale=0.7)


def random_steps():
    """Batches of one: random observations and masks; rewards above and below what is expected; ends."""
    rng = np.random.default_rng(5)

    def observation():
        mask = rng.random((1, N, ACTIONS)) < 0.8
        mask[..., 1] = True
        view = rng.normal(size=(1, N, FEATURES)).astype(np.float32)
        return Observation(*map(jnp.asarray, (view, np.zeros((1, 1)), mask)), jnp.zeros(1, jnp.int32))

    for i in range(40):
        before, actions = observation(), rng.integers(0, ACTIONS, (1, N))
        reward = np.asarray([rng.normal()], np.float32)
        yield transitions(before, actions, reward, np.asarray([i % 4 > 0], np.float32), observation())


def action_values(params, view, bound, shared, ids, shared_layers):
    """`(n, A)`: one network for all actions, or each action's own, one after the other."""
    inputs = np.concatenate([view, np.eye(len(view))], axis=1) if ids else view
    (layers,) = params.values()
    agents = []
    for i, row in enumerate(inputs):
        own = layers if shared else reference.own_part(layers, i)
        if shared_layers:
            agents.append(reference.mlp(own, row, last_is_linear=True))
        else:
            each = [reference.own_part(own, action) for action in range(ACTIONS)]
            agents.append([reference.mlp(network, row, last_is_linear=True)[0] for network in each])
    out = np.asarray(agents)
    return bound * np.tanh(out) if bound else out


def ltql_terms(online, target, transition, alpha, second_if, *network):
    """For each agent the weight and the squared error of q_B, and those of q_U."""
    now, actions, reward, discount, following = transition

    def values(params, name, observation):
        out = action_values(params["params"][name], observation[0], *network)
        return np.where(observation[2], out, -1e9), out

    frozen, _ = values(target, "q_b", now)
    best = [frozen[k][u] == frozen[k].max() for k, u in enumerate(actions)]
    y = reward + GAMMA * discount * values(target, "q_u", following)[0].max(1)
    q_b, q_u = values(online, "q_b", now)[1], values(online, "q_u", now)[1]
    terms = []
    for k, u in enumerate(actions):
        useful = all(best[:k] + best[k + 1 :])
        weight = float(useful)
        if (second_if == "if" or not useful) and y[k] > q_b[k][u]:
            weight += alpha
        terms.append((weight, (y[k] - q_b[k][u]) ** 2, useful, (y[k] - q_u[k][u]) ** 2))
    return np.asarray(terms)


def ltql_loss(*arguments):
    weight, square_b, useful, square_u = ltql_terms(*arguments).T
    return np.mean(weight * square_b + useful * square_u)


def two_sets(algorithm):
    """Random parameters, and others for the target network."""
    params = random_params(algorithm, ENV, 0)
    return randomised(params, 1), randomised(params, 2)


@pytest.mark.parametrize(
    ("second_if", "bound", "shared", "ids", "shared_layers"),
    [
        ("elif", 0.0, True, True, False),
        ("if", 0.0, False, True, False),
        ("elif", 0.8, True, False, False),
        ("elif", 0.8, True, True, True),
        ("if", 0.0, False, False, True),
    ],
)
def test_the_loss_of_ltql(second_if, bound, shared, ids, shared_layers):
    algorithm = baselines.make(
        "ltql",
        **SETTINGS,
        alpha=0.5,
        second_if=second_if,
        q_bound=bound,
        share_parameters=shared,
        agent_ids=ids,
        shared_layers=shared_layers,
    )
    online, target = two_sets(algorithm)
    loss_of = jax.jit(batch_loss(algorithm, ENV))
    useful = []
    for step in random_steps():
        loss, logged = loss_of(online, target, step)
        network = bound, shared, ids, shared_layers
        expected = ltql_loss(online, target, plain_transition(step), 0.5, second_if, *network)
        np.testing.assert_allclose(loss, expected, rtol=2e-4, atol=1e-5)
        useful.append(float(logged["useful_fraction"]))
    assert {0.0} < set(useful)  # some transitions are useful to somebody, some to nobody


def test_the_releases_loss_of_ltql():
    """Sums over a batch, each times its own share of useful samples."""
    algorithm = baselines.make("ltql", **SETTINGS, alpha=0.5, useful_share=True)
    online, target = two_sets(algorithm)
    steps = list(random_steps())
    batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *steps)
    network = 0.0, True, True, False
    terms = [ltql_terms(online, target, plain_transition(step), 0.5, "elif", *network) for step in steps]
    weight, square_b, useful, square_u = np.concatenate(terms).T
    expected = weight.mean() * (weight @ square_b) + useful.mean() * (useful @ square_u)
    loss, logged = jax.jit(batch_loss(algorithm, ENV))(online, target, batch)
    assert weight.mean() > useful.mean() > 0
    np.testing.assert_allclose(loss, expected, rtol=2e-4)
    np.testing.assert_allclose(logged["useful_fraction"], useful.mean(), rtol=1e-5)


@pytest.mark.slow
def test_a_policy_without_ids_plays_with_any_number_of_agents():
    algorithm = baselines.make("ltql", "pursuit", hidden=(4,))
    params = randomised(random_params(algorithm, envs.make("catch-prey"), 0), 3)
    for agents in (4, 13):
        env = envs.make("catch-prey", agents=agents)
        game, observation = GameSpec.of(env), env.observe(env.reset(jax.random.key(1))[0])
        utilities = jax.jit(lambda observation, game=game: algorithm.utilities(game, params, observation))
        values = utilities(observation)
        assert values.shape == (agents, 5)
        assert np.abs(values).max() < 74 / 75  # the bound
        # Agents that see the same think the same.
        alone = observation._replace(agents_view=jnp.roll(observation.agents_view, 1, axis=0))
        np.testing.assert_allclose(utilities(alone), np.roll(values, 1, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("algorithm_id", "settings", "ratio"),
    [("hysteretic", {"ratio": 0.25}, 0.25), ("distributed", {}, 0.0), ("iql", {}, 1.0)],
)
def test_the_losses_of_independent_learners(algorithm_id, settings, ratio):
    algorithm = baselines.make(algorithm_id, **SETTINGS, **settings)
    online, target = two_sets(algorithm)
    loss_of = jax.jit(batch_loss(algorithm, ENV))
    for step in random_steps():
        now, actions, reward, discount, following = plain_transition(step)
        q = reference.utilities(online["params"], now)
        next_q = reference.utilities(target["params"], following)
        best = reference.best_actions(reference.utilities(online["params"], following), following[2])
        errors = [reward + GAMMA * discount * next_q[k][best[k]] - q[k][u] for k, u in enumerate(actions)]
        expected = np.mean([(1 if error > 0 else ratio) * error**2 for error in errors])
        np.testing.assert_allclose(loss_of(online, target, step)[0], expected, rtol=2e-4, atol=1e-5)


def test_the_four_sets_of_parameters():
    """q_B and q_U start apart, are both learned, and the loop copies both."""
    algorithm = baselines.make("ltql", hidden=(4,))
    state = algorithm.bind(GameSpec.of(matrix_game(LTQL_PAYOFF))).init(jax.random.key(0))
    for params in (state.params, state.target_params):
        assert set(params["params"]) == {"q_b", "q_u"}
        one, other = (jax.tree.leaves(params["params"][name]) for name in ("q_b", "q_u"))
        assert any(np.abs(np.asarray(a) - b).max() > 0.01 for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_deep_ltql_finds_one_of_two_optima():
    """On >= 95 % of 32 seeds, by a rule that was fixed beforehand."""
    experiment = Experiment(
        algorithm=baselines.make(
            "ltql", hidden=(16,), learning_rate=5e-3, learning_rate_schedule="linear", target_period=50
        ),
        environment=matrix_game(LTQL_PAYOFF),
        seeds=tuple(range(32)),
        env_steps=4000,
        evaluations=1,
        evaluation_episodes=1,
    )
    assert (train(experiment).history.last["episode_return"] == 2).mean() >= 0.95
