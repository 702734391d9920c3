"""QTRAN's conditions: worked numbers, every random game, and theorem 2 by all patterns of zeros."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog

from envs.matrix_games import QTRAN_PAYOFF
from jaxmarl_fac.exact.factorization import (
    largest_scale,
    least_slacks,
    shifted,
    slack,
    state_value,
    tight_utilities,
    tighten,
)

pytestmark = pytest.mark.usefixtures("float64")
PAYOFF = np.asarray(QTRAN_PAYOFF, float)
#: Of three agents with two actions: condition (7) cannot be met.
IMPOSSIBLE = np.zeros((2, 2, 2))
IMPOSSIBLE[0, 0, 0] = 1.0


def as_utilities(*utilities):
    return tuple(jnp.asarray(utility, float) for utility in utilities)


def meets_7(utilities, q_jt):
    """Condition (7) with V_jt = 0, by loops."""
    d = np.zeros(q_jt.shape)
    for u in np.ndindex(q_jt.shape):
        d[u] = sum(float(utility[action]) for utility, action in zip(utilities, u, strict=True)) - q_jt[u]
    greedy = tuple(int(np.argmax(utility)) for utility in utilities)
    lines = [
        min(d[(*u[:i], own, *u[i + 1 :])] for own in range(q_jt.shape[i]))
        for u in np.ndindex(q_jt.shape)
        for i in range(q_jt.ndim)
    ]
    return q_jt[greedy] == q_jt.max() and abs(d[greedy]) < 1e-9 and d.min() > -1e-9 and max(lines) < 1e-9


def feasible_by_patterns(q_jt):
    """Theorem 2 by brute force: a linear program for each choice of one zero on each line."""
    greedy = np.unravel_index(q_jt.argmax(), q_jt.shape)
    cells = list(np.ndindex(q_jt.shape))
    offsets = np.concatenate([[0], np.cumsum(q_jt.shape)[:-1]])
    rows = np.zeros((len(cells), sum(q_jt.shape)))
    for row, u in enumerate(cells):
        rows[row, offsets + u] = 1
    below = np.asarray([q_jt.max() - q_jt[u] for u in cells])
    lines = {
        tuple(cells.index((*u[:i], own, *u[i + 1 :])) for own in range(q_jt.shape[i]))
        for u in cells
        for i in range(q_jt.ndim)
        if any(u[j] != greedy[j] for j in range(q_jt.ndim) if j != i)  # the others' slack is 0 at the optimum
    }
    bounds = [(0, None)] * rows.shape[1]
    for place in offsets + greedy:
        bounds[place] = (0, 0)
    for zeros in itertools.product(*lines):
        zero = sorted(set(zeros))
        done = linprog(
            np.zeros(rows.shape[1]), A_ub=rows, b_ub=below, A_eq=rows[zero], b_eq=below[zero], bounds=bounds
        )
        if done.status == 0:
            return True
    return False


def test_the_scale_of_proposition_1_in_qtrans_game():
    """The utilities (100, 0, 0) meet (4) up to a scale of .04; at .041 the least slack is -.2."""
    scale = largest_scale(as_utilities([100, 0, 0], [100, 0, 0]), jnp.asarray(PAYOFF))
    assert float(scale) == pytest.approx(0.04, abs=1e-12)
    for times, least in ((0.04, 0.0), (0.041, -0.2)):
        utilities = as_utilities([100 * times, 0, 0], [100 * times, 0, 0])
        d = slack(utilities, jnp.asarray(PAYOFF), state_value(utilities, jnp.asarray(PAYOFF)))
        assert float(d.min()) == pytest.approx(least, abs=1e-9)


def test_no_scale_helps_where_the_greedy_joint_action_is_not_optimal():
    assert largest_scale(as_utilities([0, 1, 0], [0, 1, 0]), jnp.asarray(PAYOFF)) == 0


def test_every_scale_does_where_all_is_worth_the_same_as_the_utilities():
    assert largest_scale(as_utilities([1, 1], [2, 2]), jnp.asarray([[3.0, 1], [1, 0]])) == np.inf


def test_the_shift_of_proposition_1a():
    utilities = shifted(as_utilities([1, 0, 0], [1, 0, 0]), jnp.asarray(PAYOFF))
    for utility in utilities:
        np.testing.assert_allclose(utility, [4, 3, 3])
    assert float(state_value(utilities, jnp.asarray(PAYOFF))) == 0
    np.testing.assert_allclose(slack(utilities, PAYOFF), [[0, 19, 19], [19, 6, 6], [19, 6, 6]])


def test_the_state_value_of_equation_5():
    utilities = as_utilities([1, 0, 0], [2, 0, 0])
    assert float(state_value(utilities, jnp.asarray(PAYOFF))) == 5


@settings(max_examples=30)
@given(
    payoff=arrays(np.float64, (3, 3), elements=st.floats(-10, 10, width=16, allow_subnormal=False)),
    raises=arrays(np.float64, (2, 3), elements=st.floats(0, 5, width=16, allow_subnormal=False)),
)
def test_tighten_keeps_the_greedy_action_of_every_game(payoff, raises):
    """From any utilities that meet (9) at the optimum, to (7), with the same value there."""
    best = np.unravel_index(payoff.argmax(), payoff.shape)
    # Half the optimum each is above half of all other entries; the raises are for the other actions.
    utilities = payoff[best] / 2 + raises
    utilities[0, best[0]] = utilities[1, best[1]] = payoff[best] / 2
    tight = tighten(as_utilities(*utilities), jnp.asarray(payoff))
    d = np.add.outer(*map(np.asarray, tight)) - payoff
    assert d.min() > -1e-9
    np.testing.assert_allclose(d.min(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(d.min(axis=1), 0, atol=1e-9)
    assert d[best] == pytest.approx(0, abs=1e-9)


def test_tighten_is_for_two_agents(bad_input):
    with bad_input("the construction is for two agents, not 3: `tight_utilities` finds out"):
        tighten(as_utilities([1, 0], [1, 0], [1, 0]), jnp.asarray(IMPOSSIBLE))


def test_least_slacks_are_along_each_agents_actions():
    table = jnp.asarray([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    first, second = least_slacks(table)
    np.testing.assert_array_equal(first, [[0, 1, 2]])
    np.testing.assert_array_equal(second, [[1], [0]])


# Theorem 2


def test_theorem_2_is_false_for_three_agents():
    assert tight_utilities(IMPOSSIBLE) is None
    assert not feasible_by_patterns(IMPOSSIBLE)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (4,), (2, 5), (3, 1)])
def test_theorem_2_holds_for_one_and_two_agents(shape):
    draw = np.random.default_rng(0)
    for _ in range(10):
        payoff = draw.normal(size=shape)
        assert meets_7(tight_utilities(payoff), payoff)


def test_about_a_tenth_of_random_payoffs_of_three_agents_meet_it():
    """What the integer program finds is right, and for what it refuses there is no pattern of zeros."""
    draw = np.random.default_rng(1)
    payoffs = draw.random((30, 2, 2, 2))
    found = [tight_utilities(payoff) for payoff in payoffs]
    assert 1 <= sum(each is not None for each in found) <= 9
    for payoff, each in zip(payoffs, found, strict=True):
        assert each is None or meets_7(each, payoff)
    refused = [payoff for payoff, each in zip(payoffs, found, strict=True) if each is None]
    assert not any(feasible_by_patterns(payoff) for payoff in refused[:3])


def test_of_many_solutions_it_is_the_one_with_the_largest_gap():
    """In QTRAN's game every split of 8 between Q_1(A) and Q_2(A) meets it; (4, 0, 0) is the symmetric one."""
    for utility in tight_utilities(PAYOFF):
        np.testing.assert_allclose(utility, [4, 0, 0], atol=1e-9)


