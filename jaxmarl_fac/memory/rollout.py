"""The newest experience, for learners that learn as they go."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jumanji.types import TimeStep

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Transition
from jaxmarl_fac.memory.base import Buffer
from jaxmarl_fac.memory.packing import pack_transition, transition_example
from jaxmarl_fac.memory.transitions import unpack_transitions


@dataclasses.dataclass(frozen=True)
class Latest:
    """The transition that each of E environments has just made, for those who learn as they go.

    Args:
        num_envs: E.
    """

    num_envs: int = 1

    def init(self, env: TeamEnvironment) -> Buffer:
        """Transitions of zeros: arrays `(E, ...)`."""
        return jax.tree.map(
            lambda leaf: jnp.zeros((self.num_envs, *leaf.shape), leaf.dtype), transition_example(env)
        )

    def add(
        self,
        env: TeamEnvironment,
        buffer: Buffer,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Buffer:
        """Put the new transitions in the old ones' place; see `Memory`."""
        return jax.vmap(lambda *step: pack_transition(env, *step))(states, actions, timesteps, after)

    def sample(
        self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array
    ) -> Transition:
        """All E of them. For the axes see `Transition`."""
        return unpack_transitions(env, buffer)
