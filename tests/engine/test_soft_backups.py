import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import BadInputError
from envs.matrix_games import CLIMBING_PAYOFF, THESIS_PAYOFF
from jaxmarl_fac import soft_backups as soft
from tests.reference import soft_backups as reference

THESIS = np.array(THESIS_PAYOFF, float)
CLIMBING = np.array(CLIMBING_PAYOFF, float)
SIGNS = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
betas = st.sampled_from([-np.inf, -30.0, -2.0, -0.1, -1e-9, 0.0, 1e-9, 0.1, 2.0, 30.0, np.inf])


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def jitted(function):
    return jax.jit(function)


@functools.cache
def batched(function):
    return jax.jit(jax.vmap(function))


def under_jit(function, *arguments):
    return jitted(function)(*map(jnp.asarray, arguments))


def under_vmap(function, *arguments):
    """The second of two games that are solved together."""
    both = [jnp.stack([jnp.ones_like(x), x]) for x in map(jnp.asarray, arguments)]
    return jax.tree.map(lambda leaf: leaf[1], batched(function)(*both))


both_ways = pytest.mark.parametrize("run", [under_jit, under_vmap])


def random_game(seed, shape=(3, 4), scale=5.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


def random_prior(seed, shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


def random_model(seed, states=3, own=2, other=3, gamma=0.8):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(states, own, other))
    reward = rng.normal(size=(states, own, other)) * 2
    return soft.TwoPlayerModel(jnp.asarray(reward), jnp.asarray(transition), jnp.asarray(gamma))


# The backups of one stage.


@both_ways
@pytest.mark.parametrize(
    ("beta", "policy", "value"),
    [(0.1, (0.317717, 0.291454, 0.390830), 0.315749), (1.0, (0.002149, 0.002634, 0.995217), 7.807738)],
)
@pytest.mark.parametrize("backup", [soft.pr2, soft.rommeo])
def test_pr2_and_rommeo_on_the_thesis_game(run, backup, beta, policy, value):
    ours = run(backup, beta * THESIS)
    np.testing.assert_allclose(ours.value, value, atol=1e-6)
    np.testing.assert_allclose(ours.policy, policy, atol=1e-6)


@few
@given(seeds)
def test_pr2_and_rommeo_match_their_definitions(seed):
    k, own, other = random_game(seed, scale=2), random_prior(seed, (3,)), random_prior(seed + 1, (4,))
    for backup, definition in [(soft.pr2, reference.pr2), (soft.rommeo, reference.rommeo)]:
        value, policy = definition(k, own, other)
        ours = jitted(backup)(*map(jnp.asarray, (k, own, other)))
        np.testing.assert_allclose(ours.value, value, rtol=1e-10)
        np.testing.assert_allclose(ours.policy, policy, rtol=1e-10)


@few
@given(seeds)
def test_pr2_and_rommeo_are_one_joint_if_their_priors_are(seed):
    k = jnp.asarray(random_game(seed))
    joint_prior = random_prior(seed, (12,)).reshape(3, 4)
    own, other = joint_prior.sum(1), joint_prior.sum(0)
    first = jitted(soft.pr2)(k, jnp.asarray(own), jnp.asarray(joint_prior / own[:, None]))
    second = jitted(soft.rommeo)(k, jnp.asarray(joint_prior / other), jnp.asarray(other))
    np.testing.assert_allclose(first.joint, second.joint, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(first.value, second.value, rtol=1e-12)
    # With the same marginals, but a prior of b that depends on a, they are not.
    independent = jitted(soft.rommeo)(k, jnp.asarray(own), jnp.asarray(other))
    assert abs(first.value - independent.value) > 1e-6


@both_ways
@pytest.mark.parametrize(
    ("alpha", "prior", "opponent", "policy", "value"),
    [
        (1.0, (1 / 3,) * 3, (0.973174, 0.017840, 0.008986), (0.973174, 0.024381, 0.002445), 9.928597),
        (0.5, (1 / 3,) * 3, None, (0.975139, 0.024027, 0.000835), None),
        (5.0, (1 / 3,) * 3, None, (0.768275, 0.088768, 0.142957), 10.612875),
        (1.0, (0.1, 0.2, 0.7), (0.908020, 0.033292, 0.058688), (0.908111, 0.076088, 0.015801), None),
    ],
)
def test_published_rommeo_on_the_climbing_game(run, alpha, prior, opponent, policy, value):
    ours = run(soft.rommeo_published, CLIMBING, alpha, prior)
    np.testing.assert_allclose(ours.policy, policy, atol=1e-6)
    if opponent is not None:
        np.testing.assert_allclose(ours.opponent, opponent, atol=1e-6)
    if value is not None:
        np.testing.assert_allclose(ours.value, value, atol=1e-6)


def test_published_rommeo_without_entropy_replies_greedily():
    ours = jitted(soft.rommeo_published)(jnp.asarray(CLIMBING), 0.0, jnp.full((3,), 1 / 3))
    np.testing.assert_allclose(ours.first_values, [11, 7, 6], atol=1e-12)
    np.testing.assert_allclose(ours.second_policy, [[1, 0, 0], [0, 1, 1], [0, 0, 0]], atol=0)
    np.testing.assert_allclose(ours.value, np.log(np.mean(np.exp([11, 7, 6]))), rtol=1e-12)


@both_ways
@pytest.mark.parametrize(
    ("beta_own", "beta_other", "agent", "opponent", "independent"),
    [(0.1, -0.1, 2.335223, 2.890022, 2.606757), (2.0, -3.0, 1.803799, 1.935694, 1.918803)],
)
def test_corollary_1_fails_for_opposite_signs(run, beta_own, beta_other, agent, opponent, independent):
    arguments = THESIS, beta_own, beta_other, np.full(3, 1 / 3), np.full(3, 1 / 3)
    np.testing.assert_allclose(run(soft.agent_outer, *arguments).value, agent, atol=1e-6)
    np.testing.assert_allclose(run(soft.opponent_outer, *arguments).value, opponent, atol=1e-6)
    np.testing.assert_allclose(run(soft.independent_play, *arguments).value, independent, atol=1e-6)


def test_corollary_1_holds_for_equal_betas():
    for backup in (soft.agent_outer, soft.opponent_outer):
        np.testing.assert_allclose(jitted(backup)(jnp.asarray(THESIS), 0.1, 0.1).value, 3.157486, atol=1e-6)


@both_ways
def test_independent_play_is_the_saddle_point(run):
    ours = run(soft.independent_play, THESIS, 0.1, -0.1, np.full(3, 1 / 3), np.full(3, 1 / 3))
    np.testing.assert_allclose(ours.policy, [0.336726, 0.309057, 0.354217], atol=1e-6)
    np.testing.assert_allclose(ours.opponent, [0.379066, 0.346105, 0.274829], atol=1e-6)


@few
@given(seeds, st.floats(0.1, 5), st.floats(-5, -0.1))
def test_independent_play_lies_between_the_two_orders(seed, beta_own, beta_other):
    q, own, other = random_game(seed, (3, 3)), random_prior(seed, (3,)), random_prior(seed + 1, (3,))
    arguments = tuple(map(jnp.asarray, (q, beta_own, beta_other, own, other)))
    middle = jitted(soft.independent_play)(*arguments)
    assert middle.residual < 1e-9
    assert jitted(soft.agent_outer)(*arguments).value <= middle.value + 1e-9
    assert middle.value <= jitted(soft.opponent_outer)(*arguments).value + 1e-9
    # The value is the regularised objective at the solution, and neither can improve on it alone.
    objective = functools.partial(regularised_objective, q, beta_own, beta_other, own, other)
    solution = np.asarray(middle.policy), np.asarray(middle.opponent)
    np.testing.assert_allclose(objective(*solution), middle.value, atol=1e-8)
    mixed = 0.9 * solution[0] + 0.1 * own, 0.9 * solution[1] + 0.1 * other
    assert objective(mixed[0], solution[1]) <= middle.value + 1e-9
    assert objective(solution[0], mixed[1]) >= middle.value - 1e-9


def test_independent_play_close_to_the_zero_sum_game():
    # Rock, paper, scissors where one win counts double; β of 1000 leaves nearly the max-min play.
    q = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, 0.0]])
    ours = jitted(soft.independent_play)(q, 1000.0, -1000.0, jnp.full((3,), 1 / 3), jnp.full((3,), 1 / 3))
    assert ours.residual < 1e-8
    # There every row pays 1/12 against (5, 3, 4)/12, and (5, 4, 3)/12 gets as much from every column.
    np.testing.assert_allclose(ours.policy, [5 / 12, 1 / 3, 1 / 4], atol=2e-3)
    np.testing.assert_allclose(ours.opponent, [5 / 12, 1 / 4, 1 / 3], atol=2e-3)
    np.testing.assert_allclose(ours.value, 1 / 12, atol=2e-3)


