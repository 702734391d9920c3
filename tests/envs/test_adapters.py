import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import jumanji
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jumanji.environments import Connector, LevelBasedForaging, RobotWarehouse
from jumanji.environments.routing.connector.generator import RandomWalkGenerator
from jumanji.environments.routing.connector.utils import get_agent_id, is_path, is_position, is_target
from jumanji.environments.routing.lbf.generator import RandomGenerator as ForagingGenerator
from jumanji.environments.routing.robot_warehouse.generator import RandomGenerator as WarehouseGenerator

import baselines
import envs
from envs.adapters import ADAPTED_IDS, REMIX_MAPS, from_jaxmarl, from_jumanji
from envs.adapters.from_jumanji import JumanjiTeam, connector, level_based_foraging, robot_warehouse
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
from jaxmarl_fac.memory.packing import from_bytes, to_bytes
from jaxmarl_fac.saved import from_json, to_json
from tests.helpers import but_slow

FORAGING = level_based_foraging(grid_size=5, fov=2, agents=2, food=1, time_limit=20, penalty=0.25)
WAREHOUSE = robot_warehouse(
    shelf_rows=1, shelf_columns=3, column_height=2, agents=3, request_queue_size=3, time_limit=20
)
CONNECTOR = connector(grid_size=5, agents=3, time_limit=8)
#: The same games, built by Jumanji's own names.
WRAPPED = {
    FORAGING: LevelBasedForaging(
        ForagingGenerator(5, num_agents=2, num_food=1, fov=2, force_coop=True), time_limit=20, penalty=0.25
    ),
    WAREHOUSE: RobotWarehouse(WarehouseGenerator(1, 3, 2, 3, 1, 3), time_limit=20),
    CONNECTOR: Connector(RandomWalkGenerator(5, 3), time_limit=8),
}
IDS = {"foraging": FORAGING, "warehouse": WAREHOUSE, "connector": CONNECTOR}
every_game = pytest.mark.parametrize("env", [pytest.param(env, id=name) for name, env in IDS.items()])

#: Without the warehouse, whose games take longest to compile.
quick_games = pytest.mark.parametrize(
    "env",
    [
        pytest.param(FORAGING, id="foraging"),
        pytest.param(WAREHOUSE, id="warehouse", marks=pytest.mark.slow),
        pytest.param(CONNECTOR, id="connector"),
    ],
)


def start_of(env: JumanjiTeam, inner: Any) -> Any:
    """Jumanji's own start; in the warehouse with a requested shelf on a goal, where none gets by chance."""
    if env is not WAREHOUSE:
        return inner
    y, x = WRAPPED[env].goals[0]
    return inner.replace(grid=inner.grid.at[0, x, y].set(inner.request_queue[0] + 1))


@functools.cache
def both(env: JumanjiTeam) -> Any:
    """64 games side by side in the adapter and in Jumanji, with random available actions: (T, 64, ...)."""
    wrapped, games = WRAPPED[env], 64

    def one(carry: Any, key: jax.Array) -> Any:
        state, theirs = carry
        mask = jax.vmap(env.observe)(state).action_mask
        actions = jnp.argmax(mask * jax.random.uniform(key, mask.shape, minval=0.1), axis=-1)
        state, timestep = jax.vmap(env.step)(state, actions)
        theirs, their_timestep = jax.vmap(wrapped.step)(theirs, actions)
        seen = jax.vmap(env.observe)(state.replace(key=None))
        return (state, theirs), (state.replace(key=None), timestep, their_timestep, seen)

    @jax.jit
    def run(keys: jax.Array) -> Any:
        start = jax.vmap(env.reset)(keys), jax.vmap(wrapped.reset)(keys)
        inner = jax.vmap(lambda inner: start_of(env, inner))(start[1][0])
        carry = start[0][0].replace(key=inner), inner
        rest = jax.lax.scan(one, carry, jax.random.split(jax.random.key(1), env.time_limit))[1]
        return start[0][1], start[1][1], rest

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), games)))


def until_over(timesteps: Any) -> np.ndarray:
    """Which steps belong to each game: up to its end, (T, games)."""
    over = np.cumsum(timesteps.step_type == 2, axis=0)
    return (over == 0) | ((over == 1) & (timesteps.step_type == 2))


