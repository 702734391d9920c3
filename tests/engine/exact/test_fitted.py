import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from envs.matrix_games import LTQL_PAYOFF, QPLEX_10_PAYOFF, QPLEX_PAYOFF, QTRAN_PAYOFF
from envs.team_mdp import divergence_mmdp, draw_team_mdp, line_world
from jaxmarl_fac.exact.fitted import (
    epsilon_greedy_policies,
    fma_fqi,
    fqi_igm,
    igm_projection,
    igm_q_tot,
    uniform_policies,
)
from jaxmarl_fac.exact.joint import optimal_q, optimality_gap, value_iteration
from jaxmarl_fac.exact.policies import joint_policy, state_values
from jaxmarl_fac.exact.team import greedy_joint_actions
from tests.engine.exact.models import GAMMA, SHAPES, one_shot, random_model, random_q
from tests.reference import team_mdp as reference

pytestmark = pytest.mark.usefixtures("float64")


def values_of_state_0(gamma, epsilon=1.0):
    """V_0, ..., V_300 of the divergence game by FMA-FQI."""
    return np.asarray(fma_fqi(divergence_mmdp().model(), gamma, 300, epsilon=epsilon).values[:, 0])


def test_line_world_under_uniform_and_idle_policies():
    """-19.6421 is the discounted return of four steps, gamma .99; undiscounted it is -19.938."""
    model = line_world().model()
    uniform = uniform_policies(model)
    start = 19
    at_random = joint_policy(uniform)
    assert float(state_values(model, 0.99, at_random)[start]) == pytest.approx(-19.6421, abs=1e-4)
    assert float(state_values(model, 1 - 1e-12, at_random)[start]) == pytest.approx(-19.938272, abs=1e-6)
    idle = (jnp.zeros((20, 2)).at[:, 0].set(1), jnp.zeros((20, 3)).at[:, 0].set(1))
    assert float(state_values(model, 0.99, joint_policy(idle))[start]) == 0


# FMA-FQI: Theorem 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_fma_fqi_equals_least_squares_in_every_state(shape, epsilon):
    for seed in range(2):
        model = random_model(shape, seed, terminal=seed == 1)
        trace = fma_fqi(model, 0.6, 6, epsilon=epsilon)
        expected = reference.fma_fqi(*model, 0.6, 6, epsilon)
        np.testing.assert_allclose(trace.values, expected, atol=1e-9)
        rebuilt = np.asarray(trace.q_tot).reshape(7, len(model.reward), -1).max(axis=2)
        np.testing.assert_array_equal(trace.values, rebuilt)


@pytest.mark.parametrize("shape", SHAPES)
def test_fma_fqi_takes_any_factorised_data(shape):
    """One iteration from given utilities, on random data, against numpy's weighted least squares."""
    states, counts = shape
    model = random_model(shape, 5)
    rng = np.random.default_rng(2)
    data = tuple(rng.dirichlet(np.ones(count), size=states) for count in counts)
    start = random_q(model, 6)
    trace = fma_fqi(model, GAMMA, 1, exploration=data, start=start)
    first = sum(utility.max(axis=1) for utility in start)
    np.testing.assert_allclose(trace.values[0], first, atol=1e-12)
    y = reference.backup(*model, GAMMA, first)
    for state in range(states):
        expected = reference.additive_by_least_squares(y[state], [chances[state] for chances in data])
        np.testing.assert_allclose(trace.q_tot[1][state], expected, atol=1e-9)


def test_lecture_2x2_is_not_what_its_payoff_gives():
    """With uniform data the printed payoff gives another table, whose greedy action is right.

    The printed one is (rounded) that of the 3 x 3 game with two actions merged, drawn 2/3 of the time.
    """
    model = one_shot([[8, -12], [-12, 0]])
    np.testing.assert_allclose(fma_fqi(model, GAMMA, 1).q_tot[1, 0], [[0, -4], [-4, -8]], atol=1e-12)
    third = (np.array([[1 / 3, 2 / 3]] * 2),) * 2
    q_tot = fma_fqi(model, GAMMA, 1, exploration=third).q_tot[1, 0]
    np.testing.assert_allclose(q_tot, np.array([[-56, -44], [-44, -32]]) / 9, atol=1e-12)  # the 3 x 3 game's
    qtran = fma_fqi(one_shot(QTRAN_PAYOFF), GAMMA, 1).q_tot[1, 0]
    np.testing.assert_allclose(qtran[:2, :2], q_tot, atol=1e-12)


