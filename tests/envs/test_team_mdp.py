import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from envs.matrix_games import MatrixGame, matrix_game, random_state_game, two_step_game, zero_sum_game
from envs.team_mdp import (
    MoveDraws,
    TeamMDP,
    TeamMDPState,
    divergence_mmdp,
    draw_team_mdp,
    from_matrix_game,
    line_world,
    random_team_mdp,
    team_mdp,
)
from tests.reference.team_mdp import LineWorld

LEAVE, PRESS = 0, 1
STAND, LEFT, RIGHT = 0, 1, 2


@functools.cache
def compiled(env):
    """Reset and step of one environment, compiled once for all tests."""
    return jax.jit(env.reset), jax.jit(env.step)


def play(env, joint_actions, seed=0):
    """The time steps of one episode, as plain numbers: rewards, discounts, ids of observations, last."""
    reset, step = compiled(env)
    state, _ = reset(jax.random.key(seed))
    rewards, discounts, seen = [], [], []
    for joint in joint_actions:
        state, timestep = step(state, jnp.array(joint))
        rewards.append(float(timestep.reward))
        discounts.append(float(timestep.discount))
        seen.append(tuple(np.argmax(timestep.observation.agents_view, axis=1).tolist()))
    return rewards, discounts, seen, bool(timestep.last())


QUIET, NOISY, DIVERGENCE = line_world(noise=False), line_world(), divergence_mmdp()
RANDOM = random_team_mdp(3, states=4, agents=3, actions=2)
draw_games = jax.jit(jax.vmap(lambda key: draw_team_mdp(key, 4, (3, 2))))
KEYS = jax.random.split(jax.random.key(5), 64)


# The line world


def test_the_way_to_the_prize():
    rewards, discounts, seen, last = play(QUIET, [(LEAVE, LEFT)] * 3 + [(PRESS, STAND)])
    assert rewards == [0, 0, 0, 10]
    assert discounts == [1, 1, 1, 0]
    assert last
    assert seen[:3] == [(1, 5), (1, 3), (3, 1)]  # in time at cells 2, 1 and 0


@pytest.mark.parametrize(
    ("joint_actions", "rewards"),
    [
        ([(LEAVE, LEFT)] * 3 + [(LEAVE, STAND)], [0, 0, 0, -30]),
        ([(PRESS, LEFT), (LEAVE, LEFT), (PRESS, LEFT), (PRESS, STAND)], [-30, 0, -30, 10]),
        ([(LEAVE, STAND)] * 4, [0] * 4),
        ([(PRESS, STAND)] * 4, [0] * 4),  # pressing alone costs nothing
        ([(PRESS, RIGHT)] * 4, [0] * 4),  # nor does pressing at the right wall
        ([(LEAVE, LEFT)] * 3 + [(PRESS, LEFT)], [0] * 4),  # nor at the left wall
    ],
)
def test_what_the_line_world_pays(joint_actions, rewards):
    got, discounts, _, last = play(QUIET, joint_actions)
    assert got == rewards
    assert last
    assert discounts[-1] == 0  # time is in the state: its end is an end, not a cut


def test_too_late_is_seen():
    _, _, seen, _ = play(QUIET, [(LEAVE, STAND), (LEAVE, LEFT), (LEAVE, LEFT)])
    assert seen == [(0, 6), (0, 4), (0, 2)]


def test_line_world_starts_at_cell_3_with_time():
    _, timestep = compiled(NOISY)[0](jax.random.key(3))
    view, state = timestep.observation.agents_view, timestep.observation.global_state
    assert view.shape == (2, 8)
    np.testing.assert_array_equal(view, np.eye(8)[[1, 7]])
    np.testing.assert_array_equal(state, np.eye(20)[19])
    np.testing.assert_array_equal(timestep.observation.action_mask, [[1, 1, 0], [1, 1, 1]])


