"""JaxMARL's environments as team games; skipped where the optional extra `peers` is not installed."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("jaxmarl", reason="needs JaxMARL: pip install -e '.[peers]' -c constraints.txt")

import jaxmarl
from jaxmarl.environments.smax import map_name_to_scenario

import baselines
import envs
from envs.adapters import REMIX_MAPS, from_jaxmarl
from envs.adapters.from_jaxmarl import JaxMARLTeam, simple_spread, smax
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
from jaxmarl_fac.memory import Transitions
from jaxmarl_fac.memory.packing import plain_step
from jaxmarl_fac.saved import from_json, to_json

BATTLE = smax("3s_vs_5z", max_steps=40)
SPREAD = simple_spread()
#: The same games, built by JaxMARL's own names.
WRAPPED = {
    BATTLE: jaxmarl.make("HeuristicEnemySMAX", scenario=map_name_to_scenario("3s_vs_5z"), max_steps=40),
    SPREAD: jaxmarl.make("MPE_simple_spread_v3"),
}
every_game = pytest.mark.parametrize(
    "env", [pytest.param(BATTLE, id="smax"), pytest.param(SPREAD, id="simple_spread")]
)
GAMES = 32


@functools.cache
def both(env: JaxMARLTeam) -> Any:
    """Games side by side in the adapter and in JaxMARL, with the same keys: starts, and (T, 32, ...)."""
    wrapped = WRAPPED[env]

    def their_mask(inner: Any) -> jax.Array:
        if env is SPREAD:
            return jnp.ones((3, 5), bool)
        available = wrapped.get_avail_actions(inner)
        return jnp.stack([available[agent] for agent in wrapped.agents]) == 1

    def one(carry: Any, key: jax.Array) -> Any:
        state, inner = carry
        mask = jax.vmap(env.observe)(state).action_mask
        # Attacks before moves, so that somebody dies.
        taste = jnp.arange(mask.shape[-1]) / 10 + jax.random.uniform(key, mask.shape, minval=0.1)
        actions = jnp.argmax(mask * taste, axis=-1)
        after, timestep = jax.vmap(env.step)(state, actions)

        def theirs(key: jax.Array, inner: Any, actions: jax.Array) -> Any:
            draw = jax.random.split(key)[1]
            named = {agent: actions[index] for index, agent in enumerate(wrapped.agents)}
            seen, inner, rewards, dones, _ = wrapped.step_env(draw, inner, named)
            return seen, inner, rewards, dones, their_mask(inner)

        result = jax.vmap(theirs)(state.key, inner, actions)
        seen = jax.vmap(env.observe)(after.replace(key=None))
        return (after, result[1]), (timestep, result, seen)

    @jax.jit
    def run(keys: jax.Array) -> Any:
        state, timestep = jax.vmap(env.reset)(keys)
        seen, inner = jax.vmap(lambda key: wrapped.reset(jax.random.split(key)[1]))(keys)
        rest = jax.lax.scan(one, (state, inner), jax.random.split(jax.random.key(1), env.time_limit))[1]
        return timestep, (seen, jax.vmap(their_mask)(inner)), rest

    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), GAMES)))


def until_over(over: np.ndarray) -> np.ndarray:
    """Which steps belong to each game: up to its end, (T, games)."""
    ends = np.cumsum(over, axis=0)
    return (ends == 0) | ((ends == 1) & over)


def stacked(named: Any, env: JaxMARLTeam) -> np.ndarray:
    return np.stack([named[agent] for agent in WRAPPED[env].agents], axis=2)  # (T, games, n, ...)


@every_game
def test_steps_as_jaxmarl(env: JaxMARLTeam) -> None:
    first, (their_first, first_mask), (ours, (theirs, _, rewards, dones, masks), seen) = both(env)
    played = until_over(dones["__all__"])
    assert played.sum() > 10 * GAMES
    views = stacked(theirs, env)
    # Compiled in another place, sums may come in another order.
    np.testing.assert_allclose(ours.observation.agents_view[played], views[played], atol=1e-5)
    np.testing.assert_array_equal(ours.observation.action_mask[played], masks[played])
    for agent, name in enumerate(WRAPPED[env].agents):
        np.testing.assert_allclose(first.observation.agents_view[:, agent], their_first[name], atol=1e-5)
    np.testing.assert_array_equal(first.observation.action_mask, first_mask)
    each = stacked(rewards, env)  # (T, games, n)
    expected = each[..., 0] if env is BATTLE else each.sum(axis=-1)
    np.testing.assert_allclose(ours.reward[played], expected[played], rtol=1e-5, atol=1e-5)
    assert (expected[played] != 0).sum() > GAMES
    whole = theirs["world_state"] if env is BATTLE else views.reshape(*views.shape[:2], -1)
    np.testing.assert_allclose(ours.observation.global_state[played], whole[played], atol=1e-5)
    # The end comes when JaxMARL says so.
    np.testing.assert_array_equal((ours.step_type == 2)[played], dones["__all__"][played])
    # What is seen of a state out of replay is what was seen when it was new.
    chex.assert_trees_all_close(seen, ours.observation, atol=1e-5)
    steps = np.arange(1, env.time_limit + 1)[:, None] * np.ones(GAMES)
    np.testing.assert_array_equal(ours.observation.step_count[played], steps[played])


def test_smax_is_over_when_a_side_is_dead() -> None:
    _, _, (ours, (_, inner, _, dones, _), _) = both(BATTLE)
    played = until_over(dones["__all__"])
    last = played & dones["__all__"]
    allies, enemies = (
        inner.state.unit_alive[..., :3].any(axis=-1),
        inner.state.unit_alive[..., 3:].any(axis=-1),
    )
    dead = ~allies | ~enemies
    assert (dead & last).sum() >= 3 and (~dead & last).sum() >= 1
    np.testing.assert_array_equal(ours.discount[played], 1 - dead[played])
    assert last[-1].sum() == (~dead & last).sum()  # the others are cut off in the last step
    np.testing.assert_array_equal(ours.extras["won"], allies & ~enemies)


def test_smax_victory_pays_one_and_at_most_two_in_all() -> None:
    _, _, (ours, (_, _, _, dones, _), _) = both(BATTLE)
    played = until_over(dones["__all__"])
    returns = np.where(played, ours.reward, 0).sum(axis=0)
    won = (ours.extras["won"] & played).any(axis=0)
    assert returns.max() <= 2 + 1e-5 and returns.min() >= 0
    assert (returns[~won] <= 1 + 1e-5).all() and (returns[won] > 1).all()
    # A battle that is nearly won: one enemy is left, almost dead, within reach of all.
    state = jax.jit(BATTLE.reset)(jax.random.key(0))[0]
    unit = state.inner.state
    unit = unit.replace(
        unit_alive=unit.unit_alive.at[4:].set(False),
        unit_health=unit.unit_health.at[4:].set(0.0).at[3].set(1.0),
        unit_positions=unit.unit_positions.at[3].set(unit.unit_positions[:3].mean(axis=0) + 1.0),
    )
    state = state.replace(inner=state.inner.replace(state=unit))  # type: ignore[attr-defined]
    assert BATTLE.observe(state).action_mask[:, 5:].tolist() == [[True] + [False] * 4] * 3
    _, timestep = jax.jit(BATTLE.step)(state, jnp.full((3,), 5))
    assert timestep.last() and timestep.discount == 0 and timestep.extras["won"]
    # 1 of the last zealot's 150 points of health, a fifth of the enemy.
    assert float(timestep.reward) == pytest.approx(1 + 1 / 150 / 5, abs=1e-5)


def test_simple_spread_is_cut_off_after_26_steps() -> None:
    _, _, (ours, (_, _, _, dones, _), _) = both(SPREAD)
    assert SPREAD.time_limit == 26
    assert (np.argmax(dones["__all__"], axis=0) == 25).all()
    assert (ours.discount == 1).all()
    assert (ours.step_type[:-1] == 1).all() and (ours.step_type[-1] == 2).all()


def test_the_time_limit_may_be_a_termination() -> None:
    """As for JaxMARL's learners, which do not bootstrap where `done` is set; nothing else changes."""
    game = simple_spread(time_limit_terminates=True)
    state, _ = game.reset(jax.random.key(0))

    def one(state: Any, _: Any) -> Any:
        (after, ended), (_, cut_off) = (env.step(state, jnp.zeros(3, int)) for env in (game, SPREAD))
        return after, (ended, cut_off)

    ended, cut_off = jax.lax.scan(one, state, length=26)[1]
    np.testing.assert_array_equal(ended.discount, [1] * 25 + [0])
    np.testing.assert_array_equal(cut_off.discount, [1] * 26)
    chex.assert_trees_all_equal(ended.replace(discount=None), cut_off.replace(discount=None))
    assert not bool(smax("3s_vs_5z").time_limit_terminates)


