import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from envs.errors import BadInputError
from envs.matrix_games import (
    LTQL_PAYOFF,
    QPLEX_10_PAYOFF,
    QPLEX_PAYOFF,
    QTRAN_PAYOFF,
    random_payoffs,
    two_gaussians_payoff,
)
from jaxmarl_fac.exact.projections import (
    additive_fit,
    greedy_joint_action,
    monotone_fit,
    monotone_fit_for_orders,
    sum_utilities,
)
from tests.reference.projections import additive_by_least_squares, isotonic_by_min_max, monotone_sse

A_FIRST, A_LAST = (1, 2, 0), (0, 1, 2)  # from worst to best


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def exact(payoff, probabilities=None):
    """Utilities and q_tot of the additive fit in float64."""
    fit = additive_fit(np.asarray(payoff, np.float64), probabilities)
    return [np.asarray(utility) for utility in fit.utilities], np.asarray(fit.q_tot)


def blocks(aa, ab, bb):
    """A 3 x 3 table in which actions B and C are alike."""
    return [[aa, ab, ab], [ab, bb, bb], [ab, bb, bb]]


# Additive (VDN)


@pytest.mark.parametrize(
    ("payoff", "q_tot", "joint"),
    [
        (QTRAN_PAYOFF, blocks(-56 / 9, -44 / 9, -32 / 9), (1, 1)),
        (QPLEX_PAYOFF, blocks(-68 / 9, -38 / 9, -8 / 9), (1, 1)),
        (LTQL_PAYOFF, [[-1 / 6, 4 / 3, 5 / 6], [1 / 6, 5 / 3, 7 / 6]], (1, 1)),
        ([[8, -12], [-12, 0]], [[0, -4], [-4, -8]], (0, 0)),
    ],
    ids=["qtran", "qplex", "ltql", "lecture-2x2"],
)
def test_additive_fit_under_uniform_data(float64, payoff, q_tot, joint):
    utilities, table = exact(payoff)
    np.testing.assert_allclose(table, q_tot, atol=1e-12)
    assert tuple(greedy_joint_action(utilities).tolist()) == joint


def test_additive_fit_of_qplex_first_game_prefers_the_safe_corner(float64):
    utilities, table = exact(QPLEX_10_PAYOFF)
    expected = [[5.7778, 5.6444, 8.9778], [5.6444, 5.5111, 8.8444], [8.9778, 8.8444, 12.1778]]
    np.testing.assert_allclose(table, expected, atol=5e-5)
    assert greedy_joint_action(utilities).tolist() == [2, 2]
    assert QPLEX_10_PAYOFF[2][2] == 10


def test_two_step_game_vdn_takes_the_sure_seven_qmix_does_not(float64):
    stage_2b = [[0, 1], [1, 8]]
    _, table = exact(stage_2b)
    np.testing.assert_allclose(table, [[-1.5, 2.5], [2.5, 6.5]], atol=1e-12)
    assert 0.99 * table.max() == pytest.approx(6.435)  # below the sure .99 * 7 = 6.93
    monotone = monotone_fit(stage_2b)
    assert monotone.sse == 0
    assert 0.99 * monotone.q_tot.max() == pytest.approx(7.92)


@pytest.mark.parametrize("p", [0.05, 0.0611, 1 / 3, 0.374, 0.376, 0.5, 0.95])
def test_additive_fit_of_qtran_game_under_product_data(float64, p):
    data = [np.array([p, (1 - p) / 2, (1 - p) / 2])] * 2
    utilities, table = exact(QTRAN_PAYOFF, data)
    expected = blocks(-32 * p**2 + 64 * p - 24, -32 * p**2 + 32 * p - 12, -32 * p**2)
    np.testing.assert_allclose(table, expected, atol=1e-12)
    # A is preferred from p = 3/8 on: both (A, A) and (B, B) sustain themselves on-policy.
    assert greedy_joint_action(utilities).tolist() == ([0, 0] if p > 3 / 8 else [1, 1])


def test_additive_fit_explains_the_tables_of_other_implementations(float64):
    p = 0.0611
    _, table = exact(QTRAN_PAYOFF, [np.array([p, (1 - p) / 2, (1 - p) / 2])] * 2)
    np.testing.assert_allclose(table, blocks(-20.21, -10.16, -0.12), atol=0.005)


