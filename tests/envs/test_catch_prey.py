import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.catch_prey import (
    AWAY,
    CLOCKWISE,
    COUNTER_CLOCKWISE,
    STAY,
    TOWARDS,
    CatchPreyState,
    PreyDraws,
    catch_prey,
)
from envs.errors import BadInputError
from tests.reference import catch_prey as reference

NEVER, ALWAYS = 0.999, 0.0  # draws with which the prey makes no random step, or makes one


@functools.cache
def compiled(agents):
    """Reset, step, move with given draws, and observe, compiled once for each number of predators."""
    env = catch_prey(agents)
    return jax.jit(env.reset), jax.jit(env.step), jax.jit(env.move), jax.jit(env.observe)


def scene(distances, degrees, prey=(0.0, 0.0), time=0):
    """Predators at these distances, in these directions clockwise from the y axis."""
    angles = np.radians(degrees)
    around = np.asarray(distances, float)[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return CatchPreyState(
        key=None,
        prey=jnp.array(prey, jnp.float32),
        predators=jnp.asarray(around + np.asarray(prey), jnp.float32),
        step_count=jnp.int16(time),
    )


def move(state, actions, chance=NEVER, heading=0.0):
    """One step with given draws."""
    draws = PreyDraws(jnp.float32(chance), jnp.float32(heading))
    return compiled(len(state.predators))[2](state, jnp.array(actions), draws)


def flight(distances, degrees, chance=NEVER, heading=0.0):
    """How the prey at the origin moves."""
    state, _ = move(scene(distances, degrees), [STAY] * len(distances), chance, heading)
    return np.asarray(state.prey)


SURROUNDED = [0, 90, 180, 270]


# The prey


def test_prey_at_ease_strolls_with_probability_one_tenth():
    np.testing.assert_allclose(flight([10, 12, 12, 12], SURROUNDED, 0.099, np.pi / 2), [1, 0], atol=1e-6)
    np.testing.assert_allclose(flight([10, 12, 12, 12], SURROUNDED, 0.101, np.pi / 2), [0, 0])


def test_prey_runs_through_the_middle_of_a_wide_gap():
    # The gap from 180 to 288 degrees is exactly 1.2 right angles, up to rounding; 290 is safely more.
    run = flight([9.9, 12, 12, 12], [290, 20, 100, 180])
    np.testing.assert_allclose(
        run, 1.2 * np.array([np.sin(np.radians(235)), np.cos(np.radians(235))]), atol=1e-5
    )
    # Through the gap that lies across the y axis too.
    run = flight([9.9, 12, 12, 12], [50, 130, 210, 290])
    np.testing.assert_allclose(
        run, 1.2 * np.array([np.sin(np.radians(350)), np.cos(np.radians(350))]), atol=1e-5
    )


def test_a_gap_of_less_than_108_degrees_is_no_way_out():
    np.testing.assert_allclose(flight([9.9, 12, 12, 12], [287.9, 20, 100, 180]), [0, 0])
    assert np.linalg.norm(flight([9.9, 12, 12, 12], [288.1, 20, 100, 180])) == pytest.approx(1.2, rel=1e-5)


def test_prey_runs_from_the_nearest_if_another_lags_behind():
    np.testing.assert_allclose(flight([9, 14.1, 9, 5], SURROUNDED), [1.2, 0], atol=1e-5)  # from 270 degrees
    np.testing.assert_allclose(flight([9, 10, 9, 5.1], SURROUNDED), [0, 0])


def test_surrounded_prey_panics_with_probability_three_tenths():
    np.testing.assert_allclose(flight([9, 10, 9, 8], SURROUNDED, 0.299, np.pi), [0, -1.2], atol=1e-6)
    np.testing.assert_allclose(flight([9, 10, 9, 8], SURROUNDED, 0.301, np.pi), [0, 0])


def test_the_wide_gap_comes_before_the_laggard():
    run = flight([5, 15, 15], [0, 90, 180])  # gap from 180 to 360, nearest at 0
    np.testing.assert_allclose(run, [-1.2, 0], atol=1e-5)


# The predators


def test_predators_step_around_the_prey():
    """A predator north of the prey, and the prey far too calm to move."""
    for action, end in [
        (STAY, (0, 12)),
        (TOWARDS, (0, 11)),
        (COUNTER_CLOCKWISE, (-1, 12)),
        (AWAY, (0, 13)),
        (CLOCKWISE, (1, 12)),
    ]:
        state, _ = move(scene([12, 12], [0, 180]), [action, STAY])
        np.testing.assert_allclose(state.predators, [end, (0, -12)], atol=1e-5)


def test_directions_are_those_before_the_prey_moves():
    """The prey runs 1.2 to the east, out of the gap; the predator in the north still steps south."""
    state, _ = move(scene([9, 9], [0, 180]), [TOWARDS, TOWARDS])
    np.testing.assert_allclose(np.abs(state.prey), [1.2, 0], atol=1e-5)
    np.testing.assert_allclose(state.predators, [(0, 8), (0, -8)], atol=1e-5)


# Rewards and ends


@pytest.mark.parametrize("agents", [2, 4])
def test_moving_costs_and_a_catch_pays(agents):
    directions = np.arange(agents) * 360 / agents
    _, timestep = move(scene([15] * agents, directions), [STAY] * agents)
    assert float(timestep.reward) == 0
    actions = [TOWARDS, AWAY, CLOCKWISE, COUNTER_CLOCKWISE][:agents]
    _, timestep = move(scene([15] * agents, directions), actions)
    assert float(timestep.reward) == pytest.approx(-1 / 75, rel=1e-5)
    assert not timestep.last()
    _, timestep = move(scene([3.9, *[6] * (agents - 1)], directions), [TOWARDS] + [STAY] * (agents - 1))
    caught = agents == 4  # two predators leave a gap, and the prey is gone
    assert float(timestep.reward) == pytest.approx(caught - 1 / (75 * agents), rel=1e-5)
    assert bool(timestep.last()) == caught
    assert float(timestep.discount) == 1 - caught


def test_caught_means_strictly_within_the_catch_distance():
    for distance, caught in ((4.001, False), (3.999, True)):
        _, timestep = move(scene([distance, 6, 6, 6], SURROUNDED), [TOWARDS, STAY, STAY, STAY])
        assert bool(timestep.last()) == caught


def test_the_end_of_time_is_a_truncation_unless_asked_otherwise():
    waiting = [STAY] * 4
    _, timestep = move(scene([15] * 4, SURROUNDED, time=73), waiting)
    assert not timestep.last()
    late = scene([15] * 4, SURROUNDED, time=74)
    _, timestep = move(late, waiting)
    assert timestep.last() and float(timestep.discount) == 1
    assert int(timestep.observation.step_count) == 75
    _, timestep = move(scene([3.5, 6, 6, 6], SURROUNDED, time=74), [TOWARDS, STAY, STAY, STAY])
    assert timestep.last() and float(timestep.discount) == 0  # a catch in the last step is a catch
    env = catch_prey(time_limit_terminates=True)
    last_step = jax.jit(env.move)
    _, timestep = last_step(late, jnp.array(waiting), PreyDraws(jnp.float32(NEVER), jnp.float32(0)))
    assert timestep.last() and float(timestep.discount) == 0


# Observations


def test_observations_of_a_known_scene():
    state = scene([12, 8, 20], [30, 90, 200], prey=(5.0, -3.0), time=30)
    observation = compiled(3)[3](state)
    expected = [
        [1.2, 0.8, 1.6, 190 / 360, 60 / 360, 190 / 360, 0.4],
        [0.8, 0.0, 2.4, 60 / 360, 110 / 360, 190 / 360, 0.4],
        [2.0, 2.4, 0.0, 110 / 360, 190 / 360, 190 / 360, 0.4],
    ]
    np.testing.assert_allclose(observation.agents_view, expected, atol=1e-5)
    np.testing.assert_allclose(observation.global_state, np.ravel(expected), atol=1e-5)
    assert observation.action_mask.all() and observation.action_mask.shape == (3, 5)


def test_the_right_hand_neighbour_is_on_the_right():
    """Predator 0 stands south of the prey and looks north: east is right."""
    observation = compiled(3)[3](scene([12, 12, 12], [180, 90, 300]))
    right, left = np.asarray(observation.agents_view[0, 3:5]) * 360
    assert right == pytest.approx(90, abs=1e-3)  # to the one in the east
    assert left == pytest.approx(120, abs=1e-3)


def test_predators_in_one_direction_keep_the_gap_behind_them():
    """Two on a ray: one has no gap to its left, the other the whole way to the third."""
    view = np.asarray(compiled(3)[3](scene([11, 14, 12], [0, 0, 90])).agents_view)
    np.testing.assert_allclose(view[:, 4] * 360, [0, 90, 270], atol=1e-3)
    np.testing.assert_allclose(view[:, 3] * 360, [270, 0, 90], atol=1e-3)
    np.testing.assert_allclose(view[:, 5] * 360, 270, atol=1e-3)


def test_observations_do_not_change_with_the_point_of_view():
    first = compiled(4)[3](scene([12, 13, 14, 15], [10, 110, 190, 300]))
    second = compiled(4)[3](scene([12, 13, 14, 15], [87, 187, 267, 17], prey=(40.0, -7.0)))
    np.testing.assert_allclose(first.agents_view, second.agents_view, atol=1e-5)


# Against the reference


@pytest.mark.parametrize("agents", [2, 4, 13])
def test_games_equal_the_reference_step_by_step(agents):
    """Whole games, mostly approaching; each step of the reference starts from the environment's state."""
    games, steps = 6, 75
    env = catch_prey(agents)
    rng = np.random.default_rng(agents)
    actions = rng.choice(5, p=[0.1, 0.6, 0.12, 0.06, 0.12], size=(games, steps, agents))
    draws = PreyDraws(*rng.uniform(size=(2, games, steps)).astype(np.float32))
    draws = draws._replace(heading=2 * np.pi * draws.heading)

    @jax.jit
    @jax.vmap
    def run(key, actions, draws):
        def step(state, choice):
            following, timestep = env.move(state, *choice)
            kept = timestep.reward, timestep.last(), timestep.discount, timestep.observation.agents_view
            return following, (state, following, *kept)

        start = env.reset(key)[0].replace(key=None)
        return jax.lax.scan(step, start, (actions, draws))[1]

    keys = jax.random.split(jax.random.key(agents), games)
    before, after, reward, last, discount, view = jax.tree.map(np.asarray, run(keys, actions, draws))
    catches = frights = 0
    for game in range(games):
        for t in range(steps):
            at = (game, t)
            prey, predators, pays, caught = reference.step(
                before.prey[at], before.predators[at], actions[at], draws.chance[at], draws.heading[at]
            )
            np.testing.assert_allclose(after.prey[at], prey, atol=1e-4)
            np.testing.assert_allclose(after.predators[at], predators, atol=1e-4)
            np.testing.assert_allclose(reward[at], pays, atol=1e-6)
            assert last[at] == (caught or t == steps - 1)
            assert discount[at] == 1 - caught
            seen = reference.observations(after.prey[at], after.predators[at], t + 1)
            np.testing.assert_allclose(view[at], seen, atol=1e-4)
            frights += np.linalg.norm(after.prey[at] - before.prey[at]) > 1.1
            catches += caught
            if caught:
                break
    assert frights > 30
    assert (catches > 0) == (agents == 13)  # so few that charge let it through


# Starts


def test_starts_are_around_the_prey():
    keys = jax.random.split(jax.random.key(0), 5000)
    state, timestep = jax.jit(jax.vmap(catch_prey().reset))(keys)
    np.testing.assert_array_equal(state.prey, 0)
    distance = np.linalg.norm(state.predators, axis=-1)
    assert distance.min() >= 10.999 and distance.max() <= 19.001
    assert abs(distance.mean() - 15) < 0.08  # 20,000 draws: five standard errors
    mean_heading = (state.predators / distance[..., None]).mean(axis=(0, 1))
    assert np.abs(mean_heading).max() < 0.026
    np.testing.assert_array_equal(timestep.observation.step_count, 0)
    np.testing.assert_array_equal(timestep.observation.agents_view[..., 6], 0)


def surround(view):
    """A team written by hand: spread out just beyond the distance of fright, then close in together."""
    distance, ahead, behind, right, left, widest, _ = view.T
    agents = len(view)
    spread = np.where(right - left > 0.02, COUNTER_CLOCKWISE, np.where(left - right > 0.02, CLOCKWISE, STAY))
    approach = np.where(distance > 1.12, TOWARDS, spread)
    close_in = np.where((ahead > 0.2) | (behind <= 0.2), TOWARDS, STAY)
    return np.where(widest * agents > 1.25, approach, close_in)


def test_a_team_that_surrounds_the_prey_wins_and_one_that_charges_does_not():
    reset, step, _, _ = compiled(6)

    def play(policy, seed):
        state, timestep = reset(jax.random.key(seed))
        total = 0.0
        while not timestep.last():
            actions = policy(np.asarray(timestep.observation.agents_view))
            state, timestep = step(state, jnp.asarray(actions))
            total += float(timestep.reward)
        return total > 0

    games = range(12)
    assert sum(play(surround, seed) for seed in games) >= 6
    assert sum(play(lambda view: np.full(len(view), TOWARDS), seed) for seed in games) <= 3


# Bad input and pictures


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"agents": 1}, "agents must be at least 2, not 1"),
        ({"prey_speed": -1.0}, "prey_speed must be at least 0, not -1"),
        ({"prey_speed": float("inf")}, "prey_speed must be a finite number, not inf"),
        ({"prey_speed": 1e39}, r"prey_speed must be at most 3.4e\+38, to fit into 32 bits, not 1e\+39"),
        ({"catch_distance": 0.0}, "catch_distance must be above 0, not 0.0"),
        ({"catch_distance": float("nan")}, "catch_distance must be above 0, not nan"),
        ({"agents": 2.0}, "agents must be a whole number, not 2.0"),
        ({"agents": 10**7}, "the angles between 10000000 agents would take 400 TB of memory"),
        ({"time_limit_terminates": 1}, "time_limit_terminates must be True or False, not 1"),
    ],
)
def test_bad_parameters_get_one_clear_line(bad, message):
    with pytest.raises(BadInputError, match=message):
        catch_prey(**bad)


def test_difficulty_can_be_varied_in_one_program():
    """A batch of environments with different catch distances: one of them catches."""
    envs = catch_prey().replace(catch_distance=jnp.array([1.0, 5.0]))
    state = scene([4.5, 6, 6, 6], SURROUNDED)
    draws = PreyDraws(jnp.float32(NEVER), jnp.float32(0))
    axes = catch_prey().replace(prey_speed=None, catch_distance=0)
    play = jax.vmap(lambda env: env.move(state, jnp.zeros(4, int), draws)[1].last(), in_axes=(axes,))
    np.testing.assert_array_equal(jax.jit(play)(envs), [False, True])


def test_pictures_show_the_chase(tmp_path):
    env = catch_prey()
    state = scene([12, 13, 14, 15], SURROUNDED)
    first = np.array(env.render(state, str(tmp_path / "start.png")))
    later, _ = move(state, [TOWARDS] * 4)
    assert (np.array(env.render(later)) != first).any()
    env.animate([state, later], save_path=str(tmp_path / "chase.gif"))
    assert (tmp_path / "chase.gif").read_bytes()[:3] == b"GIF"
