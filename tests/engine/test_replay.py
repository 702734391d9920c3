import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import baselines
from envs.matrix_games import MatrixGame, matrix_game, random_state_game, staged_game, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.replay import EpisodeReplay, Latest, Replay, _from_bytes, _to_bytes, memory_for

#: A one-shot game whose rewards tell all joint actions apart.
NUMBERED = matrix_game(np.arange(100.0).reshape(10, 10))


def flat(index):
    """The joint action of NUMBERED that pays `index`."""
    return jnp.asarray([index // 10, index % 10])


class Filler:
    """Adds joint actions to a buffer of NUMBERED, one iteration at a time, and samples."""

    def __init__(self, replay):
        self.replay, self.buffer, self.additions = replay, replay.init(NUMBERED), 0
        states, _ = jax.vmap(NUMBERED.reset)(jax.random.split(jax.random.key(0), replay.num_envs))

        @jax.jit
        def add(buffer, additions, indices):
            actions = jax.vmap(flat)(indices)
            after, timesteps = jax.vmap(NUMBERED.step)(states, actions)
            return replay.add(NUMBERED, buffer, additions, states, actions, timesteps, after)

        self._add = add
        self._sample = jax.jit(jax.vmap(functools.partial(replay.sample, NUMBERED), in_axes=(None, None, 0)))

    def add(self, *indices):
        self.buffer = self._add(self.buffer, jnp.int32(self.additions), jnp.asarray(indices))
        self.additions += 1

    def rewards(self, draws=200, seed=1):
        """What so many samples hold."""
        keys = jax.random.split(jax.random.key(seed), draws)
        batch = self._sample(self.buffer, jnp.int32(self.additions), keys)
        # Action and reward came in as a pair and stay one.
        np.testing.assert_array_equal(batch.actions[..., 0] * 10 + batch.actions[..., 1], batch.reward)
        return np.asarray(batch.reward).reshape(-1)


# Bytes


def leaf(dtype, shape):
    if dtype == np.float32:  # every bit pattern, NaNs with payloads and -0 among them
        return arrays(np.uint32, shape).map(lambda bits: bits.view(np.float32))
    return arrays(dtype, shape)


def trees():
    shapes = {
        "flags": (np.bool_, (3,)),
        "cells": (np.int8, (2, 2)),
        "reward": (np.float32, ()),
        "draws": (np.float32, (2, 3)),
        "count": (np.int32, ()),
        "colour": (np.uint8, (1,)),
        "half": (np.int16, (2,)),
    }
    return st.fixed_dictionaries({name: leaf(*kind) for name, kind in shapes.items()})


@jax.jit
def packed(tree):
    return _to_bytes(tree)


@functools.partial(jax.jit, static_argnums=1)
def unpacked(row, shapes):
    return _from_bytes(row, jax.tree.unflatten(TREE, [jax.ShapeDtypeStruct(*shape) for shape in shapes]))


TREE = jax.tree.structure(dict.fromkeys(["flags", "cells", "reward", "draws", "count", "colour", "half"], 0))


@settings(max_examples=50, deadline=None)
@given(trees())
def test_what_goes_in_comes_out_to_the_bit(tree):
    row = packed(tree)
    assert row.dtype == np.uint8
    assert row.shape == (3 + 4 + 4 + 24 + 4 + 1 + 4,)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))
    back = unpacked(row, shapes)
    for name, before in tree.items():
        after = np.asarray(back[name])
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert after.tobytes() == before.tobytes(), name


# The ring


def test_before_it_is_full_only_what_was_stored_is_sampled():
    filler = Filler(Replay(capacity=16, batch_size=8))
    for index in range(5, 10):  # 0 would be what empty rows look like
        filler.add(index)
        assert set(filler.rewards()) == set(range(5, index + 1))


def test_the_ring_forgets_the_oldest():
    filler = Filler(Replay(capacity=4, batch_size=8))
    for index in range(1, 12):
        filler.add(index)
        assert set(filler.rewards()) == set(range(max(1, index - 3), index + 1))