@pytest.mark.parametrize(
    ("env_id", "agents", "actions", "features", "states", "limit"),
    [
        ("smax:3s_vs_5z", 3, 10, 2 * 13 + 5 * 13 + 10, 8 * 12, 101),
        ("smax:5m_vs_6m", 5, 11, 4 * 13 + 6 * 13 + 10, 11 * 12, 101),
        ("smax:6h_vs_8z", 6, 13, 5 * 13 + 8 * 13 + 10, 14 * 12, 101),
        ("mpe:simple_spread", 3, 5, 18, 54, 26),
    ],
)
def test_ids(env_id: str, agents: int, actions: int, features: int, states: int, limit: int) -> None:
    env = envs.make(env_id)
    assert (env.num_agents, env.num_actions, env.time_limit) == (agents, actions, limit)
    spec = env.observation_spec
    assert spec.agents_view.shape == (agents, features) and spec.global_state.shape == (states,)
    again = from_json(to_json(env))
    from_jaxmarl._build.cache_clear()
    first, second = (jax.eval_shape(again.reset, jax.random.key(0)) for _ in range(2))
    chex.assert_trees_all_equal_shapes(first, second)  # no tracer is left in what was built inside a trace


def test_every_id_for_remix_exists() -> None:
    known = from_jaxmarl._jaxmarl("environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    for one in REMIX_MAPS:
        assert (one.name in known) == (one.env_id is not None)
        for env_id in filter(None, (one.env_id, *one.nearest)):
            assert envs.make(env_id).num_agents >= 3


def test_bad_ids_and_settings(bad_input: Any) -> None:
    with bad_input("unknown environment 'smax:MMM2': choose one of smax:3m, smax:2s3z"):
        envs.make("smax:MMM2")
    with bad_input("attack_mode must be closest or random, not nearest"):
        envs.make("smax:3m", attack_mode="nearest")
    with bad_input("max_steps must be from 1 to 32767, not 0"):
        envs.make("smax:3m", max_steps=0)
    with bad_input("agents must be at least 2, not 1"):
        envs.make("mpe:simple_spread", agents=1)
    with bad_input("local_ratio must be in [0, 1], not 2"):
        envs.make("mpe:simple_spread", local_ratio=2)
    with bad_input("does not take these parameters"):
        envs.make("smax:3m", enemies=3)


def test_replay_keeps_states_that_are_much_smaller_than_what_is_seen() -> None:
    state, timestep = jax.eval_shape(BATTLE.reset, jax.random.key(0))
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.replace(key=None)))
    seen = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(timestep.observation))
    assert kept < 400 < 1500 < seen
    store = Transitions(8, 4).bind(BATTLE, plain_step(BATTLE), num_envs=1, iterations=8)
    assert store.bytes_per_transition == 2 * kept + 3 + 4 + 1  # int8 actions, reward, discount


@every_game
def test_states_have_types_of_their_own(env: JaxMARLTeam) -> None:
    """Not a Python number's weak one, with which a loop's state would change its type at the first step."""
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@every_game
def test_vdn_trains(env: JaxMARLTeam) -> None:
    experiment = Experiment(
        algorithm=baselines.make("vdn", batch_size=8, replay_size=100, learning_starts=16, hidden=(8,)),
        environment=env,
        seeds=(0, 1),
        env_steps=64,
        num_envs=2,
        evaluations=1,
        evaluation_episodes=2,
    )
    last = train(experiment).history.last
    assert last["episode_return"].shape == (2,)
    assert np.isfinite(last["loss"]).all() and (last["loss"] > 0).all()
