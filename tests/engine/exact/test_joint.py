import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from envs.matrix_games import n_step_matrix_game, two_step_game
from envs.team_mdp import TeamModel, divergence_mmdp, from_matrix_game, line_world
from jaxmarl_fac.exact.fitted import fma_fqi, fqi_igm
from jaxmarl_fac.exact.joint import bellman_backup, optimal_q, optimality_gap, value_iteration
from jaxmarl_fac.exact.policies import joint_policy, state_values
from jaxmarl_fac.exact.projections import monotone_fit
from jaxmarl_fac.exact.team import btoo, operator_b1
from tests.engine.exact.models import GAMMA, SHAPES, random_model, zeros
from tests.reference import team_mdp as reference

pytestmark = pytest.mark.usefixtures("float64")


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


@pytest.mark.parametrize("shape", SHAPES)
def test_policy_values_of_deterministic_policies(shape):
    model = random_model(shape, 3, terminal=True)
    rng = np.random.default_rng(0)
    states, counts = shape
    for _ in range(3):
        joint = rng.integers(counts, size=(states, len(counts)))
        policies = tuple(np.eye(count)[joint[:, k]] for k, count in enumerate(counts))
        expected = reference.policy_value(*model, GAMMA, joint)
        np.testing.assert_allclose(state_values(model, GAMMA, joint_policy(policies)), expected, atol=1e-12)


def test_optimality_gap_is_the_worst_loss():
    q = jnp.array([[[1.0, 0.25], [0.5, 0]], [[0, 0], [2, 2]]])
    assert float(optimality_gap(q, jnp.array([[0, 0], [1, 1]]))) == 0
    assert float(optimality_gap(q, jnp.array([[0, 1], [1, 0]]))) == 0.75
    assert float(optimality_gap(q, jnp.array([[1, 0], [0, 0]]))) == 2


def test_backup_ends_at_terminal_states():
    model = random_model(SHAPES[0], 0, terminal=True)
    values = np.array([1.0, -2.0, 1000.0])
    y = np.asarray(bellman_backup(model, GAMMA, values))
    np.testing.assert_allclose(y, reference.backup(*model, GAMMA, values), atol=1e-14)
    np.testing.assert_array_equal(y[2], 0)


def test_divergence_targets_are_monotone():
    """A well-optimised QMIX fits every target of the divergence game exactly: it must not diverge."""
    model = divergence_mmdp().model()
    trace = value_iteration(model, 0.99, 50)
    for t in (1, 10, 50):
        target = np.asarray(bellman_backup(model, 0.99, trace.values[t]))[0]
        assert target[0, 0] > target[0, 1] == target[1, 0] > target[1, 1] == 0
        fit = monotone_fit(target)
        np.testing.assert_allclose(fit.q_tot, target, atol=1e-12)


@pytest.mark.parametrize("terminal", [False, True])
def test_one_agent_is_value_iteration_for_every_solver(terminal):
    model = random_model((3, (4,)), 0, terminal)
    q = np.asarray(optimal_q(model, GAMMA))
    np.testing.assert_allclose(q.max(axis=1), reference.best_values(*model, GAMMA), atol=1e-9)
    trace = value_iteration(model, GAMMA, 5)
    np.testing.assert_allclose(fqi_igm(model, GAMMA, 5).q_tot, trace.q, atol=1e-12)
    np.testing.assert_allclose(fma_fqi(model, GAMMA, 5).q_tot, trace.q, atol=1e-12)
    (after,) = operator_b1(model, GAMMA, (trace.q[4],))
    np.testing.assert_allclose(after, trace.q[5], atol=1e-12)


@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize("good_branches", [2, 4])
def test_n_step_matrix_game_is_worth_3_more_than_its_steps(steps, good_branches):
    """By exact value iteration, undiscounted but for 1e-13; the other branches are worth their steps."""
    model = from_matrix_game(n_step_matrix_game(steps, good_branches)).model()
    start = np.asarray(optimal_q(model, 1 - 1e-13))[0]
    others = steps if good_branches == 4 else 0
    np.testing.assert_allclose(start, [[steps + 3, others], [others, steps]], atol=1e-9)
    discounted = np.asarray(optimal_q(model, GAMMA))[0]
    along = GAMMA ** np.arange(steps)
    assert discounted[0, 0] == pytest.approx(along.sum() + 3 * along[-1], abs=1e-12)
    assert discounted[1, 1] == pytest.approx(along.sum(), abs=1e-12)


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


def test_a_game_without_agents():
    nothing = TeamModel(jnp.full((2, 2), 0.5), jnp.zeros(2), jnp.zeros(2, bool))
    with pytest.raises(BadInputError, match="has no agent"):
        optimal_q(nothing, GAMMA)