def test_no_product_data_give_the_lecture_s_2x2_table():
    """Over a grid of all data distributions the nearest table is .057 away in its worst entry."""
    chances = np.linspace(0.002, 0.998, 499)
    first, second = (axis.reshape(-1) for axis in np.meshgrid(chances, chances))
    model = one_shot([[8, -12], [-12, 0]])

    def table(p, q):
        data = tuple(jnp.broadcast_to(jnp.array([chance, 1 - chance]), (2, 2)) for chance in (p, q))
        return fma_fqi(model, GAMMA, 1, exploration=data).q_tot[1, 0]

    tables = np.asarray(jax.jit(jax.vmap(table))(first, second))
    error = np.abs(tables - [[-6.5, -5], [-5, -3.5]]).max(axis=(1, 2))
    assert error.min() == pytest.approx(0.0573, abs=1e-4)
    at_331 = np.asarray(table(0.331, 0.331))
    np.testing.assert_allclose(at_331, [[-6.33, -4.92], [-4.92, -3.5]], atol=0.01)


def test_exact_vdn_on_qplex_s_first_game():
    q_tot = np.asarray(fma_fqi(one_shot(QPLEX_10_PAYOFF), GAMMA, 1).q_tot[1, 0])
    expected = [[5.7778, 5.6444, 8.9778], [5.6444, 5.5111, 8.8444], [8.9778, 8.8444, 12.1778]]
    np.testing.assert_allclose(q_tot, expected, atol=5e-5)
    assert np.unravel_index(q_tot.argmax(), (3, 3)) == (2, 2)  # worth 10, not the 10.4 of (0, 0)


# FMA-FQI: Theorems 2 and 3 on the divergence game


@pytest.mark.parametrize(
    ("gamma", "first_four", "tenth", "hundredth"),
    [
        (0.5, [0.75, 1.21875, 1.51171875, 1.69482422], 1.98181011, 2),
        (0.7, [0.75, 1.40625, 1.98046875, 2.48291016], 4.42154654, 5.99999047),
        (0.8, [0.75, 1.5, 2.25, 3], 7.5, 75),
        (0.9, [0.75, 1.59375, 2.54296875, 3.61083984], 13.4839262, 782348.338),
        (0.99, [0.75, 1.678125, 2.82667969, 4.24801611], 23.4401508, 5.67437992e9),
    ],
)
def test_divergence_table(gamma, first_four, tenth, hundredth):
    values = values_of_state_0(gamma)
    np.testing.assert_allclose(values[[1, 2, 3, 4, 10, 100]], [*first_four, tenth, hundredth], rtol=1e-8)
    recursion = [0.0]
    for _ in range(300):
        recursion.append(0.75 + 1.25 * gamma * recursion[-1])
    np.testing.assert_allclose(values, recursion, rtol=1e-12)


@pytest.mark.parametrize(("gamma", "limit"), [(0.5, 2), (0.7, 6), (0.75, 12)])
def test_off_policy_limit_below_four_fifths(gamma, limit):
    assert values_of_state_0(gamma)[-1] == pytest.approx(limit, rel=1e-8)  # 3 / (4 - 5 gamma)


def test_off_policy_growth_at_099():
    values = values_of_state_0(0.99)
    assert values[20] == pytest.approx(220.869847, rel=1e-8)
    steps = np.diff(values)
    np.testing.assert_allclose(steps[1:] / steps[:-1], 1.2375, rtol=1e-9)


@pytest.mark.parametrize(
    ("epsilon", "slope", "limit"),
    [(0.5, 1.051875, None), (0.2, 0.9999, 9900), (0.1, 0.992475, 132.558), (0.05, 0.99061875, 106.529)],
)
def test_on_policy_slopes_and_limits(epsilon, slope, limit):
    values = values_of_state_0(0.99, epsilon)
    steps = np.diff(values)
    np.testing.assert_allclose(steps[1:] / steps[:-1], slope, rtol=1e-9)
    delta = epsilon / 2
    assert values[1] == pytest.approx(1 - delta**2, rel=1e-12)
    assert slope == pytest.approx(0.99 * (1 + delta**2), rel=1e-12)
    if limit is None:
        assert values[-1] > 1e6
    else:
        # Geometric steps add up to the limit, which 300 iterations may be far from.
        assert values[-1] + steps[-1] * slope / (1 - slope) == pytest.approx(limit, rel=5e-6)


def test_on_policy_stability_ends_at_epsilon_0201():
    for epsilon, stable in ((0.2009, True), (0.2011, False)):
        steps = np.diff(values_of_state_0(0.99, epsilon))
        assert (steps[2] < steps[1]) == stable


# FQI-IGM: Theorem 4


def test_fqi_igm_on_the_divergence_game():
    values = fqi_igm(divergence_mmdp().model(), 0.99, 200).values[:, 0]
    np.testing.assert_allclose(values, 100 * (1 - 0.99 ** np.arange(201)), atol=1e-11)