def test_independent_play_of_a_team():
    uniform = jnp.full((3,), 1 / 3)
    ours = jitted(soft.independent_play)(jnp.asarray(THESIS), 10.0, 10.0, uniform, uniform)
    assert ours.residual < 1e-10
    np.testing.assert_allclose(ours.policy, [0, 0, 1], atol=1e-12)
    # Both pay KL = log 3 for leaving the prior.
    np.testing.assert_allclose(ours.value, 10 - 2 * np.log(3) / 10, rtol=1e-9)


def regularised_objective(q, beta_own, beta_other, own, other, policy, opponent):
    def penalty(chosen, prior, beta):
        return np.sum(chosen * np.log(np.maximum(chosen, 1e-300) / prior)) / beta

    own_penalty, other_penalty = penalty(policy, own, beta_own), penalty(opponent, other, beta_other)
    return policy @ q @ opponent - own_penalty - other_penalty


@few
@given(seeds, st.sampled_from(SIGNS), st.floats(0.05, 2), st.floats(0.05, 2))
def test_both_orders_match_the_loops(seed, signs, own_size, other_size):
    q, own, other = random_game(seed), random_prior(seed, (3,)), random_prior(seed + 1, (3, 4))
    beta_own, beta_other = signs[0] * own_size, signs[1] * other_size
    value, m, policy, replies = reference.nested(q, beta_own, beta_other, own, other)
    ours = jitted(soft.agent_outer)(*map(jnp.asarray, (q, beta_own, beta_other, own, other)))
    np.testing.assert_allclose(ours.value, value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.first_values, m, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.policy, policy, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.second_policy, replies, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.opponent, policy @ replies, rtol=1e-8, atol=1e-12)
    # The other order is the same with the players' names exchanged.
    mirror = jitted(soft.opponent_outer)(*map(jnp.asarray, (q.T, beta_other, beta_own, other.T, own)))
    np.testing.assert_allclose(mirror.value, value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mirror.opponent, policy, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(mirror.policy, policy @ replies, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(mirror.second_policy, replies.T, rtol=1e-8, atol=1e-12)


# β towards 0 and ±inf.


@both_ways
@pytest.mark.parametrize(
    ("beta_own", "beta_other", "value"),
    [
        (np.inf, np.inf, 10.0),  # a team
        (np.inf, -np.inf, 2.0),  # max min
        (-np.inf, np.inf, 3.0),  # min max
        (-np.inf, -np.inf, 0.0),
        (0.0, 0.0, 24 / 9),  # both play their priors
        (np.inf, 0.0, 11 / 3),  # a best response to the prior
        (0.0, -np.inf, 2 / 3),  # the prior against the worst
        (1e-300, -1e-300, 24 / 9),
        (1e308, -1e308, 2.0),
    ],
)
def test_limits_of_beta_on_the_thesis_game(run, beta_own, beta_other, value):
    np.testing.assert_allclose(run(soft.agent_outer, THESIS, beta_own, beta_other).value, value, atol=1e-12)


@few
@given(seeds, st.floats(1e-12, 1e-3), st.sampled_from([1, -1]))
def test_small_beta_is_close_to_the_mean(seed, size, sign):
    q, prior = random_game(seed, (6,)), random_prior(seed, (6,))
    mean = prior @ q
    value = jitted(soft.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), sign * size)
    # Hoeffding: 0 <= (log E e^{β (x - E x)}) / β <= β range² / 8 for β > 0.
    assert -1e-13 <= sign * (value - mean) <= size * np.ptp(q) ** 2 / 8 + 1e-13
    # The second order of the expansion, far below the first: nothing is lost to cancellation.
    variance = prior @ (q - mean) ** 2
    np.testing.assert_allclose(
        value, mean + sign * size * variance / 2, rtol=0, atol=size**2 * np.ptp(q) ** 3 + 1e-14
    )


@few
@given(seeds, st.floats(10, 1e12))
def test_large_beta_is_close_to_the_extremes(seed, size):
    q, prior = random_game(seed, (6,)), random_prior(seed, (6,))
    slack = -np.log(prior.min()) / size
    high = jitted(soft.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), size)
    low = jitted(soft.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), -size)
    assert q.max() - slack - 1e-12 <= high <= q.max() + 1e-12
    assert q.min() - 1e-12 <= low <= q.min() + slack + 1e-12


