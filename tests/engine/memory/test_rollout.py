import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_games import staged_game, two_step_game
from jaxmarl_fac.experience import over_batch
from jaxmarl_fac.memory import Rollout
from jaxmarl_fac.targets import lambda_returns
from tests.engine.memory.games import NUMBERED, record, stages_at_random, stamped_step
from tests.reference import recurrent

E = 3
#: Steps between 1 and 7 in every episode, some of which terminate and some of which are cut off.
PIECES = stages_at_random()
#: The same state after every step, and three steps.
STATELESS = staged_game(np.arange(12.0).reshape(1, 3, 4), np.zeros((1, 3, 4), int), [1.0], time_limit=3)


@functools.cache
def rollouts(env, length, iterations, reset_rows=True, seed=4):
    """What happened, `(iterations, E, ...)`, and every rollout when it is whole, `(rollouts, E, ...)`."""
    store = Rollout(length).bind(env, stamped_step(env), E, iterations, reset_rows=reset_rows)
    actions = np.random.default_rng(seed).integers(3, size=(iterations, E, env.num_agents))
    keys = jax.random.key(seed), jax.random.key(1)
    _, walk, batches = record(
        env, store, iterations, jnp.asarray(actions), keys[0], reset_rows=reset_rows, sample_key=keys[1]
    )
    return walk, jax.tree.map(lambda leaf: leaf[length - 1 :: length], batches)


def pieces_of(walk):
    """`(environment, start, end)` of every episode, and of what is left of the last one."""
    found = []
    for e in range(E):
        start = 0
        for t in range(len(walk.mask)):
            if not walk.mask[t, e]:
                start = t + 1
            elif walk.last[t, e]:
                found.append((e, start, t + 1))
        if start < len(walk.mask) and not walk.last[-1, e]:
            found.append((e, start, len(walk.mask)))
    return found


# The last step


@pytest.mark.parametrize("env", [NUMBERED, two_step_game()], ids=["stateless", "two-step"])
def test_a_rollout_of_one_step_is_the_last_step_of_every_environment(env):
    walk, batches = rollouts(env, 1, 7, reset_rows=False)
    for t in range(7):
        batch = jax.tree.map(lambda leaf, t=t: leaf[t], batches)
        np.testing.assert_array_equal(batch.actions[:, 0], walk.actions[t])
        np.testing.assert_array_equal(batch.extras["stamp"][:, 0], walk.extras["stamp"][t])
        np.testing.assert_array_equal(batch.reward[:, 0], walk.reward[t])
        np.testing.assert_array_equal(batch.discount[:, 0], walk.discount[t])
        np.testing.assert_array_equal(batch.mask, np.ones((E, 1)))
        np.testing.assert_array_equal(batch.carry, walk.carry[t])
        np.testing.assert_array_equal(batch.first[:, 0], walk.carry[t] == 0)
        assert not batch.first[:, 1].any()
        if not env.stateless:
            np.testing.assert_array_equal(batch.observation.agents_view[:, 0], walk.before.agents_view[t])
            np.testing.assert_array_equal(batch.observation.agents_view[:, 1], walk.after.agents_view[t])


# Across the borders of episodes


@pytest.mark.parametrize("length", [2, 3, 8, 20])
def test_rollouts_are_what_happened_one_after_the_other(length):
    """Every step stands in one rollout, bit for bit, and leads to the next observation."""
    count = 240 // length
    walk, batches = rollouts(PIECES, length, count * length)
    for k in range(count):
        batch = jax.tree.map(lambda leaf, k=k: leaf[k], batches)
        own = slice(k * length, (k + 1) * length)
        told = jax.tree.map(lambda leaf, own=own: np.moveaxis(leaf[own], 0, 1), walk)  # (E, T, ...)
        for name in ("actions", "extras", "reward", "discount", "mask"):
            jax.tree.map(np.testing.assert_array_equal, getattr(batch, name), getattr(told, name))
        jax.tree.map(
            lambda got, want: np.testing.assert_array_equal(got[:, :-1], want), batch[0], told.before
        )
        jax.tree.map(lambda got, want: np.testing.assert_array_equal(got[:, 1:], want), batch[0], told.after)
        np.testing.assert_array_equal(batch.carry, walk.carry[own.start])
        # An episode begins at the very start, and after every row that an environment spent on being reset.
        before = walk.mask[own.start - 1] if k else np.zeros(E, bool)
        np.testing.assert_array_equal(
            batch.first, np.concatenate([~before[:, None], batch.mask == 0], axis=1)
        )


