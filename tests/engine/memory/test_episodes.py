from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import baselines
from envs.matrix_games import staged_game, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Episodes
from jaxmarl_fac.memory.packing import plain_step
from tests.engine.memory.games import happened, names, record, stamped_step
from tests.helpers import but_slow

# Episodes


def ragged_game():
    """Five stages, each leading to later ones or out: episodes of 1 to 5 steps, no two steps alike."""
    rng = np.random.default_rng(5)
    ways = rng.integers(0, 5, size=(5, 3, 4))
    ways = np.where(ways <= np.arange(5)[:, None, None], -1, ways)
    return staged_game(rng.normal(size=(5, 3, 4)), ways, [0.8, 0.2, 0, 0, 0], time_limit=5)


def sampled_names(batch, lengths):
    return names(
        batch.observation, batch.actions, batch.extras, batch.reward, batch.discount, lengths=lengths
    )


@pytest.mark.parametrize("reset_rows", but_slow([False, True], [True]))
@pytest.mark.parametrize("capacity", but_slow([1000, 6, 1], [6]))
@pytest.mark.parametrize(
    "env",
    [ragged_game(), PredatorPrey(jnp.float32(0.5), time_limit=7)],
    ids=["of any length", "cut off by the clock"],
)
def test_sampled_episodes_are_those_that_happened(env, capacity, reset_rows):
    """Bit for bit and whole, padded behind their end, and none that is unfinished or forgotten."""
    num_envs, iterations = 2, 60
    memory = Episodes(capacity, batch_size=min(capacity, 1000))
    store = memory.bind(env, stamped_step(env), num_envs, iterations, reset_rows=reset_rows)
    rng = np.random.default_rng(1)
    actions = rng.integers(3, size=(iterations, num_envs, 2))
    buffer, walk, _ = record(
        env, store, iterations, jnp.asarray(actions), jax.random.key(3), reset_rows=reset_rows
    )
    draws = jax.random.split(jax.random.key(2), 1000 // memory.batch_size)
    batch = jax.jit(jax.vmap(store.sample, (None, None, 0)))(buffer, jnp.int32(0), draws)
    batch = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), batch)

    lengths = batch.mask.sum(axis=1).astype(int)
    np.testing.assert_array_equal(batch.mask, np.arange(env.time_limit) < lengths[:, None])
    np.testing.assert_array_equal(batch.first, [[True] + [False] * env.time_limit] * len(lengths))
    assert batch.carry == ()
    for leaf in (batch.actions, batch.extras["stamp"], batch.reward, batch.discount):
        assert not leaf[batch.mask == 0].any()
    per_env = -(-capacity // num_envs)
    kept = [episode for each in happened(walk, env.time_limit) for episode in each[-per_env:]]
    assert len(kept) == 2 * per_env or capacity == 1000
    sampled = sampled_names(batch, lengths)
    assert set(zip(sampled, lengths, strict=True)) == set(kept)


def test_episodes_are_drawn_uniformly_and_the_recent_part_from_the_newest():
    env, num_envs, iterations = ragged_game(), 2, 80
    memory = Episodes(40, 40, recent=4, recent_fraction=0.25)
    store = memory.bind(env, stamped_step(env), num_envs, iterations)
    actions = np.random.default_rng(2).integers(3, size=(iterations, num_envs, 2))
    buffer, walk, _ = record(env, store, iterations, jnp.asarray(actions), jax.random.key(5))
    draws = jax.random.split(jax.random.key(2), 500)
    batch = jax.jit(jax.vmap(store.sample, (None, None, 0)))(buffer, jnp.int32(0), draws)
    # The recent part of all 500 batches first, then the rest: 5,000 and 15,000 episodes.
    batch = jax.tree.map(
        lambda leaf: np.concatenate(
            [part.reshape(-1, *leaf.shape[2:]) for part in (leaf[:, :10], leaf[:, 10:])]
        ),
        jax.tree.map(np.asarray, batch),
    )
    sampled = sampled_names(batch, batch.mask.sum(axis=1).astype(int))
    each = happened(walk, env.time_limit)
    assert min(map(len, each)) > 25  # the rings have gone round
    for part, newest in ((sampled[:5000], 2), (sampled[5000:], 20)):
        kept = Counter(name for episodes in each for name, _ in episodes[-newest:])
        drawn = Counter(part)
        assert set(drawn) == set(kept)
        expected = [kept[name] / (2 * newest) * len(part) for name in drawn]
        assert stats.chisquare(list(drawn.values()), expected).pvalue > 1e-4


def test_no_more_slots_than_steps_to_come():
    env = two_step_game()
    memory = baselines.make("vdn", replay_size=5000, consumes="episodes").bind(GameSpec.of(env)).memory
    assert memory.bind(env, plain_step(env), num_envs=2, iterations=40).slots == 40 + 1
    assert memory.bind(env, plain_step(env), num_envs=2, iterations=10**6).slots == 2500 + 1


def test_a_batch_that_is_larger_than_the_replay(bad_input):
    with bad_input("replay_size must be at least batch_size (5), not 4"):
        Episodes(4, 5)
    assert Episodes(4, 4).warmup(time_limit=7) == 6  # the longest first episode is over in the seventh
