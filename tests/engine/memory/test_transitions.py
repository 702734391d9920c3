import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import baselines
from envs.matrix_games import MatrixGame, matrix_game, random_state_game, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Newest, Transitions
from jaxmarl_fac.memory.packing import plain_step, tree_bytes
from tests.engine.memory.games import NUMBERED, record, stages_at_random, stamped_step
from tests.helpers import but_slow, sets_but_slow


def flat(index):
    """The joint action of NUMBERED that pays `index`."""
    return jnp.asarray([index // 10, index % 10])


def ring(memory, env, num_envs=1, iterations=10**6, **kwargs):
    """A memory's functions for a long run."""
    return memory.bind(env, plain_step(env), num_envs, iterations, **kwargs)


@jax.jit
def one_step(env, actions):
    """A step of each environment `(E,)` from its start, as the loop gives it to a memory."""
    states, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), len(actions)))
    after, timesteps = jax.vmap(env.step)(states, actions)
    last = timesteps.last()
    return plain_step(env)._replace(
        state=states,
        actions=actions,
        reward=timesteps.reward,
        discount=timesteps.discount,
        last=last,
        mask=jnp.ones_like(last),
        next_state=after,
    )


class Filler:
    """Adds joint actions to a buffer of NUMBERED, one iteration at a time, and samples."""

    def __init__(self, memory, num_envs=1):
        self.store = ring(memory, NUMBERED, num_envs)
        self.buffer, self.additions = self.store.init(), 0
        self._add = jax.jit(
            lambda buffer, additions, indices: self.store.add(
                buffer, additions, one_step(NUMBERED, jax.vmap(flat)(indices))
            )
        )
        self._sample = jax.jit(jax.vmap(self.store.sample, in_axes=(None, None, 0)))

    def add(self, *indices):
        self.buffer = self._add(self.buffer, jnp.int32(self.additions), jnp.asarray(indices))
        self.additions += 1

    def rewards(self, draws=200, seed=1):
        """What so many samples hold, `(draws, B)`."""
        keys = jax.random.split(jax.random.key(seed), draws)
        batch = self._sample(self.buffer, jnp.int32(self.additions), keys)
        assert batch.actions.shape[2:] == (1, 2) and (batch.mask == 1).all()  # T = 1
        # Action and reward came in as a pair and stay one.
        np.testing.assert_array_equal(batch.actions[..., 0] * 10 + batch.actions[..., 1], batch.reward)
        return np.asarray(batch.reward)[..., 0]


# The ring


def test_before_it_is_full_only_what_was_stored_is_sampled():
    filler = Filler(Transitions(capacity=16, batch_size=8))
    for index in range(5, 10):  # 0 would be what empty rows look like
        filler.add(index)
        assert set(filler.rewards().flat) == set(range(5, index + 1))


def test_the_ring_forgets_the_oldest():
    filler = Filler(Transitions(capacity=4, batch_size=4))
    for index in range(1, 12):
        filler.add(index)
        assert set(filler.rewards(400).flat) == set(range(max(1, index - 3), index + 1))


def test_several_environments_fill_it_together():
    filler = Filler(Transitions(capacity=7, batch_size=7), num_envs=3)
    assert filler.store.size == 9  # made to hold whole additions
    for start in (1, 4, 7, 10):
        filler.add(start, start + 1, start + 2)
        assert set(filler.rewards().flat) == set(range(max(1, start - 6), start + 3))


@pytest.mark.parametrize(
    ("capacity", "num_envs", "size"), [(20_000, 1, 20_000), (10, 4, 12), (8, 4, 8), (1, 5, 5)]
)
def test_size(capacity, num_envs, size):
    store = ring(Transitions(capacity, 1), NUMBERED, num_envs)
    assert store.size == size
    (each, rows, width), per_row = store.init().shape, 128 // store.bytes_per_transition
    assert (each, width) == (num_envs, 128)
    assert 0 <= rows * per_row - size // num_envs < 32 * per_row


def test_no_more_rows_than_steps_to_come():
    game = two_step_game()
    memory = baselines.make("vdn", replay_size=1_000_000).bind(GameSpec.of(game)).memory
    assert ring(memory, game, num_envs=3, iterations=50).size == 150
    assert ring(memory, game, num_envs=3, iterations=10**6).size == 1_000_002


