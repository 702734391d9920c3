import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.team_mdp import TeamModel
from jaxmarl_fac.soft import options
from jaxmarl_fac.soft.options import DELAYED, LOBO_JORDAN, NO_MESSAGE, SINGLE
from tests.reference import soft_options as reference

pytestmark = pytest.mark.usefixtures("float64")
MODELS = pytest.mark.parametrize("model", [SINGLE, DELAYED, NO_MESSAGE], ids=lambda model: model.name)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=6, deadline=None)

PREFERENCE = np.array([[0.9, 0.1], [0.1, 0.9]])
UNIFORM = np.full((2, 2), 0.5)


def two_states(prior=PREFERENCE):
    """Action a leads to state a; r(0, .) = (0, 1), r(1, .) = (2, 0)."""
    model = TeamModel(
        jnp.broadcast_to(jnp.eye(2), (2, 2, 2)), jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.zeros(2, bool)
    )
    return options.option_game(model, [prior], termination_prior=0.5, beta=1.0, gamma=0.9)


def one_state(prior=PREFERENCE):
    model = TeamModel(jnp.ones((1, 2, 2, 1)), jnp.array([[[2.0, 0.0], [0.0, 1.0]]]), jnp.zeros(1, bool))
    return options.option_game(model, [prior, prior], termination_prior=0.5, beta=1.0, gamma=0.5)


def random_game(seed, model, *, states=3, own=(3, 2), other=(2, 3), terminal=0, dependent=True):
    """`own` and `other` are (options, actions). Without `dependent` all options have one prior."""
    rng = np.random.default_rng(seed)
    sizes = (own, other)[: model.agents]
    shape = (states, *(actions for _, actions in sizes))
    priors = []
    for m, actions in sizes:
        prior = rng.dirichlet(np.ones(actions), size=(states, m if dependent else 1))
        priors.append(np.broadcast_to(prior, (states, m, actions)))
    tables = TeamModel(
        jnp.asarray(rng.dirichlet(np.ones(states), size=shape)),
        jnp.asarray(rng.normal(size=shape)),
        jnp.arange(states) < terminal,
    )
    return options.option_game(
        tables,
        priors,
        option_priors=[rng.dirichlet(np.ones(m)) for m, _ in sizes],
        termination_prior=rng.uniform(0.1, 1),
        beta=rng.uniform(0.5, 2),
        gamma=rng.uniform(0.3, 0.8),
    )


bellman = jax.jit(options.bellman, static_argnames="model")
backup = jax.jit(options.backup, static_argnames="model")


def solved(game, model):
    return options.solve(game, model)


@functools.cache
def batched(model):
    return jax.jit(jax.vmap(lambda game: options.solve(game, model)))


def vmapped(game, model):
    """The second of two games that are solved together."""
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), game)
    both = both.replace(reward=both.reward.at[0].add(1.0))
    return jax.tree.map(lambda leaf: leaf[1], batched(model)(both))


both_ways = pytest.mark.parametrize("run", [solved, vmapped])


# Worked numbers


@both_ways
def test_one_agent(run):
    solution = run(two_states(), SINGLE)
    expected = {
        "action": [[7.432090, 8.380912], [8.919289, 7.917855]],
        "option": [8.015050, 8.539018],
        "termination": [[7.765462, 8.214620], [8.747122, 8.275911]],
    }
    for name, table in expected.items():
        np.testing.assert_allclose(solution.values[name], table, rtol=0, atol=1e-6, err_msg=name)
    master = [[0.279122, 0.720878], [0.731341, 0.268659]]
    ends = [[0.641748, 0.409541], [0.406062, 0.650483]]
    np.testing.assert_allclose(solution.policies["option"], master, rtol=0, atol=1e-6)
    np.testing.assert_allclose(solution.policies["termination"][..., 1], ends, rtol=0, atol=1e-6)


@both_ways
def test_one_agent_whose_options_are_alike(run):
    values = run(two_states(UNIFORM), SINGLE).values
    flat = np.array([9.823313, 10.343519])
    np.testing.assert_allclose(values["option"], flat, rtol=0, atol=1e-6)
    for name in ("action", "termination"):
        np.testing.assert_allclose(values[name], np.stack([flat, flat], 1), rtol=0, atol=1e-6)


