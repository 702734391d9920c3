import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from envs.matrix_games import (
    LTQL_PAYOFF,
    QPLEX_10_PAYOFF,
    QPLEX_PAYOFF,
    QTRAN_PAYOFF,
    matrix_game,
    two_step_game,
)
from envs.team_mdp import TeamModel, divergence_mmdp, draw_team_mdp, from_matrix_game, line_world, team_mdp
from jaxmarl_fac.dynamic_programming import (
    backup,
    btoo,
    epsilon_greedy_policies,
    fma_fqi,
    fqi_igm,
    greedy_joint,
    igm_projection,
    igm_q_tot,
    operator_b1,
    operator_b2,
    optimal_q,
    optimality_gap,
    policy_values,
    team_residuals,
    uniform_policies,
    value_iteration,
)
from jaxmarl_fac.projections import monotone_fit
from tests.reference import team_mdp as reference

GAMMA = 0.9
SHAPES = [(3, (2, 3)), (3, (2, 2, 2)), (2, (3, 1, 2))]  # states, action counts


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def one_shot(payoff):
    """The model of a one-shot matrix game: state 0, and the end."""
    return from_matrix_game(matrix_game(payoff)).model()


def zeros(model):
    """Factored q-functions of 0."""
    return tuple(jnp.zeros_like(policy) for policy in uniform_policies(model))


@functools.cache
def random_model(shape, seed, terminal=False):
    """A random model as NumPy arrays, rewards from -1 to 1; the last state ends the episode if asked for."""
    (states, counts), rng = shape, np.random.default_rng(seed)
    return TeamModel(
        transition=rng.dirichlet(np.ones(states), size=(states, *counts)),
        reward=rng.uniform(-1, 1, size=(states, *counts)),
        terminal=np.arange(states) == (states - 1 if terminal else states),
    )


def random_q(model, seed):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(len(model.reward), count)) for count in model.reward.shape[1:])


def values_of_state_0(gamma, epsilon=1.0):
    """V_0, ..., V_300 of the divergence game by FMA-FQI."""
    return np.asarray(fma_fqi(divergence_mmdp().model(), gamma, 300, epsilon=epsilon).values[:, 0])


# Value iteration and policies


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("terminal", [False, True])
def test_optimal_q_is_the_best_of_all_policies(shape, terminal):
    for seed in range(3):
        model = random_model(shape, seed, terminal)
        q = np.asarray(optimal_q(model, GAMMA))
        best = reference.best_values(*model, GAMMA)
        np.testing.assert_allclose(q.reshape(len(q), -1).max(axis=1), best, atol=1e-9)
        np.testing.assert_allclose(q, reference.backup(*model, GAMMA, best), atol=1e-9)


def test_value_iteration_contracts_from_any_start():
    model = random_model((4, (3, 3)), 0)
    start = 10 * np.random.default_rng(1).normal(size=model.reward.shape)
    trace = value_iteration(model, GAMMA, 60, start)
    np.testing.assert_array_equal(trace.q[0], start)
    error = np.abs(trace.q - optimal_q(model, GAMMA)).reshape(61, -1).max(axis=1)
    assert (error <= GAMMA ** np.arange(61) * error[0] + 1e-9).all()
    assert error[0] > 10
    np.testing.assert_array_equal(trace.values[7], np.asarray(trace.q[7]).reshape(4, -1).max(axis=1))


@pytest.mark.parametrize("gamma", [0.0, 0.999])
def test_optimal_q_stops_at_the_ends_of_the_discount(gamma):
    q = np.asarray(optimal_q(divergence_mmdp().model(), gamma))
    assert q[0, 0, 0] == pytest.approx(1 / (1 - gamma), rel=1e-11)


def test_optimal_q_stops_at_rounding_in_float32():
    with jax.enable_x64(False):
        q = optimal_q(divergence_mmdp().model(), 0.99)
        assert q.dtype == jnp.float32
        assert float(q[0, 0, 0]) == pytest.approx(100, rel=2e-3)


def test_two_step_game_is_worth_8_a_step_later():
    q = np.asarray(optimal_q(from_matrix_game(two_step_game()).model(), 0.99))
    np.testing.assert_allclose(q[0], [[0.99 * 7] * 2, [0.99 * 8] * 2], atol=1e-12)
    np.testing.assert_allclose(q[2], [[0, 1], [1, 8]], atol=1e-12)


def test_line_world_values():
    """10 * .99^3 at the start, 9.9 and 9.801 nearer, 0 when it is too late."""
    q = np.asarray(optimal_q(line_world().model(), 0.99))
    values = q.reshape(20, -1).max(axis=1).reshape(5, 4)  # (time left, cell)
    expected = [
        [0, 0, 0, 0],
        [10, 0, 0, 0],
        [10, 9.9, 0, 0],
        [10, 9.9, 9.801, 0],
        [10, 9.9, 9.801, 9.70299],
    ]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_line_world_under_uniform_and_idle_policies():
    """-19.6421 is the discounted return of four steps, gamma .99; undiscounted it is -19.938."""
    model = line_world().model()
    uniform = uniform_policies(model)
    start = 19
    assert float(policy_values(model, 0.99, uniform)[start]) == pytest.approx(-19.6421, abs=1e-4)
    assert float(policy_values(model, 1 - 1e-12, uniform)[start]) == pytest.approx(-19.938272, abs=1e-6)
    idle = (jnp.zeros((20, 2)).at[:, 0].set(1), jnp.zeros((20, 3)).at[:, 0].set(1))
    assert float(policy_values(model, 0.99, idle)[start]) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_policy_values_of_deterministic_policies(shape):
    model = random_model(shape, 3, terminal=True)
    rng = np.random.default_rng(0)
    states, counts = shape
    for _ in range(3):
        joint = rng.integers(counts, size=(states, len(counts)))
        policies = tuple(np.eye(count)[joint[:, k]] for k, count in enumerate(counts))
        expected = reference.policy_value(*model, GAMMA, joint)
        np.testing.assert_allclose(policy_values(model, GAMMA, policies), expected, atol=1e-12)


