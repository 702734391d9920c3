"""What a learner is fed from: the interface of memories, which are values that a learner chooses."""

from typing import Any, Protocol

import jax

from envs.base import TeamEnvironment
from jaxmarl_fac.experience import Step

Buffer = Any


class Store(Protocol):
    """A memory bound to one game: pure functions over one learner's buffer."""

    def init(self) -> Buffer:
        """Nothing stored."""

    def add(self, buffer: Buffer, additions: jax.Array, steps: Step) -> Buffer:
        """Store one step of each environment, over the oldest ones where the buffer is full.

        Args:
            buffer: to add to.
            additions: `()`, how often something was added before; the same for all seeds.
            steps: with a leading axis `(E,)`.
        """

    def sample(self, buffer: Buffer, additions: jax.Array, key: jax.Array) -> Any:
        """A batch from what `additions` have stored."""


class Memory(Protocol):
    """What is kept of experience, and how a batch is drawn from it."""

    @property
    def period(self) -> int:
        """Iterations from one batch to the next; the first one is ready after so many less one."""

    @property
    def resets_take_a_row(self) -> bool:
        """Whether an environment whose episode has ended spends its next step on being reset."""

    def warmup(self, time_limit: int) -> int:
        """Iterations before the first one that can end with drawing a batch, in games of such episodes."""

    def bind(
        self, env: TeamEnvironment, example: Step, num_envs: int, iterations: int, reset_rows: bool = False
    ) -> Store:
        """The memory's functions for one game.

        Args:
            env: the game.
            example: shapes and dtypes of one step, without a leading axis.
            num_envs: E, environments side by side.
            iterations: of the whole run; no buffer is larger than what they can fill.
            reset_rows: whether some of the steps that are added are resets; see `resets_take_a_row`.
        """
