"""Games with options: their tables, priors and pictures; rooms beside their rules, step by step."""

import operator
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.errors import BadInputError
from envs.option_mdp import (
    coordination_options,
    draw_option_mdp,
    leaning,
    option_mdp,
    random_option_mdp,
    two_state_options,
)
from envs.rooms import HALLWAYS, Rooms, buttons_and_doors, four_rooms
from tests.helpers import first_observation
from tests.reference import rooms as reference

FOUR = four_rooms(slip=0.3, sharpness=1.5)
DOORS = buttons_and_doors(door_reward=3.0)


def state_at(env, number):
    return env.reset(jax.random.key(0))[0].replace(state=jnp.int16(number))


# Four rooms


def test_the_map_has_104_cells_and_four_hallways():
    cells = FOUR.cells[0]
    assert len(set(cells)) == 104
    assert set(cells) == {(x, y) for x in range(13) for y in range(13) if reference.four_rooms_free(x, y)}
    assert FOUR.num_states == 105 and FOUR.num_options == 4
    for x, y in HALLWAYS:  # two walls beside each of them
        beside = [reference.four_rooms_free(x + 1, y), reference.four_rooms_free(x, y + 1)]
        assert sum(beside) == 1


def test_four_rooms_tables_are_the_rules():
    cells, goal = FOUR.cells[0][:104], (9, 9)
    transition, reward, terminal = (np.asarray(table) for table in FOUR.model())
    index = {cell: number for number, cell in enumerate(cells)}
    for number, cell in enumerate(cells):
        for action in range(4):
            expected = np.zeros(105)
            if cell == goal:
                expected[104] = 1
            else:
                for other in range(4):
                    to = index[reference.four_rooms_move(cell, other)]
                    expected[to] += 0.7 if other == action else 0.1
            np.testing.assert_allclose(transition[number, action], expected, atol=1e-6)
            assert reward[number, action] == (10 if cell == goal else 0)
    np.testing.assert_array_equal(np.flatnonzero(terminal), [104])
    np.testing.assert_allclose(np.asarray(FOUR.start), [*(0 if c == goal else 1 / 103 for c in cells), 0])


def test_four_rooms_beside_its_rules():
    """5,000 steps of the environment: every one is possible, and 70 % of them go where they were meant to."""
    cells, keys = FOUR.cells[0], jax.random.split(jax.random.key(1), 50)
    actions = np.random.default_rng(0).integers(4, size=(50, 100))

    def episode(key, actions):
        def step(state, action):
            after, timestep = FOUR.step(state, action[None])
            return after, (state.state, after.state, timestep.reward, timestep.discount)

        return jax.lax.scan(step, FOUR.reset(key)[0], actions)[1]

    before, after, rewards, discounts = map(np.asarray, jax.jit(jax.vmap(episode))(keys, actions))
    as_meant, steps, ended = 0, 0, 0
    for game in range(50):
        for t in range(100):
            cell, to = cells[before[game, t]], cells[after[game, t]]
            if cell == (9, 9):
                assert (rewards[game, t], discounts[game, t], after[game, t]) == (10, 0, 104)
                ended += 1
                break
            assert rewards[game, t] == 0 and discounts[game, t] == 1
            possible = [reference.four_rooms_move(cell, action) for action in range(4)]
            assert to in possible
            if len(set(possible)) == 4:
                steps += 1
                as_meant += to == possible[actions[game, t]]
    assert ended > 3 and steps > 1000
    assert abs(as_meant / steps - 0.7) < 5 * np.sqrt(0.7 * 0.3 / steps)


def test_priors_of_four_rooms_are_shortest_paths():
    cells = FOUR.cells[0][:104]
    for option, hallway in enumerate(HALLWAYS):
        left = reference.distances(cells, reference.four_rooms_move, hallway)
        for number in (0, 17, 50, 77, 103):
            odds = [
                np.exp(-1.5 * left[reference.four_rooms_move(cells[number], action)]) for action in range(4)
            ]
            seen = FOUR.option_priors(FOUR.observe(state_at(FOUR, number)))[0, option]
            np.testing.assert_allclose(seen, np.asarray(odds) / sum(odds), atol=1e-6)
            np.testing.assert_allclose(FOUR.action_priors[0][number, option], seen, atol=1e-6)


# Buttons and doors


