"""Games that tell all joint actions apart, and recorded experience, for the tests of memories."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.matrix_games import matrix_game, staged_game
from jaxmarl_fac.experience import Step
from jaxmarl_fac.memory.packing import plain_step

#: A one-shot game whose rewards tell all joint actions apart.
NUMBERED = matrix_game(np.arange(100.0).reshape(10, 10))


def stages_at_random(time_limit=7, ends=0.25, seed=1):
    """Five stages to start in, the next one and the reward given by joint action: no two steps are alike.

    Episodes of 1 to `time_limit` steps: a share `ends` of the joint actions ends them, and the clock does.
    """
    rng = np.random.default_rng(seed)
    ways = np.where(rng.random(size=(5, 3, 4)) < ends, -1, rng.integers(5, size=(5, 3, 4)))
    return staged_game(rng.normal(size=(5, 3, 4)), ways, np.full(5, 0.2), time_limit)


def stamped_step(env):
    """Shapes and dtypes of a step of agents that count their steps, and store a number with each."""
    stamp = {"stamp": jax.ShapeDtypeStruct((), jnp.int16)}
    return plain_step(env)._replace(carry=jax.ShapeDtypeStruct((), jnp.int32), extras=stamp)


# Observations


class Walk(NamedTuple):
    """What happened in every iteration, `(iterations, E, ...)`."""

    before: Any  # observation
    carry: Any  # steps that the agents have taken in the episode
    actions: Any
    extras: Any
    reward: Any
    discount: Any
    last: Any
    mask: Any
    after: Any  # observation, before any reset


def record(env, store, iterations, actions, reset_key, *, reset_rows=False, sample_key=None):
    """Walk through a game as the loop does.

    Args:
        env: the game.
        store: a memory that is bound to it.
        iterations: how many.
        actions: `(iterations, E, n)`.
        reset_key: of the episodes' starts.
        reset_rows: whether an environment is reset by a step of its own.
        sample_key: draws a batch after every iteration.

    Returns:
        The filled buffer, a `Walk`, and the batches `(iterations, ...)`.
    """
    num_envs = actions.shape[1]

    @jax.jit
    def walk(key):
        def iteration(playing, inputs):
            states, carry, waiting, buffer = playing
            index, joint, key = inputs
            before = jax.vmap(env.observe)(states)
            after, timesteps = jax.vmap(env.step)(states, joint)
            fresh, started = jax.vmap(env.reset)(jax.random.split(key, num_envs))
            stamp = {"stamp": (index * num_envs + jnp.arange(num_envs)).astype(jnp.int16)}
            last, seen = timesteps.last(), timesteps.observation
            over = last
            if reset_rows:
                over, last = waiting, last & ~waiting
                after, seen = where(over, (fresh, started.observation), (after, seen))
            mask = ~over if reset_rows else jnp.ones_like(last)
            reward, discount = timesteps.reward, timesteps.discount
            steps = Step(states, carry, joint, stamp, reward, discount, last, mask, after)
            buffer = store.add(buffer, index, steps)
            batch = () if sample_key is None else store.sample(buffer, index + 1, sample_key)
            states, carry = where(over, (fresh, jnp.zeros_like(carry)), (after, carry + 1))
            seen = Walk(before, steps.carry, joint, stamp, reward, discount, last, mask, seen)
            return (states, carry, last, buffer), (seen, batch)

        keys = jax.random.split(key, iterations + 1)
        states, _ = jax.vmap(env.reset)(jax.random.split(keys[0], num_envs))
        nothing = jnp.zeros(num_envs, jnp.int32)
        start = states, nothing, nothing.astype(bool), store.init()
        (*_, buffer), seen = jax.lax.scan(iteration, start, (jnp.arange(iterations), actions, keys[1:]))
        return buffer, *seen

    buffer, seen, batches = walk(reset_key)
    return buffer, *jax.tree.map(np.asarray, (seen, batches))


def where(condition, yes, no):
    """Of each environment the leaves of one of two trees."""
    choose = jax.vmap(lambda c, a, b: jax.tree.map(lambda x, y: jnp.where(c, x, y), a, b))
    return choose(condition, yes, no)


def names(observations, *steps, lengths):
    """Each episode's bytes, as a whole: all arrays `(episodes, time, ...)`."""
    return [
        b"".join(
            np.asarray(leaf[i, : length + extra]).tobytes()
            for extra, tree in ((1, observations), (0, steps))
            for leaf in jax.tree.leaves(tree)
        )
        for i, length in enumerate(lengths)
    ]


def happened(walk, time_limit):
    """Names of the finished episodes of every environment, oldest first, and of how many steps they are."""
    found = []
    for e in range(walk.reward.shape[1]):
        own = jax.tree.map(lambda leaf, e=e: leaf[walk.mask[:, e], e], walk)  # without resets
        start, episodes = 0, []
        for t in range(len(own.reward)):
            if own.discount[t] == 0 or t + 1 - start == time_limit:
                part = slice(start, t + 1)
                watched = jax.tree.map(
                    lambda a, b, part=part, t=t: np.concatenate([a[part], b[t : t + 1]])[None],
                    own.before,
                    own.after,
                )
                steps = jax.tree.map(
                    lambda leaf, part=part: leaf[None, part],
                    (own.actions, own.extras, own.reward, own.discount),
                )
                episodes.append((names(watched, *steps, lengths=[t + 1 - start])[0], t + 1 - start))
                start = t + 1
        found.append(episodes)
    return found
