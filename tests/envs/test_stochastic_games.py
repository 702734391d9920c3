import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.matrix_games import END, general_sum_game, matrix_game, staged_game
from envs.stochastic_games import (
    draw_stochastic_game,
    from_general_sum_game,
    stochastic_game,
    two_state_zero_sum,
)
from envs.team_mdp import draw_team_mdp

KEY = jax.random.key(0)
PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])
TWO_STATES = two_state_zero_sum()


def play(env, joint_actions, stage=None):
    """Rewards of each agent, states after each step, and discounts."""
    step = jax.jit(env.step)
    state, first = env.reset(KEY)
    assert first.reward.shape == (env.num_agents,)
    if stage is not None:
        state = state.replace(state=jnp.int16(stage))
    found = []
    for joint in joint_actions:
        state, timestep = step(state, jnp.array(joint))
        place = state.stage if hasattr(state, "stage") else state.state
        found.append((timestep.reward.tolist(), int(place), float(timestep.discount)))
    return found


def test_two_states_pay_opposite_rewards_and_change_where_actions_differ():
    steps = play(TWO_STATES, [(0, 0), (1, 1), (0, 1), (0, 1), (1, 0), (1, 1)], stage=0)
    assert steps == [
        ([2, -2], 0, 1),
        ([1, -1], 0, 1),
        ([-1, 1], 1, 1),
        ([3, -3], 0, 1),
        ([-1, 1], 1, 1),
        ([-2, 2], 1, 1),
    ]


def test_rewards_are_bounded_and_the_worst_action_is_known():
    # Always state 1's -2 for agent 1, always 3 lost in turns with 1 for agent 2.
    assert float(TWO_STATES.return_lower_bound(0.5)) <= -3 - 0.5
    assert float(TWO_STATES.best_reward_of_worst_action(0)) == 0
    game = stochastic_game(np.ones((1, 2, 2, 1)), [-1 - PENNIES[None], -5 + PENNIES[None]])
    assert float(game.best_reward_of_worst_action(1)) == -4
    assert float(game.return_lower_bound(0.5)) == pytest.approx(-12, rel=0.02)


def test_models_in_both_precisions():
    model = TWO_STATES.game_model()
    assert model.reward.shape == (2, 2, 2, 2) and model.reward.dtype == jnp.float32
    np.testing.assert_array_equal(model.reward[1], -model.reward[0])
    with jax.enable_x64(True):
        assert TWO_STATES.game_model().reward.dtype == jnp.float64


@pytest.mark.slow
def test_random_games_have_the_transitions_of_team_mdps():
    team, any_sum, opposite = jax.jit(
        lambda key: (
            draw_team_mdp(key, 3, (2, 2)),
            draw_stochastic_game(key, 3, (2, 2)),
            draw_stochastic_game(key, 3, (2, 2), zero_sum=True),
        )
    )(KEY)
    np.testing.assert_array_equal(team.transition, any_sum.transition)
    assert np.abs(any_sum.reward[..., 0] - any_sum.reward[..., 1]).min() > 0
    np.testing.assert_array_equal(opposite.reward.sum(-1), 0)
    three = jax.eval_shape(lambda: draw_stochastic_game(KEY, 2, (2, 3, 2)))
    assert three.reward.shape == (2, 2, 3, 2, 3)


@pytest.mark.slow
def test_a_batch_of_games_plays_as_each_alone():
    keys = jax.random.split(KEY, 3)
    games = jax.jit(jax.vmap(lambda key: draw_stochastic_game(key, 3, (2, 2))))(keys)

    def once(game, key):
        state, _ = game.reset(key)
        return game.step(state, jnp.array([1, 0]))[1].reward

    together, alone_once = jax.jit(jax.vmap(once))(games, keys), jax.jit(once)
    for index, key in enumerate(keys):
        alone = alone_once(jax.tree.map(lambda leaf, index=index: leaf[index], games), key)
        np.testing.assert_allclose(together[index], alone, rtol=1e-6)


def test_staged_games_with_a_reward_per_agent():
    """Agent 1 chooses between pennies and a game with a payoff in common; as a matrix game and as a model."""
    nothing = np.zeros((2, 2))
    end = np.full((2, 2), END)
    env = staged_game(
        [[nothing, nothing], [PENNIES, -PENNIES], [PENNIES, PENNIES]],
        [[[1, 1], [2, 2]], end, end],
        [1, 0, 0],
        time_limit=2,
        general_sum=True,
    )
    assert env.action_counts == (2, 2) and env.num_stages == 3
    assert [step[0] for step in play(env, [(0, 1), (0, 1)])] == [[0, 0], [-1, 1]]
    assert [step[0] for step in play(env, [(1, 1), (1, 1)])] == [[0, 0], [1, 1]]
    game = from_general_sum_game(env)
    assert [step[0] for step in play(game, [(0, 1), (0, 1)])] == [[0, 0], [-1, 1]]
    model = game.game_model()
    assert model.reward.shape == (2, 4, 2, 2) and model.terminal.tolist() == [False] * 3 + [True]
    np.testing.assert_array_equal(model.reward[1, 1], -PENNIES)
    np.testing.assert_array_equal(model.transition[0, 1, :, 2], [1, 1])


def test_bad_games_get_one_clear_line(bad_input):
    transition = np.ones((1, 2, 2, 1))
    with bad_input(
        "rewards has shape (2, 2) and transition (1, 2, 2, 1): give rewards of shape (2, 1, 2, 2)"
    ):
        stochastic_game(transition, PENNIES)
    with bad_input("one table for each agent"):
        stochastic_game(transition, [PENNIES[None]] * 3)
    with bad_input("start does not sum to 1"):
        stochastic_game(transition, [PENNIES[None]] * 2, start=[2.0])
    with bad_input("a zero-sum game is for two agents, not 3"):
        draw_stochastic_game(KEY, 2, (2, 2, 2), zero_sum=True)
    with bad_input("take its `game_model()`"):
        TWO_STATES.model()
    with bad_input("this matrix game pays a team"):
        from_general_sum_game(matrix_game(PENNIES))
    with bad_input("got 1 payoff(s)"):
        staged_game([[PENNIES]], [np.full((2, 2), END)], [1], time_limit=1, general_sum=True)
    assert from_general_sum_game(general_sum_game([PENNIES, -PENNIES])).num_states == 2


def test_the_registered_game_has_a_time_limit():
    assert envs.make("two-state-zero-sum", time_limit=7).time_limit == 7