def test_buttons_and_doors_beside_its_rules():
    """2,000 steps: both agents' cells and the reward, and the tables say the same."""
    rng = np.random.default_rng(3)
    model = DOORS.model()
    paid, step = Counter(), jax.jit(DOORS.step)
    offsets = (np.asarray([1, 1]), np.asarray([5, 1]))  # the rooms' upper left cells
    for episode in range(10):
        world, state = reference.ButtonsAndDoors(3.0), DOORS.reset(jax.random.key(episode))[0]
        for _ in range(200):
            # Towards a button and a door half of the time, or else that would be rare.
            actions = rng.choice([0, 1, 2, 3, 4], size=2, p=[0.25, 0.25, 0.25, 0.1, 0.15])
            number = int(state.state)
            following = int(np.argmax(model.transition[number, actions[0], actions[1]]))
            state, timestep = step(state, jnp.asarray(actions))
            reward = world.step(actions)
            assert float(timestep.reward) == reward == float(model.reward[number, actions[0], actions[1]])
            assert int(state.state) == following
            for agent in range(2):
                assert tuple(np.asarray(DOORS.cells[agent][following]) - offsets[agent]) == world.cells[agent]
            paid[reward] += 1
    assert paid[3.0] > 20
    assert DOORS.num_states == 36 and DOORS.num_options == 2


def test_priors_of_buttons_and_doors_are_shortest_paths():
    targets = (reference.BUTTON, reference.DOOR)
    for number in range(36):
        priors = DOORS.option_priors(DOORS.observe(state_at(DOORS, number)))
        for agent, origin in enumerate((np.asarray([1, 1]), np.asarray([5, 1]))):
            cell = tuple(np.asarray(DOORS.cells[agent][number]) - origin)
            for option, target in enumerate(targets):
                expected = reference.prior(reference.ROOM, reference.room_move, target, cell, 5, 2.0)
                np.testing.assert_allclose(priors[agent, option], expected, atol=1e-6)


def test_the_two_rooms_are_alike():
    """Agents that change places change nothing: the solution cannot prefer one of them."""
    transition, reward, _ = (np.asarray(table) for table in DOORS.model())
    index = {pair: n for n, pair in enumerate(zip(*DOORS.cells, strict=True))}

    def other_room(cell, agent):
        return (cell[0] + (4 if agent == 0 else -4), cell[1])

    swap = [
        index[other_room(second, 1), other_room(first, 0)] for first, second in zip(*DOORS.cells, strict=True)
    ]
    np.testing.assert_array_equal(reward, reward[swap].transpose(0, 2, 1))
    np.testing.assert_array_equal(transition, transition[swap][..., swap].transpose(0, 2, 1, 3))


# Tables and random games


def test_worked_games():
    alone, two = two_state_options(), coordination_options()
    np.testing.assert_allclose(alone.action_priors[0], np.broadcast_to([[0.9, 0.1], [0.1, 0.9]], (2, 2, 2)))
    np.testing.assert_array_equal(alone.model().reward, [[0, 1], [2, 0]])
    assert (two.num_agents, two.num_states, len(two.action_priors)) == (2, 1, 2)
    np.testing.assert_allclose(leaning(1, 3, 0.8)[0], 0.1 + 0.7 * np.eye(3))


def test_random_games_have_priors_and_depend_on_their_key_only():
    keys = jax.random.split(jax.random.key(2), 8)
    draw = jax.jit(jax.vmap(lambda key: draw_option_mdp(key, 3, (2, 3), 4)))
    games = draw(keys)
    assert games.option_prior.shape == (8, 2, 3, 4, 3)
    np.testing.assert_allclose(games.option_prior.sum(-1), 1, atol=1e-6)
    assert not games.option_prior[:, 0, ..., 2].any()  # agent 1 has two actions
    assert (games.option_prior[:, 0, ..., :2] > 0).all()
    np.testing.assert_array_equal(games.option_prior[::-1], draw(keys[::-1]).option_prior)
    game = jax.tree.map(operator.itemgetter(0), games)
    assert [prior.shape for prior in game.action_priors] == [(3, 4, 2), (3, 4, 3)]
    seen = game.option_priors(first_observation(game))
    assert seen.shape == (2, 4, 3)
    with jax.enable_x64(True):
        assert random_option_mdp(states=2).option_prior.dtype == jnp.float64


def test_games_without_options_say_so():
    game = envs.make("team-mdp-line")
    assert game.num_options == 0
    with pytest.raises(NotImplementedError, match="TeamMDP has no options"):
        game.option_priors(first_observation(game))


