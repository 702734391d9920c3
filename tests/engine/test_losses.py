import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from baselines.qtran import tighten
from envs.matrix_games import QTRAN_PAYOFF
from jaxmarl_fac.losses import (
    UNAVAILABLE,
    central_weight,
    chosen,
    greedy_actions,
    lambda_returns,
    mask_unavailable,
    masked_mean,
    min_max_weights,
    optimistic_weight,
    qtran_nopt_loss,
    qtran_nopt_min_loss,
    qtran_opt_loss,
    qtran_td_loss,
    remix_weight,
    shares_of_bins,
    td_target,
)

PAYOFF = np.asarray(QTRAN_PAYOFF, np.float32)
JOINTS = np.asarray(list(itertools.product(range(3), repeat=2)))
ALL = np.ones((2, 3), bool)
#: QTRAN, table 1b: utilities that QTRAN-base learned.
TABLE_1B = (np.asarray([3.84, -2.06, -2.25]), np.asarray([4.16, 2.29, 2.29]))


def slack(utilities, payoff=PAYOFF):
    """D = Q'_jt - Q_jt, `(3, 3)`, where Q_jt is the payoff and V_jt is 0."""
    return np.add.outer(*utilities) - payoff


def counterfactuals(utilities, joint, payoff=PAYOFF):
    """Q'_jt(u_i, u_-i) and Q_jt(u_i, u_-i), each `(2, 3)`, for both agents i and all of their actions."""
    q_prime = np.add.outer(*utilities)
    return (
        np.stack([q_prime[:, joint[1]], q_prime[joint[0]]]),
        np.stack([payoff[:, joint[1]], payoff[joint[0]]]),
    )


@jax.jit
def all_losses(utilities, payoff):
    """QTRAN's factorisation losses of a 3 x 3 game with V_jt = 0: L_opt, and the others for all u, `(9,)`."""
    q_prime = utilities[0][:, None] + utilities[1]
    best = tuple(jnp.argmax(utility) for utility in utilities)

    def at(joint):
        prime = jnp.stack([q_prime[:, joint[1]], q_prime[joint[0]]])
        q_jt = jnp.stack([payoff[:, joint[1]], payoff[joint[0]]])
        values = q_prime[tuple(joint)], payoff[tuple(joint)], jnp.zeros(())
        return {
            "nopt": qtran_nopt_loss(*values),
            "signed": qtran_nopt_min_loss(prime, q_jt, jnp.zeros(()), ALL, signed=True),
            "printed": qtran_nopt_min_loss(prime, q_jt, jnp.zeros(()), ALL, signed=False),
        }

    opt = qtran_opt_loss(q_prime[best], payoff[best], jnp.zeros(()))
    return {"opt": opt, "best": jnp.stack(best), **jax.vmap(at)(jnp.asarray(JOINTS))}


def losses_of(utilities, payoff=PAYOFF):
    floats = tuple(jnp.asarray(utility, jnp.float32) for utility in utilities)
    return jax.tree.map(np.asarray, all_losses(floats, jnp.asarray(payoff, jnp.float32)))


# The worked numbers of QTRAN, tables 1 and 2


def test_table_1b_meets_condition_9_but_not_condition_7():
    d = slack(TABLE_1B)
    expected = [[0, 18.13, 18.13], [14.10, 0.23, 0.23], [13.91, 0.04, 0.04]]
    np.testing.assert_allclose(d, expected, atol=1e-6)
    losses = losses_of(TABLE_1B)
    assert losses["best"].tolist() == [0, 0]
    assert losses["opt"] < 1e-10
    assert losses["nopt"].max() < 1e-10
    # Where agent 2 plays B or C, no action of agent 1 comes nearer than .04: half the mean is .04^2 / 2,
    # and agent 2's own minima are 0 in row A, .23 in row B and .04 in row C.
    table = losses["signed"].reshape(3, 3)
    halves = np.asarray([[0, 0.04, 0.04]]) ** 2 + np.asarray([[0], [0.23], [0.04]]) ** 2
    np.testing.assert_allclose(table, halves / 2, atol=2e-6)
    assert 0.02 < table[1, 1] < 0.03


