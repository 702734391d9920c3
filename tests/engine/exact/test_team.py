import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from envs.matrix_games import LTQL_PAYOFF, QTRAN_PAYOFF
from envs.team_mdp import divergence_mmdp, draw_team_mdp, team_mdp
from jaxmarl_fac.exact.joint import optimal_q, optimality_gap
from jaxmarl_fac.exact.team import btoo, greedy_joint_actions, operator_b1, operator_b2, team_residuals
from tests.engine.exact.models import GAMMA, SHAPES, one_shot, random_model, random_q, zeros
from tests.reference import team_mdp as reference

pytestmark = pytest.mark.usefixtures("float64")


# LTQL's operators


@pytest.mark.parametrize("shape", SHAPES)
def test_operators_equal_the_reference(shape):
    for seed in range(3):
        model = random_model(shape, seed, terminal=seed == 1)
        q = random_q(model, seed + 10)
        for ours, expected in (
            (operator_b1(model, GAMMA, q), reference.operator_b1(*model, GAMMA, q)),
            (operator_b2(model, GAMMA, q), reference.operator_b2(*model, GAMMA, q)),
        ):
            for one, other in zip(ours, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, (2, 3)), (2, (2, 2, 2))])
def test_fixed_points_that_solve_both_equations_are_the_team_optima(shape):
    """Brute force: the q-functions of every deterministic joint policy of random games.

    Many are fixed points of B_I (no agent gains by itself); equation (2) holds for the optimal ones only.
    """
    seen = {"optimum": 0, "trap": 0, "neither": 0}
    for seed in range(4):
        model = random_model(shape, seed)
        best = reference.best_values(*model, GAMMA)
        for policy in reference.all_policies(model.reward):
            q = reference.q_of_policy(*model, GAMMA, policy)
            value = reference.policy_value(*model, GAMMA, policy)
            optimal = np.abs(value - best).max() < 1e-9
            residuals = team_residuals(model, GAMMA, q)
            fixed = float(residuals.consistency) < 1e-9
            assert (fixed and float(residuals.optimality) < 1e-9) == optimal
            after = operator_b1(model, GAMMA, q)
            moved = max(float(jnp.abs(a - b).max()) for a, b in zip(after, q, strict=True))
            assert (moved < 1e-9) == fixed
            seen["optimum" if optimal else "trap" if fixed else "neither"] += 1
            if optimal:  # B_II lifts only what is not greedy, and B_I puts it back
                lifted = operator_b2(model, GAMMA, q)
                np.testing.assert_array_equal(greedy_joint_actions(lifted), policy)
                for one, other in zip(operator_b1(model, GAMMA, lifted), q, strict=True):
                    np.testing.assert_allclose(one, other, atol=1e-9)
            elif fixed:  # a trap of B_I is none of B_II: some agent sees that more is possible
                lifted = operator_b2(model, GAMMA, q)
                assert max(float((a - b).max()) for a, b in zip(lifted, q, strict=True)) > 1e-6
    assert seen["optimum"] == 4 and seen["trap"] > 0 and seen["neither"] > 100


