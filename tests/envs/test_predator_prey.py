import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jumanji.testing.env_not_smoke import check_env_does_not_smoke, check_env_specs_does_not_smoke
from PIL import Image

import envs
from envs import grid
from envs.errors import BadInputError
from envs.grid_viewer import PredatorPreyViewer
from envs.predator_prey import PredatorPrey, PredatorPreyState, predator_prey
from jaxmarl_fac.saved import from_json, to_json
from tests.reference.predator_prey import ReferencePredatorPrey

UP, LEFT, STAY, RIGHT, DOWN = range(5)

SMALL = predator_prey(penalty=1.5)
LARGE = predator_prey(predators=4, prey=2, height=7, width=7, penalty=0.5)
# Seven entities on twelve cells: chains, rings and swaps in most steps.
CROWDED = predator_prey(predators=4, prey=3, height=3, width=4, penalty=1.0, view=3, sees_predators=True)
CORRIDOR = predator_prey(predators=3, prey=2, height=1, width=7, penalty=1.0, full_view=True)


def at(env: PredatorPrey, predators: list[int], prey: list[int]) -> PredatorPreyState:
    return env.place(jnp.asarray([*predators, *prey]))


# An environment is a pytree: these compile once for each size, whatever the penalty.
jit_move = jax.jit(lambda env, *arguments: env.move(*arguments))
jit_step = jax.jit(lambda env, *arguments: env.step(*arguments))
jit_resets = jax.jit(lambda env, keys: jax.vmap(env.reset)(keys))
jit_looks = jax.jit(lambda env, states: jax.vmap(env.observe)(states))
move_in_turn = jax.jit(grid.move_in_turn)


def move(
    env: PredatorPrey, state: PredatorPreyState, actions: list[int], prey_moves: list[int], places: list[int]
) -> tuple[PredatorPreyState, float]:
    choices = (jnp.asarray(part) for part in (actions, prey_moves, places))
    state, reward = jit_move(env, state, *choices)
    return state, float(reward)


@functools.cache
def random_run(env: PredatorPrey) -> Any:
    """50 games of 100 steps by `env.step` with random actions: states and time steps, (T + 1, 50)."""

    def one(state: PredatorPreyState, key: jax.Array) -> Any:
        actions = jax.random.randint(key, (50, env.num_agents), 0, 5)
        state, timestep = jax.vmap(env.step)(state, actions)
        return state, (state.replace(key=None), timestep)  # type: ignore[attr-defined]

    state, timestep = jit_resets(env, jax.random.split(jax.random.key(0), 50))
    keys = jax.random.split(jax.random.key(1), 100)
    rest = jax.jit(lambda state: jax.lax.scan(one, state, keys)[1])(state)
    first = (state.replace(key=None), timestep)
    return jax.tree.map(lambda one, more: np.concatenate([one[None], more]), first, rest)


# The order of moves.


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        # Cells 0 to 5 in a row. Entities stand on 0, 1, 2 in this order.
        pytest.param((RIGHT, RIGHT, RIGHT), (1, 2, 3), id="a chain moves up by one"),
        pytest.param((RIGHT, RIGHT, STAY), (0, 1, 2), id="a chain behind one that stays"),
        pytest.param((RIGHT, RIGHT, UP), (0, 1, 2), id="a chain behind one at a wall"),
        pytest.param((RIGHT, LEFT, LEFT), (0, 1, 2), id="two that swap, and one behind them"),
        pytest.param((LEFT, LEFT, RIGHT), (0, 1, 3), id="a wall holds up the one behind"),
        pytest.param((STAY, RIGHT, RIGHT), (0, 2, 3), id="the last two of three"),
    ],
)
def test_moves_in_a_row(moves: tuple[int, ...], expected: tuple[int, ...]) -> None:
    cells = jnp.asarray([0, 1, 2])
    targets = grid.destinations(cells, jnp.asarray(moves), 1, 6)
    assert move_in_turn(cells, targets).tolist() == list(expected)