def test_the_appendix_construction_meets_condition_7():
    first, second = map(np.asarray, tighten(tuple(map(jnp.asarray, TABLE_1B)), jnp.asarray(PAYOFF)))
    np.testing.assert_allclose(first, [3.84, -2.29, -2.29], atol=1e-5)
    np.testing.assert_allclose(second, [4.16, 2.29, 2.29], atol=1e-5)
    d = slack((first, second))
    np.testing.assert_allclose(d.min(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(d.min(axis=1), 0, atol=1e-5)
    losses = losses_of((first, second))
    for name in ("opt", "nopt", "signed", "printed"):
        assert losses[name].max() < 1e-9, name


@settings(max_examples=30, deadline=None)
@given(
    payoff=arrays(np.float32, (3, 3), elements=st.floats(-10, 10, width=16, allow_subnormal=False)),
    raises=arrays(np.float32, (2, 3), elements=st.floats(0, 5, width=16, allow_subnormal=False)),
)
def test_tighten_keeps_the_greedy_action_of_every_game(payoff, raises):
    """From any utilities that meet (9) at the optimum, to (7), with the same value there."""
    best = np.unravel_index(payoff.argmax(), payoff.shape)
    # Half the optimum each is above half of all other entries; the raises are for the other actions.
    first, second = (np.full(3, payoff[best] / 2, np.float32) for _ in range(2))
    first, second = first + raises[0], second + raises[1]
    first[best[0]], second[best[1]] = payoff[best] / 2, payoff[best] / 2
    assume(np.all(raises.sum() < 100))
    tight = [
        np.asarray(utility)
        for utility in tighten((jnp.asarray(first), jnp.asarray(second)), jnp.asarray(payoff))
    ]
    d = slack(tight, payoff)
    assert d.min() > -1e-4
    np.testing.assert_allclose(d.min(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(d.min(axis=1), 0, atol=1e-4)
    assert d[best] == pytest.approx(0, abs=1e-4)


def test_the_closed_form_of_alt_has_no_loss():
    utilities = (np.asarray([4, 0, 0]), np.asarray([4, 0, 0]))
    np.testing.assert_array_equal(slack(utilities), [[0, 16, 16], [16, 0, 0], [16, 0, 0]])
    losses = losses_of(utilities)
    for name in ("opt", "nopt", "signed", "printed"):
        np.testing.assert_array_equal(losses[name], 0, err_msg=name)


@pytest.mark.parametrize("b", [0, 0.5, 1, 2, 3, 3.99])
def test_base_is_under_determined_and_alt_is_not(b):
    utilities = (np.asarray([4, b, b]), np.asarray([4, b, b]))
    losses = losses_of(utilities)
    assert losses["best"].tolist() == [0, 0]
    assert losses["opt"] == 0
    assert losses["nopt"].max() == 0
    # where an agent plays B, the other's least slack is that of B: 2b
    expected = np.asarray([[0, 2, 2], [2, 4, 4], [2, 4, 4]]) * b**2
    np.testing.assert_allclose(losses["signed"].reshape(3, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(losses["printed"].reshape(3, 3), expected, rtol=1e-6)


def test_below_the_payoff_base_pays():
    losses = losses_of((np.asarray([4, -1, 0]), np.asarray([4, 0, 0])))
    np.testing.assert_array_equal(losses["nopt"].reshape(3, 3), [[0, 0, 0], [0, 1, 1], [0, 0, 0]])


def test_the_printed_loss_of_alt_has_wrong_solutions():
    """Q_i = (-12, 0, 0) fits every cell but the optimum, so that each row and column holds an exact one."""
    utilities = (np.asarray([-12, 0, 0]), np.asarray([-12, 0, 0]))
    q_prime = np.add.outer(*utilities)
    np.testing.assert_array_equal(q_prime, [[-24, -12, -12], [-12, 0, 0], [-12, 0, 0]])
    losses = losses_of(utilities)
    assert losses["best"].tolist() == [1, 1]  # (B, B), which pays 0 and not 8
    assert losses["opt"] == 0
    np.testing.assert_array_equal(losses["printed"], 0)
    # As condition (7) has it: at (A, A) both agents miss by 32, at (A, .) and (., A) one of them.
    np.testing.assert_array_equal(
        losses["signed"].reshape(3, 3), [[1024, 512, 512], [512, 0, 0], [512, 0, 0]]
    )


@settings(max_examples=200, deadline=None)
@given(arrays(np.int32, (2, 3), elements=st.integers(-120, 120)))
def test_the_signed_loss_of_alt_has_no_wrong_solution(utilities):
    """Q' above R everywhere and equal to it at the greedy joint action makes that action optimal.

    So utilities with a wrong greedy action and no L_opt pay: Q'(A, A) <= Q' at the greedy action = R
    there <= 0, which is at least 8 too little, for two agents in (A, A)'s row and column.
    """
    first, second = utilities / np.float32(4)  # such numbers add without rounding
    best = (first.argmax(), second.argmax())
    assume(best != (0, 0))
    first = first + (PAYOFF[best] - first.max() - second.max())  # now L_opt is 0
    losses = losses_of((first, second))
    assert losses["best"].tolist() == list(best)
    assert losses["opt"] == 0
    assert losses["signed"].reshape(3, 3)[0, 0] >= 64


# Each loss by itself


class LossesTest(chex.TestCase):
    """Each with and without jit, and with and without a device."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_qtran_td_loss(self):
        assert float(self.variant(qtran_td_loss)(jnp.float32(3), jnp.float32(5))) == 4

    @chex.variants(with_jit=True, without_jit=True)
    def test_qtran_opt_loss(self):
        assert float(self.variant(qtran_opt_loss)(jnp.float32(2), jnp.float32(5), jnp.float32(1))) == 4

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((2, 5, 1, 4), (5, 5, 0, 0), (7, 5, 0, 0), (7, 5, -3, 1))
    def test_qtran_nopt_loss(self, q_prime, q_jt, v_jt, expected):
        numbers = jnp.asarray([q_prime, q_jt, v_jt], jnp.float32)
        assert float(self.variant(qtran_nopt_loss)(*numbers)) == expected

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # The gaps with v_jt = 1 are [[3, -1, 2], [1, 2, .5]] where all is available.
        (True, [[1, 1, 1], [1, 1, 1]], (1 + 0.25) / 2),
        (False, [[1, 1, 1], [1, 1, 1]], (1 + 0.25) / 2),
        (True, [[1, 0, 1], [1, 1, 0]], (4 + 1) / 2),
        (False, [[1, 0, 1], [1, 1, 0]], (4 + 1) / 2),
        (True, [[1, 1, 1], [0, 1, 0]], (1 + 4) / 2),
    )
    def test_qtran_nopt_min_loss(self, signed, mask, expected):
        q_prime = jnp.asarray([[2.0, 0, 1], [3, 3, 3]])
        q_jt = jnp.asarray([[0.0, 2, 0], [3, 2, 3.5]])
        loss = self.variant(qtran_nopt_min_loss, static_argnums=4)
        assert float(loss(q_prime, q_jt, jnp.ones(()), jnp.asarray(mask, bool), signed)) == expected

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_two_readings_of_nopt_min_differ_below_the_payoff(self):
        q_prime, q_jt = jnp.asarray([[0.0, 5], [0, 0]]), jnp.asarray([[3.0, 4], [0, 0]])  # gaps -3, 1; 0, 0
        loss = self.variant(qtran_nopt_min_loss, static_argnums=4)
        mask = jnp.ones((2, 2), bool)
        assert float(loss(q_prime, q_jt, jnp.zeros(()), mask, True)) == 4.5
        assert float(loss(q_prime, q_jt, jnp.zeros(()), mask, False)) == 0.5

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # termination, r + 0; truncation and an ordinary step, which both bootstrap
        (2, 0, 10, 2),
        (2, 1, 10, 2 + 0.9 * 10),
        (-1, 1, -5, -5.5),
    )
    def test_td_target(self, reward, discount, next_value, expected):
        target = self.variant(td_target)
        got = target(jnp.float32(reward), jnp.float32(discount), 0.9, jnp.float32(next_value))
        assert float(got) == pytest.approx(expected, abs=1e-6)


def test_a_truncated_step_bootstraps_and_a_terminated_one_does_not():
    """From the time steps that environments give to the target."""
    from_env = [(0.0, 3.0), (1.0, 3.0 + 0.5 * 8)]
    for discount, expected in from_env:
        assert float(td_target(jnp.float32(3), jnp.float32(discount), 0.5, jnp.float32(8))) == expected


# Gradients


def test_nothing_pulls_on_the_joint_value_or_the_target():
    """QTRAN's factorisation losses leave Q_jt alone, and targets are constants."""
    q_prime, q_jt = jnp.asarray([[0.0, -1], [2, 1]]), jnp.asarray([[1.0, 2], [3, 4]])
    mask, v = jnp.ones((2, 2), bool), jnp.float32(0.5)
    for signed in (True, False):

        def alt(q_prime, q_jt, v, signed=signed):
            return qtran_nopt_min_loss(q_prime, q_jt, v, mask, signed)

        for loss in (alt, lambda *x: jnp.sum(qtran_opt_loss(*x)), lambda *x: jnp.sum(qtran_nopt_loss(*x))):
            by_prime, by_jt, by_v = jax.grad(loss, argnums=(0, 1, 2))(q_prime, q_jt, v)
            np.testing.assert_array_equal(by_jt, 0)
            assert np.abs(by_prime).max() > 0.1
            assert abs(float(by_v)) > 0.1
    assert jax.grad(qtran_td_loss, argnums=(0, 1))(jnp.float32(3), jnp.float32(5)) == (-4, 0)
    assert jax.grad(td_target, argnums=(0, 1, 3))(*map(jnp.float32, (1, 1, 0.9, 5))) == (0, 0, 0)


def test_what_follows_a_known_end_is_not_computed():
    def target(reward, parameters, state):
        return td_target(reward, jnp.zeros(3), 0.9, jnp.tanh(state @ parameters))

    compiled = jax.jit(target).lower(jnp.ones(3), jnp.ones(4), jnp.ones((3, 4))).compile().as_text()
    assert "tanh" not in compiled
    assert "dot" not in compiled
    assert float(td_target(jnp.float32(3), jnp.float32(0), 0.9, jnp.float32(jnp.inf))) == 3


def test_gradients_of_the_factorisation_losses():
    three, five, zero = map(jnp.float32, (3, 5, 0))
    assert jax.grad(qtran_opt_loss)(three, five, zero) == -4
    assert jax.grad(qtran_nopt_loss)(three, five, zero) == -4
    assert jax.grad(qtran_nopt_loss)(jnp.float32(6), five, zero) == 0  # on the satisfied side
    q_prime, q_jt = jnp.asarray([[1.0, 4], [0, -2]]), jnp.zeros((2, 2))
    gradient = jax.grad(qtran_nopt_min_loss)(q_prime, q_jt, zero, jnp.ones((2, 2), bool), True)
    np.testing.assert_array_equal(gradient, [[1, 0], [0, -2]])  # 2 gap / n at the least one only


# Choosing. Subnormal numbers are left out: XLA's sum flushes them to zero, where its gather copies them.


@settings(max_examples=30, deadline=None)
@given(
    utilities=arrays(np.float32, (4, 5), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)),
    actions=arrays(np.int32, (4,), elements=st.integers(0, 4)),
)
def test_chosen_is_a_gather_and_so_is_its_gradient(utilities, actions):
    def gathered(utilities):
        return jnp.take_along_axis(utilities, actions[:, None], axis=1)[:, 0]

    np.testing.assert_array_equal(chosen(utilities, actions), gathered(utilities))
    weights = jnp.arange(1.0, 5)
    by_sum = jax.grad(lambda q: jnp.sum(weights * chosen(q, actions)))(utilities)
    by_gather = jax.grad(lambda q: jnp.sum(weights * gathered(q)))(utilities)
    np.testing.assert_array_equal(by_sum, by_gather)


def test_chosen_ignores_what_was_not_chosen_even_if_not_finite():
    utilities = jnp.asarray([[jnp.inf, 1, jnp.nan], [2, -jnp.inf, UNAVAILABLE]])
    np.testing.assert_array_equal(chosen(utilities, jnp.asarray([1, 0])), [1, 2])


def test_chosen_over_batches():
    utilities = jnp.arange(24.0).reshape(2, 3, 4)
    actions = jnp.asarray([[0, 1, 2], [3, 2, 1]])
    np.testing.assert_array_equal(jax.vmap(chosen)(utilities, actions), [[0, 5, 10], [15, 18, 21]])


def test_masked_actions_are_never_greedy():
    utilities = jnp.asarray([[5.0, 1, 3], [-7e8, -8e8, 0]])
    mask = jnp.asarray([[False, True, True], [True, True, False]])
    masked = mask_unavailable(utilities, mask)
    np.testing.assert_array_equal(masked, [[-1e9, 1, 3], [-7e8, -8e8, -1e9]])
    assert greedy_actions(masked).tolist() == [2, 0]


def test_ties_go_to_the_lowest_index():
    utilities = jnp.asarray([[1.0, 1, 1], [0, 2, 2], [-1, -1, -2]])
    assert greedy_actions(utilities).tolist() == [0, 1, 0]


# TD(lambda)


def lambda_returns_by_definition(rewards, discounts, next_values, mask, gamma, lambda_):
    """Sums of n-step returns, `(1 - lambda) sum_n lambda^(n-1) G^(n)`, the last with all that is left."""
    length = int(np.sum(mask))
    returns = np.zeros(len(rewards))
    for t in range(length):
        total, weight = 0.0, 1.0
        for n in range(1, length - t + 1):
            n_step, going = 0.0, 1.0
            for k in range(n):
                n_step += going * rewards[t + k]
                going *= gamma * discounts[t + k]
            n_step += going * next_values[t + n - 1]
            last = n == length - t
            total += (weight if last else (1 - lambda_) * weight) * n_step
            weight *= lambda_
        returns[t] = total
    return returns


class LambdaReturnsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # FACTS 0.4: gamma = .99, lambda = .6, values of the four observations 5, 4, 3, 7
        (1.0, [6.440497, 6.492420, 8.930000]),
        (0.0, [3.995344, 2.376000, 2.000000]),
    )
    def test_worked_numbers(self, last_discount, expected):
        returns = self.variant(lambda_returns, static_argnums=(4, 5))(
            jnp.asarray([1.0, 0, 2]),
            jnp.asarray([1.0, 1, last_discount]),
            jnp.asarray([4.0, 3, 7]),
            jnp.ones(3),
            0.99,
            0.6,
        )
        np.testing.assert_allclose(returns, expected, atol=2e-6)


def random_episodes(count, steps, rng):
    """Episodes of every length, half of them terminated and half cut short; noise after their ends."""
    lengths = 1 + np.arange(count) % steps
    mask = (np.arange(steps) < lengths[:, None]).astype(np.float32)
    discounts = np.ones((count, steps), np.float32)
    discounts[np.arange(count), lengths - 1] = np.arange(count) // steps % 2
    rewards, values = rng.normal(size=(2, count, steps)).astype(np.float32) * 3
    return rewards, discounts, values, mask


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.6, 1.0])
def test_lambda_returns_are_sums_of_n_step_returns(lambda_):
    """An episode that is cut short bootstraps from the value after its last step, however it is padded."""
    episodes = random_episodes(24, 6, np.random.default_rng(0))
    ours = jax.jit(jax.vmap(lambda *steps: lambda_returns(*steps, 0.9, lambda_)))(*episodes)
    for episode, returns in zip(zip(*episodes, strict=True), np.asarray(ours), strict=True):
        expected = lambda_returns_by_definition(*episode, 0.9, lambda_)
        real = episode[-1] > 0
        np.testing.assert_allclose(returns[real], expected[real], rtol=1e-5, atol=1e-5)


def test_lambda_0_is_the_one_step_target_bit_for_bit():
    rewards, discounts, values, mask = random_episodes(24, 6, np.random.default_rng(1))
    ours = jax.vmap(lambda *steps: lambda_returns(*steps, 0.9, 0.0))(rewards, discounts, values, mask)
    one_step = td_target(jnp.asarray(rewards), jnp.asarray(discounts), 0.9, jnp.asarray(values))
    np.testing.assert_array_equal(np.asarray(ours)[mask > 0], np.asarray(one_step)[mask > 0])


# Weights


class WeightsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((1, 2, 1.0), (2, 1, 0.25), (1, 1, 0.25))
    def test_optimistic_weight(self, q_tot, target, expected):
        weight = self.variant(optimistic_weight)
        assert float(weight(jnp.float32(q_tot), jnp.float32(target), 0.25)) == expected

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # FACTS 4.2, truth table: the greedy joint action; another that seems better; another that does not
        (1, 2, (0, 1), 1.0),
        (3, 2, (0, 0), 1.0),
        (1, 2, (0, 0), 0.1),
        (2, 2, (1, 1), 0.1),
        (3, 2, (0, 1), 1.0),
    )
    def test_central_weight(self, target, greedy_value, actions, expected):
        weight = self.variant(central_weight)(
            jnp.float32(target), jnp.float32(greedy_value), jnp.asarray(actions), jnp.asarray([0, 1]), 0.1
        )
        assert float(weight) == pytest.approx(expected)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # FACTS 5.4; the bracket of the second is negative, the third overestimates
        (1.0, 2.0, (0.5, 0.25), (0.5, 2), 0.618270),
        (1.0, 2.0, (0.9, 0.9), (1, 1), 0.0),
        (1.0, 0.5, (0.5, 0.25), (0.5, 2), 0.0),
        # half the error: y - Q is .5
        (1.0, 1.5, (0.5, 0.25), (0.5, 2), 0.309135),
    )
    def test_remix_weight(self, q_tot, target, policy, slopes, expected):
        numbers = [jnp.asarray(x, jnp.float32) for x in (q_tot, target, 1.5, policy, slopes)]
        assert float(self.variant(remix_weight)(*numbers)) == pytest.approx(expected, abs=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # Of (2 - 1) exp(1.5 - 1) .375 in FACTS 5.4 with y = 3: one factor after the other is 1.
        ("bellman", 0.618270),
        ("underestimation", 2 * 0.375),
        ("gradient", 2 * 1.648721),
    )
    def test_remix_weight_without_a_factor(self, factor, expected):
        numbers = [jnp.asarray(x, jnp.float32) for x in (1.0, 3.0, 1.5, (0.5, 0.25), (0.5, 2))]
        weight = self.variant(lambda *x: remix_weight(*x, **{factor: False}))(*numbers)
        assert float(weight) == pytest.approx(expected, abs=1e-5)


