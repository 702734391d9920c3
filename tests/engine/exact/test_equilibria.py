import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import BadInputError
from envs.matrix_games import THESIS_PAYOFF
from jaxmarl_fac.exact import equilibria
from tests.reference import equilibria as reference

pytestmark = pytest.mark.usefixtures("float64")


THESIS = np.array(THESIS_PAYOFF, float)
PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])
ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@functools.cache
def jitted(function):
    return jax.jit(function)


@functools.cache
def batched(function):
    return jax.jit(jax.vmap(function))


def under_jit(function, game):
    return jitted(function)(jnp.asarray(game))


def under_vmap(function, game):
    """The second of two games that are solved together."""
    both = jnp.stack([jnp.ones_like(jnp.asarray(game)), jnp.asarray(game)])
    return jax.tree.map(lambda leaf: leaf[1], batched(function)(both))


both_ways = pytest.mark.parametrize("run", [under_jit, under_vmap])


# Zero-sum games.


@both_ways
@pytest.mark.parametrize(
    ("payoff", "value", "policy"),
    [
        (THESIS, 2, (1, 0, 0)),
        ([[5.0, 2.0], [-1.0, 6.0]], 3.2, (0.7, 0.3)),
        (ROCK_PAPER_SCISSORS, 0, (1 / 3,) * 3),
        ([[2.0, 2.0], [2.0, 2.0]], 2, (1, 0)),  # all optimal: the first
        ([[1.0, 1.0], [3.0, 3.0]], 3, (0, 1)),
    ],
)
def test_foe_values(run, payoff, value, policy):
    ours_value, ours_policy = run(equilibria.max_min, payoff)
    np.testing.assert_allclose(ours_value, value, atol=1e-12)
    np.testing.assert_allclose(ours_policy, policy, atol=1e-12)


@pytest.mark.parametrize(("shape", "games"), [((5, 5), 500), ((3, 3), 300), ((2, 5), 100), ((5, 3), 100)])
def test_foe_values_against_linear_programming(shape, games):
    rng = np.random.default_rng(shape)
    payoffs = rng.normal(size=(games, *shape)) * 10
    payoffs[::2] = rng.integers(-2, 3, size=payoffs[::2].shape)  # many ties and singular subgames
    values, policies = batched(equilibria.max_min)(jnp.asarray(payoffs))
    expected = [reference.max_min_value(payoff) for payoff in payoffs]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(policies.sum(1), 1, rtol=1e-12)
    assert policies.min() >= 0
    worst = np.min(np.einsum("ga,gab->gb", policies, payoffs), axis=1)
    np.testing.assert_allclose(worst, values, rtol=0, atol=1e-12)


def test_a_player_without_a_choice():
    value, policy = jitted(equilibria.max_min)(jnp.array([[4.0, 3.0]]))
    np.testing.assert_allclose(value, 3, atol=1e-12)
    np.testing.assert_allclose(policy, [1], atol=1e-12)