@pytest.mark.parametrize(
    ("cells", "moves", "expected"),
    [
        # On 3 x 3:  0 1 2 / 3 4 5 / 6 7 8.
        pytest.param((0, 2), (RIGHT, LEFT), (1, 2), id="the lower index gets the cell"),
        pytest.param((2, 0), (LEFT, RIGHT), (1, 0), id="also from the other side"),
        pytest.param((0, 1, 4, 3), (RIGHT, DOWN, LEFT, UP), (0, 1, 4, 3), id="a ring of four stays"),
        pytest.param((6, 3, 0, 1, 4), (UP, UP, RIGHT, DOWN, LEFT), (6, 3, 0, 1, 4), id="so does its tail"),
        # 1 leaves cell 4 at its own turn; both 0 and 2 want it, and 0 comes first by making 1 go first.
        pytest.param((3, 4, 1), (RIGHT, RIGHT, DOWN), (4, 5, 1), id="who wakes the blocker goes first"),
        # 2 wants 4 and is woken by 0, before 1 has its turn: 2 gets the cell that 1 wants too.
        pytest.param((0, 7, 1), (RIGHT, UP, DOWN), (1, 7, 4), id="a woken one comes before lower indices"),
        # 0 has had its turn when 1 asks: it does not go again.
        pytest.param((4, 3), (STAY, RIGHT), (4, 3), id="who stays does not make way"),
        # 0 runs into 2, which runs into the wall; 1 wants 2's cell as well.
        pytest.param((4, 8, 5), (RIGHT, UP, RIGHT), (4, 8, 5), id="two blocked by one at the wall"),
    ],
)
def test_moves_on_a_square(cells: tuple[int, ...], moves: tuple[int, ...], expected: tuple[int, ...]) -> None:
    start = jnp.asarray(cells)
    targets = grid.destinations(start, jnp.asarray(moves), 3, 3)
    assert move_in_turn(start, targets).tolist() == list(expected)


# Beside the reference.


@pytest.mark.parametrize(
    "env",
    [
        pytest.param(SMALL, id="5x5"),
        pytest.param(LARGE, id="7x7", marks=pytest.mark.slow),
        pytest.param(CROWDED, id="crowded"),
        pytest.param(CORRIDOR, id="corridor", marks=pytest.mark.slow),
    ],
)
def test_steps_as_the_reference(env: PredatorPrey) -> None:
    games, steps = 20, 100
    rng = np.random.default_rng(0)
    n, m, empty = env.num_agents, env.num_prey, env.height * env.width - env.num_entities
    actions = rng.integers(0, 5, (steps, games, n))
    prey_moves = rng.integers(0, 5, (steps, games, m))
    places = rng.integers(0, empty, (steps, games, m))

    @jax.jit
    def run(state: PredatorPreyState) -> Any:
        def one(state: PredatorPreyState, choices: Any) -> Any:
            state, reward = jax.vmap(env.move)(state, *choices)
            return state, (state, reward, jax.vmap(env.observe)(state))

        return jax.lax.scan(one, state, (actions, prey_moves, places))[1]

    start = jit_resets(env, jax.random.split(jax.random.key(1), games))[0].replace(key=None)
    states, rewards, seen = jax.tree.map(np.asarray, run(start))

    caught = 0
    for game in range(games):
        first = start.predators[game].tolist(), start.prey[game].tolist()
        slow = ReferencePredatorPrey(env.height, env.width, float(env.penalty), *first)
        views, wholes = [], []
        for step in range(steps):
            now = (step, game)
            reward, beside = slow.step(actions[now], prey_moves[now], places[now])
            assert states.predators[now].tolist() == slow.cells(slow.predators)
            assert states.prey[now].tolist() == slow.cells(slow.prey)
            assert states.hunters[now].tolist() == beside
            assert states.step_count[now] == step + 1
            assert rewards[now] == pytest.approx(reward)
            views.append(slow.view(None if env.full_view else env.view, env.sees_predators))
            wholes.append(slow.whole())
            caught += sum(count >= 2 for count in beside)
        np.testing.assert_allclose(seen.agents_view[:, game], views, atol=1e-6)
        np.testing.assert_allclose(seen.global_state[:, game], wholes, atol=1e-6)
    assert caught >= 20  # the run has seen prey re-placed


# Rewards, by hand, on 5 x 5:  0..4 / 5..9 / 10..14 / 15..19 / 20..24.