@few
@given(seeds)
def test_value_rises_with_beta_and_so_does_the_mean_of_the_policy(seed):
    q, prior = jnp.asarray(random_game(seed, (6,))), jnp.asarray(random_prior(seed, (6,)))
    grid = jnp.array([-jnp.inf, -1e6, -3.0, -0.2, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.2, 3.0, 1e6, jnp.inf])
    values = jax.vmap(jitted(soft.log_mean_exp), (None, None, 0))(q, prior, grid)
    policies = jax.vmap(jitted(soft.tilted_policy), (None, None, 0))(q, prior, grid)
    assert np.all(np.diff(values) >= -1e-12)
    assert np.all(np.diff(policies @ q) >= -1e-12)
    np.testing.assert_allclose(policies.sum(1), 1, rtol=1e-12)
    assert values[-1] - values[0] > 0.1


@pytest.mark.parametrize("beta", [0.0, 1e-30, -1e-20, 1e-9, 1e-4, 0.3, -20.0, 1e5, -1e30, np.inf])
def test_float32_is_as_exact_as_its_digits(beta):
    q, prior = random_game(3, (5,)), random_prior(3, (5,))
    exact = jitted(soft.log_mean_exp)(jnp.asarray(q), jnp.asarray(prior), beta)
    with jax.enable_x64(False):
        ours = jitted(soft.log_mean_exp)(jnp.asarray(q, jnp.float32), jnp.asarray(prior, jnp.float32), beta)
        assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, exact, rtol=0, atol=8 * 2**-24 * np.abs(q).max())


def test_ties_share_the_mass_as_their_priors_do():
    prior = jnp.array([0.2, 0.3, 0.1, 0.4])
    policy = jitted(soft.tilted_policy)(jnp.array([5.0, 5.0, 1.0, 1.0]), prior, jnp.inf)
    np.testing.assert_allclose(policy, [0.4, 0.6, 0, 0], atol=1e-12)
    policy = jitted(soft.tilted_policy)(jnp.array([5.0, 5.0, 1.0, 1.0]), prior, -jnp.inf)
    np.testing.assert_allclose(policy, [0, 0, 0.2, 0.8], atol=1e-12)


