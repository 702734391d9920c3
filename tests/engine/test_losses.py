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

from envs.matrix_games import QTRAN_PAYOFF
from jaxmarl_fac.exact.factorization import tighten
from jaxmarl_fac.losses import qtran_nopt_loss, qtran_nopt_min_loss, qtran_opt_loss, qtran_td_loss
from jaxmarl_fac.targets import td_target

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


def test_the_closed_form_of_alt_has_no_loss():
    utilities = (np.asarray([4, 0, 0]), np.asarray([4, 0, 0]))
    np.testing.assert_array_equal(slack(utilities), [[0, 16, 16], [16, 0, 0], [16, 0, 0]])
    losses = losses_of(utilities)
    for name in ("opt", "nopt", "signed", "printed"):
        np.testing.assert_array_equal(losses[name], 0, err_msg=name)


@pytest.mark.parametrize("delta", [0, 0.5, 3, 4, 7.9, 8])
def test_alt_leaves_the_split_between_the_agents_open(delta):
    losses = losses_of((np.asarray([delta, 0, 0]), np.asarray([8 - delta, 0, 0])))
    for name in ("opt", "nopt", "signed", "printed"):
        np.testing.assert_allclose(losses[name], 0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("b", [0, 0.5, 1, 2, 3, 3.99])
def test_base_leaves_other_actions_open_and_alt_does_not(b):
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


# Gradients


def test_nothing_pulls_on_the_joint_value_or_the_target():
    """QTRAN's factorisation losses leave Q_jt alone, and targets are constants."""
    q_prime, q_jt = jnp.asarray([[0.0, -1], [2, 1]]), jnp.asarray([[1.0, 2], [3, 4]])
    mask, v = jnp.ones((2, 2), bool), jnp.float32(0.5)
    for signed in (True, False):

        def alt(q_prime, q_jt, v, signed=signed):
            return qtran_nopt_min_loss(q_prime, q_jt, v, mask, signed)

        def total(loss):
            each = jax.vmap(jax.vmap(loss, (0, 0, None)), (0, 0, None))
            return lambda *given: jnp.sum(each(*given))

        for loss in (alt, total(qtran_opt_loss), total(qtran_nopt_loss)):
            by_prime, by_jt, by_v = jax.grad(loss, argnums=(0, 1, 2))(q_prime, q_jt, v)
            np.testing.assert_array_equal(by_jt, 0)
            assert np.abs(by_prime).max() > 0.1
            assert abs(float(by_v)) > 0.1
    assert jax.grad(qtran_td_loss, argnums=(0, 1))(jnp.float32(3), jnp.float32(5)) == (-4, 0)
    assert jax.grad(td_target, argnums=(0, 1, 3))(*map(jnp.float32, (1, 1, 0.9, 5))) == (0, 0, 0)


def test_gradients_of_the_factorisation_losses():
    three, five, zero = map(jnp.float32, (3, 5, 0))
    assert jax.grad(qtran_opt_loss)(three, five, zero) == -4
    assert jax.grad(qtran_nopt_loss)(three, five, zero) == -4
    assert jax.grad(qtran_nopt_loss)(jnp.float32(6), five, zero) == 0  # on the satisfied side
    q_prime, q_jt = jnp.asarray([[1.0, 4], [0, -2]]), jnp.zeros((2, 2))
    gradient = jax.grad(qtran_nopt_min_loss)(q_prime, q_jt, zero, jnp.ones((2, 2), bool), True)
    np.testing.assert_array_equal(gradient, [[1, 0], [0, -2]])  # 2 gap / n at the least one only