@pytest.mark.parametrize(
    ("predators", "reward", "hunters"),
    [
        ([7, 17], 1.0, 2),
        ([7, 24], -1.5, 1),
        ([6, 18], 0.0, 0),  # diagonal neighbours do not count
        ([10, 14], 0.0, 0),  # two cells away neither
    ],
)
def test_reward_of_one_prey(predators: list[int], reward: float, hunters: int) -> None:
    state, paid = move(SMALL, at(SMALL, predators, [12]), [STAY, STAY], [STAY], [0])
    assert paid == reward
    assert state.hunters.tolist() == [hunters]
    assert state.predators.tolist() == predators
    assert state.prey.tolist() == ([0] if hunters == 2 else [12])


def test_cells_across_the_edge_are_no_neighbours() -> None:
    # Cells 4 and 5 are one apart in number, but at opposite ends of two rows.
    assert move(SMALL, at(SMALL, [4, 24], [5]), [STAY, STAY], [STAY], [0])[1] == 0.0


def test_rewards_of_two_prey_add_up() -> None:
    env = predator_prey(predators=3, prey=2, penalty=0.5)
    # 12 lies between 7 and 17; 19 touches 24 only.
    assert move(env, at(env, [7, 17, 24], [12, 19]), [STAY] * 3, [STAY] * 2, [0, 0])[1] == 0.5
    # Three around 12 pay no more than two; 0 touches nobody.
    assert move(env, at(env, [7, 17, 11], [12, 0]), [STAY] * 3, [STAY] * 2, [0, 0])[1] == 1.0


def test_prey_is_judged_after_it_has_moved() -> None:
    state, reward = move(SMALL, at(SMALL, [6, 8], [12]), [STAY, STAY], [UP], [20])
    assert reward == 1.0  # at 7, between 6 and 8
    assert state.prey.tolist() == [23]  # the 20th of the cells that are not 6, 7, 8


def test_prey_are_put_down_one_after_the_other() -> None:
    env = predator_prey(predators=2, prey=2, height=3, width=3, view=3)
    # 1 and 7 beside 4; 1 and 3 beside 0. Both prey are caught at once; the empty cells are 2, 3, 5, 6, 8.
    start = at(env, [1, 3], [4, 0])
    state, reward = move(env, start, [STAY] * 2, [STAY] * 2, [0, 0])
    assert reward == 2.0
    # The first goes to 2 and leaves 4 empty. The second finds 4, 5, 6, 7, 8 empty: 0 is still its own.
    assert state.prey.tolist() == [2, 4]
    assert move(env, start, [STAY] * 2, [STAY] * 2, [4, 4])[0].prey.tolist() == [8, 7]


def test_penalties_are_a_batch_of_games() -> None:
    penalties = jnp.asarray([0.5, 1.0, 1.5])
    envs = jax.vmap(lambda penalty: SMALL.replace(penalty=penalty))(penalties)  # type: ignore[attr-defined]
    state = at(SMALL, [7, 24], [12])
    stay = jnp.asarray([STAY])
    rewards = jax.jit(jax.vmap(lambda env: env.move(state, jnp.asarray([STAY, STAY]), stay, stay)[1]))(envs)
    assert rewards.tolist() == [-0.5, -1.0, -1.5]


# Properties of whole games played by `step`.


@pytest.mark.parametrize("env", [pytest.param(SMALL, id="5x5"), pytest.param(CROWDED, id="crowded")])
def test_properties_of_random_games(env: PredatorPrey) -> None:
    states, timesteps = random_run(env)
    cells = np.concatenate([states.predators, states.prey], axis=-1).astype(int)  # (T + 1, games, E)
    assert cells.min() >= 0 and cells.max() < env.height * env.width
    ordered = np.sort(cells, axis=-1)
    assert (ordered[..., 1:] != ordered[..., :-1]).all()

    y, x = np.divmod(cells, env.width)
    n = env.num_agents
    apart = abs(x[..., None, :n] - x[..., n:, None]) + abs(y[..., None, :n] - y[..., n:, None])
    beside = (apart == 1).sum(axis=-1)  # (T + 1, games, m), by the positions after the step
    hunters = states.hunters[1:]
    same = hunters < 2  # those stand where they were judged
    assert (hunters[same] == beside[1:][same]).all()
    assert (hunters >= 2).sum() > 20 and (hunters == 1).sum() > 20
    expected = (hunters >= 2).sum(axis=-1) - float(env.penalty) * (hunters == 1).sum(axis=-1)
    np.testing.assert_allclose(timesteps.reward[1:], expected)

    # Nobody moves by more than one cell, except prey that were caught.
    stride = abs(np.diff(x, axis=0)) + abs(np.diff(y, axis=0))
    assert stride[..., :n].max() == 1
    assert stride[..., n:][same].max() == 1


