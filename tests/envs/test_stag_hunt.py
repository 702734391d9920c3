import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jumanji.testing.env_not_smoke import check_env_does_not_smoke
from PIL import Image

import envs
from envs.errors import BadInputError
from envs.stag_hunt import CATCH, DOWN, LEFT, NUM_CHOICES, RIGHT, STAY, UP, StagHunt, StagHuntState, stag_hunt
from envs.stag_hunt_viewer import StagHuntViewer
from jaxmarl_fac.exploration import epsilon_greedy
from tests.reference.stag_hunt import ReferenceStagHunt

PAPER = stag_hunt()
# 4 agents and 3 prey on 12 cells: blocked moves, prey without a free cell and catches in most games.
CROWDED = stag_hunt(agents=4, prey=3, height=3, width=4, punishment=-1.5, view=3, time_limit=50)
CORRIDOR = stag_hunt(agents=3, prey=2, height=1, width=8, punishment=-0.5, capture_reward=2.0, view=7)

# An environment is a pytree: these compile once for each size, whatever its rewards.
jit_move = jax.jit(lambda env, *arguments: env.move(*arguments))
jit_step = jax.jit(lambda env, *arguments: env.step(*arguments))
jit_resets = jax.jit(lambda env, keys: jax.vmap(env.reset)(keys))
jit_look = jax.jit(lambda env, state: env.observe(state))


def at(env: StagHunt, agents: list[int], prey: list[int]) -> StagHuntState:
    return env.place(jnp.asarray([*agents, *prey]))


def move(
    env: StagHunt,
    state: StagHuntState,
    actions: list[int],
    agent_turns: list[int] | None = None,
    prey_turns: list[int] | None = None,
    choices: list[int] | None = None,
) -> tuple[StagHuntState, float]:
    """One step; by default everybody has its turn by index, and prey go to the first free cell."""
    agent_turns = agent_turns or list(range(env.num_agents))
    prey_turns = prey_turns or list(range(env.num_prey))
    choices = choices or [0] * env.num_prey
    state, reward = jit_move(env, state, *map(jnp.asarray, (actions, agent_turns, prey_turns, choices)))
    return state, float(reward)


def some_available(mask: jax.Array, draws: jax.Array) -> jax.Array:
    """The `draws`-th of each agent's available actions; catch counts three times."""
    weight = mask * jnp.asarray([1, 1, 1, 1, 1, 3])
    ends = jnp.cumsum(weight, axis=-1)
    return (ends <= (draws % ends[..., -1])[..., None]).sum(axis=-1)


@functools.cache
def random_run(env: StagHunt) -> Any:
    """400 games of 250 steps by `env.step` and the engine's exploration: states, time steps, masks, actions.

    All (T, 400). A game that is over starts anew; its last state is followed by a first one, with time
    step type 0.
    """
    games, steps = 400, 250

    def one(carry: Any, key: jax.Array) -> Any:
        state, last, mask = carry
        act_key, utility_key, reset_key = jax.random.split(key, 3)
        utilities = jax.random.normal(utility_key, mask.shape) - 1e9 * ~mask
        actions = jax.vmap(epsilon_greedy, (0, 0, 0, None))(
            jax.random.split(act_key, games), utilities, mask, jnp.float32(0.5)
        )
        stepped = jax.vmap(env.step)(state, actions)
        fresh = jax.vmap(env.reset)(jax.random.split(reset_key, games))
        state, timestep = jax.vmap(lambda over, a, b: jax.tree.map(lambda x, y: jnp.where(over, x, y), a, b))(
            last, fresh, stepped
        )
        now = timestep.observation.action_mask
        kept = state.replace(key=None), timestep.replace(observation=None), mask, actions
        return (state, timestep.last(), now), kept

    @jax.jit
    def run(keys: jax.Array) -> Any:
        state, timestep = jax.vmap(env.reset)(keys)
        carry = state, timestep.last(), timestep.observation.action_mask
        return jax.lax.scan(one, carry, jax.random.split(jax.random.key(1), steps))[1]

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), games)))


# Beside the reference.