def test_additive_fit_of_21x21_finds_the_wide_peak(float64):
    utilities, table = exact(two_gaussians_payoff())
    assert greedy_joint_action(utilities).tolist() == [15, 5]
    assert np.unravel_index(table.argmax(), table.shape) == (15, 5)
    assert table.max() == pytest.approx(1.59914, abs=5e-6)


def test_utilities_follow_theorem_1(float64):
    # E[y | u_1] = (-16/3, -4, -4), E[y] = -40/9 and n = 2.
    utilities, _ = exact(QTRAN_PAYOFF)
    expected = np.array([-16 / 3, -4, -4]) + 20 / 9
    np.testing.assert_allclose(utilities, [expected, expected], atol=1e-12)


SHAPES = [(3, 3), (1, 4), (2, 5), (2, 3, 4), (3, 1, 2), (2, 3, 2, 3)]


@st.composite
def games(draw):
    shape = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = [rng.dirichlet(np.full(size, 2.0)) + 1e-3 for size in shape]
    return rng.normal(scale=5, size=shape), [p / p.sum() for p in raw]


@given(games())
@settings(max_examples=25, deadline=None)
def test_additive_fit_equals_least_squares(game):
    payoff, probabilities = game
    with jax.enable_x64(True):
        utilities, table = exact(payoff, probabilities)
        np.testing.assert_allclose(np.asarray(sum_utilities(utilities)), table, atol=1e-12)
    np.testing.assert_allclose(table, additive_by_least_squares(payoff, probabilities), atol=1e-9)


@given(games(), st.data())
@settings(max_examples=20, deadline=None)
def test_permuting_agents_permutes_the_additive_fit(game, data):
    payoff, probabilities = game
    order = data.draw(st.permutations(range(payoff.ndim)))
    with jax.enable_x64(True):
        utilities, table = exact(payoff, probabilities)
        permuted, permuted_table = exact(payoff.transpose(order), [probabilities[i] for i in order])
    np.testing.assert_allclose(permuted_table, table.transpose(order), atol=1e-9)
    for utility, agent in zip(permuted, order, strict=True):
        np.testing.assert_allclose(utility, utilities[agent], atol=1e-9)