def test_several_environments_fill_it_together():
    replay = Replay(capacity=7, batch_size=8, num_envs=3)
    assert replay.size == 9  # made to hold whole additions
    filler = Filler(replay)
    for start in (1, 4, 7, 10):
        filler.add(start, start + 1, start + 2)
        assert set(filler.rewards()) == set(range(max(1, start - 6), start + 3))


@pytest.mark.parametrize(
    ("capacity", "num_envs", "size"), [(20_000, 1, 20_000), (10, 4, 12), (8, 4, 8), (1, 5, 5)]
)
def test_size(capacity, num_envs, size):
    replay = Replay(capacity, 1, num_envs)
    assert replay.size == size
    assert replay.init(NUMBERED).shape == (size, replay.bytes_per_transition(NUMBERED))


def test_samples_are_uniform_with_replacement():
    filler = Filler(Replay(capacity=20, batch_size=32))
    for index in range(1, 14):  # 13 of 20 are filled
        filler.add(index)
    rewards = filler.rewards(draws=3000)
    counts = np.bincount(rewards.astype(int), minlength=14)[1:]
    assert counts.sum() == 3000 * 32
    assert stats.chisquare(counts).pvalue > 1e-4
    # within a batch too: 13 items in 32 places must repeat, and pairs are as likely as chance has it
    batches = rewards.reshape(3000, 32)
    pairs = (batches[:, :-1] == batches[:, 1:]).mean()
    assert pairs == pytest.approx(1 / 13, abs=5 * np.sqrt(1 / 13 * 12 / 13 / (3000 * 31)))


def test_different_keys_give_different_batches_and_the_same_key_the_same():
    filler = Filler(Replay(capacity=20, batch_size=8))
    for index in range(20):
        filler.add(index)
    np.testing.assert_array_equal(filler.rewards(seed=3), filler.rewards(seed=3))
    assert (filler.rewards(seed=3) != filler.rewards(seed=4)).any()


# Observations


def record(env, replay, iterations, actions, reset_key):
    """Walk through a game as the loop does: the filled buffer, and what was seen, `(T * E, ...)`."""

    @jax.jit
    def walk(key):
        def iteration(carry, inputs):
            states, buffer = carry
            index, joint, key = inputs
            before = jax.vmap(env.observe)(states)
            after, timesteps = jax.vmap(env.step)(states, joint)
            buffer = replay.add(env, buffer, index, states, joint, timesteps, after)
            fresh, _ = jax.vmap(env.reset)(jax.random.split(key, replay.num_envs))
            over = timesteps.last()
            states = jax.vmap(lambda o, a, b: jax.tree.map(lambda x, y: jnp.where(o, x, y), a, b))(
                over, fresh, after
            )
            return (states, buffer), (
                before,
                joint,
                timesteps.reward,
                timesteps.discount,
                timesteps.observation,
            )

        keys = jax.random.split(key, iterations + 1)
        states, _ = jax.vmap(env.reset)(jax.random.split(keys[0], replay.num_envs))
        (_, buffer), seen = jax.lax.scan(
            iteration, (states, replay.init(env)), (jnp.arange(iterations), actions, keys[1:])
        )
        return buffer, seen

    buffer, seen = walk(reset_key)
    return buffer, jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), seen)


def looping_game():
    """Five stages, the next one and the reward given by joint action: no two transitions are alike."""
    rng = np.random.default_rng(1)
    ways = rng.integers(-1, 5, size=(5, 3, 4))
    return staged_game(rng.normal(size=(5, 3, 4)), ways, np.full(5, 0.2), time_limit=100)


@pytest.mark.parametrize(
    "env",
    [two_step_game(), random_state_game(), looping_game(), PredatorPrey(jnp.float32(0.5))],
    ids=["two-step", "random-state", "five-stages", "predator-prey"],
)
def test_recomputed_observations_are_what_was_seen(env):
    """Each sampled transition is, bit for bit and as a whole, one of those that happened."""
    iterations, num_envs = 40, 3
    replay = Replay(capacity=60, batch_size=64, num_envs=num_envs)
    rng = np.random.default_rng(0)
    actions = rng.integers(env.num_actions, size=(iterations, num_envs, env.num_agents))
    actions = np.minimum(
        actions, np.asarray(env.reset(jax.random.key(0))[1].observation.action_mask).sum(1) - 1
    )
    buffer, seen = record(env, replay, iterations, jnp.asarray(actions), jax.random.key(9))
    batch = jax.jit(functools.partial(replay.sample, env))(buffer, jnp.int32(iterations), jax.random.key(2))

    def rows(transition, count):
        return [
            b"".join(np.asarray(leaf[i]).tobytes() for leaf in jax.tree.leaves(transition))
            for i in range(count)
        ]

    happened = rows(seen, iterations * num_envs)
    sampled = rows(tuple(batch), 64)
    assert set(sampled) <= set(happened[-60:])  # only what the ring still holds
    assert len(set(sampled)) > 4
    assert [leaf.dtype for leaf in jax.tree.leaves(tuple(batch))] == [
        leaf.dtype for leaf in jax.tree.leaves(seen)
    ]