GOOD = {"transition": np.full((2, 2, 3, 2), 0.5), "reward": np.zeros((2, 2, 3))}
PRIORS = [np.full((2, 2, 2), 0.5), np.full((2, 2, 3), 1 / 3)]
LIGHT = np.full((2, 2, 3), 1 / 3)
LIGHT[1, 0] = [0.5, 0.3, 0.1]


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ([PRIORS[0], LIGHT], r"option_priors\[1\] does not sum to 1: row \(1, 0\) sums to 0\.9"),
        ([PRIORS[0], -PRIORS[1]], r"option_priors\[1\] has a negative probability"),
        (PRIORS[:1], r"option_priors has 1 tables: give one for each of 2 agents"),
        (PRIORS[::-1], r"option_priors\[0\] has shape \(2, 2, 3\): give \(2, options, 2\)"),
        ([np.ones((2, 1, 2)) / 2, np.ones((2, 1, 3)) / 3], "needs at least 2 of them, not 1"),
        ([PRIORS[0], np.ones((2, 3, 3)) / 3], r"the same number of options, not \[2, 3\]"),
        ([PRIORS[0], np.full((2, 2, 3), np.nan)], r"option_priors\[1\] holds NaN"),
    ],
)
def test_bad_priors_get_one_clear_line(priors, message):
    with pytest.raises(BadInputError, match=message) as caught:
        option_mdp(**GOOD, option_priors=priors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "bad", "says"),
    [
        (four_rooms, {"goal": (0, 0)}, r"goal must be a free cell \(x, y\) such as \(9, 9\), not \(0, 0\)"),
        (four_rooms, {"goal": (3,)}, "goal must be a free cell"),
        (four_rooms, {"slip": 1.5}, r"slip must be in \[0, 1\], not 1.5"),
        (four_rooms, {"sharpness": 0.0}, "sharpness must be above 0"),
        (buttons_and_doors, {"time_limit": 0}, "time_limit must be from 1"),
        (random_option_mdp, {"options": 1}, "options must be at least 2, not 1"),
        (random_option_mdp, {"agents": 0}, "agents must be from 1"),
        (random_option_mdp, {"actions": 10**6}, "of memory"),
    ],
)
def test_bad_parameters(make, bad, says):
    with pytest.raises(BadInputError, match=says):
        make(**bad)


# Pictures


@pytest.mark.parametrize(
    "env", [pytest.param(FOUR, id="four-rooms", marks=pytest.mark.slow), pytest.param(DOORS, id="doors")]
)
def test_pictures_show_cells_and_options(env, tmp_path):
    state, _ = env.reset(jax.random.key(0))
    plain = np.array(env.render(state, str(tmp_path / "start.png")))
    assert (tmp_path / "start.png").stat().st_size > 1000
    n = env.num_agents
    shown = [np.array(env.render(state, options=np.full(n, option))) for option in range(2)]
    assert (shown[0] != shown[1]).any() and (shown[0] != plain).any()
    np.testing.assert_array_equal(env.render(state), plain)
    after, _ = env.step(state, jnp.zeros(n, int))
    assert (np.array(env.render(after)) != plain).any()
    env.animate([state, after], save_path=str(tmp_path / "walk.gif"))
    env.animate([state, after], save_path=str(tmp_path / "options.gif"), options=[np.zeros(n), np.ones(n)])
    frames = [(tmp_path / f"{name}.gif").read_bytes() for name in ("walk", "options")]
    assert all(each[:3] == b"GIF" for each in frames) and frames[0] != frames[1]


def test_a_door_is_drawn_open_while_the_other_is_on_its_button():
    by_cells = {pair: number for number, pair in enumerate(zip(*DOORS.cells, strict=True))}
    (button_1, door_1), (button_2, _) = DOORS.targets
    assert isinstance(DOORS, Rooms)
    closed = np.array(DOORS.render(state_at(DOORS, by_cells[door_1, (6, 1)])))
    opened = np.array(DOORS.render(state_at(DOORS, by_cells[door_1, button_2])))
    green = np.asarray([0, 158, 115])  # the frame
    counts = [(np.abs(each[..., :3].astype(int) - green).sum(-1) < 12).sum() for each in (closed, opened)]
    assert counts[1] > counts[0]
    assert button_1 != door_1
