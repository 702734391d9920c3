import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmarl_fac.soft import operators, planning, stages
from tests.engine.soft.games import (
    SIGNS,
    betas,
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


# Several states.


def pr2_iteration(model):
    return planning.soft_value_iteration(model, stages.pr2)


def test_soft_value_iteration_of_one_agent():
    # Action a moves to state a; the other has one action. Prior .5/.5.
    reward = jnp.array([[0.0, 1.0], [2.0, 0.0]])[..., None]
    transition = jnp.broadcast_to(jnp.eye(2)[:, None], (2, 2, 1, 2))
    model = planning.TwoPlayerModel(reward, transition, jnp.asarray(0.9))
    _, backup = jitted(pr2_iteration)(model)
    np.testing.assert_allclose(backup.value, [9.823313, 10.343519], atol=1e-6)


@pytest.mark.parametrize("stage", [stages.pr2, stages.rommeo])
def test_soft_value_iteration_of_one_state(stage):
    # V = log(mean e^R) / (1 - γ).
    model = planning.TwoPlayerModel(
        jnp.array([[[2.0, 0.0], [0.0, 1.0]]]), jnp.ones((1, 2, 2, 1)), jnp.asarray(0.5)
    )
    _, backup = jax.jit(lambda game: planning.soft_value_iteration(game, stage))(model)
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
    mirrored = planning.TwoPlayerModel(
        model.reward.swapaxes(1, 2), model.transition.swapaxes(1, 2), model.gamma
    )
    q, agent = value_iteration(model, 0.5, -0.9)
    q_mirrored, opponent = value_iteration(mirrored, -0.9, 0.5, order=stages.opponent_first)
    np.testing.assert_allclose(q.swapaxes(1, 2), q_mirrored, atol=1e-9)
    np.testing.assert_allclose(agent.policy, opponent.opponent, atol=1e-9)
    np.testing.assert_allclose(agent.joint.swapaxes(1, 2), opponent.joint, atol=1e-9)


def test_priors_of_each_state_are_handed_on():
    model = random_model(17)
    own, other = jnp.asarray(random_prior(1, (3, 2))), jnp.asarray(random_prior(2, (3, 3)))
    stage = lambda q, own, other: stages.agent_first(q, 0.5, -0.7, own, other)  # noqa: E731
    q, backup = jax.jit(lambda *game: planning.soft_value_iteration(game[0], stage, *game[1:]))(
        model, own, other
    )
    for state in range(3):
        value, _, policy, _ = reference.nested(np.asarray(q[state]), 0.5, -0.7, own[state], other[state])
        np.testing.assert_allclose(backup.value[state], value, atol=1e-9)
        np.testing.assert_allclose(backup.policy[state], policy, atol=1e-9)
    np.testing.assert_allclose(q, planning.lookahead(model, backup.value), atol=1e-9)


def test_value_iteration_ends_in_float32_and_where_the_game_ends():
    with jax.enable_x64(False):
        ending = planning.TwoPlayerModel(jnp.full((1, 2, 2), 3.0), jnp.zeros((1, 2, 2, 1)), jnp.asarray(1.0))
        _, backup = jitted(pr2_iteration)(ending)
        np.testing.assert_allclose(backup.value, [3.0], rtol=1e-6)
        going = planning.TwoPlayerModel(jnp.full((1, 2, 2), 3.0), jnp.ones((1, 2, 2, 1)), jnp.asarray(0.99))
        q, _ = jitted(pr2_iteration)(going)
        np.testing.assert_allclose(q, np.full((1, 2, 2), 300.0), rtol=1e-4)


@jax.jit
def factor_of_agent_first(model, first, second, beta_own, beta_other):
    def operator(q):
        return planning.bellman(model, lambda stage: stages.agent_first(stage, beta_own, beta_other), q)

    return planning.contraction_factor(operator, first, second)


@jax.jit
def factor_of_opponent_first(model, first, second, beta_own, beta_other):
    def operator(q):
        return planning.bellman(model, lambda stage: stages.opponent_first(stage, beta_own, beta_other), q)

    return planning.contraction_factor(operator, first, second)


@jax.jit
def factor_of_published_rommeo(model, first, second, alpha, _):
    def operator(q):
        return planning.bellman(model, lambda stage: stages.rommeo_published(stage, alpha), q)

    return planning.contraction_factor(operator, first, second)


@pytest.mark.parametrize(
    ("factor", "temperatures"),
    [
        (factor_of_agent_first, st.tuples(betas, betas)),  # β = β' = 1 is PR2
        (factor_of_opponent_first, st.tuples(betas, betas)),  # and ROMMEO
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
    improved = jitted(operators.tilted_policy)(opponent_values, 1 / 3, beta_other)[:, None]
    after, _ = evaluate(model, policy, improved, beta_own, beta_other)
    assert np.min(signs[1] * (after - q)) >= -1e-9
    assert np.max(signs[1] * (after - q)) > 1e-9

    # Theorem 9 prints that the agent's update with β > 0 lowers Q (3.41); it raises it.
    policy, opponent = jnp.asarray(random_prior(seed, (3, 2)))[..., None], random_replies(seed)
    q, _ = evaluate(model, policy, opponent, beta_own, beta_other)
    own_values = jnp.sum(opponent * (q - jnp.log(3 * opponent) / beta_other), axis=2)  # (S, A)
    improved = jitted(operators.tilted_policy)(own_values, 1 / 2, beta_own)[..., None]
    after, _ = evaluate(model, improved, opponent, beta_own, beta_other)
    assert np.min(signs[0] * (after - q)) >= -1e-9
    assert np.max(signs[0] * (after - q)) > 1e-9


evaluate = jax.jit(planning.regularised_evaluation)


def random_replies(seed):
    return jnp.asarray(random_prior(seed + 2, (3, 2, 3)))
