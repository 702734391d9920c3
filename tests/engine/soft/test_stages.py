import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.matrix_games import CLIMBING_PAYOFF, THESIS_PAYOFF
from jaxmarl_fac.soft import stages
from tests.engine.soft.games import (
    SIGNS,
    batched,
    betas,
    both_ways,
    few,
    jitted,
    random_game,
    random_model,
    random_prior,
    seeds,
    value_iteration,
)
from tests.reference import soft_backups as reference

pytestmark = pytest.mark.usefixtures("float64")


THESIS = np.array(THESIS_PAYOFF, float)
CLIMBING = np.array(CLIMBING_PAYOFF, float)


# The backups of one stage.


@both_ways
@pytest.mark.parametrize(
    ("beta", "policy", "value"),
    [(0.1, (0.317717, 0.291454, 0.390830), 0.315749), (1.0, (0.002149, 0.002634, 0.995217), 7.807738)],
)
@pytest.mark.parametrize("backup", [stages.pr2, stages.rommeo])
def test_pr2_and_rommeo_on_the_thesis_game(run, backup, beta, policy, value):
    ours = run(backup, beta * THESIS)
    np.testing.assert_allclose(ours.value, value, atol=1e-6)
    np.testing.assert_allclose(ours.policy, policy, atol=1e-6)


