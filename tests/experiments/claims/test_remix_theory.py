"""ReMIX's statements and weights: what the figure measures."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_games import QTRAN_PAYOFF
from experiments.claims.remix import statements, theory, weights
from jaxmarl_fac.report.claims import Workshop

pytestmark = pytest.mark.usefixtures("float64")


def least_squares(payoff, p):
    """The additive fit by NumPy."""
    joints = np.indices(payoff.shape).reshape(payoff.ndim, -1)
    used = np.concatenate([np.eye(n)[own] for n, own in zip(payoff.shape, joints, strict=True)], axis=1)
    root = np.sqrt(p.ravel())
    solution = np.linalg.lstsq(used * root[:, None], payoff.ravel() * root, rcond=None)[0]
    return (used @ solution).reshape(payoff.shape)


def test_lemma_1_on_the_worked_mixer():
    worked = [jnp.asarray(x) for x in ([1.0, -2], [[1, 0.5], [2, 1]], [1.0, 0], [2.0, 1])]
    np.testing.assert_allclose(statements.printed_slopes(*worked), [0.448082, 0.896164], atol=5e-7)
    np.testing.assert_allclose(statements.slopes(*worked), [0.382236, 0.764471], atol=5e-7)


def test_lemma_1_holds_for_one_hidden_unit():
    q, w1, b1, w2 = jnp.asarray([1.0, -2]), jnp.asarray([[1.0], [2]]), jnp.asarray([1.0]), jnp.asarray([2.0])
    printed, exact = (f(q, w1, b1, w2) for f in (statements.printed_slopes, statements.slopes))
    np.testing.assert_allclose(printed, exact, atol=1e-12)


def test_lemma_2_needs_f_to_be_at_least_0():
    f, p, q = np.asarray([-10.0, 1]), np.asarray([1.0, 0]), np.asarray([0.0, 1])
    assert abs((p - q) @ f) == 11 and f.max() * np.abs(p - q).sum() / 2 == 1
    unbounded, bounded = statements.total_variations(200)
    assert unbounded.any() and not bounded.any()


def test_lemma_3_in_a_state_that_can_be_left_for_good():
    """By hand: d(0) = (1 - γ) / (1 - γ π), of which the derivative is (1 - γ) γ / (1 - γ π)²; ε = γ."""
    found = statements.absorbed()
    assert found["change of d by moving probability"] == pytest.approx(0.1 * 0.9 / 0.55**2, abs=1e-9)
    assert found["ε d"] == pytest.approx(0.9 * 0.1 / 0.55, abs=1e-9)


def test_jensens_step():
    assert -np.log((1 + np.exp(-2)) / 2) == pytest.approx(0.566219, abs=5e-7)


def test_equation_24_in_qtrans_game():
    printed, true = statements.by_weights_in_qtrans_game()
    np.testing.assert_allclose(printed, np.diag([128.0, 0, 0]), atol=1e-9)
    assert true[0, 0] == pytest.approx(71.111, abs=5e-4)
    np.testing.assert_allclose(true[1:, 1:], -3.556, atol=5e-4)
    payoff, step = np.asarray(QTRAN_PAYOFF, float), 1e-6
    for cell in np.ndindex(3, 3):
        ends = [
            least_squares(
                payoff, np.full((3, 3), 1 / 9) + sign * step * np.eye(9)[3 * cell[0] + cell[1]].reshape(3, 3)
            )[0, 0]
            for sign in (1, -1)
        ]
        assert true[cell] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-4)


def test_28_follows_and_30_has_another_sign():
    error, with_30 = statements.algebra(500)
    assert np.abs(error).max() < 1e-9
    assert with_30.min() > 1e-6


def test_weights_have_no_scale_so_that_their_multiplier_is_0():
    found = statements.derivatives(10)
    assert found.normal.max() < 1e-9 and found.scale.max() < 1e-9
    assert found.objective.max() < 1e-9 and found.slope.max() < 1e-9  # (6) is 0 in one state
    assert found.printed_scale.min() > 1e-3 and (found.overstated >= 1 - 1e-9).all()
    for error in (found.projection, found.policy, found.lagrangian):
        assert error.min() > 1e-6


def test_printed_weights_by_loops():
    draw = np.random.default_rng(0)
    y = 3 * draw.normal(size=(2, 3))
    q = np.asarray(statements.fitted(y, jnp.ones((2, 3))))
    policy = np.exp(q) / np.exp(q).sum()
    expected = np.zeros((2, 3))
    for a, b in np.ndindex(2, 3):
        if q[a, b] <= y[a, b]:
            bracket = (1 - policy[a].sum()) + (1 - policy[:, b].sum()) - 1
            expected[a, b] = policy[a, b] * (y[a, b] - q[a, b]) * np.exp(y[a, b] - q[a, b]) * bracket
    np.testing.assert_allclose(statements.printed_weights(y, q), expected, atol=1e-10)


def test_the_optimum_of_a_2x2_game_against_a_grid():
    """Q_k(u) = y(u) - I s(u) q(u): I is the interaction, s = (1, -1, -1, 1) and q any distribution."""
    (payoff,) = weights.random_payoffs(1, 2, 2)
    found = weights.compare(payoff[None], 2, 150)
    signs = np.asarray([[1.0, -1], [-1, 1]])
    grid = np.asarray(
        [(i, j, k, 40 - i - j - k) for i in range(41) for j in range(41 - i) for k in range(41 - i - j)]
    )
    q_k = payoff - (signs * payoff).sum() * signs * (grid / 40).reshape(-1, 2, 2)
    policies = np.exp(q_k) / np.exp(q_k).sum((1, 2), keepdims=True)
    best = np.exp(payoff) / np.exp(payoff).sum()
    regrets = ((best - policies) * payoff).sum((1, 2))
    least = float(found[weights.OPTIMAL].regret[0])
    assert regrets.min() - 0.05 < least < regrets.min() + 1e-2
    assert all(least <= each.regret[0] + 1e-6 for each in found.values())
    for each in found.values():
        assert each.weights.sum() == pytest.approx(1) and each.weights.min() > 0
        np.testing.assert_allclose(each.q_k[0], least_squares(payoff, each.weights[0]), atol=1e-6)


@pytest.mark.slow
def test_the_figure_is_made(tmp_path):
    (claim,) = theory.CLAIMS
    outcome = claim.make(Workshop("smoke", None, tmp_path))
    assert claim.rule.judge(outcome.measured)[0] == "partly"
    for true in (statements.RETURN, statements.LEMMA_5, statements.EQUATION_20, statements.EQUATION_23):
        assert outcome.measured[theory.failures(true)] == 0
    for false in (statements.LEMMA_1, statements.LEMMA_2, statements.EQUATION_5, statements.EQUATION_6):
        assert outcome.measured[theory.failures(false)] > 0
