import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.stochastic_games import GameModel, two_state_zero_sum
from jaxmarl_fac.exact.joint import best_values, optimal_q
from jaxmarl_fac.exact.stochastic_games import (
    best_reply_gains,
    foe_backup,
    friend_backup,
    game_values,
    induced_mdp,
    iterate_backup,
    minimax_solution,
    nash_backup,
    player_side,
    stage_policies,
)
from tests.reference.equilibria import max_min_value

pytestmark = pytest.mark.usefixtures("float64")
GAMMA = 0.9


def random_game(seed, counts=(2, 2), states=2, zero_sum=False, terminal=False):
    rng = np.random.default_rng(seed)
    reward = rng.uniform(-1, 1, (len(counts), states, *counts))
    if zero_sum:
        reward[1] = -reward[0]
    transition = rng.dirichlet(np.ones(states), size=(states, *counts))
    ends = np.arange(states) == (states - 1 if terminal else states)
    return GameModel(*map(jnp.asarray, (transition, reward, ends)))


def minimax_by_linear_programs(model, sweeps):
    """Minimax value iteration of player 1 with SciPy's linear programs."""
    transition, reward, terminal = map(np.asarray, model)
    values = np.zeros(len(terminal))
    for _ in range(sweeps):
        q = reward[0] + GAMMA * transition @ np.where(terminal, 0, values)
        values = np.array(
            [0 if over else max_min_value(stage) for stage, over in zip(q, terminal, strict=True)]
        )
    return values


def test_minimax_solution_is_that_of_linear_programs():
    model = random_game(3, (3, 2), states=3, zero_sum=True, terminal=True)
    found = minimax_solution(player_side(model, 0), GAMMA)
    values = minimax_by_linear_programs(model, 150)
    np.testing.assert_allclose(np.where(model.terminal, 0, found.values), values, atol=1e-5)
    assert np.abs(best_reply_gains(model, GAMMA, (found.row, found.column))).max() < 1e-8


def test_two_states_in_which_both_mix():
    model = two_state_zero_sum().game_model()
    found = minimax_solution(player_side(model, 0), GAMMA)
    np.testing.assert_allclose(found.values, [3.315931, 3.622126], atol=1e-6)
    np.testing.assert_allclose(found.row, [[0.387611, 0.612389], [0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(found.column, [[0.387611, 0.612389], [0.867050, 0.132950]], atol=1e-6)
    q = iterate_backup(lambda q: nash_backup(model, GAMMA, q), model.reward, 250)[-1]
    np.testing.assert_allclose(q, [found.q, -found.q], atol=1e-8)
    np.testing.assert_allclose(
        game_values(model, GAMMA, (found.row, found.column))[0], found.values, atol=1e-8
    )


@pytest.mark.slow
def test_operators_contract_where_they_should():
    model = random_game(5)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2, 2, 2))
    for backup in (foe_backup, friend_backup):
        one, other = (backup(player_side(model, 0), GAMMA, jnp.asarray(q)) for q in (first, second))
        assert np.abs(one - other).max() <= GAMMA * np.abs(first - second).max() + 1e-12
    friends = iterate_backup(
        lambda q: friend_backup(player_side(model, 0), GAMMA, q), jnp.zeros((2, 2, 2)), 300
    )
    assert friends.shape == (301, 2, 2, 2)
    np.testing.assert_allclose(friends[-1], optimal_q(player_side(model, 0), GAMMA), atol=1e-9)


@pytest.mark.parametrize(("x", "factor"), [(0.1, 10), (0.01, 100)])
def test_nash_qs_operator_is_no_contraction(x, factor):
    """R_1 = [[3, 0], [3 + x, 1]], R_2 = R_1ᵀ: the selected equilibrium pays 3 below x = 0, 1 above."""

    def tables(x):
        first = np.array([[3.0, 0.0], [3.0 + x, 1.0]])
        return jnp.asarray(np.stack([first, first.T]))[:, None]

    model = GameModel(jnp.ones((1, 2, 2, 1)), jnp.zeros((2, 1, 2, 2)), jnp.zeros(1, bool))
    backup = jax.jit(lambda q: nash_backup(model, GAMMA, q))
    below, above = (np.asarray(backup(tables(sign * x))) for sign in (-1, 1))
    np.testing.assert_allclose(below, 3 * GAMMA, atol=1e-9)
    np.testing.assert_allclose(above, GAMMA, atol=1e-9)
    widened = np.abs(below - above).max() / np.abs(tables(-x) - tables(x)).max()
    assert widened == pytest.approx(factor * GAMMA, rel=1e-9)


def test_a_fixed_opponent_leaves_an_mdp_of_one_agent():
    model = random_game(7, (2, 3, 2), states=3)
    rng = np.random.default_rng(1)
    policies = tuple(rng.dirichlet(np.ones(count), 3) for count in (2, 3, 2))
    mdp = induced_mdp(model, 1, policies)
    weights = np.einsum("si,sk->sik", policies[0], policies[2])
    np.testing.assert_allclose(mdp.reward, np.einsum("sik,sijk->sj", weights, model.reward[1]), atol=1e-12)
    np.testing.assert_allclose(
        mdp.transition, np.einsum("sik,sijkt->sjt", weights, model.transition), atol=1e-12
    )
    gains = best_reply_gains(model, GAMMA, policies)
    own = game_values(model, GAMMA, policies)
    np.testing.assert_allclose(gains[1], best_values(optimal_q(mdp, GAMMA)) - own[1], atol=1e-9)
    assert gains.shape == (3, 3) and (np.asarray(gains) > -1e-9).all()


@pytest.mark.slow
def test_where_nash_q_settles_nobody_gains():
    model = random_game(11)
    path = iterate_backup(lambda q: nash_backup(model, GAMMA, q), model.reward, 300)
    assert np.abs(path[-1] - path[-2]).max() < 1e-9
    assert np.abs(best_reply_gains(model, GAMMA, stage_policies(path[-1]))).max() < 1e-8


def test_solvers_say_how_far_they_go(bad_input):
    three = random_game(0, (2, 2, 2))
    with bad_input("exact for games of 2 agents with up to 6 actions each and any number of states"):
        nash_backup(three, GAMMA, three.reward)
    with bad_input("minimax values are exact for two players with up to 6 actions each"):
        minimax_solution(player_side(three, 0), GAMMA)
    with bad_input("minimax values are exact for two players"):
        minimax_solution(
            player_side(three, 0)._replace(
                reward=three.reward[0, ..., 0, 0], transition=three.transition[..., 0, 0, :]
            ),
            GAMMA,
        )
    wide = random_game(0, (8, 8))
    with bad_input("a 8x8 game is too large to enumerate its equilibria: use at most 6x6"):
        nash_backup(wide, GAMMA, wide.reward)
    with bad_input("a 8x8 game is too large"):
        minimax_solution(player_side(wide, 0), GAMMA)
    with bad_input("does not fit together: use `stochastic_game(...).game_model()`"):
        nash_backup(wide._replace(reward=wide.reward[0]), GAMMA, wide.reward)
    with bad_input("the discount must be in [0, 1), not 1"):
        minimax_solution(player_side(random_game(0), 0), 1)