def test_an_episode_is_cut_off_after_100_steps() -> None:
    _, timesteps = random_run(SMALL)
    assert (timesteps.step_type == [[0]] + [[1]] * 99 + [[2]]).all()
    assert (timesteps.discount == 1.0).all()  # targets bootstrap through the end
    assert (timesteps.observation.step_count == np.arange(101)[:, None]).all()


def frequencies(values: np.ndarray) -> dict[int, float]:
    kinds, counts = np.unique(values, return_counts=True)
    return dict(zip(kinds.tolist(), (counts / values.size).tolist(), strict=True))


def test_random_choices_are_uniform() -> None:
    games = 20_000
    keys = jax.random.split(jax.random.key(5), games)
    stay = jnp.asarray([STAY, STAY])

    @jax.jit
    def prey_after(cells: list[int]) -> jax.Array:
        start = SMALL.place(jnp.asarray(cells))
        play = jax.vmap(lambda key: SMALL.step(start.replace(key=key), stay)[0].prey[0])  # type: ignore[attr-defined]
        return play(keys)

    moved = frequencies(np.asarray(prey_after([0, 24, 12])))
    assert set(moved) == {7, 11, 12, 13, 17}
    assert all(abs(share - 1 / 5) < 0.015 for share in moved.values())  # five standard deviations

    # Between 19 and 23 in its corner, the prey runs into a wall or a predator, and is caught.
    placed = frequencies(np.asarray(prey_after([19, 23, 24])))
    assert set(placed) == set(range(25)) - {19, 23, 24}
    assert all(abs(share - 1 / 22) < 0.0075 for share in placed.values())

    starts, _ = jit_resets(SMALL, keys)
    for cells in (starts.predators[:, 0], starts.predators[:, 1], starts.prey[:, 0]):
        share = frequencies(np.asarray(cells))
        assert set(share) == set(range(25))
        assert all(abs(value - 1 / 25) < 0.007 for value in share.values())