def test_an_environment_is_reset_by_one_row_after_every_end_and_by_none_else():
    walk, _ = rollouts(PIECES, 8, 240)
    np.testing.assert_array_equal(walk.mask[1:], ~walk.last[:-1])
    assert walk.mask[0].all()
    lengths = [end - start for e, start, end in pieces_of(walk) if walk.last[end - 1, e]]
    assert set(lengths) == set(range(1, 8))


@pytest.mark.parametrize("lambda_", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("length", [3, 8, 20])
def test_lambda_returns_of_every_piece_of_an_episode(length, lambda_):
    """Against mixtures of n-step returns of each episode by itself, cut where a rollout ends."""
    gamma = 0.9
    count = 480 // length
    walk, batches = rollouts(PIECES, length, count * length)
    rng = np.random.default_rng(length)
    worth = rng.normal(size=PIECES.num_stages).astype(np.float32)  # of every stage

    def returns(trajectory):
        values = trajectory.observation.global_state @ worth
        steps = trajectory.reward, trajectory.discount, values[1:], trajectory.mask
        return lambda_returns(*steps, gamma, lambda_)

    ours = np.asarray(jax.vmap(lambda batch: over_batch(returns, batch))(batches))  # (rollouts, E, T)
    ours = np.moveaxis(ours, 1, 0).reshape(E, -1)
    kinds: collections.Counter = collections.Counter()
    checked = np.zeros(walk.mask.shape, bool)
    following = walk.after.global_state.astype(np.float64) @ worth
    for e, start, end in pieces_of(walk):
        cuts = [start, *range(-(-(start + 1) // length) * length, end, length), end]
        for first, last in itertools.pairwise(cuts):
            piece = slice(first, last)
            expected = recurrent.lambda_returns(
                walk.reward[piece, e], walk.discount[piece, e], following[piece, e], gamma, lambda_
            )
            np.testing.assert_allclose(ours[e, piece], expected, rtol=1e-5, atol=1e-5)
            checked[piece, e] = True
            over = walk.last[last - 1, e]
            ending = "goes on" if not over else "cut off" if walk.discount[last - 1, e] else "terminated"
            kinds[ending, last - first] += 1
    np.testing.assert_array_equal(checked, walk.mask)  # every step of every episode
    longest = min(length, 7)
    for ending in ("goes on", "cut off", "terminated"):
        assert sum(kinds[ending, steps] for steps in range(1, longest + 1)) > 10, ending
    assert {steps for _, steps in kinds} == set(range(1, longest + 1))


@pytest.mark.parametrize(("env", "steps"), [(NUMBERED, 1), (STATELESS, 3)], ids=["one-shot", "three steps"])
def test_stateless_games_take_rows_for_resets_too(env, steps):
    walk, batches = rollouts(env, 6, 24)
    np.testing.assert_array_equal(walk.mask, [[t % (steps + 1) != steps] * E for t in range(24)])
    np.testing.assert_array_equal(
        np.moveaxis(batches.mask, 1, 0).reshape(E, -1), np.moveaxis(walk.mask, 1, 0)
    )
    np.testing.assert_array_equal(
        np.moveaxis(batches.reward, 1, 0).reshape(E, -1), np.moveaxis(walk.reward, 1, 0)
    )
    begun = [[t % (steps + 1) == 0 for t in range(start, start + 7)] for start in range(0, 24, 6)]
    np.testing.assert_array_equal(batches.first, np.repeat(np.asarray(begun)[:, None], E, axis=1))
    view = env.observe(env.reset(jax.random.key(0))[0]).agents_view
    np.testing.assert_array_equal(batches.observation.agents_view, np.broadcast_to(view, (4, 7, *view.shape)))


# When


@pytest.mark.parametrize("length", [1, 2, 8])
def test_a_rollout_is_due_when_it_is_whole(length):
    memory = Rollout(length)
    assert (memory.period, memory.warmup(time_limit=100)) == (length, length - 1)
    assert memory.resets_take_a_row == (length > 1)


@pytest.mark.parametrize("length", [0, -3])
def test_rollouts_have_a_step_at_least(bad_input, length):
    with bad_input(f"the length of a rollout must be at least 1, not {length}"):
        Rollout(length)