def test_a_stateless_game_has_one_observation_for_the_whole_batch():
    replay = Replay(capacity=8, batch_size=5)
    filler = Filler(replay)
    filler.add(42)
    batch = replay.sample(NUMBERED, filler.buffer, jnp.int32(1), jax.random.key(0))
    observation = NUMBERED.reset(jax.random.key(3))[1].observation
    for got in (batch.observation, batch.next_observation):
        jax.tree.map(
            np.testing.assert_array_equal, got._replace(step_count=0), observation._replace(step_count=0)
        )
    np.testing.assert_array_equal(batch.actions, [[4, 2]] * 5)
    np.testing.assert_array_equal(batch.reward, [42] * 5)
    np.testing.assert_array_equal(batch.discount, [0] * 5)


# The latest step


@pytest.mark.parametrize("env", [NUMBERED, two_step_game()], ids=["stateless", "two-step"])
def test_the_latest_memory_holds_the_last_step_of_every_environment(env):
    memory = Latest(num_envs=3)
    actions = np.random.default_rng(0).integers(2, size=(7, 3, env.num_agents))
    buffer, seen = record(env, memory, 7, jnp.asarray(actions), jax.random.key(4))
    batch = memory.sample(env, buffer, jnp.int32(7), jax.random.key(1))
    np.testing.assert_array_equal(batch.actions, actions[-1])
    np.testing.assert_array_equal(batch.reward, seen[2][-3:])
    np.testing.assert_array_equal(batch.discount, seen[3][-3:])
    if not env.stateless:
        np.testing.assert_array_equal(batch.observation.agents_view, seen[0].agents_view[-3:])
        np.testing.assert_array_equal(batch.next_observation.agents_view, seen[4].agents_view[-3:])


# Episodes


def ragged_game():
    """Five stages, each leading to later ones or out: episodes of 1 to 5 steps, no two steps alike."""
    rng = np.random.default_rng(5)
    ways = rng.integers(0, 5, size=(5, 3, 4))
    ways = np.where(ways <= np.arange(5)[:, None, None], -1, ways)
    return staged_game(rng.normal(size=(5, 3, 4)), ways, [0.8, 0.2, 0, 0, 0], time_limit=5)


def names(observations, actions, rewards, discounts, lengths):
    """Each episode's bytes, as a whole: all arrays `(episodes, time, ...)`."""
    return [
        b"".join(
            np.asarray(leaf[i, : length + extra]).tobytes()
            for extra, tree in ((1, observations), (0, (actions, rewards, discounts)))
            for leaf in jax.tree.leaves(tree)
        )
        for i, length in enumerate(lengths)
    ]


def happened(seen, num_envs, time_limit):
    """Names of the finished episodes of every environment, oldest first, and of how many steps they are."""
    by_env = jax.tree.map(
        lambda leaf: np.moveaxis(leaf.reshape(-1, num_envs, *leaf.shape[1:]), 1, 0), tuple(seen)
    )  # (E, iterations, ...)
    found = []
    for e in range(num_envs):
        before, actions, reward, discount, following = jax.tree.map(lambda leaf, e=e: leaf[e], by_env)
        start, episodes = 0, []
        for t in range(len(reward)):
            if discount[t] == 0 or t + 1 - start == time_limit:
                part = slice(start, t + 1)
                watched = jax.tree.map(
                    lambda a, b, part=part, t=t: np.concatenate([a[part], b[t : t + 1]])[None],
                    before,
                    following,
                )
                name = names(
                    watched, actions[None, part], reward[None, part], discount[None, part], [t + 1 - start]
                )
                episodes.append((name[0], t + 1 - start))
                start = t + 1
        found.append(episodes)
    return found


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