@few
@given(seeds, betas, betas)
def test_an_action_without_prior_is_not_there(seed, beta_own, beta_other):
    small = random_game(seed, (2, 3))
    large = np.full((3, 4), 1e9)
    large[:2, :3] = small
    own, other = jnp.array([0.4, 0.6]), jnp.array([0.2, 0.3, 0.5])
    ours = jitted(soft.agent_outer)(
        jnp.asarray(large), beta_own, beta_other, jnp.append(own, 0.0), jnp.append(other, 0.0)
    )
    without = jitted(soft.agent_outer)(jnp.asarray(small), beta_own, beta_other, own, other)
    np.testing.assert_allclose(ours.value, without.value, rtol=1e-12)
    np.testing.assert_allclose(ours.joint[:2, :3], without.joint, rtol=1e-12)
    np.testing.assert_allclose(ours.joint.sum(), 1, rtol=1e-12)


@few
@given(seeds, betas, betas)
def test_the_gradient_of_the_value_is_the_joint(seed, beta_own, beta_other):
    q = jnp.asarray(random_game(seed))
    own, other = jnp.asarray(random_prior(seed, (3,))), jnp.asarray(random_prior(seed + 1, (4,)))
    ours = jitted(soft.agent_outer)(q, beta_own, beta_other, own, other)
    gradient = gradient_of_the_value(q, beta_own, beta_other, own, other)
    np.testing.assert_allclose(gradient, ours.joint, rtol=1e-7, atol=1e-9)


gradient_of_the_value = jax.jit(jax.grad(lambda *arguments: soft.agent_outer(*arguments).value))


# The thesis's experiment (FACTS 10.6).


@pytest.mark.parametrize(
    ("omega", "beta_other", "policy"),
    [
        (1.0, 0.1, (0.317717, 0.291454, 0.390830)),
        (1.0, -0.1, (0.344180, 0.307453, 0.348367)),
        (10.0, -0.1, (0.745606, 0.126353, 0.128041)),
    ],
)
@both_ways
def test_first_policies_of_the_thesis_experiment(run, omega, beta_other, policy):
    ours = run(soft.agent_outer, THESIS, omega * 0.1, omega * beta_other)
    np.testing.assert_allclose(ours.policy, policy, atol=1e-6)


@both_ways
def test_first_policy_of_the_adversary(run):
    # Its own Balancing-Q, with the signs exchanged: it plays first and the agent replies.
    adversary = run(soft.opponent_outer, THESIS, 0.1, -0.1).opponent
    np.testing.assert_allclose(adversary, [0.389043, 0.347529, 0.263429], atol=1e-6)


def test_limits_of_the_thesis_experiment():
    q, inf = jnp.asarray(THESIS), jnp.inf
    agent, other = jitted(soft.agent_outer), jitted(soft.opponent_outer)
    cooperative = agent(q, inf, inf)
    np.testing.assert_allclose(cooperative.policy, [0, 0, 1], atol=0)
    np.testing.assert_allclose(other(q, inf, inf).opponent, [0, 0, 1], atol=0)
    balancing = agent(q, inf, -inf).policy
    adversary = other(q, inf, -inf).opponent
    np.testing.assert_allclose(balancing @ q @ adversary, 2, atol=1e-12)
    # PR2 believes in cooperation and plays action 3; the adversary of Balancing-Q plays column 1.
    np.testing.assert_allclose(cooperative.policy @ q @ adversary, 1, atol=1e-12)
    # Two PR2 agents in the zero-sum game: the other, who is paid -q, is indifferent between 2 and 3.
    deceived = other(-q, inf, inf).opponent
    np.testing.assert_allclose(deceived, [0, 0.5, 0.5], atol=0)
    np.testing.assert_allclose(cooperative.policy @ q @ deceived, 5, atol=1e-12)


# Probabilistic Balancing-Q.


@pytest.mark.parametrize(("beta_own", "beta_other"), [(0.5, 0.7), (0.5, -0.7), (-0.4, 0.3)])
def test_probabilistic_balancing_follows_the_printed_recursion(beta_own, beta_other):
    model = random_model(5)
    q, _ = value_iteration(model, beta_own, beta_other)
    ours = batched(soft.probabilistic_balancing)(
        q, *jnp.full((2, 3), jnp.array([beta_own, beta_other])[:, None])
    )
    opponent_q, values = reference.probabilistic_balancing(*model, beta_own, beta_other, iterations=200)
    np.testing.assert_allclose(ours.opponent_q, opponent_q, atol=1e-8)
    np.testing.assert_allclose(ours.value, values, atol=1e-8)
    ratio = beta_own / beta_other
    # Equations 3.49 and 3.52, with 2 own and 3 other actions.
    replies = np.exp(opponent_q - ours.action_values[..., None]) / 3
    np.testing.assert_allclose(ours.opponent, replies, atol=1e-8)
    np.testing.assert_allclose(
        ours.policy, np.exp(ratio * ours.action_values - values[:, None]) / 2, atol=1e-8
    )