@few
@given(seeds, st.floats(0.01, 100), st.floats(-100, 100))
def test_foe_value_is_the_same_from_both_sides(seed, scale, shift):
    payoff = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 3)))
    value, policy = jitted(equilibria.max_min)(payoff)
    other_value, other_policy = jitted(equilibria.max_min)(-payoff.T)
    np.testing.assert_allclose(value, -other_value, atol=1e-10)
    np.testing.assert_allclose(policy @ payoff @ other_policy, value, atol=1e-10)
    moved, same = jitted(equilibria.max_min)(scale * payoff + shift)
    np.testing.assert_allclose(moved, scale * value + shift, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(same, policy, atol=1e-7)


@both_ways
def test_friend_value_of_the_thesis_game(run):
    value, actions = run(equilibria.friend, THESIS)
    assert value == 10
    np.testing.assert_array_equal(actions, [2, 2])


@both_ways
def test_friend_breaks_ties_by_the_lowest_action(run):
    value, actions = run(equilibria.friend, [[0.0, 1.0, 7.0], [7.0, 7.0, 0.0]])
    assert value == 7
    np.testing.assert_array_equal(actions, [0, 2])


# Nash equilibria.


def pair(first, second):
    return np.stack([np.asarray(first, float), np.asarray(second, float)])


COORDINATION = [[3, 0], [0, 2]], [[2, 0], [0, 3]]


@both_ways
@pytest.mark.parametrize(
    ("game", "row", "column", "values"),
    [
        (pair(THESIS, THESIS), (0, 0, 1), (0, 0, 1), (10, 10)),  # (2, 2) pays 4
        (pair(THESIS, -THESIS), (1, 0, 0), (1, 0, 0), (2, -2)),
        (pair([[3, 0], [5, 1]], [[3, 5], [0, 1]]), (0, 1), (0, 1), (1, 1)),  # prisoner's dilemma
        (pair(*COORDINATION), (1, 0), (1, 0), (3, 2)),  # equal sums: the first
        (pair(PENNIES, -PENNIES), (0.5, 0.5), (0.5, 0.5), (0, 0)),
        (pair(ROCK_PAPER_SCISSORS, -ROCK_PAPER_SCISSORS), (1 / 3,) * 3, (1 / 3,) * 3, (0, 0)),
        (pair([[0, 3], [1, 2]], [[3, 2], [0, 1]]), (0.5, 0.5), (0.5, 0.5), (1.5, 1.5)),  # PR2's game
        # Each mixes for the other's sake: 3 (1 - q) = 1 + q and 2 p = 5 - 4 p.
        (pair([[0, 3], [2, 1]], [[2, 0], [1, 5]]), (2 / 3, 1 / 3), (0.5, 0.5), (1.5, 5 / 3)),
        (np.ones((2, 2, 2)), (1, 0), (1, 0), (1, 1)),
    ],
)
def test_known_equilibria(run, game, row, column, values):
    ours = run(equilibria.nash_equilibrium, game)
    np.testing.assert_allclose(ours.row, row, atol=1e-12)
    np.testing.assert_allclose(ours.column, column, atol=1e-12)
    np.testing.assert_allclose(ours.values, values, atol=1e-12)


@both_ways
def test_pure_equilibria_of_the_thesis_game(run):
    cooperative = run(equilibria.pure_equilibria, pair(THESIS, THESIS))
    np.testing.assert_array_equal(np.argwhere(cooperative), [[1, 1], [2, 2]])
    zero_sum = run(equilibria.pure_equilibria, pair(THESIS, -THESIS))
    np.testing.assert_array_equal(np.argwhere(zero_sum), [[0, 0]])


def test_all_equilibria_of_a_coordination_game_are_found():
    rows, columns, regrets = jitted(equilibria.support_enumeration)(jnp.asarray(pair(*COORDINATION)))
    found = {
        (round(float(rows[i, 0]), 9), round(float(columns[j, 0]), 9)) for i, j in np.argwhere(regrets < 1e-12)
    }
    # Mixed: 2 x = 3 (1 - x) for the column player, 3 y = 2 (1 - y) for the row player.
    assert found == {(1, 1), (0, 0), (0.6, 0.4)}


@pytest.mark.parametrize("shape", [(3, 3), (5, 4)])
def test_nash_equilibria_leave_nothing_to_gain(shape):
    games = 300 if shape == (3, 3) else 100
    rng = np.random.default_rng(shape)
    payoffs = rng.normal(size=(games, 2, *shape))
    payoffs[: games // 2] = rng.integers(0, 4, size=payoffs[: games // 2].shape)  # degenerate games
    ours = batched(equilibria.nash_equilibrium)(jnp.asarray(payoffs))
    gaps = jax.vmap(equilibria.best_response_gaps)(jnp.asarray(payoffs), ours.row, ours.column)
    expected = [
        reference.gaps(*game) for game in zip(payoffs, np.array(ours.row), np.array(ours.column), strict=True)
    ]
    np.testing.assert_allclose(gaps, expected, atol=1e-12)
    assert np.max(expected) < 1e-10
    for strategies in (ours.row, ours.column):
        np.testing.assert_allclose(strategies.sum(1), 1, rtol=1e-12)
        assert strategies.min() >= 0
    mixed = np.asarray(ours.row).max(1) < 1 - 1e-9
    has_pure = np.asarray(batched(equilibria.pure_equilibria)(jnp.asarray(payoffs))).any((1, 2))
    assert not (mixed & has_pure).any()
    assert mixed.sum() > games // 20


def test_the_best_pure_equilibrium_is_selected():
    payoffs = np.random.default_rng(4).integers(0, 9, size=(300, 2, 3, 3)).astype(float)
    ours = batched(equilibria.nash_equilibrium)(jnp.asarray(payoffs))
    compared = 0
    for game, row, column in zip(payoffs, np.asarray(ours.row), np.asarray(ours.column), strict=True):
        first, second = game
        best = None
        for a in range(3):
            for b in range(3):
                stable = first[a, b] >= first[:, b].max() and second[a, b] >= second[a].max()
                if stable and (best is None or first[a, b] + second[a, b] > best[0]):
                    best = (first[a, b] + second[a, b], a, b)
        if best is not None:
            assert (row[best[1]], column[best[2]]) == (1, 1)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize(("upper", "lower", "selected"), [(1.0, 5.0, 1), (5.0, 1.0, 0), (3.0, 3.0, 0)])
def test_the_best_mixed_equilibrium_is_selected(upper, lower, selected):
    # Two games of matching pennies, and -10 for both players if they are not in the same one.
    payoffs = np.full((2, 4, 4), -10.0)
    for sign, table in zip((1, -1), payoffs, strict=True):
        table[:2, :2] = upper + sign * PENNIES
        table[2:, 2:] = lower + sign * PENNIES
    ours = jitted(equilibria.nash_equilibrium)(jnp.asarray(payoffs))
    strategy = [0, 0, 0.5, 0.5] if selected else [0.5, 0.5, 0, 0]
    np.testing.assert_allclose(ours.row, strategy, atol=1e-12)
    np.testing.assert_allclose(ours.column, strategy, atol=1e-12)
    np.testing.assert_allclose(ours.values, [max(upper, lower)] * 2, rtol=1e-12)


def test_float32_equilibria():
    payoffs = np.random.default_rng(2).normal(size=(300, 2, 3, 3))
    with jax.enable_x64(False):
        games = jnp.asarray(payoffs, jnp.float32)
        ours = batched(equilibria.nash_equilibrium)(games)
        values, _ = batched(equilibria.max_min)(games[:, 0])
        assert ours.row.dtype == values.dtype == jnp.float32
    expected = [
        reference.gaps(*game) for game in zip(payoffs, np.array(ours.row), np.array(ours.column), strict=True)
    ]
    assert np.max(expected) < 1e-4
    exact, _ = batched(equilibria.max_min)(jnp.asarray(payoffs[:, 0]))
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-5)


def test_payoffs_are_checked():
    checked = equilibria.check_bimatrix([THESIS_PAYOFF, THESIS_PAYOFF])
    np.testing.assert_array_equal(checked, np.stack([THESIS, THESIS]))
    for payoffs, message in [
        ([THESIS] * 3, "got 3 payoff tables: this method is for two players"),
        (np.zeros((2, 2, 2, 2)), "a payoff table has 3 axis/axes: this method is for two players"),
        (
            [THESIS, THESIS[:2]],
            r"the payoff tables have shapes \(3, 3\) and \(2, 3\): both players need the same",
        ),
        ([[[1, 2], [3]], THESIS], "a payoff table is ragged or not numeric"),
        ([THESIS * np.nan, THESIS], "a payoff table holds NaN or infinite entries"),
        ([np.zeros((0, 2))] * 2, r"the payoff tables are empty \(shape \(0, 2\)\)"),
    ]:
        with pytest.raises(BadInputError, match=f"^{message}"):
            equilibria.check_bimatrix(payoffs)


def test_games_too_large_to_enumerate_are_refused():
    with pytest.raises(
        BadInputError, match=r"^a 9x9 game is too large to enumerate its equilibria: use at most 6x6"
    ):
        equilibria.max_min(jnp.zeros((9, 9)))
    jax.eval_shape(equilibria.max_min, jnp.zeros((6, 6)))
