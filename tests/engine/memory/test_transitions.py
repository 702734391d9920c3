import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs.matrix_games import MatrixGame, matrix_game, random_state_game, staged_game, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.memory.packing import to_bytes
from jaxmarl_fac.memory.transitions import Replay
from tests.engine.memory.games import NUMBERED, record


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
    buffer = jax.vmap(to_bytes)(jax.tree.map(jnp.asarray, rows))
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