def test_line_world_equals_the_reference_step_by_step():
    """300 random episodes with the same normal draws, noise included."""
    games, steps = 300, 4
    rng = np.random.default_rng(0)
    actions = np.stack([rng.integers(2, size=(games, steps)), rng.integers(3, size=(games, steps))], axis=-1)
    normal = rng.normal(size=(games, steps)).astype(np.float32)

    def episode(key, actions, normal):
        def step(state, choice):
            action, draw = choice
            state, timestep = NOISY.move(state, action, MoveDraws(jnp.zeros(()), draw))
            seen = timestep.observation.agents_view.argmax(axis=1)
            return state, (timestep.reward, seen, timestep.discount == 0)

        return jax.lax.scan(step, NOISY.reset(key)[0], (actions, normal))[1]

    keys = jax.random.split(jax.random.key(0), games)
    rewards, seen, over = map(np.asarray, jax.jit(jax.vmap(episode))(keys, actions, normal))
    ended_early = 0
    for game in range(games):
        world = LineWorld()
        for t in range(steps):
            press, walk = actions[game, t]
            reward = world.step(press, walk, float(normal[game, t]))
            np.testing.assert_allclose(rewards[game, t], reward, atol=1e-5)
            assert over[game, t] == world.over
            if world.over:
                ended_early += t < steps - 1
                break
            assert tuple(seen[game, t]) == world.observations()
    assert ended_early == 0  # the first chance to end is at the fourth step


def test_line_world_ends_early_where_time_is_left():
    """From cell 0 with three steps left, which no start leads to: the model itself says so."""
    model = line_world().model()
    state = 4 * 3 + 0
    for press, reward in ((LEAVE, -30), (PRESS, 10)):
        assert float(model.reward[state, press, STAND]) == reward
        following = int(np.argmax(model.transition[state, press, STAND]))
        assert bool(model.terminal[following])
    assert not bool(model.terminal[np.argmax(model.transition[state, PRESS, RIGHT])])


def test_noise_is_3_at_walls_and_1_elsewhere():
    draws = jax.vmap(NOISY.draw)(jax.random.split(jax.random.key(1), 4000))
    start, _ = compiled(NOISY)[0](jax.random.key(0))

    @jax.jit
    def noisy(joint, state):
        move = jax.vmap(lambda draw: NOISY.move(start.replace(state=state), joint, draw)[1].reward)
        return move(draws)

    def rewards(joint, state):
        return np.asarray(noisy(jnp.array(joint), jnp.int16(state)))

    for joint, state, deviation in [
        ((LEAVE, RIGHT), 19, 3),
        ((PRESS, LEFT), 4, 3),
        ((LEAVE, LEFT), 19, 1),
        ((PRESS, STAND), 19, 1),
    ]:
        # 4000 draws: the standard error of the deviation is 1.1 % of it, of the mean 1.6 % of it.
        got = rewards(joint, state)
        assert abs(got.std() / deviation - 1) < 0.06
        assert abs(got.mean()) < 0.08 * deviation
    assert abs(rewards((PRESS, STAND), 4).mean() - 10) < 0.08


def test_without_noise_is_the_clean_game():
    assert NOISY.without_noise().reward_noise is None
    np.testing.assert_array_equal(NOISY.without_noise().reward, QUIET.reward)


# The divergence game


def test_divergence_game_moves_and_pays():
    rewards, discounts, seen, last = play(
        DIVERGENCE, [(0, 0), (0, 1), (1, 0), (0, 0), (1, 1), (0, 0), (0, 0)]
    )
    assert rewards == [1, 0, 0, 1, 0, 0, 0]
    assert seen == [(0, 0)] * 4 + [(1, 1)] * 3
    assert discounts == [1] * 7  # state 1 is absorbing, but the episode goes on
    assert not last


def test_divergence_game_is_cut_off_not_ended_after_100_steps():
    rewards, discounts, _, last = play(DIVERGENCE, [(0, 0)] * 100)
    assert sum(rewards) == 100
    assert discounts == [1] * 100
    assert last
    assert not play(DIVERGENCE, [(0, 0)] * 99)[3]


# Random games


def test_random_games_are_distributions_and_depend_on_their_key_only():
    games = draw_games(KEYS)
    assert games.transition.shape == (64, 4, 3, 2, 4)
    assert float(games.transition.min()) > 0
    np.testing.assert_allclose(games.transition.sum(axis=-1), 1, atol=1e-6)
    assert float(games.reward.min()) >= 0 and float(games.reward.max()) < 1
    np.testing.assert_array_equal(games.reward[::-1], draw_games(KEYS[::-1]).reward)
    # A flat Dirichlet over 4 states: mean 1/4, variance 3/80. 1536 rows of 4.
    assert abs(float(games.transition.var()) - 3 / 80) < 0.002


def test_random_games_are_float64_where_asked_for():
    with jax.enable_x64(True):
        model = random_team_mdp(states=3, actions=2).model()
        assert model.transition.dtype == model.reward.dtype == jnp.float64
        np.testing.assert_allclose(model.transition.sum(axis=-1), 1, atol=1e-15)