@both_ways
def test_two_agents(run):
    values = run(one_state(), DELAYED).values
    expected = {
        "termination": [[[2.807173, 2.225270], [2.225270, 1.984293]]],
        "option": [[2.557964, 2.112022]],
        "action": [[[3.006501, 1.723205], [2.326987, 1.837825]]],
    }
    for name, table in expected.items():
        np.testing.assert_allclose(values[name], table, rtol=0, atol=1e-6, err_msg=name)


@both_ways
def test_two_agents_whose_options_are_alike(run):
    for model in (DELAYED, NO_MESSAGE):
        for name, table in run(one_state(UNIFORM), model).values.items():
            if not name.startswith("other"):
                np.testing.assert_allclose(table, 2.215035, rtol=0, atol=1e-6, err_msg=name)


def test_the_master_policy_sums_to_one():
    # V = (0, log 7): V^H = log 4. One option's action pays log 7, the other's pays nothing.
    model = TeamModel(jnp.ones((1, 2, 1)), jnp.log(jnp.array([[1.0, 7.0]])), jnp.zeros(1, bool))
    solution = options.solve(options.option_game(model, [np.eye(2)], gamma=0.0))
    np.testing.assert_allclose(solution.values["action"], [[0, np.log(7)]], atol=1e-12)
    np.testing.assert_allclose(solution.values["option"], [1.386294], atol=1e-6)
    np.testing.assert_allclose(solution.policies["option"], [[0.125, 0.875]], atol=1e-12)


def test_the_precision_is_that_of_the_game():
    assert solved(two_states(), SINGLE).q.dtype == jnp.float64
    with jax.enable_x64(False):
        solution = options.solve(two_states(), SINGLE)
        assert solution.q.dtype == jnp.float32
        np.testing.assert_allclose(solution.values["option"], [8.015050, 8.539018], rtol=1e-5)


# Slow references


@pytest.mark.parametrize("terminal", [0, 1])
def test_one_agent_against_loops(terminal):
    game = random_game(1, SINGLE, terminal=terminal)
    solution = solved(game, SINGLE)
    values, policies = reference.single(
        *map(np.asarray, (game.transition, game.reward, game.action_priors[0], game.option_priors[0])),
        *map(float, (game.termination_prior, game.beta, game.gamma)),
        sweeps=100,
        terminal=np.asarray(game.terminal),
    )
    compare(solution, values, policies)


def loops(game, sweeps=14):
    """The first agent's side of two."""
    pairs = (*game.action_priors, *game.option_priors)
    return reference.delayed(
        *map(np.asarray, (game.transition, game.reward, *pairs)),
        *map(float, (game.termination_prior, game.beta, game.gamma)),
        sweeps=sweeps,
    )


def test_two_agents_against_loops():
    game = random_game(2, DELAYED).replace(gamma=jnp.asarray(0.2))
    compare(solved(game, DELAYED), *loops(game))
    other_side = game.seen_by(1)
    compare(solved(other_side, DELAYED), *loops(other_side))


def compare(solution, values, policies):
    assert solution.values.keys() == values.keys()
    for name in values:
        np.testing.assert_allclose(solution.values[name], values[name], rtol=0, atol=1e-8, err_msg=name)
        np.testing.assert_allclose(solution.policies[name], policies[name], rtol=0, atol=1e-8, err_msg=name)


def test_without_messages():
    """Q of own options and actions skips the other's termination, and the future does not depend on z_o."""
    game = random_game(3, DELAYED)
    solution = solved(game, NO_MESSAGE)
    assert "other_termination" not in solution.values
    np.testing.assert_allclose(
        solution.q, np.broadcast_to(solution.q[:, :, :, :1], solution.q.shape), atol=1e-12
    )
    weights = np.asarray(game.action_priors[0]) * np.exp(np.asarray(solution.values["other_option"]))
    np.testing.assert_allclose(solution.values["action"], np.log(weights.sum(-1)), atol=1e-12)


def test_messages_of_options_that_are_alike_are_worth_nothing():
    game = random_game(3, DELAYED)
    alike = jnp.broadcast_to(game.action_priors[1][:, :1], game.action_priors[1].shape)
    game = game.replace(action_priors=(game.action_priors[0], alike))
    told, untold = (solved(game, model) for model in (DELAYED, NO_MESSAGE))
    for name in ("action", "option", "termination"):
        expected = np.broadcast_to(untold.values[name][:, None], told.values[name].shape)
        np.testing.assert_allclose(told.values[name], expected, atol=1e-8, err_msg=name)


