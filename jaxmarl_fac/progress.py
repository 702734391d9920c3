"""Progress of a run: a bar on a terminal, a line a minute in a log."""

import sys
import time
from types import TracebackType

import numpy as np
from tqdm import tqdm

from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.job import is_main
from jaxmarl_fac.statistics import iqm

#: Seconds between two log lines.
LOG_SECONDS = 60.0


class Progress:
    """Shows environment steps per seed, steps per second of all seeds, the latest return and the time left.

    Writes to stderr: a progress bar on a terminal, else one line a minute.

    Args:
        title: at the start of every line.
        experiment: what is being run.
        iteration: at which the run starts or resumes.
        enabled: False writes nothing, as do processes but the main one.
    """

    def __init__(self, title: str, experiment: Experiment, iteration: int, enabled: bool):
        self._title = title or "training"
        self._envs = experiment.num_envs
        self._lanes = experiment.lanes
        self._first = self._iteration = iteration
        self._last = experiment.iterations
        self._start = self._last_line = time.monotonic()
        self._shown = ""
        enabled = enabled and is_main()
        on_terminal = sys.stderr.isatty()
        self._logs = enabled and not on_terminal
        self._bar = tqdm(
            total=self._last * self._envs,
            initial=iteration * self._envs,
            desc=self._title,
            unit=" steps",
            unit_scale=True,
            disable=not (enabled and on_terminal),
            dynamic_ncols=True,
            postfix={"seeds": self._lanes},
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, iterations: int) -> None:
        """Add `iterations` to those done."""
        self._iteration += iterations
        self._bar.update(iterations * self._envs)
        now = time.monotonic()
        if self._logs and now - self._last_line >= LOG_SECONDS:
            self._last_line = now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def show(self, row: dict[str, np.ndarray]) -> None:
        """Show the return of the latest evaluation, metrics `(lanes, ...)`, NaN where diverged."""
        returns = row["episode_return"]
        defined = ~np.isnan(returns).reshape(len(returns), -1).any(axis=1)
        centres = np.atleast_1d(iqm(returns[defined]))  # (1,), or (n,) with a reward per agent
        self._shown = ", ".join(f"{centre:.3g}" for centre in centres)
        self._bar.set_postfix({"seeds": self._lanes, "return IQM": self._shown}, refresh=False)

    def _line(self, seconds: float) -> str:
        speed = (self._iteration - self._first) / seconds  # iterations per second
        left = tqdm.format_interval((self._last - self._iteration) / speed)
        steps = f"{self._iteration * self._envs:,} of {self._last * self._envs:,} steps"
        rate = f"{speed * self._envs * self._lanes:,.0f} steps/s of {self._lanes} lane(s)"
        return f"{self._title}: {steps}, {rate}, return IQM {self._shown}, {left} left"