def test_a_batch_of_games_plays_as_each_alone():
    games = jax.tree.map(operator.itemgetter(slice(3)), draw_games(KEYS))

    def episode(game):
        def step(state, action):
            state, timestep = game.step(state, action)
            return state, (state.state, timestep.reward)

        joint = jnp.array([(0, 1), (2, 1), (1, 0), (0, 0), (1, 1)])
        return jax.lax.scan(step, game.reset(jax.random.key(7))[0], joint)[1]

    states, rewards = jax.jit(jax.vmap(episode))(games)
    alone = jax.jit(episode)
    for index in range(3):
        game = jax.tree.map(operator.itemgetter(index), games)
        alone_states, alone_rewards = alone(game)
        np.testing.assert_array_equal(states[index], alone_states)
        np.testing.assert_allclose(rewards[index], alone_rewards, rtol=1e-6)
    assert len(np.unique(states)) > 2


def test_next_states_come_with_their_probabilities():
    chances = np.array([0.0, 0.2, 0.5, 0.3])
    env = team_mdp(np.broadcast_to(chances, (4, 2, 2, 4)), np.zeros((4, 2, 2)), start=[0.1, 0, 0.9, 0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    reset = jax.jit(jax.vmap(lambda key: env.reset(key)[0].state))
    starts = np.bincount(reset(keys), minlength=4) / 20_000
    np.testing.assert_allclose(starts, [0.1, 0, 0.9, 0], atol=0.012)  # five standard errors
    state = env.reset(keys[0])[0]
    step = jax.jit(jax.vmap(lambda key: env.step(state.replace(key=key), jnp.zeros(2, int))[0].state))
    reached = np.bincount(step(keys), minlength=4) / 20_000
    np.testing.assert_allclose(reached, chances, atol=0.018)
    assert reached[0] == 0


def test_a_state_of_probability_0_is_never_drawn_at_the_edges():
    """Uniform draws of 0 and just below 1, with float32 rows whose sum is not quite 1."""
    chances = np.array([0, 0.1, 0.2, 0.7 - 1e-6, 0])
    env = team_mdp(np.broadcast_to(chances, (5, 2, 2, 5)), np.zeros((5, 2, 2)))
    state = env.reset(jax.random.key(0))[0]
    for uniform, following in ((0.0, 1), (1 - 2**-24, 3), (0.0999, 1), (0.1001, 2)):
        draws = MoveDraws(jnp.float32(uniform), jnp.zeros(()))
        assert int(env.move(state, jnp.zeros(2, int), draws)[0].state) == following


# Matrix games as decision processes


@pytest.mark.parametrize("game", [two_step_game(), random_state_game()], ids=["two-step", "random-state"])
def test_a_staged_game_plays_the_same(game):
    """Until the end, whose observation only the decision process has a number for."""
    env = from_matrix_game(game)
    assert env.time_limit == game.time_limit
    rng = np.random.default_rng(1)
    for first_stage in np.flatnonzero(np.asarray(game.start)):
        for _ in range(6):
            state, _ = game.reset(jax.random.key(0))
            state = state.replace(stage=jnp.int8(first_stage))
            ours, _ = env.reset(jax.random.key(0))
            ours = ours.replace(state=jnp.int16(first_stage))
            for _ in range(game.time_limit):
                joint = jnp.array(rng.integers(game.action_counts))
                state, expected = game.step(state, joint)
                ours, timestep = env.step(ours, joint)
                assert float(timestep.reward) == float(expected.reward)
                assert float(timestep.discount) == float(expected.discount)
                if not expected.last():
                    np.testing.assert_array_equal(
                        timestep.observation.agents_view[:, :-1], expected.observation.agents_view
                    )
    assert int(ours.state) == game.num_stages


def test_a_reward_per_agent_makes_no_team(bad_input):
    with bad_input("a team MDP has one team reward"):
        from_matrix_game(zero_sum_game([[1, 2], [3, 4]]))


def test_a_batch_of_matrix_games_becomes_a_batch_of_processes():
    payoffs = jax.random.uniform(jax.random.key(0), (5, 1, 2, 3))
    game = matrix_game(np.zeros((2, 3)))
    batched = jax.vmap(lambda payoff: from_matrix_game(game.replace(payoff=payoff)).model())(payoffs)
    np.testing.assert_array_equal(batched.reward[:, :1], payoffs)
    np.testing.assert_array_equal(batched.transition[:, :, :, :, 1], 1)
    assert isinstance(game, MatrixGame) and isinstance(from_matrix_game(game), TeamMDP)


# Observations and action counts


def test_masked_actions_are_the_last_one():
    rewards, *_ = play(QUIET, [(LEAVE, LEFT)] * 3 + [(2, STAND)])  # agent 1 has two actions
    assert rewards[-1] == 10


def test_agents_see_what_they_are_given():
    env = team_mdp(
        np.full((3, 2, 2, 2, 3), 1 / 3), np.zeros((3, 2, 2, 2)), observation=[[0, 0, 1], [2, 1, 0], [3, 3, 3]]
    )
    assert env.num_observations == 4
    assert not env.fully_observable
    assert RANDOM.fully_observable and not line_world().fully_observable
    state = TeamMDPState(key=None, state=jnp.int16(1), step_count=jnp.int16(1), last_actions=jnp.zeros(3))
    view = env.observe(state).agents_view
    np.testing.assert_array_equal(view, np.eye(4)[[0, 1, 3]])


def test_specs_hold_for_every_step():
    reset, step = compiled(RANDOM)
    state, timestep = reset(jax.random.key(0))
    for _ in range(3):
        RANDOM.observation_spec.validate(timestep.observation)
        state, timestep = step(state, RANDOM.action_spec.generate_value())
    assert timestep.observation.agents_view.dtype == jnp.float32
    assert state.state.dtype == jnp.int16


# Bad input

GOOD = {"transition": np.full((2, 2, 3, 2), 0.5), "reward": np.zeros((2, 2, 3))}
OFF = np.full((2, 2, 3, 2), 0.5)
OFF[1, 0, 2] = [0.5, 0.4]
NEGATIVE = np.full((2, 2, 3, 2), 0.5)
NEGATIVE[0, 1, 1] = [-0.5, 1.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": OFF}, r"transition does not sum to 1: row \(1, 0, 2\) sums to 0\.9"),
        ({"transition": NEGATIVE}, r"negative probability, -0\.5 at \(0, 1, 1, 0\)"),
        ({"transition": np.full((2, 2), 0.5)}, r"transition has shape \(2, 2\), which leaves no agent: give"),
        ({"transition": np.full((2, 2, 3, 4), 0.25)}, "first and last axes must both be"),
        ({"transition": np.full((2, 0, 3, 2), 0.5)}, "at least one action"),
        ({"transition": [[1, 0], [1]]}, "transition is ragged or not numeric"),
        ({"transition": np.full((2, 2, 3, 2), np.nan)}, "NaN or infinite"),
        ({"transition": np.ones((1,) * 35)}, "a team MDP may have at most 32 agents, not 33"),
        ({"transition": np.ones((2, 2, 3, 2), bool)}, "transition is ragged or not numeric"),
        ({"reward": np.full((2, 2, 3), 1e39)}, "reward holds NaN or infinite"),
        ({"reward": np.full((2, 2, 3), 1j)}, "reward is ragged or not numeric"),
        ({"observation": [[0, 1], [0, 32_767]]}, "whole numbers from 0 to 32766"),
        ({"time_limit": 32_768}, "time_limit must be from 1 to 32767, not 32768"),
        ({"time_limit": 10.0}, "time_limit must be a whole number, not 10.0"),
        ({"reward": np.zeros((2, 3, 2))}, r"reward has shape \(2, 3, 2\): give \(2, 2, 3\)"),
        ({"reward": np.full((2, 2, 3), np.inf)}, "reward holds NaN or infinite"),
        ({"start": [0.5, 0.6]}, r"start does not sum to 1: it sums to 1\.1"),
        ({"start": [1.5, -0.5]}, "start has a negative probability"),
        ({"start": [1.0]}, r"start has shape \(1,\): give \(2,\)"),
        ({"terminal": [True]}, "terminal has shape"),
        ({"observation": [[0, 1]]}, r"observation has shape \(1, 2\): give \(2, 2\)"),
        ({"observation": [[0, 1], [0, -1]]}, "whole numbers from 0 to 32766"),
        ({"observation": [[0, 1], [0, 0.5]]}, "whole numbers from 0 to 32766"),
        ({"reward_noise": np.full((2, 2, 3), -1.0)}, "standard deviation of -1"),
        ({"reward_noise": np.ones((2, 2))}, "reward_noise has shape"),
        ({"time_limit": 0}, "time_limit must be from 1 to 32767, not 0"),
        ({"labels": ("one",)}, "labels has 1 entries: give one for each of 2 states"),
    ],
)
def test_bad_tables_get_one_clear_line(change, message):
    tables = {**GOOD, **change}
    with pytest.raises(BadInputError, match=message) as caught:
        team_mdp(tables.pop("transition"), tables.pop("reward"), **tables)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"agents": 0}, "agents must be from 1 to 32, not 0"),
        ({"agents": 70}, "agents must be from 1 to 32, not 70"),
        ({"agents": 32}, "a random team MDP of 5 states, 32 agents and 3 actions would take"),
        ({"actions": 0}, "actions must be at least 1, not 0"),
        ({"actions": 2**31}, "actions must be at most 2147483647"),
        ({"actions": 10**6}, "would take 300 TB of memory"),
        ({"states": 0}, "states must be from 1 to 32767, not 0"),
        ({"states": 40_000}, "states must be from 1 to 32767, not 40000"),
        (
            {"states": 32_767, "actions": 30},
            "32767 states, 2 agents and 30 actions would take 11.6 TB of memory",
        ),
        ({"mdp_seed": 2**32}, r"mdp_seed must be in \[0, 4294967295\], not 4294967296"),
        ({"mdp_seed": -1}, r"mdp_seed must be in \[0, 4294967295\], not -1"),
    ],
)
def test_bad_random_games(bad, says):
    with pytest.raises(BadInputError, match=says):
        random_team_mdp(**bad)