def test_samples_are_uniform_with_replacement():
    filler = Filler(Transitions(capacity=32, batch_size=32))
    for index in range(1, 14):  # 13 of 32 are filled
        filler.add(index)
    batches = filler.rewards(draws=3000)
    counts = np.bincount(batches.astype(int).flat, minlength=14)[1:]
    assert counts.sum() == 3000 * 32
    assert stats.chisquare(counts).pvalue > 1e-4
    # within a batch too: 13 items in 32 places must repeat, and pairs are as likely as chance has it
    pairs = (batches[:, :-1] == batches[:, 1:]).mean()
    assert pairs == pytest.approx(1 / 13, abs=5 * np.sqrt(1 / 13 * 12 / 13 / (3000 * 31)))


def test_different_keys_give_different_batches_and_the_same_key_the_same():
    filler = Filler(Transitions(capacity=20, batch_size=8))
    for index in range(20):
        filler.add(index)
    np.testing.assert_array_equal(filler.rewards(seed=3), filler.rewards(seed=3))
    assert (filler.rewards(seed=3) != filler.rewards(seed=4)).any()


@pytest.mark.parametrize(
    ("num_envs", "batch_size"), sets_but_slow([(1, 5), (3, 5), (3, 2), (2, 4)], [(3, 5), (3, 2)])
)
def test_the_newest_come_last_first_and_from_the_start_again_while_there_are_fewer(num_envs, batch_size):
    filler = Filler(Newest(batch_size), num_envs)
    assert filler.store.size < batch_size + num_envs  # it keeps no more than it gives
    for start in range(1, 40, num_envs):
        filler.add(*range(start, start + num_envs))
        newest = start + num_envs - 1 - np.arange(batch_size)  # the last environment's step first
        if newest[-1] < 1:
            newest = newest[0] - np.arange(batch_size) % newest[0]
        np.testing.assert_array_equal(filler.rewards(draws=3), [newest] * 3)  # whatever the key