def test_optimality_gap_is_the_worst_loss():
    q = jnp.array([[[1.0, 0.25], [0.5, 0]], [[0, 0], [2, 2]]])
    assert float(optimality_gap(q, jnp.array([[0, 0], [1, 1]]))) == 0
    assert float(optimality_gap(q, jnp.array([[0, 1], [1, 0]]))) == 0.75
    assert float(optimality_gap(q, jnp.array([[1, 0], [0, 0]]))) == 2


def test_backup_ends_at_terminal_states():
    model = random_model(SHAPES[0], 0, terminal=True)
    values = np.array([1.0, -2.0, 1000.0])
    y = np.asarray(backup(model, GAMMA, values))
    np.testing.assert_allclose(y, reference.backup(*model, GAMMA, values), atol=1e-14)
    np.testing.assert_array_equal(y[2], 0)


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


def test_divergence_targets_are_monotone():
    """A well-optimised QMIX fits every target of the divergence game exactly: it must not diverge."""
    model = divergence_mmdp().model()
    trace = value_iteration(model, 0.99, 50)
    for t in (1, 10, 50):
        target = np.asarray(backup(model, 0.99, trace.values[t]))[0]
        assert target[0, 0] > target[0, 1] == target[1, 0] > target[1, 1] == 0
        fit = monotone_fit(target)
        np.testing.assert_allclose(fit.q_tot, target, atol=1e-12)


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
        greedy = jax.vmap(lambda *utilities: greedy_joint(utilities))(*trace.factors.utilities)
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
                np.testing.assert_array_equal(greedy_joint(lifted), policy)
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
    np.testing.assert_array_equal(greedy_joint(q), np.stack([one.argmax(1), two.argmax(1)], axis=1))
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
    assert greedy_joint(independent)[0].tolist() == [1, 1]  # pays 1
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
        return every, optimality_gap(best, greedy_joint(settled)[:1])

    together, after_together = jax.jit(jax.vmap(functools.partial(gaps, in_turn=False)))(keys)
    np.testing.assert_array_equal(together, 2)
    np.testing.assert_array_equal(after_together, 2)
    _, after_in_turn = jax.jit(jax.vmap(functools.partial(gaps, in_turn=True)))(keys)
    np.testing.assert_array_equal(after_in_turn, 0)


def test_epsilon_greedy_policies():
    utilities = (jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[0.0, 3.0]]))
    uniform = (jnp.full((1, 3), 1 / 3), jnp.full((1, 2), 0.5))
    first, second = epsilon_greedy_policies(utilities, 0.3, uniform)
    np.testing.assert_allclose(first, [[0.8, 0.1, 0.1]], atol=1e-15)  # the tie goes to the lowest index
    np.testing.assert_allclose(second, [[0.15, 0.85]], atol=1e-15)


# Bad input


@pytest.mark.parametrize("discount", [-0.1, 1.0, 1.5, float("nan"), np.array([0.5, 1.0])])
def test_discounts_outside_0_1(discount):
    model = divergence_mmdp().model()
    q = zeros(model)
    for solve in (
        lambda: value_iteration(model, discount, 3),
        lambda: optimal_q(model, discount),
        lambda: fma_fqi(model, discount, 3),
        lambda: fqi_igm(model, discount, 3),
        lambda: operator_b1(model, discount, q),
        lambda: btoo(model, discount, q, jax.random.key(0), 3, 0.5),
    ):
        with pytest.raises(BadInputError, match=r"discount must be in \[0, 1\), not"):
            solve()


def test_games_of_one_agent():
    alone = TeamModel(jnp.full((2, 3, 2), 0.5), jnp.zeros((2, 3)), jnp.zeros(2, bool))
    q = (jnp.zeros((2, 3)),)
    for solve in (
        lambda: operator_b1(alone, GAMMA, q),
        lambda: operator_b2(alone, GAMMA, q),
        lambda: btoo(alone, GAMMA, q, jax.random.key(0), 3, 0.5),
        lambda: fma_fqi(alone, GAMMA, 3),
        lambda: fqi_igm(alone, GAMMA, 3),
    ):
        with pytest.raises(BadInputError, match="fewer than two agents"):
            solve()


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


def test_other_bad_input():
    model = divergence_mmdp().model()
    with pytest.raises(BadInputError, match=r"p is the probability of B_I and must be in \[0, 1\], not 1.5"):
        btoo(model, GAMMA, zeros(model), jax.random.key(0), 3, 1.5)
    with pytest.raises(BadInputError, match="applications must be at least 1, not 0"):
        btoo(model, GAMMA, zeros(model), jax.random.key(0), 0, 0.5)
    batch = jax.tree.map(lambda leaf: leaf[None], model)
    with pytest.raises(BadInputError, match="does not fit together"):
        optimal_q(batch, GAMMA)