def test_probabilistic_balancing_takes_a_beta_of_zero():
    ours = jitted(soft.probabilistic_balancing)(jnp.asarray(THESIS), 1.0, 0.0)
    means = THESIS.mean(1)
    np.testing.assert_allclose(ours.policy, np.exp(means) / np.exp(means).sum(), rtol=1e-12)
    np.testing.assert_allclose(ours.value, np.log(np.mean(np.exp(means))), rtol=1e-12)


@functools.partial(jax.jit, static_argnames="order")
def value_iteration(model, beta_own, beta_other, order=soft.agent_outer):
    return soft.soft_value_iteration(model, lambda q: order(q, beta_own, beta_other))


# GR2.


@both_ways
def test_poisson_weights_of_the_levels(run):
    weights = run(lambda mean: soft.poisson_level_weights(mean, 3), 1.5)
    np.testing.assert_allclose(weights, [0.470588, 0.352941, 0.176471], atol=1e-6)
    np.testing.assert_allclose(run(lambda mean: soft.poisson_level_weights(mean, 3), 0.0), [1, 0, 0], atol=0)


def test_a_mixture_of_levels_leaves_out_level_0():
    policies = jnp.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(soft.level_mixture(policies, jnp.array([0.7, 0.3])), [0.7, 0.3], rtol=1e-12)


levels = jax.jit(soft.level_policies, static_argnames=("levels", "sampled"))


def test_greedy_levels_go_round_in_matching_pennies():
    pennies = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    biased = jnp.array([0.6, 0.4])
    own, other = levels(pennies, -pennies, jnp.inf, jnp.inf, 5, biased, biased)
    # Level 1 of the matcher answers heads with heads, of the other with tails; level 2 answers that.
    np.testing.assert_allclose(own[1:, 0], [1, 0, 0, 1, 1], atol=0)
    np.testing.assert_allclose(other[1:, 0], [0, 0, 1, 1, 0], atol=0)
    np.testing.assert_allclose(own[0], biased, atol=0)


@both_ways
def test_soft_levels_against_loops(run):
    def four_levels(q_own, q_other, beta_own, beta_other):
        return soft.level_policies(q_own, q_other, beta_own, beta_other, levels=4)

    q_own, q_other = random_game(1, (2, 3), 1.0), random_game(2, (2, 3), 1.0)
    own, other = run(four_levels, q_own, q_other, 0.7, 1.3)
    policy, opponent = np.full(2, 1 / 2), np.full(3, 1 / 3)
    for level in range(1, 5):
        own_weights = [np.exp(0.7 * sum(opponent[b] * q_own[a, b] for b in range(3))) for a in range(2)]
        other_weights = [np.exp(1.3 * sum(policy[a] * q_other[a, b] for a in range(2))) for b in range(3)]
        policy = np.array(own_weights) / sum(own_weights)
        opponent = np.array(other_weights) / sum(other_weights)
        np.testing.assert_allclose(own[level], policy, rtol=1e-12)
        np.testing.assert_allclose(other[level], opponent, rtol=1e-12)


def test_levels_that_respond_to_samples():
    # Level 1 averages the replies to each of the other's actions, it does not reply to their average.
    q = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    own, other = levels(q, q, jnp.inf, jnp.inf, 2, sampled=True)
    np.testing.assert_allclose(own[1:], [[0.5, 0.5], [0.5, 0.5]], atol=1e-12)
    own, _ = levels(q, q, jnp.inf, jnp.inf, 2)
    np.testing.assert_allclose(own[1], [1, 0], atol=0)
    own, other = levels(q, q, 1.0, 1.0, 2, sampled=True)
    up = (1 / (1 + math.exp(-2)) + 1 / (1 + math.e)) / 2
    np.testing.assert_allclose(own[1], [up, 1 - up], rtol=1e-12)
    np.testing.assert_allclose(other[1], [up, 1 - up], rtol=1e-12)


# Several states.


def pr2_iteration(model):
    return soft.soft_value_iteration(model, soft.pr2)


@pytest.mark.parametrize(
    "logits", [[0.3, -1.2, 0.5, -1e9, -1e9], [200.0, 0.0, -1.0, -1e9, -1e9], [0.0, -90.0, 300.0, -1e9, -1e9]]
)
def test_the_gradient_of_soft_value_is_that_of_the_actions_that_can_be_played(logits):
    """With masked actions, and with probabilities that underflow to 0."""
    q = jnp.asarray([1.0, 2.0, -1.0, 7.0, 7.0])

    def value(logits, q):
        return soft.soft_value(q, jax.nn.softmax(logits), 0.5)

    gradient = jax.grad(value)(jnp.asarray(logits), q)
    alone = jax.grad(value)(jnp.asarray(logits[:3]), q[:3])
    with jax.enable_x64(True):
        exact = np.asarray(logits[:3], np.float64)
        policy = np.exp(exact - exact.max()) / np.exp(exact - exact.max()).sum()
        advantage = np.asarray(q[:3], np.float64) - 0.5 * np.log(np.maximum(policy, 1e-300))
        expected = policy * (advantage - policy @ advantage)
    np.testing.assert_allclose(gradient[:3], alone, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient[:3], expected, rtol=1e-4, atol=1e-6)
    assert gradient[3:].tolist() == [0, 0]


