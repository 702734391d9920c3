import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy import stats

from envs.matrix_games import MatrixGame, staged_game, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.memory.episodes import EpisodeReplay
from jaxmarl_fac.memory.rollout import Latest
from jaxmarl_fac.memory.transitions import Replay
from tests.engine.memory.games import happened, names, record

# Episodes


def ragged_game():
    """Five stages, each leading to later ones or out: episodes of 1 to 5 steps, no two steps alike."""
    rng = np.random.default_rng(5)
    ways = rng.integers(0, 5, size=(5, 3, 4))
    ways = np.where(ways <= np.arange(5)[:, None, None], -1, ways)
    return staged_game(rng.normal(size=(5, 3, 4)), ways, [0.8, 0.2, 0, 0, 0], time_limit=5)


@pytest.mark.parametrize("capacity", [1000, 6, 1])
@pytest.mark.parametrize(
    "env",
    [ragged_game(), PredatorPrey(jnp.float32(0.5), time_limit=7)],
    ids=["of any length", "cut off by the clock"],
)
def test_sampled_episodes_are_those_that_happened(env, capacity):
    """Bit for bit and whole, padded behind their end, and none that is unfinished or forgotten."""
    num_envs, iterations = 2, 60
    memory = EpisodeReplay(capacity, batch_size=1000, num_envs=num_envs, time_limit=env.time_limit)
    rng = np.random.default_rng(1)
    actions = rng.integers(3, size=(iterations, num_envs, 2))
    buffer, seen = record(env, memory, iterations, jnp.asarray(actions), jax.random.key(3))
    batch = jax.jit(functools.partial(memory.sample, env))(buffer, jnp.int32(0), jax.random.key(2))
    batch = jax.tree.map(np.asarray, batch)

    lengths = batch.mask.sum(axis=1).astype(int)
    np.testing.assert_array_equal(batch.mask, np.arange(env.time_limit) < lengths[:, None])
    for leaf in (batch.actions, batch.reward, batch.discount):
        assert not leaf[batch.mask == 0].any()
    per_env = -(-capacity // num_envs)
    kept = [episode for each in happened(seen, num_envs, env.time_limit) for episode in each[-per_env:]]
    assert len(kept) == 2 * per_env or capacity == 1000
    sampled = names(*batch[:4], lengths)
    assert set(zip(sampled, lengths, strict=True)) == set(kept)


def test_episodes_are_drawn_uniformly_and_the_recent_part_from_the_newest():
    env, num_envs, iterations = ragged_game(), 2, 80
    memory = EpisodeReplay(40, 20_000, num_envs, env.time_limit, recent=4, recent_fraction=0.25)
    actions = np.random.default_rng(2).integers(3, size=(iterations, num_envs, 2))
    buffer, seen = record(env, memory, iterations, jnp.asarray(actions), jax.random.key(5))
    batch = jax.jit(functools.partial(memory.sample, env))(buffer, jnp.int32(0), jax.random.key(2))
    batch = jax.tree.map(np.asarray, batch)
    sampled = names(*batch[:4], batch.mask.sum(axis=1).astype(int))
    each = happened(seen, num_envs, env.time_limit)
    assert min(map(len, each)) > 25  # the rings have gone round
    for part, newest in ((sampled[:5000], 2), (sampled[5000:], 20)):
        kept = Counter(name for episodes in each for name, _ in episodes[-newest:])
        drawn = Counter(part)
        assert set(drawn) == set(kept)
        expected = [kept[name] / (2 * newest) * len(part) for name in drawn]
        assert stats.chisquare(list(drawn.values()), expected).pvalue > 1e-4


@struct.dataclass(eq=False)
class Halving(MatrixGame):
    """An environment with a discount of its own."""

    binary_discounts = False

    def step(self, state, actions):
        state, timestep = super().step(state, actions)
        return state, timestep.replace(discount=timestep.discount / 2)


def test_an_environments_own_discount_is_kept():
    plain = two_step_game()
    game = Halving(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})
    state, _ = jax.vmap(game.reset)(jax.random.key(0)[None])
    actions = jnp.zeros((1, 2), jnp.int32)
    after, timesteps = jax.vmap(game.step)(state, actions)
    for memory in (Replay(capacity=4, batch_size=3), EpisodeReplay(4, 3, 1, 2), Latest()):
        buffer = memory.add(game, memory.init(game), jnp.int32(0), state, actions, timesteps, after)
        if isinstance(memory, EpisodeReplay):  # only whole episodes are sampled
            last, end = jax.vmap(game.step)(after, actions)
            buffer = memory.add(game, buffer, jnp.int32(1), after, actions, end, last)
        batch = memory.sample(game, buffer, jnp.int32(1), jax.random.key(0))
        expected = [0.5, 0.0] if isinstance(memory, EpisodeReplay) else [0.5]
        assert np.unique(batch.discount, axis=0).reshape(-1).tolist() == expected