def test_returns_against_loops():
    game = random_game(4, DELAYED)
    solutions = tuple(solved(side, DELAYED) for side in (game, game.seen_by(1)))
    start = np.array([0.5, 0.3, 0.2])
    expected = reference.team_return(
        np.asarray(game.transition),
        np.asarray(game.reward),
        [jax.tree.map(np.asarray, solution.policies) for solution in solutions],
        start,
        4,
        [np.asarray(prior) for prior in game.option_priors],
    )
    value = options.expected_return(game, solutions, jnp.asarray(start), 4)
    np.testing.assert_allclose(value, expected, atol=1e-10)


@pytest.mark.parametrize("model", [SINGLE, NO_MESSAGE], ids=lambda model: model.name)
def test_returns_of_a_constant_reward(model):
    game = random_game(5, model)
    game = game.replace(reward=jnp.ones_like(game.reward))
    solutions = tuple(solved(game.seen_by(agent), model) for agent in range(model.agents))
    value = options.expected_return(game, solutions, jnp.array([0.2, 0.3, 0.5]), 5, discount=0.5)
    np.testing.assert_allclose(value, 1 + 0.5 + 0.25 + 0.125 + 0.0625, atol=1e-12)


def test_nothing_is_earned_after_the_end():
    # State 1 is terminal; both actions lead there from state 0.
    model = TeamModel(
        jnp.broadcast_to(jnp.array([0.0, 1.0]), (2, 2, 2)), jnp.full((2, 2), 3.0), jnp.array([False, True])
    )
    game = options.option_game(model, [PREFERENCE], gamma=0.9)
    solution = options.solve(game)
    np.testing.assert_allclose(solution.values["option"][0], 3, atol=1e-9)
    value = options.expected_return(game, (solution,), jnp.array([1.0, 0.0]), 10)
    np.testing.assert_allclose(value, 3, atol=1e-12)


# Properties


@few
@given(seed=seeds)
@MODELS
def test_the_bellman_operator_is_a_contraction(model, seed):
    game = random_game(seed, model)
    first_key, second_key = jax.random.split(jax.random.key(seed))
    shape = solved(game, model).q.shape
    first = 5 * jax.random.normal(first_key, shape)
    second = 5 * jax.random.normal(second_key, shape)
    for one, other in ((first, second), (first, first + 1)):
        apart = jnp.max(jnp.abs(bellman(game, model, one) - bellman(game, model, other)))
        assert apart <= game.gamma * jnp.max(jnp.abs(one - other)) + 1e-12


@few
@given(seed=seeds)
@MODELS
def test_no_other_policies_are_better(model, seed):
    game = random_game(seed, model)
    solution = solved(game, model)
    rng = np.random.default_rng(seed)
    others = {}
    for name, policy in solution.policies.items():
        weights = np.asarray(policy) * np.exp(rng.normal(size=policy.shape) * rng.choice([0.01, 1.0]))
        others[name] = jnp.asarray(weights / weights.sum(-1, keepdims=True))
    judged = options.evaluate(game, model, others)
    for name, table in solution.values.items():
        assert (judged.values[name] <= table + 1e-8).all(), name
    assert jnp.mean(judged.values["termination"]) < jnp.mean(solution.values["termination"])
    own = options.evaluate(game, model, solution.policies)
    np.testing.assert_allclose(own.values["termination"], solution.values["termination"], atol=1e-8)


@few
@given(seed=seeds)
@MODELS
def test_options_that_are_alike_change_nothing(model, seed):
    game = random_game(seed, model, dependent=False)
    solution = solved(game, model)
    # Flat soft value iteration on joint actions.
    prior = np.asarray(game.action_priors[0])[:, 0]
    if model.agents == 2:
        prior = prior[:, :, None] * np.asarray(game.action_priors[1])[:, 0][:, None]
    states = len(prior)
    reward = float(game.beta) * np.asarray(game.reward)
    value = np.zeros(states)
    for _ in range(150):
        q = reward + float(game.gamma) * np.asarray(game.transition) @ value
        value = np.log((prior * np.exp(q)).reshape(states, -1).sum(1))
    for name in ("action", "option", "termination"):
        table = np.moveaxis(np.asarray(solution.values[name]), 0, -1)
        np.testing.assert_allclose(table, np.broadcast_to(value, table.shape), atol=1e-8, err_msg=name)
    master = np.asarray(solution.policies["option"])
    np.testing.assert_allclose(master, np.broadcast_to(game.option_priors[0], master.shape), atol=1e-8)
    np.testing.assert_allclose(solution.policies["termination"][..., 1], game.termination_prior, atol=1e-8)