def test_soft_value_iteration_of_one_agent():
    # FACTS 11.1: action a moves to state a; the other has one action. Prior .5/.5.
    reward = jnp.array([[0.0, 1.0], [2.0, 0.0]])[..., None]
    transition = jnp.broadcast_to(jnp.eye(2)[:, None], (2, 2, 1, 2))
    model = soft.TwoPlayerModel(reward, transition, jnp.asarray(0.9))
    _, backup = jitted(pr2_iteration)(model)
    np.testing.assert_allclose(backup.value, [9.823313, 10.343519], atol=1e-6)


@pytest.mark.parametrize("stage", [soft.pr2, soft.rommeo])
def test_soft_value_iteration_of_one_state(stage):
    # FACTS 11.2: V = log(mean e^R) / (1 - γ).
    model = soft.TwoPlayerModel(
        jnp.array([[[2.0, 0.0], [0.0, 1.0]]]), jnp.ones((1, 2, 2, 1)), jnp.asarray(0.5)
    )
    _, backup = jax.jit(lambda game: soft.soft_value_iteration(game, stage))(model)
    np.testing.assert_allclose(backup.value, [2.215035], atol=1e-6)


@pytest.mark.parametrize(("beta_own", "beta_other"), [(0.5, 0.7), (0.5, -0.7), (-0.4, 0.3)])
def test_soft_value_iteration_against_loops(beta_own, beta_other):
    model = random_model(7)
    _, backup = value_iteration(model, beta_own, beta_other)
    uniform = np.full(2, 1 / 2), np.full(3, 1 / 3)
    expected = reference.value_iteration(
        *map(np.asarray, model),
        stage_value=lambda q: reference.nested(q, beta_own, beta_other, *uniform)[0],
        iterations=130,
    )
    np.testing.assert_allclose(backup.value, expected, atol=1e-9)


def test_equal_betas_are_pr2_in_other_units():
    model = random_model(11)
    _, balancing = value_iteration(model, 0.3, 0.3)
    scaled = model._replace(reward=0.3 * model.reward)
    _, pr2 = jitted(pr2_iteration)(scaled)
    np.testing.assert_allclose(0.3 * balancing.value, pr2.value, atol=1e-9)
    np.testing.assert_allclose(balancing.policy, pr2.policy, atol=1e-9)


def test_the_mirrored_game_has_the_mirrored_solution():
    model = random_model(13)
    mirrored = soft.TwoPlayerModel(model.reward.swapaxes(1, 2), model.transition.swapaxes(1, 2), model.gamma)
    q, agent = value_iteration(model, 0.5, -0.9)
    q_mirrored, opponent = value_iteration(mirrored, -0.9, 0.5, order=soft.opponent_outer)
    np.testing.assert_allclose(q.swapaxes(1, 2), q_mirrored, atol=1e-9)
    np.testing.assert_allclose(agent.policy, opponent.opponent, atol=1e-9)
    np.testing.assert_allclose(agent.joint.swapaxes(1, 2), opponent.joint, atol=1e-9)


def test_priors_of_each_state_are_handed_on():
    model = random_model(17)
    own, other = jnp.asarray(random_prior(1, (3, 2))), jnp.asarray(random_prior(2, (3, 3)))
    stage = lambda q, own, other: soft.agent_outer(q, 0.5, -0.7, own, other)  # noqa: E731
    q, backup = jax.jit(lambda *game: soft.soft_value_iteration(game[0], stage, *game[1:]))(model, own, other)
    for state in range(3):
        value, _, policy, _ = reference.nested(np.asarray(q[state]), 0.5, -0.7, own[state], other[state])
        np.testing.assert_allclose(backup.value[state], value, atol=1e-9)
        np.testing.assert_allclose(backup.policy[state], policy, atol=1e-9)
    np.testing.assert_allclose(q, soft.lookahead(model, backup.value), atol=1e-9)


def test_value_iteration_ends_in_float32_and_where_the_game_ends():
    with jax.enable_x64(False):
        ending = soft.TwoPlayerModel(jnp.full((1, 2, 2), 3.0), jnp.zeros((1, 2, 2, 1)), jnp.asarray(1.0))
        _, backup = jitted(pr2_iteration)(ending)
        np.testing.assert_allclose(backup.value, [3.0], rtol=1e-6)
        going = soft.TwoPlayerModel(jnp.full((1, 2, 2), 3.0), jnp.ones((1, 2, 2, 1)), jnp.asarray(0.99))
        q, _ = jitted(pr2_iteration)(going)
        np.testing.assert_allclose(q, np.full((1, 2, 2), 300.0), rtol=1e-4)


