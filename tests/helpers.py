"""What tests of several learners need: small batches, moments of training, and settings by name."""

import socket
from collections.abc import Container, Iterable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Observation, TeamEnvironment
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.experience import Clock, Trajectory
from jaxmarl_fac.settings import leaves


def but_slow(values: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """Values to parametrise by, of which all but the `quick` ones make slow tests."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


def sets_but_slow(sets: Iterable[tuple[Any, ...]], quick: Container[Any]) -> list[Any]:
    """The same for sets of several arguments."""
    return [pytest.param(*each, marks=() if each in quick else pytest.mark.slow) for each in sets]


def free_port() -> int:
    """A port of the loopback interface that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clock_at(env_steps: int = 0, updates: int = 0, progress: float | jax.Array = 0.0) -> Clock:
    """A moment of training."""
    return Clock(jnp.int32(env_steps), jnp.int32(updates), jnp.float32(progress))


def first_observation(env: TeamEnvironment) -> Observation:
    """What a game shows after a reset."""
    return _first_observation(env, jax.random.key(0))


# Compiled as a whole: eagerly, every operation would be compiled by itself.
_first_observation = jax.jit(lambda env, key: env.observe(env.reset(key)[0]))


def transitions(
    before: Observation, actions: Any, reward: Any, discount: Any, after: Observation
) -> Trajectory:
    """A batch `(B,)` of trajectories with T = 1, as a memory of transitions draws it.

    Args:
        before: leaves `(B, ...)`, or without the axis where all transitions share the observation.
        actions: `(B, n)`.
        reward: `(B,)`, or `(B, n)`.
        discount: `(B,)`.
        after: as `before`.
    """
    return _transitions(
        before,
        *(each if isinstance(each, jax.Array) else np.asarray(each) for each in (actions, reward, discount)),
        after,
    )


@jax.jit
def _transitions(
    before: Observation, actions: jax.Array, reward: jax.Array, discount: jax.Array, after: Observation
) -> Trajectory:
    actions, reward, discount = (each[:, None] for each in (actions, reward, discount))
    batch = actions.shape[0]
    axis = 0 if before.agents_view.ndim == 2 else 1
    return Trajectory(
        observation=jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), before, after),
        first=jnp.zeros((batch, 2), bool),
        carry=(),
        actions=actions,
        extras=(),
        reward=reward,
        discount=discount,
        mask=jnp.ones((batch, 1)),
    )


def flat(algorithm: Algorithm) -> SimpleNamespace:
    """All settings of an algorithm, wherever they are nested."""
    return SimpleNamespace(**{name: leaf.value for name, leaf in leaves(algorithm).items()})