@pytest.mark.slow
@every_game
def test_steps_as_jumanji(env: JumanjiTeam) -> None:
    _, _, (_, ours, theirs, seen) = both(env)
    played = until_over(theirs)
    assert played.sum() > 200
    summed = theirs.reward if theirs.reward.ndim == 2 else theirs.reward.sum(axis=-1)
    np.testing.assert_allclose(ours.reward[played], summed[played], atol=1e-6)
    assert (summed[played] != 0).sum() >= 3
    np.testing.assert_array_equal(ours.step_type[played], theirs.step_type[played])
    for name in ("action_mask", "step_count"):
        np.testing.assert_array_equal(
            getattr(ours.observation, name)[played], getattr(theirs.observation, name)[played]
        )
    chex.assert_trees_all_equal(ours.extras, theirs.extras)
    # What is seen of a state out of replay is what was seen when it was new.
    chex.assert_trees_all_equal(seen, ours.observation)


@quick_games
def test_starts_as_jumanji(env: JumanjiTeam) -> None:
    ours, theirs, _ = both(env)
    assert (ours.step_type == 0).all() and (ours.reward == 0).all() and (ours.discount == 1).all()
    np.testing.assert_array_equal(ours.observation.action_mask, theirs.observation.action_mask)
    chex.assert_trees_all_equal(ours.extras, theirs.extras)


@pytest.mark.parametrize(
    "env",
    [
        pytest.param(FORAGING, id="foraging"),
        pytest.param(WAREHOUSE, id="warehouse", marks=pytest.mark.slow),
    ],
)
def test_views_are_jumanjis(env: JumanjiTeam) -> None:
    first, their_first, (_, ours, theirs, _) = both(env)
    for mine, their in ((first, their_first), (ours, theirs)):
        views = their.observation.agents_view
        np.testing.assert_array_equal(mine.observation.agents_view, views)
        np.testing.assert_array_equal(
            mine.observation.global_state,
            views.reshape(*views.shape[:-2], -1),  # one after the other
        )
    assert np.ptp(ours.observation.agents_view) > 1


def test_connector_shows_each_agent_which_line_is_its_own() -> None:
    first, their_first, (_, ours, theirs, _) = both(CONNECTOR)
    grids = [their_first.observation.grid[5], *theirs.observation.grid[:, 5]]
    views = [first.observation.agents_view[5], *ours.observation.agents_view[:, 5]]
    wholes = [first.observation.global_state[5], *ours.observation.global_state[:, 5]]
    for grid, view, whole in zip(grids, views, wholes, strict=True):
        for cell, value in enumerate(grid.ravel().tolist()):
            shared = [float(test(value)) for test in (is_path, is_position, is_target)]
            owner = get_agent_id(value)  # 1 to n, 0 for an empty cell
            assert whole.reshape(25, 4)[cell].tolist() == pytest.approx([*shared, owner / 3])
            for agent in range(3):
                assert view[agent].reshape(25, 4)[cell].tolist() == [*shared, owner == agent + 1]
    assert CONNECTOR.fully_observable and not FORAGING.fully_observable


@quick_games
def test_the_end_and_the_clock_are_told_apart(env: JumanjiTeam) -> None:
    _, _, (_, ours, theirs, _) = both(env)
    last = until_over(theirs) & (theirs.step_type == 2)
    early = ours.observation.step_count < env.time_limit
    assert (last & early).sum() >= 3 and (last & ~early).sum() >= 3
    assert (ours.discount[last & early] == 0).all()
    assert (ours.discount[until_over(theirs) & ~last] == 1).all()
    cut_off = ours.discount[last & ~early]
    if env is WAREHOUSE:
        assert (cut_off == 1).all()  # Jumanji says 0
    else:
        done = (theirs.discount[last & ~early] == 0).all(axis=-1)
        np.testing.assert_array_equal(cut_off, ~done)


def test_a_meal_pays_the_team_one_and_waste_costs_every_loader() -> None:
    _, _, (_, ours, theirs, _) = both(FORAGING)
    eaten = ours.extras["percent_eaten"] == 100
    first = until_over(theirs) & eaten
    assert first.sum() >= 3
    np.testing.assert_allclose(ours.reward[first], 1, atol=1e-6)