def test_a_fixed_point_of_both_operators_is_a_team_optimum():
    """Such a point exists where rewards are additive, as here, with next states that nobody chooses."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(3, 2)), rng.normal(size=(3, 4))
    chances = rng.dirichlet(np.ones(3), size=3)
    transition = np.broadcast_to(chances[:, None, None], (3, 2, 4, 3))
    model = team_mdp(transition, one[:, :, None] + two[:, None, :]).model()
    q = zeros(model)
    for _ in range(400):
        q = operator_b1(model, GAMMA, operator_b2(model, GAMMA, q))
    for operator in (operator_b1, operator_b2):
        for before, after in zip(q, operator(model, GAMMA, q), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_array_equal(greedy_joint_actions(q), np.stack([one.argmax(1), two.argmax(1)], axis=1))
    best = reference.best_values(*map(np.asarray, model), GAMMA)
    np.testing.assert_allclose(q[0].max(axis=1), best, atol=1e-9)
    np.testing.assert_allclose(q[1].max(axis=1), best, atol=1e-9)


def test_ltql_game_has_two_team_optima():
    """The limits of LTQL's q_U at either optimum solve both equations; independent Q-learning's do not."""
    model = one_shot(LTQL_PAYOFF)

    def with_end(*q):
        return tuple(jnp.array([row, [0.0] * len(row)]) for row in q)

    for first, second in (((2, 1), (0, 2, 0)), ((0, 2), (0, 1, 2))):
        residuals = team_residuals(model, GAMMA, with_end(first, second))
        assert float(residuals.consistency) == float(residuals.optimality) == 0
    independent = with_end((2 / 3, 1), (0, 1.5, 1))
    assert greedy_joint_actions(independent)[0].tolist() == [1, 1]  # pays 1
    residuals = team_residuals(model, GAMMA, independent)
    assert float(residuals.consistency) > 0.5 and float(residuals.optimality) == 1
    distributed = operator_b2(model, GAMMA, zeros(model))
    np.testing.assert_array_equal(distributed[0][0], [2, 2])
    np.testing.assert_array_equal(distributed[1][0], [0, 2, 2])


def test_btoo_solves_qtran_s_game():
    model = one_shot(QTRAN_PAYOFF)
    trapped = tuple(jnp.array([[-12.0, 0, -1], [0, 0, 0]]) for _ in range(2))  # both play the second action
    stuck = btoo(model, GAMMA, trapped, jax.random.key(0), 20, 1.0)  # B_I alone
    assert stuck.actions[-1, 0].tolist() == [1, 1]
    freed = btoo(model, GAMMA, trapped, jax.random.key(0), 20, 0.5)
    assert freed.actions[-1, 0].tolist() == [0, 0]
    for q in operator_b1(model, GAMMA, freed.q):
        np.testing.assert_array_equal(q[0], [8, -12, -12])


def test_btoo_ends_at_the_team_optimum_of_random_games():
    """The theorem, measured: from random q-functions, more applications make it more likely."""

    @jax.jit
    @jax.vmap
    def gaps(key):
        game_key, q_key, choice_key = jax.random.split(key, 3)
        model = draw_team_mdp(game_key, 4, (3, 2)).model()
        start = tuple(jax.random.normal(q_key, utility.shape) for utility in zeros(model))
        trace = btoo(model, GAMMA, start, choice_key, 150, 0.3)
        best = optimal_q(model, GAMMA)
        settled, _ = jax.lax.scan(
            lambda q, _: (operator_b1(model, GAMMA, q), None), trace.q, length=250
        )  # B_I alone, to the fixed point
        residuals = team_residuals(model, GAMMA, settled)
        own = jnp.stack([jnp.abs(q.max(axis=1) - best.max(axis=(1, 2))).max() for q in settled])
        return jax.vmap(lambda joint: optimality_gap(best, joint))(trace.actions), residuals, own.max()

    gap, residuals, own = jax.tree.map(np.asarray, gaps(jax.random.split(jax.random.key(0), 100)))
    optimal = gap < 1e-9  # (100, 150)
    assert optimal[:, 0].mean() < 0.6
    assert optimal[:, 4].mean() < optimal[:, 19].mean()
    assert optimal[:, -1].all()
    assert (residuals.consistency < 1e-9).all()
    assert (own < 1e-9).all()  # every agent's maxima are V*


def test_simultaneous_answers_never_settle_on_two_equal_optima():
    """In [[0, 2], [2, 0]] lowest-index ties keep both agents on the same action; in turn they part."""
    model = one_shot([[0, 2], [2, 0]])
    best = optimal_q(model, GAMMA)[:1]  # without the end
    keys = jax.random.split(jax.random.key(0), 50)

    def gaps(key, in_turn):
        trace = btoo(model, GAMMA, zeros(model), key, 60, 0.5, in_turn=in_turn)
        settled = operator_b1(model, GAMMA, trace.q, in_turn=in_turn)
        every = jax.vmap(lambda joint: optimality_gap(best, joint[:1]))(trace.actions)
        return every, optimality_gap(best, greedy_joint_actions(settled)[:1])

    together, after_together = jax.jit(jax.vmap(functools.partial(gaps, in_turn=False)))(keys)
    np.testing.assert_array_equal(together, 2)
    np.testing.assert_array_equal(after_together, 2)
    _, after_in_turn = jax.jit(jax.vmap(functools.partial(gaps, in_turn=True)))(keys)
    np.testing.assert_array_equal(after_in_turn, 0)


def test_other_bad_input():
    model = divergence_mmdp().model()
    with pytest.raises(BadInputError, match=r"p is the probability of B_I and must be in \[0, 1\], not 1.5"):
        btoo(model, GAMMA, zeros(model), jax.random.key(0), 3, 1.5)
    with pytest.raises(BadInputError, match="applications must be at least 1, not 0"):
        btoo(model, GAMMA, zeros(model), jax.random.key(0), 0, 0.5)
    batch = jax.tree.map(lambda leaf: leaf[None], model)
    with pytest.raises(BadInputError, match="does not fit together"):
        optimal_q(batch, GAMMA)


def test_equation_2_as_printed_takes_the_largest_q_of_all_agents():
    """Equal to the equation without it where all agents have the same maxima, as at every solution."""
    model = random_model((3, (2, 2)), 0)
    draw = np.random.default_rng(0)
    q = tuple(draw.normal(size=(3, 2)) for _ in range(2))
    values = np.maximum(q[0].max(axis=1), q[1].max(axis=1))
    y = reference.backup(*model, GAMMA, values)
    expected = max(np.abs(y.max(axis=(1, 2)) - own.max(axis=1)).max() for own in q)
    assert float(team_residuals(model, GAMMA, q, over_agents=True).optimality) == pytest.approx(expected)
    assert float(team_residuals(model, GAMMA, q).optimality) != pytest.approx(expected)
    lifted = operator_b2(model, GAMMA, q, over_agents=True)
    for agent, own in enumerate(lifted):
        np.testing.assert_allclose(own, np.maximum(q[agent], y.max(axis=2 - agent)), atol=1e-9)
    even = tuple(own - own.max(axis=1, keepdims=True) for own in q)
    for first, second in zip(
        operator_b2(model, GAMMA, even, over_agents=True), operator_b2(model, GAMMA, even), strict=True
    ):
        np.testing.assert_allclose(first, second, atol=1e-9)
    traces = [btoo(model, GAMMA, q, jax.random.key(0), 50, 0.5, over_agents=each) for each in (False, True)]
    for trace in traces:
        assert float(optimality_gap(optimal_q(model, GAMMA), trace.actions[-1])) < 1e-6