# Size


def test_bytes_per_transition():
    replay = Replay(100, 10)
    # actions 2, reward 4, discount 1; states are not kept
    assert replay.bytes_per_transition(NUMBERED) == 7
    # and twice stage, step count and last actions
    assert replay.bytes_per_transition(two_step_game()) == 7 + 2 * (1 + 1 + 2)


def test_a_million_steps_of_predator_prey_fit_in_32_mb():
    small = PredatorPrey(jnp.float32(0.5))
    large = small.replace(num_agents=4, num_prey=2, height=7, width=7)
    for env in (small, large):
        assert Replay(1_000_000, 32).bytes_per_transition(env) <= 32


# Limits


@pytest.mark.parametrize("num_envs", [1, 3, 4096])
@pytest.mark.parametrize("newest", [0, 5])
def test_the_count_of_steps_may_pass_32_bits(num_envs, newest):
    """Rows that hold their own number, sampled after so many additions that their product with E wraps."""
    replay = Replay(capacity=2 * num_envs, batch_size=50, num_envs=num_envs, newest=newest)
    game = matrix_game(np.zeros((2, 2)))
    rows = {"actions": np.zeros((replay.size, 2), np.int8), "discount": np.zeros(replay.size, np.int8)}
    rows["reward"] = np.arange(replay.size, dtype=np.float32)
    buffer = jax.vmap(_to_bytes)(jax.tree.map(jnp.asarray, rows))
    additions = 2**31 - 9  # odd: the next row is the second half's first
    batch = replay.sample(game, buffer, jnp.int32(additions), jax.random.key(0))
    reward = np.asarray(batch.reward)
    assert ((reward >= 0) & (reward < replay.size)).all()
    assert len(np.unique(reward)) > 1
    np.testing.assert_array_equal(reward[50:], (num_envs - 1 - np.arange(newest)) % replay.size)

    state, _ = jax.vmap(game.reset)(jax.random.split(jax.random.key(0), num_envs))
    actions = jnp.ones((num_envs, 2), jnp.int32)
    after, timesteps = jax.vmap(game.step)(state, actions)
    added = replay.add(game, buffer, jnp.int32(additions), state, actions, timesteps, after)
    changed = np.flatnonzero((added != buffer).any(axis=1))
    np.testing.assert_array_equal(changed, np.arange(num_envs, 2 * num_envs))


def test_no_more_rows_than_steps_to_come():
    game = two_step_game()
    vdn = baselines.make("vdn", replay_size=1_000_000)
    assert memory_for(vdn, game, num_envs=3, iterations=50).size == 150
    assert memory_for(vdn, game, num_envs=3, iterations=10**6).size == 1_000_002
    episodes = baselines.make("vdn", replay_size=5000, consumes="episodes")
    assert memory_for(episodes, game, num_envs=2, iterations=40).slots == 40 + 1
    assert memory_for(episodes, game, num_envs=2, iterations=10**6).slots == 2500 + 1


@pytest.mark.parametrize(("actions", "width"), [(127, 1), (128, 1), (129, 2), (300, 2)])
def test_actions_are_kept_in_a_type_that_holds_them(actions, width):
    game = MatrixGame(
        payoff=jnp.zeros((1, actions, 2)),
        next_stage=jnp.full((1, actions, 2), -1, jnp.int8),
        start=jnp.ones((1,)),
        action_counts=(actions, 2),
    )
    replay = Replay(capacity=1, batch_size=1)
    assert replay.bytes_per_transition(game) == 2 * width + 4 + 1
    state, _ = jax.vmap(game.reset)(jax.random.key(0)[None])
    played = jnp.asarray([[actions - 1, 1]])
    after, timesteps = jax.vmap(game.step)(state, played)
    buffer = replay.add(game, replay.init(game), jnp.int32(0), state, played, timesteps, after)
    batch = replay.sample(game, buffer, jnp.int32(1), jax.random.key(0))
    assert batch.actions.tolist() == [[actions - 1, 1]]


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