@every_game
def test_states_in_replay_are_small(env: JumanjiTeam) -> None:
    state = jax.eval_shape(env.reset, jax.random.key(0))[0].replace(key=None)
    sizes = {FORAGING: 2 * 9 + 2 * 6 + 1, WAREHOUSE: 3 * 66 + 3 * 5 + 1, CONNECTOR: 25 + 3 * 5 + 1}
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) == sizes[env]


@quick_games
def test_specs(env: JumanjiTeam) -> None:
    _, _, (_, ours, _, _) = both(env)
    one = jax.tree.map(lambda leaf: leaf[3, 5], ours)
    env.observation_spec.validate(one.observation)
    env.discount_spec.validate(one.discount)
    assert one.reward.shape == env.reward_spec.shape == ()
    assert env.action_spec.num_values.tolist() == [env.num_actions] * env.num_agents


@every_game
def test_rebuilt_from_json(env: JumanjiTeam) -> None:
    again = from_json(to_json(env))
    assert type(again) is type(env) and to_json(again) == to_json(env)
    from_jumanji._build.cache_clear()
    # Jumanji's environment is built anew inside a trace: its arrays must not become tracers.
    first, second = (jax.eval_shape(again.reset, jax.random.key(0)) for _ in range(2))
    chex.assert_trees_all_equal_shapes(first, second)


@pytest.mark.parametrize(
    ("name", "agents", "features", "states", "actions", "limit"),
    [
        ("LevelBasedForaging", 2, 12, 24, 6, 100),
        ("RobotWarehouse", 4, 66, 264, 5, 500),
        ("Connector", 10, 400, 400, 5, 50),
    ],
)
def test_ids_build_jumanjis_defaults(
    name: str, agents: int, features: int, states: int, actions: int, limit: int
) -> None:
    (known,) = (one for one in jumanji.registered_environments() if one.startswith(f"{name}-v"))
    env = envs.make(f"jumanji:{known}")
    assert (env.num_agents, env.num_actions, env.time_limit) == (agents, actions, limit)
    spec = env.observation_spec
    assert spec.agents_view.shape == (agents, features) and spec.global_state.shape == (states,)
    assert f"jumanji:{known}" in ADAPTED_IDS


def test_settings_reach_jumanji() -> None:
    env: Any = envs.make("jumanji:LevelBasedForaging-v0", agents=3, food=2, grid_size=9, time_limit=7)
    assert (env.num_agents, env.time_limit, env.wrapped.grid_size, env.wrapped.num_food) == (3, 7, 9, 2)


def test_bad_ids_and_settings(bad_input: Any) -> None:
    with bad_input("unknown environment 'jumanji:Snake-v1': choose one of jumanji:LevelBasedForaging-v0"):
        envs.make("jumanji:Snake-v1")
    with bad_input("gym:CartPole: gym cannot be imported: No module named 'gym'"):
        envs.make("gym:CartPole")
    with bad_input("unknown environment 'gym:CartPole-v1': choose one of matrix-qtran"):
        envs.make("gym:CartPole-v1")
    with bad_input("Jumanji refuses these settings: Grid size must be greater than 5"):
        envs.make("jumanji:LevelBasedForaging-v0", grid_size=3)
    with bad_input("must be an odd number"):
        envs.make("jumanji:RobotWarehouse-v0", shelf_columns=2)
    with bad_input("time_limit must be from 1 to 32767, not 0"):
        connector(time_limit=0)
    with bad_input("does not take these parameters"):
        envs.make("jumanji:LevelBasedForaging-v0", size=3)