@few
@given(seeds)
def test_pr2_and_rommeo_match_their_definitions(seed):
    k, own, other = random_game(seed, scale=2), random_prior(seed, (3,)), random_prior(seed + 1, (4,))
    for backup, definition in [(stages.pr2, reference.pr2), (stages.rommeo, reference.rommeo)]:
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
    first = jitted(stages.pr2)(k, jnp.asarray(own), jnp.asarray(joint_prior / own[:, None]))
    second = jitted(stages.rommeo)(k, jnp.asarray(joint_prior / other), jnp.asarray(other))
    np.testing.assert_allclose(first.joint, second.joint, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(first.value, second.value, rtol=1e-12)
    # With the same marginals, but a prior of b that depends on a, they are not.
    independent = jitted(stages.rommeo)(k, jnp.asarray(own), jnp.asarray(other))
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
    ours = run(stages.rommeo_published, CLIMBING, alpha, prior)
    np.testing.assert_allclose(ours.policy, policy, atol=1e-6)
    if opponent is not None:
        np.testing.assert_allclose(ours.opponent, opponent, atol=1e-6)
    if value is not None:
        np.testing.assert_allclose(ours.value, value, atol=1e-6)


def test_published_rommeo_without_entropy_replies_greedily():
    ours = jitted(stages.rommeo_published)(jnp.asarray(CLIMBING), 0.0, jnp.full((3,), 1 / 3))
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
    np.testing.assert_allclose(run(stages.agent_first, *arguments).value, agent, atol=1e-6)
    np.testing.assert_allclose(run(stages.opponent_first, *arguments).value, opponent, atol=1e-6)
    np.testing.assert_allclose(run(stages.independent_play, *arguments).value, independent, atol=1e-6)


def test_corollary_1_holds_for_equal_betas():
    for backup in (stages.agent_first, stages.opponent_first):
        np.testing.assert_allclose(jitted(backup)(jnp.asarray(THESIS), 0.1, 0.1).value, 3.157486, atol=1e-6)


@both_ways
def test_independent_play_is_the_saddle_point(run):
    ours = run(stages.independent_play, THESIS, 0.1, -0.1, np.full(3, 1 / 3), np.full(3, 1 / 3))
    np.testing.assert_allclose(ours.policy, [0.336726, 0.309057, 0.354217], atol=1e-6)
    np.testing.assert_allclose(ours.opponent, [0.379066, 0.346105, 0.274829], atol=1e-6)


@few
@given(seeds, st.floats(0.1, 5), st.floats(-5, -0.1))
def test_independent_play_lies_between_the_two_orders(seed, beta_own, beta_other):
    q, own, other = random_game(seed, (3, 3)), random_prior(seed, (3,)), random_prior(seed + 1, (3,))
    arguments = tuple(map(jnp.asarray, (q, beta_own, beta_other, own, other)))
    middle = jitted(stages.independent_play)(*arguments)
    assert middle.residual < 1e-9
    assert jitted(stages.agent_first)(*arguments).value <= middle.value + 1e-9
    assert middle.value <= jitted(stages.opponent_first)(*arguments).value + 1e-9
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
    ours = jitted(stages.independent_play)(q, 1000.0, -1000.0, jnp.full((3,), 1 / 3), jnp.full((3,), 1 / 3))
    assert ours.residual < 1e-8
    # There every row pays 1/12 against (5, 3, 4)/12, and (5, 4, 3)/12 gets as much from every column.
    np.testing.assert_allclose(ours.policy, [5 / 12, 1 / 3, 1 / 4], atol=2e-3)
    np.testing.assert_allclose(ours.opponent, [5 / 12, 1 / 4, 1 / 3], atol=2e-3)
    np.testing.assert_allclose(ours.value, 1 / 12, atol=2e-3)


def test_independent_play_of_a_team():
    uniform = jnp.full((3,), 1 / 3)
    ours = jitted(stages.independent_play)(jnp.asarray(THESIS), 10.0, 10.0, uniform, uniform)
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
    ours = jitted(stages.agent_first)(*map(jnp.asarray, (q, beta_own, beta_other, own, other)))
    np.testing.assert_allclose(ours.value, value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.first_values, m, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.policy, policy, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.second_policy, replies, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.opponent, policy @ replies, rtol=1e-8, atol=1e-12)
    # The other order is the same with the players' names exchanged.
    mirror = jitted(stages.opponent_first)(*map(jnp.asarray, (q.T, beta_other, beta_own, other.T, own)))
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
    np.testing.assert_allclose(run(stages.agent_first, THESIS, beta_own, beta_other).value, value, atol=1e-12)


@few
@given(seeds, betas, betas)
def test_an_action_without_prior_is_not_there(seed, beta_own, beta_other):
    small = random_game(seed, (2, 3))
    large = np.full((3, 4), 1e9)
    large[:2, :3] = small
    own, other = jnp.array([0.4, 0.6]), jnp.array([0.2, 0.3, 0.5])
    ours = jitted(stages.agent_first)(
        jnp.asarray(large), beta_own, beta_other, jnp.append(own, 0.0), jnp.append(other, 0.0)
    )
    without = jitted(stages.agent_first)(jnp.asarray(small), beta_own, beta_other, own, other)
    np.testing.assert_allclose(ours.value, without.value, rtol=1e-12)
    np.testing.assert_allclose(ours.joint[:2, :3], without.joint, rtol=1e-12)
    np.testing.assert_allclose(ours.joint.sum(), 1, rtol=1e-12)


@few
@given(seeds, betas, betas)
def test_the_gradient_of_the_value_is_the_joint(seed, beta_own, beta_other):
    q = jnp.asarray(random_game(seed))
    own, other = jnp.asarray(random_prior(seed, (3,))), jnp.asarray(random_prior(seed + 1, (4,)))
    ours = jitted(stages.agent_first)(q, beta_own, beta_other, own, other)
    gradient = gradient_of_the_value(q, beta_own, beta_other, own, other)
    np.testing.assert_allclose(gradient, ours.joint, rtol=1e-7, atol=1e-9)


gradient_of_the_value = jax.jit(jax.grad(lambda *arguments: stages.agent_first(*arguments).value))


# The thesis's experiment (figures 3.1 and 3.2).


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
    ours = run(stages.agent_first, THESIS, omega * 0.1, omega * beta_other)
    np.testing.assert_allclose(ours.policy, policy, atol=1e-6)


@both_ways
def test_first_policy_of_the_adversary(run):
    # Its own Balancing-Q, with the signs exchanged: it plays first and the agent replies.
    adversary = run(stages.opponent_first, THESIS, 0.1, -0.1).opponent
    np.testing.assert_allclose(adversary, [0.389043, 0.347529, 0.263429], atol=1e-6)


def test_limits_of_the_thesis_experiment():
    q, inf = jnp.asarray(THESIS), jnp.inf
    agent, other = jitted(stages.agent_first), jitted(stages.opponent_first)
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
    ours = batched(stages.probabilistic_balancing)(
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
    ours = jitted(stages.probabilistic_balancing)(jnp.asarray(THESIS), 1.0, 0.0)
    means = THESIS.mean(1)
    np.testing.assert_allclose(ours.policy, np.exp(means) / np.exp(means).sum(), rtol=1e-12)
    np.testing.assert_allclose(ours.value, np.log(np.mean(np.exp(means))), rtol=1e-12)