@given(games(), st.floats(0.1, 10), st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_affine_payoffs_have_the_same_greedy_joint_action(game, scale, shift):
    payoff, _ = game
    with jax.enable_x64(True):
        utilities, table = exact(payoff)
        moved, moved_table = exact(scale * payoff + shift)
    top = [np.sort(utility)[::-1] for utility in utilities]
    assume(all(len(t) == 1 or t[0] - t[1] > 1e-6 for t in top))  # rounding may break ties
    assert greedy_joint_action(moved).tolist() == greedy_joint_action(utilities).tolist()
    np.testing.assert_allclose(moved_table, scale * table + shift, atol=1e-8)


def test_share_of_random_games_that_additive_fits_solve():
    payoffs = random_payoffs(0, 20_000)  # (games, 3, 3)

    @jax.jit
    def solved(payoff):
        joint = greedy_joint_action(additive_fit(payoff).utilities)
        return payoff[joint[0], joint[1]] == payoff.max()

    assert float(jax.vmap(solved)(payoffs).mean()) == pytest.approx(0.372, abs=0.01)


def test_additive_fit_maps_over_data_distributions():
    p = jnp.array([0.25, 0.5])
    data = jnp.stack([p, (1 - p) / 2, (1 - p) / 2], axis=1)  # (2, 3)
    table = jax.vmap(lambda probabilities: additive_fit(QTRAN_PAYOFF, [probabilities] * 2).q_tot)(data)
    np.testing.assert_allclose(table, [blocks(-10, -6, -2), blocks(0, -4, -8)], atol=1e-5)


def test_greedy_ties_go_to_the_lowest_index():
    assert greedy_joint_action([np.array([1.0, 3.0, 3.0]), np.array([2.0, 2.0])]).tolist() == [1, 0]


@pytest.mark.parametrize(
    "probabilities", [[[0.5, 0.5]], [[0.5, 0.5], [1.0]], [[0.5, 0.5], [0.2, 0.2, 0.6], [1.0]]]
)
def test_probabilities_must_fit(probabilities):
    with pytest.raises(BadInputError, match="one entry for each of its actions"):
        additive_fit(np.zeros((2, 3)), [np.array(p) for p in probabilities])


# Monotone (QMIX)


@pytest.mark.parametrize(
    ("payoff", "q_tot", "sse", "joint"),
    [
        (QTRAN_PAYOFF, [[8, -6, -6], [-6, -6, -6], [-6, -6, -6]], 288, (0, 0)),
        (QPLEX_PAYOFF, [[-8, -8, -8], [-8, 2, 2], [-8, 2, 6]], 344, (2, 2)),
        (blocks(12, -0.1, 0), blocks(12, -0.05, -0.05), 0.02, (0, 0)),
        ([[0, 1], [1, 8]], [[0, 1], [1, 8]], 0, (1, 1)),
    ],
    ids=["qtran", "qplex", "easy", "two-step-2b"],
)
def test_global_optimum_of_the_monotone_projection(payoff, q_tot, sse, joint):
    fit = monotone_fit(payoff)
    np.testing.assert_allclose(fit.q_tot, q_tot, atol=1e-12)
    assert fit.sse == pytest.approx(sse, abs=1e-12)
    assert fit.greedy == joint


@pytest.mark.parametrize(
    ("orders", "q_tot", "sse", "joint"),
    [
        ((A_FIRST, A_FIRST), [[8, -6, -6], [-6, -6, -6], [-6, -6, -6]], 288, (0, 0)),
        ((A_LAST, A_LAST), [[-8, -8, -8], [-8, 0, 0], [-8, 0, 0]], 320, (1, 1)),
        (
            (A_LAST, A_FIRST),
            [[-16 / 7, -12, -12], [-16 / 7] * 3, [-16 / 7] * 3],
            315.428571,
            (0, 0),
        ),
    ],
    ids=["global", "what-papers-show", "mixed"],
)
def test_optima_of_qtran_game_for_given_orders(orders, q_tot, sse, joint):
    fit = monotone_fit_for_orders(QTRAN_PAYOFF, orders)
    np.testing.assert_allclose(fit.q_tot, q_tot, atol=1e-12)
    assert fit.sse == pytest.approx(sse, abs=1e-6)
    assert fit.greedy == joint
    assert fit.orders == orders


@pytest.mark.parametrize(("alpha", "wrong"), [(1, 320), (0.5, 266.7), (0.1, 115.9), (0.01, 17.4)])
def test_centrally_weighted_projection_of_qtran_game(alpha, wrong):
    weights = np.full((3, 3), alpha)
    weights[0, 0] = 1
    best = monotone_fit(QTRAN_PAYOFF, weights)
    assert best.sse == pytest.approx(288 * alpha)
    assert best.greedy == (0, 0)
    other = monotone_fit_for_orders(QTRAN_PAYOFF, (A_LAST, A_LAST), weights)
    assert other.sse == pytest.approx(wrong, abs=0.05)


def test_monotone_fit_of_21x21_for_the_orders_of_vdn():
    # Both agents rank actions by their distance to the wide peak. The fit is the payoff itself there.
    orders = [sorted(range(21), key=lambda action: -abs(action - top)) for top in (15, 5)]
    payoff = two_gaussians_payoff()
    fit = monotone_fit_for_orders(payoff, orders)
    assert fit.greedy == (15, 5)
    assert fit.q_tot[15, 5] == pytest.approx(5)
    assert fit.q_tot[5, 15] < 5
    ranked = fit.q_tot[np.ix_(*orders)]
    assert (np.diff(ranked, axis=0) >= 0).all()
    assert (np.diff(ranked, axis=1) >= 0).all()


@pytest.mark.parametrize("shape", [(5,), (2, 4), (3, 3), (2, 2, 2), (3, 2, 2)])
def test_isotonic_regression_equals_min_max_formula(shape):
    rng = np.random.default_rng(len(shape))
    for _ in range(3):
        y, w = rng.normal(size=shape), rng.uniform(0.1, 3, size=shape)
        fit = monotone_fit_for_orders(y, [range(size) for size in shape], w)
        expected = isotonic_by_min_max(y, w)
        np.testing.assert_allclose(fit.q_tot, expected, atol=1e-12)
        assert fit.sse == pytest.approx((w * (y - expected) ** 2).sum())


@pytest.mark.parametrize("shape", [(3, 2), (2, 2, 2), (3, 3)])
def test_monotone_fit_is_the_best_of_all_orders(shape):
    rng = np.random.default_rng(7)
    y, w = rng.normal(size=shape), rng.uniform(0.1, 3, size=shape)
    fit = monotone_fit(y, w)
    assert fit.sse == pytest.approx(monotone_sse(y, w), abs=1e-12)
    assert fit.sse == pytest.approx((w * (y - fit.q_tot) ** 2).sum(), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.permutations(range(3)), st.floats(0.1, 10), st.floats(-1e3, 1e3))
@settings(max_examples=20, deadline=None)
def test_monotone_fit_follows_permutations_and_affine_changes(seed, order, scale, shift):
    rng = np.random.default_rng(seed)
    payoff, weights = rng.normal(size=(3, 2, 2)), rng.uniform(0.5, 2, size=(3, 2, 2))
    fit = monotone_fit(payoff, weights)
    permuted = monotone_fit(payoff.transpose(order), weights.transpose(order))
    np.testing.assert_allclose(permuted.q_tot, fit.q_tot.transpose(order), atol=1e-9)
    moved = monotone_fit(scale * payoff + shift, weights)
    np.testing.assert_allclose(moved.q_tot, scale * fit.q_tot + shift, atol=1e-8)
    assert moved.greedy == fit.greedy


def test_monotone_fit_of_tiny_payoffs():
    fit = monotone_fit(np.array(QPLEX_PAYOFF) * 1e-7)
    np.testing.assert_allclose(fit.q_tot * 1e7, [[-8, -8, -8], [-8, 2, 2], [-8, 2, 6]], rtol=1e-9)
    assert fit.sse * 1e14 == pytest.approx(344)


def test_rounding_does_not_choose_between_orders_that_are_equally_good():
    # Shifting both agents' actions by one changes nothing, so the best fit comes three times. In tenths
    # their errors differ in the last bit, and not in favour of the first.
    table = np.array([[7, 4, 1], [1, 7, 4], [4, 1, 7]])
    whole, tenths = monotone_fit(table), monotone_fit(table / 10)
    assert whole.orders == tenths.orders == ((0, 2, 1), (0, 1, 2))
    np.testing.assert_allclose(tenths.q_tot, whole.q_tot / 10, atol=1e-12)


def test_monotone_fit_never_does_worse_than_the_additive_fit():
    # Additive functions are monotone; and a monotone payoff is fitted exactly.
    for payoff in np.asarray(random_payoffs(3, 20), np.float64):
        with jax.enable_x64(True):
            _, additive = exact(payoff)
        fit = monotone_fit(payoff)
        assert fit.sse <= ((payoff - additive) ** 2).sum() + 1e-12
        assert monotone_fit(fit.q_tot).sse == pytest.approx(0, abs=1e-15)


def test_monotone_fit_refuses_games_that_are_too_large():
    with pytest.raises(BadInputError, match="at most 20000"):
        monotone_fit(np.zeros((6, 6)))
    with pytest.raises(BadInputError, match="256 upper sets"):
        monotone_fit_for_orders(np.zeros((2,) * 12), [range(2)] * 12)


@pytest.mark.parametrize(
    "orders", [[A_FIRST], [A_FIRST, (0, 1)], [A_FIRST, (0, 1, 1)], list(itertools.repeat(A_FIRST, 3))]
)
def test_orders_must_be_permutations(orders):
    with pytest.raises(BadInputError, match="from worst to best"):
        monotone_fit_for_orders(QTRAN_PAYOFF, orders)


@pytest.mark.parametrize(
    "weights", [np.ones((2, 3)), np.zeros((3, 3)), -np.ones((3, 3)), np.full((3, 3), np.nan)]
)
def test_weights_must_be_positive_and_fit(weights):
    with pytest.raises(BadInputError, match="one positive number"):
        monotone_fit(QTRAN_PAYOFF, weights)


def test_payoffs_must_be_finite():
    with pytest.raises(BadInputError, match="finite"):
        monotone_fit([[1, np.nan], [0, 0]])