# Pictures


def test_pictures_show_the_state(tmp_path):
    reset, step = compiled(QUIET)
    state, _ = reset(jax.random.key(0))
    before = np.array(QUIET.render(state, str(tmp_path / "start.png")))
    after, _ = step(state, jnp.array([LEAVE, LEFT]))
    assert (tmp_path / "start.png").stat().st_size > 1000
    assert (QUIET.render(after) != before).any()
    np.testing.assert_array_equal(QUIET.render(state), before)  # nothing is left over from the last picture
    QUIET.animate([state, after], save_path=str(tmp_path / "walk.gif"))
    assert (tmp_path / "walk.gif").read_bytes()[:3] == b"GIF"


def test_one_agent():
    """Two states, action a leads to state a, and (0, 1) and (1, 0) pay."""
    moves = np.broadcast_to(np.eye(2), (2, 2, 2))
    alone = team_mdp(moves, [[0, 1], [2, 0]], time_limit=3)
    assert (alone.num_agents, alone.action_counts, alone.fully_observable) == (1, (2,), True)
    assert float(alone.return_lower_bound(0.9)) == 0
    assert float(alone.best_reward_of_worst_action(0)) == 0
    reset, step = compiled(alone)
    state, timestep = reset(jax.random.key(0))
    np.testing.assert_array_equal(timestep.observation.agents_view, [[1, 0]])
    rewards = []
    for action in (1, 0, 0):
        state, timestep = step(state, jnp.array([action]))
        rewards.append(float(timestep.reward))
    assert rewards == [1, 2, 0] and bool(timestep.last()) and float(timestep.discount) == 1
    assert alone.render(state).ndim == 3
    assert random_team_mdp(agents=1, actions=2).action_counts == (2,)


