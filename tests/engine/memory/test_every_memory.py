"""What all memories have in common."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from envs.matrix_games import MatrixGame, general_sum_game, two_step_game
from jaxmarl_fac.memory import Episodes, Newest, Rollout, Transitions
from jaxmarl_fac.memory.packing import plain_step
from tests.engine.memory.games import record, stamped_step
from tests.helpers import but_slow

MEMORIES = [Transitions(4, 3), Newest(3), Rollout(), Rollout(2), Episodes(4, 3)]
every_memory = pytest.mark.parametrize("memory", MEMORIES, ids=repr)


@struct.dataclass(eq=False)
class Halving(MatrixGame):
    """An environment with a discount of its own."""

    binary_discounts = False

    def step(self, state, actions):
        state, timestep = super().step(state, actions)
        return state, timestep.replace(discount=timestep.discount / 2)


@functools.cache
def two_halved_steps():
    """The game, and two steps of one environment."""
    plain = two_step_game()
    game = Halving(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})

    @jax.jit
    def play(key):
        state, steps = jax.vmap(game.reset)(key[None])[0], []
        for _ in range(2):
            actions = jnp.zeros((1, 2), jnp.int32)
            after, timesteps = jax.vmap(game.step)(state, actions)
            last = timesteps.last()
            step = plain_step(game)._replace(
                state=state,
                actions=actions,
                reward=timesteps.reward,
                discount=timesteps.discount,
                last=last,
                mask=jnp.ones_like(last),
                next_state=after,
            )
            steps.append(step)
            state = after
        return steps

    return game, play(jax.random.key(0))


@every_memory
def test_an_environments_own_discount_is_kept(memory):
    game, steps = two_halved_steps()
    store = memory.bind(game, plain_step(game), 1, 10)
    count = 1 if memory == Rollout() else 2

    @jax.jit
    def filled_and_drawn(steps, key):
        buffer = store.init()
        for t in range(count):
            buffer = store.add(buffer, jnp.int32(t), steps[t])
        return store.sample(buffer, jnp.int32(count), key)

    batch = filled_and_drawn(steps, jax.random.key(0))
    whole = isinstance(memory, Episodes) or memory == Rollout(2)
    found = np.unique(batch.discount, axis=0)
    if whole:
        assert found.tolist() == [[0.5, 0.0]]
    elif memory == Rollout():
        assert found.tolist() == [[0.5]]
    else:
        assert found.tolist() == [[0.0], [0.5]]


@every_memory
@pytest.mark.parametrize("reset_rows", but_slow([False, True], [True]))
def test_a_batch_has_the_shapes_of_a_trajectory(memory, reset_rows):
    """Also of a game with a reward per agent; whatever the memory, so that a loss can be fed from any."""
    env, num_envs = general_sum_game([np.eye(3), 1 - np.eye(3)], stages=2), 2
    store = memory.bind(env, stamped_step(env), num_envs, 10, reset_rows=reset_rows)
    actions = jnp.asarray(np.random.default_rng(0).integers(3, size=(10, num_envs, 2)))
    buffer, _, _ = record(env, store, 10, actions, jax.random.key(0), reset_rows=reset_rows)
    batch = jax.jit(store.sample)(buffer, jnp.int32(10), jax.random.key(1))
    size = num_envs if isinstance(memory, Rollout) else 3
    length = {Rollout(2): 2, Episodes(4, 3): 2}.get(memory, 1)
    assert batch.observation.agents_view.shape == (size, length + 1, 2, 2)
    assert batch.first.shape == (size, length + 1) and batch.first.dtype == bool
    assert batch.actions.shape == (size, length, 2) and batch.actions.dtype == jnp.int32
    assert batch.extras["stamp"].shape == (size, length) and batch.extras["stamp"].dtype == jnp.int16
    assert batch.reward.shape == (size, length, 2) and batch.reward.dtype == jnp.float32
    for leaf in (batch.discount, batch.mask):
        assert leaf.shape == (size, length) and leaf.dtype == jnp.float32
    if isinstance(memory, Rollout):
        assert batch.carry.shape == (size,)
    else:
        assert batch.carry == ()