@pytest.mark.parametrize(
    ("env", "catches"),
    [
        pytest.param(PAPER, 20, id="10x10"),
        pytest.param(CROWDED, 20, id="crowded"),
        pytest.param(CORRIDOR, 10, id="corridor", marks=pytest.mark.slow),
    ],
)
def test_steps_as_the_reference(env: StagHunt, catches: int) -> None:
    """24 games of 100 steps, state for state, the last 4 with actions that may not be available.

    Nobody resets them when they are over.
    """
    games, steps = 24, 100
    available = np.arange(games)[:, None] < 20
    rng = np.random.default_rng(0)
    n, m = env.num_agents, env.num_prey
    agent_orders = rng.permuted(np.tile(np.arange(n), (steps, games, 1)), axis=-1)
    prey_orders = rng.permuted(np.tile(np.arange(m), (steps, games, 1)), axis=-1)
    choices = rng.integers(0, NUM_CHOICES, (steps, games, m))
    draws = rng.integers(0, 840, (steps, games, n))  # a multiple of 1 to 8
    agent_turns, prey_turns = np.argsort(agent_orders, axis=-1), np.argsort(prey_orders, axis=-1)

    @jax.jit
    def run(env: StagHunt, state: StagHuntState) -> Any:
        def one(state: StagHuntState, given: Any) -> Any:
            draws, *random = given
            mask = jax.vmap(env.observe)(state).action_mask
            actions = jnp.where(available, some_available(mask, draws), draws % 6)
            state, reward = jax.vmap(env.move)(state, actions, *random)
            return state, (state, actions, reward, jax.vmap(env.observe)(state))

        return jax.lax.scan(one, state, (draws, agent_turns, prey_turns, choices))[1]

    start = jit_resets(env, jax.random.split(jax.random.key(1), games))[0].replace(key=None)
    states, actions, rewards, seen = jax.tree.map(np.asarray, run(env, start))

    caught = punished = frozen = 0
    for game in range(games):
        slow = ReferenceStagHunt(
            env.height,
            env.width,
            float(env.capture_reward),
            float(env.punishment),
            start.agents[game].tolist(),
            start.prey[game].tolist(),
        )
        views, wholes, masks = [], [], []
        for step in range(steps):
            now = (step, game)
            reward, tried = slow.step(actions[now], agent_orders[now], prey_orders[now], choices[now])
            for cells, places in ((states.agents[now], slow.agents), (states.prey[now], slow.prey)):
                assert [cell if cell >= 0 else None for cell in cells.tolist()] == slow.cells(places)
            assert states.catchers[now].tolist() == tried
            assert states.step_count[now] == step + 1
            assert rewards[now] == pytest.approx(reward)
            views.append(slow.view(env.view))
            wholes.append(slow.grid.ravel())
            masks.append(slow.masks())
            caught += sum(count >= 2 for count in tried)
            punished += sum(count == 1 for count in tried)
        frozen += slow.agents.count(None)
        np.testing.assert_array_equal(seen.agents_view[:, game], views)
        np.testing.assert_array_equal(seen.global_state[:, game], wholes)
        np.testing.assert_array_equal(seen.action_mask[:, game], masks)
    assert caught >= catches and punished >= 20 and frozen >= 2 * catches  # the run has seen what matters


# Rules by hand. On 4 x 4:  0..3 / 4..7 / 8..11 / 12..15.


SQUARE = stag_hunt(agents=3, prey=2, height=4, width=4)
#: Two agents at the far ends for games in which they do not matter.
AWAY = [12, 15]


@pytest.mark.parametrize(
    ("action", "cell"), [(RIGHT, 6), (DOWN, 9), (LEFT, 4), (UP, 1), (STAY, 5), (CATCH, 5)]
)
def test_actions(action: int, cell: int) -> None:
    state, reward = move(SQUARE, at(SQUARE, [5, *AWAY], [3, 11]), [action, STAY, STAY])
    assert state.agents.tolist() == [cell, *AWAY]
    assert reward == 0