def test_payoffs_of_all_sizes_are_alike():
    draw = np.random.default_rng(2)
    payoff = draw.random((2, 2, 2))
    wanted = tight_utilities(payoff) is None
    for scale, offset in ((1e-6, 0), (1e6, 0), (1, 1e3), (1e3, -1e6)):
        assert (tight_utilities(scale * payoff + offset) is None) == wanted


def test_additive_and_constant_payoffs_meet_it():
    additive = np.add.outer(np.add.outer([0, 1], [0.5, 0]), [0, 2, 1])
    for payoff in (additive, np.ones((2, 2, 2))):
        assert meets_7(tight_utilities(payoff), payoff)


@pytest.mark.parametrize(
    ("payoff", "says"),
    [
        (np.zeros((11, 11)), "121 joint actions are too many to find utilities that meet condition (7)"),
        ([[1.0, np.nan], [0, 0]], "joint values must be finite"),
        (3.0, "joint values must be finite, with one axis for each agent's actions"),
    ],
)
def test_what_cannot_be_solved_is_refused(bad_input, payoff, says):
    with bad_input(says):
        tight_utilities(payoff)


def test_they_work_under_jit_and_vmap():
    draw = np.random.default_rng(3)
    payoffs = jnp.asarray(draw.normal(size=(5, 3, 2)))
    utilities = as_utilities(draw.normal(size=(5, 3)), draw.normal(size=(5, 2)))
    together = jax.jit(jax.vmap(state_value))(utilities, payoffs)
    for k in range(5):
        one = state_value(tuple(utility[k] for utility in utilities), payoffs[k])
        assert float(together[k]) == pytest.approx(float(one))