@pytest.mark.parametrize("reset_rows", but_slow([False, True], [True]))
@pytest.mark.parametrize(
    "env",
    [
        pytest.param(two_step_game(), id="two-step"),
        pytest.param(random_state_game(), id="random-state", marks=pytest.mark.slow),
        pytest.param(stages_at_random(100), id="five-stages", marks=pytest.mark.slow),
        pytest.param(PredatorPrey(jnp.float32(0.5)), id="predator-prey"),
    ],
)
def test_recomputed_observations_are_what_was_seen(env, reset_rows):
    """Each sampled transition is, bit for bit and as a whole, one of those that happened.

    Where resets take a row of their own these are sampled too, with mask 0.
    """
    iterations, num_envs = 40, 3
    store = Transitions(capacity=60, batch_size=60).bind(
        env, stamped_step(env), num_envs, iterations, reset_rows=reset_rows
    )
    rng = np.random.default_rng(0)
    actions = rng.integers(env.num_actions, size=(iterations, num_envs, env.num_agents))
    actions = np.minimum(
        actions, np.asarray(env.reset(jax.random.key(0))[1].observation.action_mask).sum(1) - 1
    )
    buffer, walk, _ = record(
        env, store, iterations, jnp.asarray(actions), jax.random.key(9), reset_rows=reset_rows
    )
    batch = jax.jit(store.sample)(buffer, jnp.int32(iterations), jax.random.key(2))

    def rows(before, *rest):
        leaves = jax.tree.leaves((before, rest))
        return [b"".join(np.asarray(leaf[i]).tobytes() for leaf in leaves) for i in range(len(leaves[0]))]

    one = jax.tree.map(lambda leaf: np.asarray(leaf[:, 0]), batch)  # T = 1
    observations = [jax.tree.map(lambda leaf, t=t: leaf[:, t], batch.observation) for t in (0, 1)]
    drawn = (observations[0], one.actions, one.extras, one.reward, one.discount, one.mask, observations[1])
    walk = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), walk)
    walk = walk._replace(mask=walk.mask.astype(np.float32))
    seen = (walk.before, walk.actions, walk.extras, walk.reward, walk.discount, walk.mask, walk.after)
    sampled = rows(*drawn)
    assert set(sampled) <= set(rows(*seen)[-60:])  # only what the ring still holds
    assert len(set(sampled)) > 20
    assert (one.mask == 0).any() == (reset_rows and (walk.mask[-60:] == 0).any())
    dtypes = lambda tree: [leaf.dtype for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert dtypes(drawn) == dtypes(seen)
    assert batch.carry == () and not batch.first.any()


def test_a_stateless_game_has_one_observation_for_the_whole_batch():
    filler = Filler(Transitions(capacity=8, batch_size=5))
    filler.add(42)
    batch = jax.jit(filler.store.sample)(filler.buffer, jnp.int32(1), jax.random.key(0))
    observation = NUMBERED.reset(jax.random.key(3))[1].observation
    for t in (0, 1):
        got = jax.tree.map(lambda leaf, t=t: leaf[t], batch.observation)
        jax.tree.map(
            np.testing.assert_array_equal, got._replace(step_count=0), observation._replace(step_count=0)
        )
    np.testing.assert_array_equal(batch.actions, [[[4, 2]]] * 5)
    np.testing.assert_array_equal(batch.reward, [[42]] * 5)
    np.testing.assert_array_equal(batch.discount, [[0]] * 5)
    np.testing.assert_array_equal(batch.mask, [[1]] * 5)


# Size


def test_bytes_per_transition():
    memory = Transitions(100, 10)
    # actions 2, reward 4, discount 1; states are not kept
    assert ring(memory, NUMBERED).bytes_per_transition == 7
    # and twice stage, step count and last actions
    assert ring(memory, two_step_game()).bytes_per_transition == 7 + 2 * (1 + 1 + 2)
    # and whether it was a reset, only where there are some
    assert ring(memory, NUMBERED, reset_rows=True).bytes_per_transition == 7 + 1


def test_a_million_steps_of_predator_prey_fit_in_32_mb():
    small = PredatorPrey(jnp.float32(0.5))
    large = small.replace(num_agents=4, num_prey=2, height=7, width=7)
    for env in (small, large):
        assert tree_bytes(jax.eval_shape(ring(Transitions(1_000_000, 32), env).init)) <= 32e6


# Limits


@pytest.mark.parametrize("num_envs", but_slow([1, 3, 4096], [3]))
@pytest.mark.parametrize("newest", [0, 5])
def test_the_count_of_steps_may_pass_32_bits(num_envs, newest):
    """Rows that hold their own number, sampled after so many additions that their product with E wraps."""
    game = matrix_game(np.zeros((2, 2)))
    memory = Newest(newest) if newest else Transitions(capacity=max(2 * num_envs, 50), batch_size=50)
    store = ring(memory, game, num_envs)
    rewards = jnp.arange(store.size, dtype=jnp.float32).reshape(-1, num_envs)
    played = one_step(game, jnp.zeros((num_envs, 2), jnp.int32))

    @jax.jit
    def filled():
        add = lambda i, buffer: store.add(buffer, i, played._replace(reward=rewards[i]))  # noqa: E731
        return jax.lax.fori_loop(0, store.slots, add, store.init())

    buffer = filled()
    additions = 2**31 - 9
    batch = jax.jit(store.sample)(buffer, jnp.int32(additions), jax.random.key(0))
    reward = np.asarray(batch.reward)[:, 0]
    place = additions * num_envs % store.size  # of the next row, in Python's numbers
    if newest:
        np.testing.assert_array_equal(reward, (place - 1 - np.arange(newest)) % store.size)
    else:
        assert ((reward >= 0) & (reward < store.size)).all()
        assert len(np.unique(reward)) > 1

    added = jax.jit(store.add)(
        buffer, jnp.int32(additions), one_step(game, jnp.ones((num_envs, 2), jnp.int32))
    )
    before, after = (store.transitions(each, jnp.arange(store.size)) for each in (buffer, added))
    np.testing.assert_array_equal(before["reward"], np.arange(store.size))
    changed = np.flatnonzero((before["actions"] != after["actions"]).any(axis=1))
    np.testing.assert_array_equal(changed, np.arange(place, place + num_envs))


@pytest.mark.parametrize(
    ("actions", "width"), sets_but_slow([(127, 1), (128, 1), (129, 2), (300, 2)], [(128, 1), (129, 2)])
)
def test_actions_are_kept_in_a_type_that_holds_them(actions, width):
    game = MatrixGame(
        payoff=jnp.zeros((1, actions, 2)),
        next_stage=jnp.full((1, actions, 2), -1, jnp.int8),
        start=jnp.ones((1,)),
        action_counts=(actions, 2),
    )
    store = ring(Transitions(capacity=1, batch_size=1), game)
    assert store.bytes_per_transition == 2 * width + 4 + 1
    played = jnp.asarray([[actions - 1, 1]])
    buffer = jax.jit(store.add)(store.init(), jnp.int32(0), one_step(game, played))
    batch = jax.jit(store.sample)(buffer, jnp.int32(1), jax.random.key(0))
    assert batch.actions.tolist() == [[[actions - 1, 1]]]
    assert batch.actions.dtype == jnp.int32


def test_a_batch_that_is_larger_than_the_replay(bad_input):
    with bad_input("replay_size must be at least batch_size (33), not 32"):
        Transitions(32, 33)