@pytest.mark.parametrize(
    ("agents", "actions", "turns", "expected"),
    [
        ([0, 1, 15], [RIGHT, RIGHT, STAY], [0, 1, 2], [0, 2, 15]),  # the way was still barred
        ([0, 1, 15], [RIGHT, RIGHT, STAY], [1, 0, 2], [1, 2, 15]),  # it was free by then
        ([0, 2, 15], [RIGHT, LEFT, STAY], [0, 1, 2], [1, 2, 15]),  # who comes first gets the cell
        ([0, 2, 15], [RIGHT, LEFT, STAY], [2, 0, 1], [0, 1, 15]),
        ([0, 1, 15], [RIGHT, LEFT, STAY], [0, 1, 2], [0, 1, 15]),  # nobody swaps
        ([7, 0, 15], [RIGHT, UP, DOWN], [0, 1, 2], [7, 0, 15]),  # walls
    ],
)
def test_agents_move_in_their_order(
    agents: list[int], actions: list[int], turns: list[int], expected: list[int]
) -> None:
    state, _ = move(SQUARE, at(SQUARE, agents, [8, 12]), actions, agent_turns=turns)
    assert state.agents.tolist() == expected


def test_prey_bar_the_way_and_go_to_the_free_cell_that_was_drawn() -> None:
    start = at(SQUARE, [4, *AWAY], [5, 0])
    # Beside 5 are 6, 9, 4 and 1, of which 4 is taken: three free cells, in the order right, down, up.
    for choice, cell in enumerate([6, 9, 1, 6, 9, 1, 6, 9, 1, 6, 9, 1]):
        state, _ = move(SQUARE, start, [RIGHT, STAY, STAY], choices=[choice, 0])
        assert state.agents.tolist() == [4, *AWAY]
        assert state.prey.tolist()[0] == cell


def test_a_prey_rests_only_without_a_free_cell() -> None:
    state, _ = move(SQUARE, at(SQUARE, [1, 4, 15], [0, 10]), [STAY] * 3, choices=[3, 0])
    assert state.prey.tolist() == [0, 11]


def test_prey_move_in_their_order() -> None:
    start = at(SQUARE, [12, 14, 15], [0, 1])
    # By index, 0 finds 1 taken and goes down. The other way round 1 has gone to 2 by then.
    assert move(SQUARE, start, [STAY] * 3, prey_turns=[0, 1])[0].prey.tolist() == [4, 2]
    assert move(SQUARE, start, [STAY] * 3, prey_turns=[1, 0])[0].prey.tolist() == [1, 2]


def test_two_catch_and_leave_the_grid() -> None:
    state, reward = move(SQUARE, at(SQUARE, [4, 6, 15], [5, 3]), [CATCH, CATCH, STAY])
    assert reward == 10
    assert state.catchers.tolist() == [2, 0]
    assert state.prey.tolist() == [-1 - 5, 7]
    assert state.agents.tolist() == [-1 - 4, -1 - 6, 15]
    seen = jit_look(SQUARE, state)
    assert not seen.agents_view[:2].any()
    assert seen.action_mask.tolist()[:2] == [[False] * 4 + [True, False]] * 2
    assert seen.global_state.sum() == 2  # an agent and a prey are left
    # Where they stood is free: 15 is two steps away, the prey one.
    state, reward = move(SQUARE, state, [RIGHT, CATCH, UP], choices=[0, 2])
    assert state.prey.tolist() == [-6, 6] and reward == 0
    assert state.agents.tolist() == [-5, -7, 11]


