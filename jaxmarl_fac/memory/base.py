"""What the loop asks of a memory: pure functions over the arrays of one lane's experience."""

from typing import Any, Protocol

import jax
from jumanji.types import TimeStep

from envs.base import TeamEnvironment

Buffer = Any


class Memory(Protocol):
    """What the loop does with one lane's experience."""

    def init(self, env: TeamEnvironment) -> Buffer:
        """An empty buffer."""

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
        """Store one step of each environment, over the oldest ones where the buffer is full.

        Args:
            env: the game.
            buffer: to add to.
            additions: `()`, how often something was added before; the same for all seeds.
            states: before the step, as all that follows with a leading axis `(E,)`.
            actions: joint actions.
            timesteps: what the environments answered.
            after: the states that the steps led to.
        """

    def sample(self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array) -> Any:
        """A batch from what `additions` have stored."""