@pytest.mark.parametrize(
    ("build", "settings", "says"),
    [
        (connector, {"grid_size": 0}, "grid_size must be from 1 to 100, not 0"),
        (connector, {"grid_size": 4}, "a grid of 4 x 4 is too small for 10 agents and as many targets"),
        (connector, {"grid_size": 10**9}, "grid_size must be from 1 to 100, not 1000000000"),
        (connector, {"time_limit": 32_768}, "time_limit must be from 1 to 32767, not 32768"),
        (robot_warehouse, {"shelf_rows": 0}, "shelf_rows must be from 1 to 100, not 0"),
        (robot_warehouse, {"shelf_columns": -1}, "shelf_columns must be from 1 to 100, not -1"),
        (robot_warehouse, {"column_height": 0}, "column_height must be from 1 to 100, not 0"),
        (robot_warehouse, {"sensor_range": -1}, "sensor_range must be from 0 to 100, not -1"),
        (robot_warehouse, {"request_queue_size": 0}, "request_queue_size must be from 1 to 100, not 0"),
        (
            robot_warehouse,
            {"shelf_rows": 1, "shelf_columns": 1, "column_height": 1},
            "Jumanji refuses these settings: ",
        ),
        (level_based_foraging, {"agents": 0}, "agents must be from 1 to 100, not 0"),
        (level_based_foraging, {"food": 10**6}, "food must be from 1 to 100, not 1000000"),
        (
            level_based_foraging,
            {"food": 90},
            "Jumanji refuses these settings: Ensure enough non-edge positions",
        ),
        (level_based_foraging, {"fov": 9}, "Jumanji refuses these settings: Field of view must be"),
        (level_based_foraging, {"penalty": float("inf")}, "penalty must be a finite number, not inf"),
        (level_based_foraging, {"max_agent_level": 2**31}, "max_agent_level must be from 2 to 1000"),
        (level_based_foraging, {"force_coop": "yes"}, "force_coop must be True or False, not 'yes'"),
        (level_based_foraging, {"grid_size": 8.0}, "grid_size must be a whole number, not 8.0"),
    ],
)
def test_settings_that_cannot_be(bad_input: Any, build: Any, settings: dict[str, Any], says: str) -> None:
    with bad_input(says):
        build(**settings)


def test_without_jaxmarl_the_id_says_how_to_get_it(bad_input: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_jaxmarl.importlib.util, "find_spec", lambda name: None)
    for env_id in ("smax:3s_vs_5z", "mpe:simple_spread"):
        with bad_input(f"{env_id} needs JaxMARL: pip install -e '.[peers]' -c constraints.txt"):
            envs.make(env_id)
    with bad_input("unknown environment 'mpe:simple_tag': choose mpe:simple_spread"):
        envs.make("mpe:simple_tag")


def test_every_map_of_remix_is_answered_for() -> None:
    assert [one.name for one in REMIX_MAPS] == [
        "1c3s5z",
        "3s_vs_5z",
        "another hard map",
        "6h_vs_8z",
        "MMM2",
        "corridor",
    ]
    assert [one.name for one in REMIX_MAPS if one.env_id] == ["3s_vs_5z", "6h_vs_8z"]
    assert all(one.env_id == f"smax:{one.name}" for one in REMIX_MAPS if one.env_id)
    assert all(one.why for one in REMIX_MAPS)


def test_pictures_are_jumanjis(tmp_path: Path) -> None:
    starts, _ = jax.jit(jax.vmap(FORAGING.reset))(jax.random.split(jax.random.key(0), 2))
    states = [jax.tree.map(lambda leaf, game=game: leaf[game], starts) for game in range(2)]
    FORAGING.animate(states, save_path=str(tmp_path / "forage.gif"))
    assert (tmp_path / "forage.gif").stat().st_size > 1000
    plt.close("all")


@pytest.mark.parametrize("name", but_slow(IDS, ["foraging"]))
def test_replay_gives_back_what_was_seen(name: str) -> None:
    env = IDS[name]
    _, _, (states, ours, _, _) = both(env)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf[3, 5]), states)
    again = from_bytes(to_bytes(state), jax.eval_shape(lambda: state))
    chex.assert_trees_all_equal(again, state)
    chex.assert_trees_all_equal(env.observe(again), jax.tree.map(lambda leaf: leaf[3, 5], ours.observation))


@pytest.mark.slow
def test_vdn_trains_on_foraging() -> None:
    experiment = Experiment(
        algorithm=baselines.make("vdn", batch_size=8, replay_size=100, learning_starts=16, hidden=(8,)),
        environment=FORAGING,
        seeds=(0, 1),
        env_steps=64,
        num_envs=2,
        evaluations=1,
        evaluation_episodes=2,
    )
    last = train(experiment).history.last
    assert last["episode_return"].shape == (2,)
    assert np.isfinite(last["loss"]).all() and (last["loss"] > 0).all()
