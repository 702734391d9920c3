import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jumanji.testing.env_not_smoke import check_env_does_not_smoke, check_env_specs_does_not_smoke

from envs.differential_game import differential_game, differential_grid_game
from envs.errors import BadInputError


@pytest.mark.parametrize(
    ("actions", "paper", "code"),
    [
        ((0, 0), -40 / 9, -40 / 3),
        ((2, 2), -8, -8),
        ((3, 3), 2, 2),
        ((4, 4), 8, 8),
        ((5, 5), 10, 10),
        ((-5, -5), 0, 0),
        ((-2, -5), -0.8, -2.4),
    ],
)
def test_payoffs(actions, paper, code):
    with jax.enable_x64(True):
        for variant, payoff in [("paper", paper), ("code", code)]:
            env = differential_game(variant)
            state, _ = env.reset(jax.random.key(0))
            _, timestep = jax.jit(env.step)(state, jnp.array(actions, float))
            np.testing.assert_allclose(timestep.reward, payoff, atol=1e-6)


@pytest.mark.parametrize(("variant", "switch"), [("paper", 1.9512), ("code", 1.1260)])
def test_where_the_peak_takes_over_on_the_diagonal(variant, switch):
    with jax.enable_x64(True):
        env = differential_game(variant)
        slope = jax.jit(jax.grad(lambda a: env.payoff_of(jnp.array([a, a]))))
        # Downhill from the hill of height 0 on one side, uphill to the peak on the other.
        assert slope(switch - 1e-4) < 0 < slope(switch + 1e-4)


def test_the_start_is_in_the_wrong_basin():
    env = differential_game()

    @jax.jit
    def climb(actions):
        return jax.lax.fori_loop(0, 200, lambda _, at: at + 0.5 * jax.grad(env.payoff_of)(at), actions)

    actions = climb(jnp.zeros(2))
    np.testing.assert_allclose(actions, [-5, -5], atol=1e-3)


def test_it_is_over_after_one_step():
    env = differential_game()
    state, first = env.reset(jax.random.key(0))
    assert first.first() and first.reward == 0
    state, last = env.step(state, jnp.array([3.0, 4.0]))
    assert last.last()
    assert last.discount == 0
    assert last.reward == 5
    np.testing.assert_array_equal(state.last_actions, [3, 4])
    assert state.step_count == last.observation.step_count == 1


def test_actions_outside_are_clipped():
    env = differential_game()
    state, _ = env.reset(jax.random.key(0))
    state, timestep = env.step(state, jnp.array([99.0, -11.0]))
    np.testing.assert_array_equal(state.last_actions, [10, -10])
    np.testing.assert_allclose(timestep.reward, -0.8 * (25 + 25 / 9), rtol=1e-6)


def test_specs_and_a_whole_episode():
    env = differential_game()
    check_env_does_not_smoke(env)
    check_env_specs_does_not_smoke(env)
    assert env.action_spec.shape == (2,)
    assert env.action_spec.dtype == jnp.float32
    assert (env.action_spec.minimum, env.action_spec.maximum) == (-10, 10)
    assert (env.num_agents, env.num_actions, env.time_limit, env.stateless) == (2, 0, 1, True)


def test_what_is_seen_never_changes():
    env = differential_game()
    state, first = env.reset(jax.random.key(0))
    _, last = env.step(state, jnp.array([3.0, 4.0]))
    for before, after in zip(first.observation[:3], last.observation[:3], strict=True):
        np.testing.assert_array_equal(before, after)
    assert first.observation.action_mask.shape == (2, 0)
    replayed = state.replace(key=None)
    np.testing.assert_array_equal(env.observe(replayed).global_state, first.observation.global_state)


def test_a_batch_of_games():
    env = differential_game()
    heights = jnp.array([[0.0, 10.0], [20.0, 10.0]])
    centres = env.centres + jnp.array([0.0, 1.0])[:, None, None]
    games = env.replace(heights=heights, centres=centres)

    def play(game):
        state, _ = game.reset(jax.random.key(0))
        return game.step(state, jnp.array([-5.0, -5.0]))[1].reward

    axes = jax.tree.map(lambda _: None, env).replace(heights=0, centres=0)
    rewards = jax.vmap(play, in_axes=(axes,))(games)
    np.testing.assert_allclose(rewards, [0, 20 - 0.8 * 2 / 9], rtol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_grid_is_a_matrix_game(variant):
    env = differential_grid_game(variant)
    payoff = np.asarray(env.joint_payoff())
    assert payoff.shape == (41, 41)
    width = 9 if variant == "paper" else 3
    for a in range(41):
        for b in range(41):
            x, y = -10 + a / 2, -10 + b / 2
            hill = 0.8 * (-((x + 5) ** 2) / width - (y + 5) ** 2 / width)
            peak = 10 - (x - 5) ** 2 - (y - 5) ** 2
            assert abs(payoff[a, b] - max(hill, peak)) < 2e-5
    assert np.unravel_index(payoff.argmax(), payoff.shape) == (30, 30)
    assert payoff[30, 30] == 10
    assert payoff[10, 10] == 0
    state, _ = env.reset(jax.random.key(0))
    _, timestep = env.step(state, jnp.array([30, 30]))
    assert timestep.reward == 10


def test_bad_input():
    with pytest.raises(BadInputError, match=r"^variant must be paper or code, not papr$"):
        differential_game("papr")
    for points, says in (
        (1, "^points must be at least 2, not 1$"),
        (10**6, "^a grid of 1000000 x 1000000 points would take 32 TB of memory"),
        (2**40, "^points must be at most 2147483647"),
    ):
        with pytest.raises(BadInputError, match=says):
            differential_grid_game(points=points)


def test_pictures(tmp_path):
    env = differential_game()
    start, _ = env.reset(jax.random.key(0))
    played, _ = env.step(start, jnp.array([-5.0, -5.0]))
    empty = env.render(start).copy()
    marked = env.render(played, str(tmp_path / "game.png")).copy()
    again = env.render(start).copy()
    np.testing.assert_array_equal(empty, again)  # nothing is left of the picture before
    assert (tmp_path / "game.png").stat().st_size > 5000
    # The mark is red, at the lower left of the surface.
    red = (marked[..., 0] > 180) & (marked[..., 1] < 80) & (marked[..., 2] < 80)
    height, width = red.shape
    rows, columns = np.nonzero(red)
    assert 20 < len(rows) < 0.01 * red.size
    assert rows.min() > height / 2
    assert columns.max() < width / 2
    env.animate([start, played], save_path=str(tmp_path / "game.gif"))
    assert (tmp_path / "game.gif").stat().st_size > 5000
