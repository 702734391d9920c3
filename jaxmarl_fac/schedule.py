"""When a run acts, learns, copies its targets and is evaluated: plain integers, static under jit."""

import bisect
from typing import NamedTuple


class Schedule(NamedTuple):
    """All times count iterations of the loop; in each, every environment takes one step.

    Attributes:
        iterations: of the whole run.
        warmup: iterations without learning at the start.
        update_every: iterations from one with updates to the next; the first one follows the warm-up.
        updates_per_step: gradient steps in an iteration with updates.
        target_every: iterations between copies of the parameters to the targets; 0 for none.
        eval_iterations: the learners are evaluated before each of these iterations, the first is 0 and the
            last is `iterations`.
    """

    iterations: int
    warmup: int
    update_every: int
    updates_per_step: int
    target_every: int
    eval_iterations: tuple[int, ...]

    def updates(self, iteration: int) -> int:
        """Gradient steps in the first `iteration` iterations."""
        return -(-max(0, iteration - self.warmup) // self.update_every) * self.updates_per_step

    def next_evaluation(self, iteration: int) -> int:
        """The first of `eval_iterations` after this iteration."""
        return self.eval_iterations[bisect.bisect_right(self.eval_iterations, iteration)]


def evenly_spread(iterations: int, evaluations: int) -> tuple[int, ...]:
    """0, and `evaluations` more iterations evenly spread up to the last."""
    return tuple(-(-k * iterations // evaluations) for k in range(evaluations + 1))