def test_occupied_cells_may_be_unavailable() -> None:
    """As ReMIX's section D.1 has it; cells that have been left are free again."""
    masking = stag_hunt(agents=3, prey=2, height=4, width=4, mask_occupied=True)
    state = at(masking, [4, 6, 7], [5, 3])
    plain = [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
    masked = [[0, 1, 0, 1, 1, 1], [0, 1, 0, 1, 1, 1], [0, 1, 0, 0, 1, 1]]
    assert jit_look(SQUARE, state).action_mask.astype(int).tolist() == plain
    assert jit_look(masking, state).action_mask.astype(int).tolist() == masked
    # Prey 5 is caught by the first two agents; 3 has one free neighbour, 2.
    state, _ = move(masking, state, [CATCH, CATCH, STAY])
    assert state.agents.tolist() == [-5, -7, 7] and state.prey.tolist()[0] == -6
    seen = jit_look(masking, state).action_mask.astype(int).tolist()
    assert seen[:2] == [[0, 0, 0, 0, 1, 0]] * 2
    assert seen[2][LEFT] == 1 and seen[2][DOWN] == 1
    # In the corner beside another agent: not to the right; staying is always available.
    corner = jit_look(masking, at(masking, [0, 1, 15], [10, 11])).action_mask
    assert corner[0].astype(int).tolist() == [0, 1, 0, 0, 1, 0]


def test_two_beside_it_that_do_not_both_catch() -> None:
    state, reward = move(SQUARE, at(SQUARE, [4, 6, 15], [5, 3]), [CATCH, STAY, STAY], choices=[0, 0])
    assert reward == -2
    assert state.catchers.tolist() == [1, 0]
    assert state.agents.tolist() == [4, 6, 15]
    assert state.prey.tolist() == [9, 7]  # it has fled; right and left are taken


def test_diagonal_neighbours_and_the_other_end_of_a_row_do_not_count() -> None:
    assert move(SQUARE, at(SQUARE, [0, 10, 2], [5, 15]), [CATCH] * 3)[1] == 0
    assert move(SQUARE, at(SQUARE, [3, 11, 12], [4, 15]), [CATCH, STAY, STAY])[1] == 0


def test_third_catcher_is_frozen_too() -> None:
    state, reward = move(SQUARE, at(SQUARE, [4, 6, 1], [5, 15]), [CATCH] * 3)
    assert reward == 10
    assert (state.agents < 0).all() and state.catchers.tolist() == [3, 0]


def test_one_agent_between_two_prey_is_punished_twice() -> None:
    state, reward = move(SQUARE, at(SQUARE, [5, *AWAY], [4, 6]), [CATCH, STAY, STAY])
    assert reward == -4
    assert state.catchers.tolist() == [1, 1]


@pytest.mark.parametrize(("prey_turns", "caught"), [([0, 1], [2, 1]), ([1, 0], [1, 2])])
def test_who_has_caught_counts_for_no_later_prey(prey_turns: list[int], caught: list[int]) -> None:
    # 5 stands between the prey on 4 and 6; 0 is beside 4, 7 beside 6. Whoever comes first takes 5.
    state, reward = move(SQUARE, at(SQUARE, [0, 5, 7], [4, 6]), [CATCH] * 3, prey_turns=prey_turns)
    assert reward == 10 - 2
    assert state.catchers.tolist() == caught


def test_agents_have_moved_when_prey_are_caught() -> None:
    # 0 goes to 1, where it stands beside the prey on 5 but has not chosen to catch.
    state, reward = move(SQUARE, at(SQUARE, [0, 4, 15], [5, 11]), [RIGHT, CATCH, STAY])
    assert state.agents.tolist() == [1, 4, 15]
    assert reward == -2


# The end.


def play(env: StagHunt, state: StagHuntState, actions: list[int]) -> Any:
    return jit_step(env, state.replace(key=jax.random.key(0)), jnp.asarray(actions))  # type: ignore[attr-defined]


def test_over_when_all_prey_are_caught() -> None:
    state = at(SQUARE, [4, 6, 15], [5, 3]).replace(prey=jnp.asarray([5, ~3], jnp.int8))  # type: ignore[attr-defined]
    _, timestep = play(SQUARE, state, [CATCH, CATCH, STAY])
    assert timestep.last() and timestep.discount == 0 and timestep.reward == 10


def test_over_when_all_agents_are_frozen() -> None:
    _, timestep = play(SQUARE, at(SQUARE, [4, 6, 1], [5, 15]), [CATCH] * 3)
    assert timestep.last() and timestep.discount == 0
    _, timestep = play(SQUARE, at(SQUARE, [4, 6, 1], [5, 15]), [CATCH, CATCH, STAY])
    assert not timestep.last() and timestep.discount == 1


def test_cut_off_after_200_steps() -> None:
    state = at(PAPER, [0, 1, 2, 3, 4, 5, 6, 7], [90, 91, 92, 93, 94, 95, 96, 97])
    late = state.replace(step_count=jnp.asarray(198, jnp.int16))  # type: ignore[attr-defined]
    state, timestep = play(PAPER, late, [STAY] * 8)
    assert not timestep.last() and timestep.observation.step_count == 199
    _, timestep = play(PAPER, state, [STAY] * 8)
    assert timestep.last() and timestep.discount == 1  # targets bootstrap through the end


def test_four_catches_pay_40() -> None:
    # Eight agents on both sides of four prey, in the very last step: it is over rather than cut off.
    agents, prey = [0, 2, 20, 22, 40, 42, 60, 62], [1, 21, 41, 61, 9, 29, 49, 69]
    late = at(PAPER, agents, prey).replace(step_count=jnp.asarray(199, jnp.int16))  # type: ignore[attr-defined]
    state, timestep = play(PAPER, late, [CATCH] * 8)
    assert timestep.reward == 40 and timestep.last() and timestep.discount == 0
    assert (state.prey < 0).tolist() == [True] * 4 + [False] * 4


# Properties of 10^5 steps played by `step`.


def test_properties_of_random_games() -> None:
    env = CROWDED
    states, timesteps, _, _ = random_run(env)
    later = timesteps.step_type[1:] != 0  # steps, rather than new games
    cells = np.concatenate([states.agents, states.prey], axis=-1).astype(int)  # (T, games, E)
    n, gone = env.num_agents, cells < 0
    last_cells = np.where(gone, ~cells, cells)
    # No two on one cell, and nobody off the grid.
    assert last_cells.max() < env.height * env.width
    standing = np.sort(np.where(gone, -1 - np.arange(cells.shape[-1]), cells), axis=-1)
    assert (standing[..., 1:] != standing[..., :-1]).all()
    # Who has left stays away, on the same cell, and nobody moves by more than one.
    assert (cells[1:][later] == cells[:-1][later])[gone[:-1][later]].all()
    y, x = np.divmod(last_cells, env.width)
    assert (abs(np.diff(x, axis=0)) + abs(np.diff(y, axis=0)))[later].max() == 1
    # Agents leave by twos or more, one prey with each group.
    left, catchers = (gone[1:] & ~gone[:-1])[later], states.catchers[1:][later]
    catches = (catchers >= 2).sum(axis=-1)
    assert (left[:, n:].sum(axis=-1) == catches).all() and catches.sum() > 1000
    assert (left[:, :n].sum(axis=-1) == (catchers * (catchers >= 2)).sum(axis=-1)).all()
    np.testing.assert_array_equal(
        timesteps.reward[1:][later], 10 * catches - 1.5 * (catchers == 1).sum(axis=-1)
    )
    # The end: terminated where nothing is left to do, and cut off at the limit.
    over = gone[..., :n].all(axis=-1) | gone[..., n:].all(axis=-1)
    assert ((timesteps.discount == 0) == over)[1:][later].all()
    assert ((timesteps.step_type == 2) == over | (states.step_count >= env.time_limit))[1:][later].all()
    assert over.sum() > 100 and (states.step_count >= env.time_limit).sum() > 100


def test_actions_that_are_not_available_are_never_chosen() -> None:
    _, timesteps, masks, actions = random_run(CROWDED)
    assert actions.shape[0] * actions.shape[1] == 100_000
    played = np.take_along_axis(masks, actions[..., None], axis=-1)[..., 0]
    assert played[timesteps.step_type != 0].all()  # where a new game starts nothing was played
    assert masks.any(axis=-1).all() and not masks.all(axis=-1).all()
    assert set(actions.ravel().tolist()) == set(range(6))


@jax.jit
def jit_game(env: StagHunt, key: jax.Array) -> Any:
    """30 steps of available actions."""

    def one(state: StagHuntState, key: jax.Array) -> Any:
        mask = env.observe(state).action_mask
        actions = some_available(mask, jax.random.randint(key, (env.num_agents,), 0, 840))
        state, timestep = env.step(state, actions)
        return state, (state.replace(key=None), timestep)  # type: ignore[attr-defined]

    return jax.lax.scan(one, env.reset(key)[0], jax.random.split(key, 30))[1]


@pytest.mark.slow
@settings(max_examples=60)
@given(
    # Agents, prey, height, width: full from the start, and more prey than can be caught.
    st.sampled_from([(3, 1, 2, 2), (5, 4, 5, 3)]),
    st.floats(-3, 0, width=16, allow_subnormal=False),
    st.floats(0, 20, width=16, allow_subnormal=False),
    st.integers(0, 2**31 - 1),
)
def test_any_game_keeps_its_promises(
    size: tuple[int, int, int, int], punishment: float, capture_reward: float, seed: int
) -> None:
    agents, prey, height, width = size
    env = stag_hunt(agents, prey, height, width, punishment, capture_reward, view=3, time_limit=30)
    states, timesteps = jax.tree.map(np.asarray, jit_game(env, jax.random.key(seed)))
    # Nobody is lost or doubled: the grid shows all who have not left, each on a cell of its own.
    grids = timesteps.observation.global_state.reshape(30, -1, 3)
    active, free = (states.agents >= 0).sum(axis=1), (states.prey >= 0).sum(axis=1)
    assert (grids.sum(axis=1) == np.stack([active, free, np.zeros(30)], axis=1)).all()
    assert grids.sum(axis=-1).max() == 1
    # A catch takes two, and a return lies between its bounds.
    catches = prey - free[-1]
    assert agents - active[-1] >= 2 * catches
    rewards = timesteps.reward.astype(float)
    assert rewards.sum() <= capture_reward * catches + 1e-3 <= capture_reward * min(agents // 2, prey) + 2e-3
    assert (rewards >= punishment * prey - 1e-3).all()
    assert (rewards[states.catchers.max(axis=1) == 0] == 0).all()


def frequencies(values: np.ndarray) -> dict[Any, float]:
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    kinds = [tuple(kind) if isinstance(kind, list) else kind for kind in kinds.tolist()]
    return dict(zip(kinds, (counts / len(values)).tolist(), strict=True))


@jax.jit
def after_one_step(agents: jax.Array, prey: jax.Array, actions: jax.Array, keys: jax.Array) -> StagHuntState:
    """Where everybody of SQUARE is after one step, for each key."""
    start = SQUARE.place(jnp.concatenate([agents, prey]))
    play = jax.vmap(lambda key: SQUARE.step(start.replace(key=key), actions)[0].replace(key=None))  # type: ignore[attr-defined]
    return play(keys)


def outcomes(agents: list[int], prey: list[int], actions: list[int]) -> StagHuntState:
    keys = jax.random.split(jax.random.key(5), 20_000)
    return after_one_step(*map(jnp.asarray, (agents, prey, actions)), keys)


def test_random_choices_are_uniform() -> None:
    """All within five standard deviations of 20,000 draws."""
    # A prey with two free cells, and one with three.
    prey = frequencies(np.asarray(outcomes([0, 3, 7], [4, 15], [STAY] * 3).prey[:, 0]))
    assert set(prey) == {5, 8}
    assert all(abs(share - 1 / 2) < 0.018 for share in prey.values())
    prey = frequencies(np.asarray(outcomes([4, 0, 3], [5, 15], [STAY] * 3).prey[:, 0]))
    assert set(prey) == {6, 9, 1}
    assert all(abs(share - 1 / 3) < 0.017 for share in prey.values())
    # Three agents around cell 5 all want it: each gets it as often.
    agents = frequencies(np.asarray(outcomes([4, 6, 1], [15, 12], [RIGHT, LEFT, DOWN]).agents))
    assert set(agents) == {(5, 6, 1), (4, 5, 1), (4, 6, 5)}
    assert all(abs(share - 1 / 3) < 0.017 for share in agents.values())
    # Of 0, 1, 2 in a row that all go right, 2 can; 1 can after 2, and 0 after that.
    agents = frequencies(np.asarray(outcomes([0, 1, 2], [15, 12], [RIGHT] * 3).agents))
    expected = {(0, 1, 3): 1 / 2, (0, 2, 3): 1 / 3, (1, 2, 3): 1 / 6}
    assert agents.keys() == expected.keys()
    assert all(abs(agents[kind] - share) < 0.018 for kind, share in expected.items())


def test_prey_have_their_turns_in_every_order() -> None:
    share = frequencies(np.asarray(outcomes([13, 14, 15], [0, 1], [STAY] * 3).prey))
    # 0 first (half): it must go to 4, then 1 has 2, 5 and 0. 1 first: it has 2 and 5, then 0 has 1 and 4.
    expected = {(4, 2): 1 / 6 + 1 / 8, (4, 5): 1 / 6 + 1 / 8, (4, 0): 1 / 6, (1, 2): 1 / 8, (1, 5): 1 / 8}
    assert share.keys() == expected.keys()
    assert all(abs(share[kind] - value) < 0.0165 for kind, value in expected.items())


def test_starts_are_uniform() -> None:
    starts, _ = jit_resets(SQUARE, jax.random.split(jax.random.key(5), 20_000))
    for cells in (starts.agents[:, 0], starts.agents[:, 2], starts.prey[:, 1]):
        share = frequencies(np.asarray(cells))
        assert set(share) == set(range(16))
        assert all(abs(value - 1 / 16) < 0.0086 for value in share.values())


def test_reset_and_step_depend_on_the_key_alone() -> None:
    keys = jax.random.split(jax.random.key(2), 4)
    together, _ = jit_resets(PAPER, keys)
    alone, _ = jit_resets(PAPER, keys[2:3])
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[2:3], together), alone)
    assert len({tuple(row) for row in together.agents.tolist()}) == 4
    stay = jnp.full((8,), STAY)
    first, again = (jit_step(PAPER, jax.tree.map(lambda leaf: leaf[0], alone), stay) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    assert (jax.random.key_data(first[0].key) != jax.random.key_data(alone.key[0])).any()


# What is seen.


def test_observation_by_hand() -> None:
    env = stag_hunt(agents=2, prey=2, height=3, width=4, view=3)
    # Agents at (0, 0) and (1, 1), prey at (1, 0) and (3, 2).
    seen = jit_look(env, at(env, [0, 5], [1, 11]))
    a, p, o = [1, 0, 0], [0, 1, 0], [0, 0, 0]
    corner = [o, o, o, o, a, p, o, o, a]
    middle = [a, p, o, o, a, o, o, o, o]
    np.testing.assert_array_equal(seen.agents_view, [np.ravel(corner), np.ravel(middle)])
    np.testing.assert_array_equal(seen.global_state, np.ravel([a, p, o, o, o, a, o, o, o, o, o, p]))
    #  right, down, left, up, stay, catch
    assert seen.action_mask.tolist() == [[True, True, False, False, True, True], [True] * 6]
    seen = jit_look(PAPER, at(PAPER, list(range(8)), list(range(8, 16))))
    assert seen.agents_view.shape == (8, 75)
    PAPER.observation_spec.validate(seen)


# As a Jumanji environment, for replay, and in the registry.


@pytest.mark.slow
def test_does_not_smoke() -> None:
    check_env_does_not_smoke(CROWDED)


def test_a_state_is_26_bytes() -> None:
    state = at(PAPER, list(range(8)), list(range(8, 16)))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) == 26