@jax.jit
def factor_of_agent_outer(model, first, second, beta_own, beta_other):
    def operator(q):
        return soft.bellman(model, lambda stage: soft.agent_outer(stage, beta_own, beta_other), q)

    return soft.contraction_factor(operator, first, second)


@jax.jit
def factor_of_opponent_outer(model, first, second, beta_own, beta_other):
    def operator(q):
        return soft.bellman(model, lambda stage: soft.opponent_outer(stage, beta_own, beta_other), q)

    return soft.contraction_factor(operator, first, second)


@jax.jit
def factor_of_published_rommeo(model, first, second, alpha, _):
    def operator(q):
        return soft.bellman(model, lambda stage: soft.rommeo_published(stage, alpha), q)

    return soft.contraction_factor(operator, first, second)


@pytest.mark.parametrize(
    ("factor", "temperatures"),
    [
        (factor_of_agent_outer, st.tuples(betas, betas)),  # β = β' = 1 is PR2
        (factor_of_opponent_outer, st.tuples(betas, betas)),  # and ROMMEO
        (factor_of_published_rommeo, st.tuples(st.floats(0.05, 20), st.none())),
    ],
)
def test_every_operator_is_a_contraction(factor, temperatures):
    @settings(max_examples=60, deadline=None)
    @given(seeds, st.sampled_from([0.1, 1.0, 100.0]), temperatures)
    def contracts(seed, scale, pair):
        model = random_model(seed, gamma=0.9)
        first, second = random_game(seed, (2, 3, 2, 3), scale)
        assert factor(model, first, second, *pair) <= 0.9 + 1e-9
        # And no better than γ: a shift by a constant comes back times γ.
        np.testing.assert_allclose(factor(model, first, first + 1.0, *pair), 0.9, rtol=1e-9)

    contracts()


def random_policies(seed):
    """π(a|s,b) and ρ(b|s) of a game with 3 states, 2 own and 3 other actions."""
    policy = np.moveaxis(random_prior(seed, (3, 3, 2)), -1, 1)
    return jnp.asarray(policy), jnp.asarray(random_prior(seed + 1, (3, 1, 3)))


def test_evaluation_against_loops():
    model = random_model(19)
    policy, opponent = random_policies(3)
    _, values = evaluate(model, policy, opponent, 0.5, -0.7)
    expected = reference.evaluation(
        *map(np.asarray, model), policy, np.broadcast_to(opponent, (3, 2, 3)), 0.5, -0.7, sweeps=130
    )
    np.testing.assert_allclose(values, expected, atol=1e-9)


@pytest.mark.parametrize(("beta_own", "beta_other"), [(0.5, 0.7), (0.5, -0.7), (-0.4, 0.3)])
def test_the_solution_evaluates_to_itself(beta_own, beta_other):
    model = random_model(23)
    q, backup = value_iteration(model, beta_own, beta_other)
    again, values = evaluate(model, backup.policy[..., None], backup.second_policy, beta_own, beta_other)
    np.testing.assert_allclose(values, backup.value, atol=1e-8)
    np.testing.assert_allclose(again, q, atol=1e-8)


def test_infinite_beta_costs_nothing_and_zero_allows_only_the_prior():
    model = random_model(29)
    best, reply = jax.nn.one_hot(jnp.array([0, 1, 0]), 2)[..., None], jnp.full((3, 1, 3), 1 / 3)
    q, values = evaluate(model, best, reply, jnp.inf, 0.0)
    picked = np.array([q[s, a].mean() for s, a in enumerate([0, 1, 0])])
    np.testing.assert_allclose(values, picked, atol=1e-10)
    _, values = evaluate(model, best, reply, 0.0, jnp.inf)
    assert not np.isfinite(values).any()


@few
@given(seeds, st.sampled_from(SIGNS))
def test_direction_of_policy_improvement(seed, signs):
    model = random_model(seed)
    beta_own, beta_other = 0.5 * signs[0], 0.8 * signs[1]
    policy, opponent = random_policies(seed)
    q, _ = evaluate(model, policy, opponent, beta_own, beta_other)
    # Theorem 8: the opponent's update moves Q the way that the sign of its β says.
    penalty = jnp.log(2 * policy) / beta_own
    opponent_values = jnp.sum(policy * (q - penalty), axis=1)  # (S, B)
    improved = jitted(soft.tilted_policy)(opponent_values, 1 / 3, beta_other)[:, None]
    after, _ = evaluate(model, policy, improved, beta_own, beta_other)
    assert np.min(signs[1] * (after - q)) >= -1e-9
    assert np.max(signs[1] * (after - q)) > 1e-9

    # Theorem 9 prints that the agent's update with β > 0 lowers Q (3.41); it raises it.
    policy, opponent = jnp.asarray(random_prior(seed, (3, 2)))[..., None], random_replies(seed)
    q, _ = evaluate(model, policy, opponent, beta_own, beta_other)
    own_values = jnp.sum(opponent * (q - jnp.log(3 * opponent) / beta_other), axis=2)  # (S, A)
    improved = jitted(soft.tilted_policy)(own_values, 1 / 2, beta_own)[..., None]
    after, _ = evaluate(model, improved, opponent, beta_own, beta_other)
    assert np.min(signs[0] * (after - q)) >= -1e-9
    assert np.max(signs[0] * (after - q)) > 1e-9