def test_fqi_igm_is_value_iteration_through_the_factors():
    model = random_model((4, (2, 3, 2)), 1, terminal=True)
    start = np.random.default_rng(2).normal(size=model.reward.shape)
    trace, exact = fqi_igm(model, GAMMA, 40, start), value_iteration(model, GAMMA, 40, start)
    np.testing.assert_allclose(trace.q_tot, exact.q, atol=1e-12)
    np.testing.assert_allclose(trace.values, exact.values, atol=1e-12)
    own = sum(np.asarray(utility).max(axis=-1) for utility in trace.factors.utilities)
    np.testing.assert_allclose(own, exact.values, atol=1e-12)  # each agent's max is its V_i


def test_fqi_igm_converges_on_500_random_games():
    @jax.jit
    @jax.vmap
    def errors(key):
        model = draw_team_mdp(key, 5, (3, 3)).model()
        trace = fqi_igm(model, GAMMA, 80)
        best = optimal_q(model, GAMMA)
        greedy = jax.vmap(lambda *utilities: greedy_joint_actions(utilities))(*trace.factors.utilities)
        gap = optimality_gap(best, greedy[-1])
        return jnp.abs(trace.values - best.max(axis=(1, 2))).max(axis=1), gap

    error, gap = map(np.asarray, errors(jax.random.split(jax.random.key(0), 500)))
    bound = GAMMA ** np.arange(81) * error[:, :1]
    assert (error <= bound + 1e-10).all()
    assert error[:, 0].min() > 3  # values near 5 to 10, from 0
    # The greedy joint action of the factors is optimal up to twice the error of the last target.
    assert (gap <= 2 * error[:, -2]).all() and np.mean(gap < 1e-9) > 0.99


@pytest.mark.parametrize("payoff", [QTRAN_PAYOFF, QPLEX_PAYOFF, [[[1, 2], [3, 9]], [[0, -4], [5, 6]]]])
def test_igm_projection_rebuilds_any_payoff(payoff):
    payoff = np.array(payoff, float)
    factors = igm_projection(jnp.asarray(payoff))
    np.testing.assert_allclose(igm_q_tot(factors), payoff, atol=1e-12)
    assert float(factors.weights.min()) > 0  # the maximiser is unique
    best = np.unravel_index(payoff.argmax(), payoff.shape)
    for utility, value, action in zip(factors.utilities, factors.values, best, strict=True):
        assert float(value) == pytest.approx(payoff.max() / payoff.ndim)
        others = np.delete(np.asarray(utility), action)
        assert float(utility[action]) == float(value) and (others < float(value)).all()


def test_igm_weights_of_qtran_s_game():
    """20 where one agent deviates to -12, 4 where both do to 0."""
    weights = np.asarray(igm_projection(jnp.asarray(QTRAN_PAYOFF, float)).weights)
    np.testing.assert_allclose(weights, [[1, 20, 20], [20, 4, 4], [20, 4, 4]], atol=1e-12)


def test_igm_projection_of_a_tie_has_weight_0_at_the_other_optimum():
    factors = igm_projection(jnp.asarray(LTQL_PAYOFF, float))
    np.testing.assert_allclose(igm_q_tot(factors), LTQL_PAYOFF, atol=1e-12)
    assert tuple(int(np.argmax(utility)) for utility in factors.utilities) == (0, 1)  # the lowest index
    assert float(factors.weights[1, 2]) == 0
    assert float(np.delete(np.ravel(factors.weights), 5).min()) > 0


def test_epsilon_greedy_policies():
    utilities = (jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[0.0, 3.0]]))
    uniform = (jnp.full((1, 3), 1 / 3), jnp.full((1, 2), 0.5))
    first, second = epsilon_greedy_policies(utilities, 0.3, uniform)
    np.testing.assert_allclose(first, [[0.8, 0.1, 0.1]], atol=1e-15)  # the tie goes to the lowest index
    np.testing.assert_allclose(second, [[0.15, 0.85]], atol=1e-15)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"exploration": ([[1.0, 0.0]] * 2, [[0.5, 0.5]] * 2)},
            "agent 0 holds a probability of 0: every action",
        ),
        (
            {"exploration": ([[0.5, 0.5]] * 2, [[0.5, 0.5], [0.5, 0.4]])},
            "agent 1 does not sum to 1: in state 1",
        ),
        ({"exploration": ([[0.5, 0.5]] * 2,)}, "does not fit a reward of shape"),
        ({"epsilon": 0.0}, r"epsilon must be in \(0, 1\], not 0.0"),
        ({"epsilon": 1.2}, r"epsilon must be in \(0, 1\], not 1.2"),
        ({"iterations": 0}, "iterations must be at least 1, not 0"),
    ],
)
def test_data_that_leave_out_actions(data, message):
    if "exploration" in data:
        data = {"exploration": tuple(np.array(chances) for chances in data["exploration"])}
    with pytest.raises(BadInputError, match=message):
        fma_fqi(divergence_mmdp().model(), GAMMA, **{"iterations": 2, **data})