def test_remix_weights_factors_are_cut_off():
    def weight(central_value, slope):
        numbers = [jnp.asarray(x, jnp.float32) for x in (0.0, 1.0, central_value, (0.0,), (slope,))]
        return float(remix_weight(*numbers))

    assert weight(50.0, 0.5) == pytest.approx(np.exp(10), rel=1e-5)
    assert weight(-50.0, 0.5) == pytest.approx(np.exp(-10), rel=1e-5)
    assert weight(0.0, 0.0) == pytest.approx(999, rel=1e-5)
    assert weight(0.0, 0.9) == pytest.approx(1 / 0.9 - 1, rel=1e-5)


def test_min_max_weights():
    raws = jnp.asarray([0, 0.61827, 1.2, 3.0])
    expected = [0.1, 0.285481, 0.46, 1]  # FACTS 5.4
    np.testing.assert_allclose(min_max_weights(raws, jnp.ones(4), 0.1), expected, atol=1e-6)
    # Steps after an episode's end count for nothing, however large or small their weights.
    padded = jnp.asarray([[0, 0.61827, 9], [1.2, 3.0, 0]])
    mask = jnp.asarray([[1.0, 1, 0], [1, 1, 0]])
    spread = np.asarray(min_max_weights(padded, mask, 0.1))
    np.testing.assert_allclose(spread[np.asarray(mask) > 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("raws", "expected"),
    [([0.0, 0, 0], [0.25, 0.25, 0.25]), ([2.0, 2, 2], [1, 1, 1]), ([0.0, 2, 2], [0.25, 1, 1])],
)
def test_min_max_weights_of_alike_steps(raws, expected):
    np.testing.assert_array_equal(min_max_weights(jnp.asarray(raws), jnp.ones(3), 0.25), expected)


def test_masked_mean():
    values = jnp.asarray([[1.0, 2, jnp.float32(1e9)], [4, 5, 6]])
    mask = jnp.asarray([[1.0, 1, 0], [1, 0, 0]])
    assert float(masked_mean(values, mask)) == pytest.approx(7 / 3)


def test_targets_and_weights_have_no_gradient():
    numbers = [jnp.asarray(x, jnp.float32) for x in (1.0, 2.0, 1.5, (0.5, 0.25), (0.5, 2))]
    for slope in jax.grad(lambda *x: remix_weight(*x), argnums=(0, 1, 2, 3, 4))(*numbers):
        np.testing.assert_array_equal(slope, 0)
    assert jax.grad(lambda q: optimistic_weight(q, jnp.float32(2), 0.1))(jnp.float32(1)) == 0
    steps = [jnp.ones(3)] * 4
    for slope in jax.grad(lambda *x: jnp.sum(lambda_returns(*x, 0.9, 0.5)), argnums=(0, 2))(*steps):
        np.testing.assert_array_equal(slope, 0)


def test_shares_of_bins():
    values = jnp.asarray([[0.1, 0.15, 0.149, 1.0], [0.0, 1.3, -0.1, 0.5]])
    mask = jnp.asarray([[1.0, 1, 1, 1], [1, 1, 1, 0]])
    shares = np.asarray(shares_of_bins(values, mask, 20))
    expected = np.zeros(20)
    expected[[0, 2, 3, 19]] = np.asarray([2, 2, 1, 2]) / 7
    np.testing.assert_allclose(shares, expected, atol=1e-6)