def test_reset_and_step_depend_on_the_key_alone() -> None:
    keys = jax.random.split(jax.random.key(2), 4)
    together, _ = jit_resets(SMALL, keys)
    alone, _ = jit_resets(SMALL, keys[2:3])
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[2:3], together), alone)
    assert len({tuple(row) for row in together.predators.tolist()}) == 4
    stay = jnp.full((2,), STAY)
    first, again = (jit_step(SMALL, jax.tree.map(lambda leaf: leaf[0], alone), stay) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    assert (jax.random.key_data(first[0].key) != jax.random.key_data(alone.key[0])).any()


# What is seen.


@pytest.mark.parametrize(
    ("view", "first", "second"),
    [
        pytest.param({}, [1, 0.2, 0.4], [1, -0.2, -0.4], id="prey"),
        pytest.param(
            {"sees_predators": True}, [0, 0, 0, 1, 0.2, 0.4], [0, 0, 0, 1, -0.2, -0.4], id="teammates"
        ),
        pytest.param({"full_view": True}, [0.4, 0.8, 0.2, 0.4], [-0.4, -0.8, -0.2, -0.4], id="full"),
    ],
)
def test_observation_by_hand(view: dict[str, bool], first: list[float], second: list[float]) -> None:
    # On 5 x 5: predator 0 at (1, 0), predator 1 at (3, 4), prey at (2, 2). Own positions come first.
    states = jax.tree.map(lambda leaf: leaf[None], at(SMALL, [1, 23], [12]))
    seen = jax.tree.map(lambda leaf: leaf[0], jit_looks(predator_prey(**view), states))  # type: ignore[arg-type]
    np.testing.assert_allclose(seen.agents_view, [[-0.3, -0.5, *first], [0.1, 0.3, *second]], atol=1e-6)
    np.testing.assert_allclose(seen.global_state, [-0.3, -0.5, 0.1, 0.3, -0.1, -0.1], atol=1e-6)
    assert seen.action_mask.tolist() == [[True] * 5] * 2


@pytest.mark.parametrize(
    ("ending", "features", "fully_observable"),
    [("", 8, False), ("-teammates", 17, False), ("-full", 12, True)],
)
@pytest.mark.parametrize("penalty", ["", "-p1", "-p1.5"])
def test_what_predators_see_in_the_registered_games(
    penalty: str, ending: str, features: int, fully_observable: bool
) -> None:
    game: Any = envs.make(f"predator-prey-4{penalty}{ending}")  # four predators, two prey
    assert game.observation_spec.agents_view.shape == (4, features)
    assert game.fully_observable == fully_observable
    assert float(game.penalty) == float(penalty.removeprefix("-p") or 0.5)


def random_states(env: PredatorPrey, count: int) -> PredatorPreyState:
    return jit_resets(env, jax.random.split(jax.random.key(9), count))[0]


def test_observe_needs_no_key() -> None:
    states = random_states(SMALL, 50)
    plain = jit_looks(SMALL, states)
    chex.assert_trees_all_equal(plain, jit_looks(SMALL, states.replace(key=None)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("full_view", [False, True])
def test_permuted_predators_see_permuted_things(full_view: bool) -> None:
    env = predator_prey(predators=4, prey=2, height=7, width=7, full_view=full_view, sees_predators=True)
    states = random_states(env, 50)
    order = np.asarray([2, 0, 3, 1])
    plain = jit_looks(env, states)
    permuted = jit_looks(env, states.replace(predators=states.predators[:, order]))  # type: ignore[attr-defined]

    def table(view: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Own features, what i sees of predator j (50, n, n, ...), and the prey."""
        width = 2 if full_view else 3
        slots = np.asarray(view[:, :, 2:]).reshape(50, 4, 5, width)
        teammates = np.zeros((50, 4, 4, width))
        for i in range(4):
            teammates[:, i, [j for j in range(4) if j != i]] = slots[:, i, :3]
        return np.asarray(view[:, :, :2]), teammates, slots[:, :, 3:]

    own, teammates, prey = table(plain.agents_view)
    own_after, teammates_after, prey_after = table(permuted.agents_view)
    np.testing.assert_array_equal(own_after, own[:, order])
    np.testing.assert_array_equal(teammates_after, teammates[:, order][:, :, order])
    np.testing.assert_array_equal(prey_after, prey[:, order])
    assert teammates.any()


@pytest.mark.parametrize("view", [3, 5])
def test_partial_view_is_the_full_view_where_it_reaches(view: int) -> None:
    part = predator_prey(predators=4, prey=2, height=7, width=9, view=view, sees_predators=True)
    full = predator_prey(predators=4, prey=2, height=7, width=9, full_view=True)
    states = random_states(part, 100)
    little = np.asarray(jit_looks(part, states).agents_view)
    much = np.asarray(jit_looks(full, states).agents_view)
    np.testing.assert_array_equal(little[..., :2], much[..., :2])
    slots, true = little[..., 2:].reshape(100, 4, 5, 3), much[..., 2:].reshape(100, 4, 5, 2)
    seen = slots[..., 0] == 1
    away = np.rint(np.abs(true * [9, 7])).max(axis=-1)  # in cells
    np.testing.assert_array_equal(seen, away <= view // 2)
    np.testing.assert_array_equal(slots[..., 1:][seen], true[seen])
    assert not slots[~seen].any() and seen.any() and not seen.all()
    assert full.fully_observable and not part.fully_observable


def test_the_view_of_section_c1_has_prey_alone() -> None:
    """Own coordinates and the prey's slots, as they are beside those of the other predators."""
    size: Any = {"predators": 4, "prey": 2, "height": 7, "width": 7}
    prey, teammates = predator_prey(**size), predator_prey(**size, sees_predators=True)
    states = random_states(prey, 20)
    little, much = (np.asarray(jit_looks(env, states).agents_view) for env in (prey, teammates))
    assert little.shape == (20, 4, 2 + 2 * 3)
    np.testing.assert_array_equal(little, much[..., [0, 1, *range(-6, 0)]])
    assert little[..., 2:].any()
    assert not prey.fully_observable and not teammates.fully_observable


def test_a_run_saved_before_the_view_of_section_c1_loads_with_its_own() -> None:
    saved = to_json(predator_prey(sees_predators=True))
    del saved["sees_predators"]
    assert from_json(saved).sees_predators


# As a Jumanji environment, and for replay.


@pytest.mark.slow
def test_does_not_smoke() -> None:
    check_env_does_not_smoke(SMALL)
    check_env_specs_does_not_smoke(SMALL)


def test_transition_fits_in_32_bytes() -> None:
    state = at(LARGE, [0, 1, 2, 3], [4, 5])
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) == 9
    assert 2 * 9 + LARGE.num_agents + 4 <= 32  # two states, actions in int8, a float32 reward


def test_large_grids_get_larger_integers() -> None:
    env = predator_prey(predators=2, prey=1, height=12, width=12, time_limit=200)
    state, _ = move(env, at(env, [143, 0], [100]), [STAY, STAY], [STAY], [0])
    assert state.predators.dtype == jnp.int16 and state.predators.tolist() == [143, 0]
    assert state.step_count.dtype == jnp.int16


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"predators": 1}, r"predators must be at least 2 \(a single one can only ever be fined\), not 1"),
        ({"predators": True}, "predators must be a whole number, not True"),
        ({"predators": 64, "prey": 65, "height": 99}, "at most 128 agents and prey together, not 129"),
        ({"prey": 0}, "prey must be at least 1, not 0"),
        (
            {"height": 1, "width": 3, "view": 1},
            "1 x 3 is too small for 3 agents and prey: .* at least 4 cells",
        ),
        ({"height": 0}, "height must be at least 1, not 0"),
        ({"height": -5, "width": -5}, "height must be at least 1, not -5"),
        ({"height": 2**16, "width": 2**15}, "65536 x 32768 has more cells than a 32-bit integer can index"),
        ({"height": 2**40}, "height must be at most 2147483647"),
        ({"penalty": -0.5}, r"penalty must be at least 0 \(it is subtracted\), not -0.5"),
        ({"penalty": float("nan")}, "penalty must be at least 0"),
        ({"penalty": float("inf")}, "penalty must be a finite number, not inf"),
        ({"penalty": "high"}, "penalty must be a number, not 'high'"),
        ({"view": 4}, "odd number of cells from 1 to 5 .* not 4"),
        ({"view": 7}, "odd number of cells from 1 to 5 .* not 7"),
        ({"view": -1}, "view must be at least 1, not -1"),
        ({"height": 3, "width": 9}, "odd number of cells from 1 to 3 on a grid of 3 x 9, not 5"),
        ({"time_limit": 0}, "time_limit must be from 1 to 32767, not 0"),
        ({"time_limit": 32_768}, "time_limit must be from 1 to 32767, not 32768"),
        ({"time_limit": 99_999_999}, "time_limit must be from 1 to 32767, not 99999999"),
    ],
)
def test_bad_input(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as error:
        predator_prey(**parameters)
    assert "\n" not in str(error.value)


# Pictures.


def test_viewer_draws_each_state() -> None:
    first = SMALL.render(at(SMALL, [0, 24], [12]))
    second = SMALL.render(at(SMALL, [0, 24], [13]))
    assert first.dtype == np.uint8 and first.ndim == 3
    assert (first != second).any()
    np.testing.assert_array_equal(SMALL.render(at(SMALL, [0, 24], [12])), first)  # nothing is left over
    plt.close("all")


def test_viewer_tells_rewards_and_neighbours() -> None:
    start = at(SMALL, [6, 8], [12])
    caught, _ = move(SMALL, start, [STAY, STAY], [UP], [20])
    fined, _ = move(SMALL, at(SMALL, [7, 24], [12]), [STAY, STAY], [STAY], [0])
    figure = plt.figure()
    viewer = PredatorPreyViewer(5, 5, penalty=1.5)
    viewer.draw(figure, [start, caught, fined])
    axes = figure.axes[0]
    assert axes.get_title() == "step 1, reward -1.5, return -0.5"
    assert [text.get_text() for text in axes.texts] == ["0", "1", "0"]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[2, 2], [2, 1]]]  # prey to predator 0
    plt.close("all")


def test_animation_is_written_as_gif(tmp_path: Path) -> None:
    states = [at(SMALL, [0, 24], [12]), at(SMALL, [1, 24], [12]), at(SMALL, [2, 24], [12])]
    path = tmp_path / "hunt.gif"
    SMALL.animate(states, interval=200, save_path=str(path))
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        assert picture.info["duration"] == 200