def test_pictures_of_graphs_without_a_layout():
    state, _ = compiled(RANDOM)[0](jax.random.key(0))
    frames = [np.array(RANDOM.render(state.replace(state=jnp.int16(s)))) for s in range(3)]
    assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.99])
def test_no_return_is_below_the_lower_bound(gamma):
    """The worst joint policy of a random game whose rewards are negative, by enumeration."""
    game = random_team_mdp(states=3, actions=2)
    game = game.replace(reward=np.asarray(game.reward) - 2.0)
    model = game.model()
    moves = np.asarray(model.transition, np.float64).reshape(3, 4, 3)
    rewards = np.asarray(model.reward, np.float64).reshape(3, 4)
    worst = []
    for choice in itertools.product(range(4), repeat=3):
        pick = np.arange(3), list(choice)
        worst.append(np.linalg.solve(np.eye(3) - gamma * moves[pick], rewards[pick]).min())
    least = float(game.return_lower_bound(gamma))
    assert 1.02 * min(worst) <= least <= min(worst)


def test_the_return_lower_bound_of_games_without_a_discount_or_a_loss():
    assert float(random_team_mdp(states=3, actions=2).return_lower_bound(0.9)) == 0
    game = line_world()
    assert float(game.return_lower_bound(1.0)) == pytest.approx(1.01 * worst_of_line_world(game), rel=1e-4)


def worst_of_line_world(game):
    """By values of the last steps first."""
    model, values = game.model(), np.zeros(game.num_states)
    for _ in range(game.time_limit):
        following = np.asarray(model.transition) @ (values * ~np.asarray(model.terminal))
        values = np.minimum((np.asarray(model.reward) + following).min(axis=(1, 2)), 0)
    return values.min()
