"""Every small integer of every game at the largest value that it has to hold, over whole episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.adapters.from_jumanji import connector, level_based_foraging
from envs.base import compact_dtype
from envs.catch_prey import CatchPrey, catch_prey
from envs.differential_game import differential_grid_game
from envs.gaussian_squeeze import gaussian_squeeze
from envs.matrix_games import matrix_game
from envs.predator_prey import predator_prey
from envs.stag_hunt import stag_hunt
from envs.team_mdp import divergence_mmdp, draw_team_mdp, from_matrix_game, random_team_mdp, sample_index
from tests.helpers import sets_but_slow

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(1, jnp.int8), (127, jnp.int8), (128, jnp.int16), (32_767, jnp.int16), (32_768, jnp.int32)],
)
def test_the_smallest_integer_that_holds(largest, dtype):
    assert compact_dtype(largest) is dtype
    assert jnp.asarray([-1, largest], dtype).tolist() == [-1, largest]


def test_more_than_32_bits_hold(bad_input):
    assert compact_dtype(2**31 - 1) is jnp.int32
    with bad_input("a state would hold 2147483648, which does not fit into 32 bits"):
        compact_dtype(2**31)


def whole_episode(env, actions):
    """States, rewards and ends of always playing `actions`, until the time is up."""

    @jax.jit
    def play(state):
        def step(state, _):
            state, timestep = env.step(state, actions)
            return state, (state.replace(key=None), timestep.reward, timestep.last())

        return jax.lax.scan(step, state, length=env.time_limit)[1]

    return jax.tree.map(np.asarray, play(env.reset(KEY)[0]))


def ends_in_time(env, states, over):
    np.testing.assert_array_equal(states.step_count, np.arange(env.time_limit) + 1)
    np.testing.assert_array_equal(over, np.arange(env.time_limit) == env.time_limit - 1)


@pytest.mark.parametrize(
    ("height", "width", "time_limit", "kinds"),
    [
        (8, 16, 127, (jnp.int8, jnp.int8)),
        pytest.param(3, 43, 128, (jnp.int16, jnp.int16), marks=pytest.mark.slow),
        pytest.param(1, 32_768, 3, (jnp.int16, jnp.int8), marks=pytest.mark.slow),
        pytest.param(1, 32_769, 3, (jnp.int32, jnp.int8), marks=pytest.mark.slow),
        (1, 2**31 - 1, 3, (jnp.int32, jnp.int8)),
        pytest.param(3, 3, 32_767, (jnp.int8, jnp.int16), marks=pytest.mark.slow),
    ],
)
def test_predator_prey(height, width, time_limit, kinds):
    env = predator_prey(height=height, width=width, time_limit=time_limit, full_view=True)
    start = env.place(jnp.asarray([0, 1, height * width - 1]))  # the prey in the last cell
    assert start.prey.tolist() == [height * width - 1]
    states, rewards, over = whole_episode(env, jnp.asarray([2, 4]))
    ends_in_time(env, states, over)
    assert (states.prey.dtype, states.step_count.dtype) == kinds
    for cells in (states.predators, states.prey):
        assert ((cells >= 0) & (cells < height * width)).all()
    assert np.isfinite(rewards).all()


@pytest.mark.parametrize(
    ("height", "width", "time_limit", "kinds"),
    [
        pytest.param(8, 16, 127, (jnp.int8, jnp.int8), marks=pytest.mark.slow),
        (3, 43, 128, (jnp.int16, jnp.int16)),
    ],
)
def test_stag_hunt(height, width, time_limit, kinds):
    """Who has left the grid has the number -1 - cell."""
    env = stag_hunt(agents=2, prey=2, height=height, width=width, time_limit=time_limit)
    states, _, over = whole_episode(env, jnp.asarray([4, 4]))
    ends_in_time(env, states, over)
    assert (states.prey.dtype, states.step_count.dtype) == kinds
    last = height * width - 1
    caught, _ = env.move(
        env.place(jnp.asarray([last - 1, last - width, last, 0])),
        jnp.asarray([5, 5]),
        *jnp.zeros((3, 2), jnp.int32).at[:2, 1].set(1),
    )
    assert caught.prey[0] == -1 - last and caught.agents.tolist() == [-last, -1 - (last - width)]


def test_catch_prey(bad_input):
    env = CatchPrey(num_agents=2, time_limit=32_767)
    states, rewards, over = whole_episode(env, jnp.asarray([0, 3]))
    ends_in_time(env, states, over)
    assert states.step_count.dtype == jnp.int16 and rewards.min() < 0
    with bad_input("the time_limit of CatchPrey must be at most 32767, not 32768"):
        CatchPrey(num_agents=2, time_limit=32_768).reset(KEY)
    assert catch_prey(time_limit_terminates=np.bool_(True)).time_limit_terminates is True


@pytest.mark.parametrize(
    ("actions", "dtype"),
    sets_but_slow(
        [(127, jnp.int8), (128, jnp.int8), (129, jnp.int16), (200, jnp.int16)],
        [(128, jnp.int8), (129, jnp.int16)],
    ),
)
def test_actions(actions, dtype):
    """The last action of a squeeze, of a grid of points and of a team MDP, in what is kept of them."""
    last = jnp.asarray([actions - 1, actions - 1])
    games = (
        gaussian_squeeze(agents=2, actions=actions, s=[0.01, 0.02]),
        differential_grid_game(points=actions),
        random_team_mdp(states=2, actions=actions),
    )
    for env in games:
        start, _ = env.reset(KEY)
        state, _ = env.step(start, last)
        assert state.last_actions.dtype == start.last_actions.dtype == dtype
        assert state.last_actions.tolist() == last.tolist()
    squeeze = games[0].step(games[0].reset(KEY)[0], last)[1].reward
    usage = 0.03 * (actions - 1)
    assert float(squeeze) == pytest.approx(usage * np.exp(-((usage - 8) ** 2)), rel=1e-4)
    reward = games[2].step(games[2].reset(KEY)[0], last)[1].reward
    assert float(reward) in np.asarray(games[2].reward[:, -1, -1])


def test_team_mdp(bad_input):
    env = divergence_mmdp(time_limit=32_767)
    states, rewards, over = whole_episode(env, jnp.asarray([0, 0]))
    ends_in_time(env, states, over)
    assert states.step_count.dtype == jnp.int16 and rewards.sum() == 32_767
    with bad_input("the time_limit of TeamMDP must be at most 32767, not 32768"):
        env.replace(time_limit=32_768).reset(KEY)
    certain = jnp.zeros(32_767).at[-1].set(1)
    assert (
        int(sample_index(certain, jnp.float32(0.5))) == 32_766 == int(sample_index(certain, jnp.float32(0.0)))
    )
    with bad_input("a team MDP may have at most 32767 states, not 32768"):
        draw_team_mdp(KEY, 32_768, (1, 1))


@pytest.mark.parametrize("stages", [127, *(pytest.param(n, marks=pytest.mark.slow) for n in (126, 128, 300))])
def test_a_matrix_game_of_many_stages_as_a_team_mdp(stages):
    """The end is one state more than the stages' integer may hold."""
    game = matrix_game([[1, 2], [3, 4]], stages=stages)
    env = from_matrix_game(game)
    states, rewards, over = whole_episode(env, jnp.asarray([1, 0]))
    ends_in_time(env, states, over)
    np.testing.assert_array_equal(states.state, np.arange(stages) + 1)
    np.testing.assert_array_equal(rewards, np.full(stages, 3))


def test_too_many_stages_for_a_team_mdp(bad_input):
    with bad_input("a team MDP may have at most 32767 states, not 32768"):
        from_matrix_game(matrix_game([[1, 2]], stages=32_767))


@pytest.mark.slow
def test_jumanji():
    """The last agent's target has the number 3 n; levels and steps that 8 bits do not hold."""
    state, timestep = jax.jit(connector(grid_size=12, agents=43, time_limit=2).reset)(KEY)
    assert state.seen.dtype == jnp.int16 and int(state.seen.max()) == 129
    assert timestep.observation.agents_view.shape == (43, 4 * 144)
    state, _ = jax.eval_shape(level_based_foraging(max_agent_level=1000, time_limit=130).reset, KEY)
    assert (state.seen.dtype, state.step_count.dtype) == (jnp.int16, jnp.int16)
