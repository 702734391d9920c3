"""A game whose rewards tell all joint actions apart, and recorded episodes, for the tests of memories."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.matrix_games import matrix_game

#: A one-shot game whose rewards tell all joint actions apart.
NUMBERED = matrix_game(np.arange(100.0).reshape(10, 10))


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