evaluate = jax.jit(soft.regularised_evaluation)


def random_replies(seed):
    return jnp.asarray(random_prior(seed + 2, (3, 2, 3)))


# One agent.


@both_ways
def test_soft_value_of_sac_discrete(run):
    policy = run(lambda q: soft.tilted_policy(q, 1 / 2, 1.0), [1.0, 2.0])
    np.testing.assert_allclose(policy, [0.268941, 0.731059], atol=1e-6)
    np.testing.assert_allclose(run(soft.soft_value, [1.0, 2.0], policy, 1.0), 2.313262, atol=1e-6)
    # A policy that never plays an action has no trouble with its logarithm.
    np.testing.assert_allclose(run(soft.soft_value, [1.0, 2.0], [0.0, 1.0], 1.0), 2, atol=1e-12)


def test_sampled_soft_value_is_exact_for_an_ideal_proposal():
    # Drawn from w ∝ e^q P, every sample tells the whole of V.
    q, prior = jnp.asarray(random_game(1, (5,))), jnp.asarray(random_prior(1, (5,)))
    value = jitted(soft.log_mean_exp)(q, prior, 1.0)
    proposal = np.log(jitted(soft.tilted_policy)(q, prior, 1.0))
    drawn = np.array([0, 3, 3, 1])
    ours = jitted(soft.sampled_soft_value)(q[drawn], proposal[drawn], np.log(prior)[drawn])
    np.testing.assert_allclose(ours, value, rtol=1e-12)


@both_ways
def test_uniform_soft_value_counts_the_volume(run):
    value = run(lambda q: soft.uniform_soft_value(q, dimensions=2), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(value, math.log(4 * (math.e + math.e**2 + math.e**3) / 3), rtol=1e-12)


@both_ways
def test_svgd_on_two_particles(run):
    particles = np.array([[-1.0], [1.0]])
    direction = run(soft.svgd_direction, particles, -particles, 2.0)
    np.testing.assert_allclose(direction, [[0.296997], [-0.296997]], atol=1e-6)


def test_svgd_with_one_particle_climbs_the_gradient():
    score = jnp.array([[0.3, -2.0]])
    np.testing.assert_allclose(soft.svgd_direction(jnp.array([[4.0, 1.0]]), score, 0.1), score, rtol=1e-12)


def test_svgd_at_other_points():
    # One particle at 0 with score 3, seen from 2: k = e^{-4/h}, and it pushes away by 2 (2 - 0)/h k.
    ours = soft.svgd_direction(jnp.zeros((1, 1)), jnp.full((1, 1), 3.0), 8.0, at=jnp.array([[2.0], [0.0]]))
    np.testing.assert_allclose(ours, [[math.exp(-0.5) * 3.5], [3.0]], rtol=1e-12)


def test_svgd_finds_a_gaussian():
    def score(particles):
        return -(particles - 2.0) / 0.25

    def step(particles, _):
        direction = soft.svgd_direction(particles, score(particles), soft.median_bandwidth(particles))
        return particles + 0.05 * direction, None

    particles, _ = jax.lax.scan(step, jnp.linspace(-1.0, 1.0, 30)[:, None], None, length=500)
    np.testing.assert_allclose(particles.mean(), 2.0, atol=0.01)
    np.testing.assert_allclose(particles.std(), 0.5, atol=0.05)


def test_median_bandwidth():
    # Distances of the pairs: 1, 2 and 3.
    ours = jitted(soft.median_bandwidth)(jnp.array([[0.0], [1.0], [3.0]]))
    np.testing.assert_allclose(ours, 4 / math.log(3), rtol=1e-12)
    assert jitted(soft.median_bandwidth)(jnp.zeros((4, 2))) > 0
    assert soft.median_bandwidth(jnp.zeros((1, 2))) == 1


# Input.


def test_priors_are_checked():
    np.testing.assert_allclose(soft.check_prior([0.25, 0.75], (2,)), [0.25, 0.75], atol=0)
    soft.check_prior([[0.25, 0.5], [0.75, 0.5]], (2, 2), axis=0)
    for prior, message in [
        ([0.3, 0.3], r"prior sums to 0.6: probabilities must sum to 1"),
        ([[0.5, 0.5], [0.9, 0.5]], r"prior has shape \(2, 2\): this game needs \(2,\)"),
        ([1.5, -0.5], "prior holds negative or non-finite entries: give probabilities"),
        ([np.nan, 1.0], "prior holds negative or non-finite entries: give probabilities"),
        (["a", "b"], "prior is ragged or not numeric: give plain numbers that sum to 1"),
    ]:
        with pytest.raises(BadInputError, match=f"^{message}$"):
            soft.check_prior(prior, (2,))
    with pytest.raises(BadInputError, match=r"^opponent prior sums to 1.4: "):
        soft.check_prior([[0.5, 0.5], [0.9, 0.5]], (2, 2), name="opponent prior")