def test_large_grids_get_larger_integers() -> None:
    env = stag_hunt(agents=2, prey=1, height=12, width=12, time_limit=100)
    state, reward = move(env, at(env, [143, 130], [142]), [CATCH, CATCH])
    assert reward == 10
    assert state.agents.dtype == jnp.int16 and state.agents.tolist() == [-144, -131]
    assert state.step_count.dtype == jnp.int8


def test_punishments_and_rewards_are_a_batch_of_games() -> None:
    batch = jax.vmap(lambda p, r: SQUARE.replace(punishment=p, capture_reward=r))  # type: ignore[attr-defined]
    games = batch(jnp.asarray([0.0, -1.25]), jnp.asarray([10.0, 4.0]))
    state = at(SQUARE, [0, 5, 7], [4, 6])
    order = jnp.arange(3), jnp.arange(2), jnp.zeros((2,), jnp.int32)
    play = jax.vmap(lambda env: env.move(state, jnp.full((3,), CATCH), *order)[1])
    assert play(games).tolist() == [10.0, 2.75]


@pytest.mark.parametrize(
    ("env_id", "punishment", "mask_occupied"),
    [
        ("stag-hunt-p0", 0.0, False),
        ("stag-hunt-p05", -0.5, False),
        ("stag-hunt-p1", -1.0, False),
        ("stag-hunt-p125", -1.25, False),
        ("stag-hunt-p15", -1.5, False),
        ("stag-hunt-p2", -2.0, False),
        ("stag-hunt-p0-masked", 0.0, True),
        ("stag-hunt-p05-masked", -0.5, True),
        ("stag-hunt-p15-masked", -1.5, True),
        ("stag-hunt-p2-masked", -2.0, True),
    ],
)
def test_registered_games_are_the_papers(env_id: str, punishment: float, mask_occupied: bool) -> None:
    env = envs.make(env_id)
    assert isinstance(env, StagHunt)
    assert env.mask_occupied == mask_occupied
    assert (float(env.punishment), float(env.capture_reward)) == (punishment, 10.0)
    assert (env.num_agents, env.num_prey, env.height, env.width, env.view, env.time_limit) == (
        8,
        8,
        10,
        10,
        5,
        200,
    )
    spec = env.observation_spec
    assert spec.agents_view.shape == (8, 75) and spec.global_state.shape == (300,)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"agents": 1}, r"agents must be at least 2 \(a catch takes two\), not 1"),
        ({"agents": 100, "prey": 29, "height": 99}, "at most 128 agents and prey together, not 129"),
        ({"prey": 0}, "prey must be at least 1, not 0"),
        (
            {"height": 3, "width": 5},
            "a grid of 3 x 5 is too small for 16 agents and prey: it needs at least 16 cells",
        ),
        ({"height": -5, "width": -5}, "height must be at least 1, not -5"),
        ({"height": 2**20, "width": 2**12}, "1048576 x 4096 has more cells than a 32-bit integer can index"),
        ({"height": 2**20, "width": 2**11 - 1}, "observations of 1048576 x 2047 cells .* would take 34"),
        ({"view": 2**20 + 1}, "with a view of 1048577 would take 141 TB of memory"),
        ({"punishment": 0.5}, r"punishment must be at most 0 \(it is added\), not 0.5"),
        ({"punishment": float("nan")}, "punishment must be at most 0"),
        ({"punishment": float("-inf")}, "punishment must be a finite number, not -inf"),
        ({"capture_reward": float("inf")}, "capture_reward must be a finite number, not inf"),
        ({"capture_reward": 1e39}, "capture_reward must be at most 3.4e"),
        ({"view": 4}, "view must be an odd number of cells, not 4"),
        ({"view": -1}, "view must be an odd number of cells, not -1"),
        ({"time_limit": 0}, "time_limit must be from 1 to 32767, not 0"),
        ({"time_limit": 40_000}, "time_limit must be from 1 to 32767, not 40000"),
    ],
)
def test_bad_input(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as error:
        stag_hunt(**parameters)
    assert "\n" not in str(error.value)


# Pictures.


def test_viewer_draws_each_state() -> None:
    state = at(SQUARE, [4, 6, 15], [5, 3])
    first = SQUARE.render(state)
    assert first.dtype == np.uint8 and first.ndim == 3
    assert (first != SQUARE.render(at(SQUARE, [4, 6, 15], [5, 2]))).any()
    np.testing.assert_array_equal(SQUARE.render(state), first)  # nothing is left over
    plt.close("all")


def test_viewer_tells_catches_and_rewards() -> None:
    start = at(SQUARE, [4, 6, 15], [5, 3])
    fined, _ = move(
        SQUARE, start, [CATCH, STAY, STAY], choices=[2, 0]
    )  # 5 has only down and up: it goes down
    caught, _ = move(SQUARE, at(SQUARE, [8, 10, 15], [9, 3]), [CATCH, CATCH, STAY])
    figure = plt.figure()
    viewer = StagHuntViewer(4, 4, capture_reward=10.0, punishment=-2.0)
    viewer.draw(figure, [start, fined, caught])
    axes = figure.axes[0]
    assert axes.get_title() == "step 1, reward +10, return +8"
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "0", "1"]
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert lines == [[[1, 2], [0, 2]], [[1, 2], [2, 2]]]  # from the caught prey to both agents
    plt.close("all")


def test_animation_is_written_as_gif(tmp_path: Path) -> None:
    states = [at(SQUARE, [0, 1, 2], [12, cell]) for cell in (8, 9, 10)]
    path = tmp_path / "hunt.gif"
    SQUARE.animate(states, interval=200, save_path=str(path))
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        assert picture.info["duration"] == 200