@few
@given(seed=seeds)
def test_averages_miss_the_regularisation(seed):
    """Lobo and Jordan's V^H exceeds the soft maximum of the same values by KL(π^H || 1/m)."""
    game = random_game(seed, SINGLE)
    exact = solved(game, SINGLE)
    averaged = backup(game, LOBO_JORDAN, exact.q)
    master = np.asarray(exact.policies["option"])
    np.testing.assert_allclose(averaged.policies["option"], master, atol=1e-12)
    kl = (master * np.log(master / np.asarray(game.option_priors[0]))).sum(-1)
    np.testing.assert_allclose(averaged.values["option"] - exact.values["option"], kl, atol=1e-10)


def test_the_other_side_of_a_symmetric_game():
    game = one_state()
    for name, table in solved(game.seen_by(1), DELAYED).values.items():
        np.testing.assert_allclose(table, solved(game, DELAYED).values[name], atol=1e-12, err_msg=name)


def test_an_option_that_always_ends():
    game = random_game(6, SINGLE).replace(termination_prior=jnp.asarray(1.0))
    solution = solved(game, SINGLE)
    np.testing.assert_allclose(solution.policies["termination"][..., 1], 1, atol=0)
    np.testing.assert_allclose(
        solution.values["termination"],
        np.asarray(solution.values["option"])[:, None].repeat(3, 1),
        atol=1e-12,
    )


def test_choices():
    names = [(choice.agent, choice.kind) for choice in DELAYED.choices]
    assert names == [(who, kind) for who in (1, 0) for kind in ("action", "option", "termination")]
    assert dataclasses.replace(SINGLE, name=LOBO_JORDAN.name) != LOBO_JORDAN


# Bad input

MODEL = TeamModel(np.ones((1, 2, 1)), np.zeros((1, 2)), np.zeros(1, bool))
PAIR = TeamModel(np.ones((1, 2, 2, 1)), np.zeros((1, 2, 2)), np.zeros(1, bool))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"action_priors": [[[0.9, 0.2], [0.1, 0.9]]]}, "the action prior of agent 0 sums to 1.1"),
        ({"action_priors": [[[1.5, -0.5], [0.1, 0.9]]]}, "the action prior of agent 0 holds negative"),
        ({"action_priors": [[[0.5, 0.5]]]}, "at least two"),
        ({"action_priors": [[0.5, 0.5]]}, "give (S, m, A) or (m, A)"),
        ({"action_priors": [np.full((3, 2, 2), 0.5)]}, "this game needs (1, 2, 2)"),
        ({"action_priors": [[[0.2, 0.3, 0.5]] * 2]}, "this game needs (2, 2)"),
        ({"action_priors": [UNIFORM] * 2}, "2 action priors for 1 agents"),
        ({"option_priors": [[0.7, 0.7]]}, "the option prior of agent 0 sums to 1.4"),
        ({"option_priors": [[0.2, 0.3, 0.5]]}, "this game needs (2,)"),
        ({"option_priors": []}, "0 option priors"),
        ({"termination_prior": 0.0}, "in (0, 1], not 0"),
        ({"termination_prior": 1.01}, "in (0, 1], not 1.01"),
        ({"termination_prior": float("nan")}, "in (0, 1]"),
        ({"beta": 0.0}, "beta must be a finite number above 0"),
        ({"beta": float("inf")}, "beta must be a finite number above 0"),
        ({"gamma": 1.0}, "gamma must be in [0, 1), not 1"),
        ({"model": TeamModel(np.ones((1, 1)), np.zeros(1), np.zeros(1, bool))}, "without agents"),
    ],
)
def test_bad_games(bad_input, changes, part):
    good = {"model": MODEL, "action_priors": [UNIFORM]}
    options.option_game(**good)
    with bad_input(part):
        options.option_game(**(good | changes))


@pytest.mark.parametrize("function", [options.solve, lambda *a: options.evaluate(*a, {})])
def test_models_for_other_numbers_of_agents(bad_input, function):
    alone, pair = options.option_game(MODEL, [UNIFORM]), options.option_game(PAIR, [UNIFORM] * 2)
    with bad_input("delayed options need a game of 2 agents, not of 1"):
        function(alone, DELAYED)
    with bad_input("soft options need a game of 1 agent, not of 2"):
        function(pair, SINGLE)
