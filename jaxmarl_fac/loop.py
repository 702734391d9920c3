"""The one loop. Read it from top to bottom.

A lane is one learner: one seed of one game. The lane axis is the leading axis of everything, laid out
over all devices; compute happens in jitted chunks of many iterations (`program.py`); between chunks the host
shows progress, logs, saves and listens for signals. What is computed never depends on how it is chunked.
"""

import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from envs.errors import BadInputError
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.checkpoints import Checkpoints
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.growth import run_in
from jaxmarl_fac.program import LARGEST, Program
from jaxmarl_fac.progress import Progress
from jaxmarl_fac.tracking import History, Tracker

#: The host wants to hear from the devices about this often, in seconds.
CHUNK_SECONDS = 2.0


class InterruptedRunError(KeyboardInterrupt):
    """A signal stopped a run before its end; its checkpoint is kept, and the same call goes on from there.

    A KeyboardInterrupt, so that a script that trains several runs stops too, unless it says otherwise.

    Attributes:
        result: of the run so far.
    """

    def __init__(self, result: "Result"):
        self.result = result
        super().__init__(f"stopped after {result.env_steps:,} environment steps; the same call goes on")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        history: metrics by name, each `(evaluations, lanes, ...)`, and the environment steps.
        learner: of every lane, leading axis `(lanes,)`.
        env_steps: environment steps that each lane has taken.
        seconds: time spent, over all sessions.
    """

    history: History
    learner: LearnerState
    env_steps: int
    seconds: float


def train(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    tracker: Tracker | None = None,
    title: str = "",
    show_progress: bool = False,
    checkpoint_seconds: float = 60.0,
    keep: int | Literal["all"] = 1,
    keep_best: bool = False,
    grow: bool = True,
) -> Result:
    """Run an experiment to its end, from where its checkpoint in `out` stands if there is one.

    A run of fewer env_steps in `out`, finished or not, goes on to the new end, and is evaluated from there on
    as the new number says. Schedules that span training (linear learning rates, annealings) stretch to the
    new end from then on; without them the numbers are those of one go. To a finished run of fewer seeds the
    new ones are added: they are trained in `out`/.added, evaluated when the old ones were, and then joined
    with them, whose numbers stay as they are. With both, the seeds are added first.

    Args:
        experiment: what to run.
        out: folder for checkpoints; None keeps none.
        tracker: is given every evaluation.
        title: of the progress bar.
        show_progress: on stderr, a bar on a terminal and one line a minute in a log.
        checkpoint_seconds: least time between two checkpoints; one is always written at the end.
        keep: how many of the newest checkpoints stay; "all" of them.
        keep_best: keep the one with the highest mean return too, and write one whenever that rises.
        grow: False refuses to go on from fewer env_steps or seeds, for results that must come from one go.

    Raises:
        DivergedError: if a lane stops being finite.
        InterruptedRunError: if SIGINT (Ctrl-C) or SIGTERM stopped it, after the checkpoint is written.
        BadInputError: if no update is due in so few steps, `checkpoint_seconds` is negative or not finite,
            `keep` is below 1, or `out` cannot be written, is in use, or holds another experiment, more steps
            or a broken checkpoint.
    """
    schedule = experiment.schedule
    if not schedule.updates(experiment.iterations):
        raise BadInputError(
            f"nothing would be learned: no update is due within {experiment.iterations:,} iterations of "
            f"{experiment.num_envs} environment(s), the first one comes after {schedule.warmup:,}: raise "
            f"env_steps above {schedule.warmup * experiment.num_envs:,}, or lower learning_starts"
        )
    if not 0 <= checkpoint_seconds < math.inf:
        raise BadInputError(
            f"checkpoint_seconds must be 0 or a finite number above, not {checkpoint_seconds}"
        )
    if keep != "all" and not (isinstance(keep, int) and keep >= 1):
        raise BadInputError(f"keep must be 'all' or a whole number from 1, not {keep!r}")
    evaluated = len(schedule.evaluation_points) * experiment.evaluation_episodes
    time_limit = experiment.environment.time_limit
    if evaluated * time_limit > LARGEST:
        raise BadInputError(
            f"{evaluated:,} episodes of evaluation would take up to {time_limit:,} steps each: "
            "ask for fewer evaluations or evaluation_episodes, or a lower time limit"
        )
    program = Program(experiment)
    program.check_memory()
    run = functools.partial(
        _run,
        points=schedule.evaluation_points,
        tracker=tracker,
        title=title,
        show_progress=show_progress,
        checkpoint_seconds=checkpoint_seconds,
    )
    return run(program, None) if out is None else run_in(Path(out), program, run, keep, keep_best, grow)


def _run(
    program: "Program",
    checkpoints: Checkpoints | None,
    *,
    points: tuple[int, ...],
    tracker: Tracker | None,
    title: str,
    show_progress: bool,
    checkpoint_seconds: float,
) -> Result:
    """See `train`. `points` are the iterations before which the learners are evaluated."""
    start, experiment = time.monotonic(), program.experiment
    schedule = program.schedule._replace(evaluation_points=points)
    saved = checkpoints.restore(program.abstract_lanes()) if checkpoints else None
    if saved:
        lanes, iteration, history, before = saved
        lanes = program.fitted(lanes)
        start = time.monotonic()  # time spent restoring a checkpoint is not counted
    else:
        lanes, iteration, history, before = program.initial_lanes(), 0, History(), 0.0
    if tracker:
        tracker.start(history)

    done = iteration == experiment.iterations  # by an earlier call

    def elapsed() -> float:
        return before if done else before + time.monotonic() - start

    def save() -> float:
        seconds = elapsed()
        if checkpoints:
            checkpoints.save(lanes, iteration, history, seconds)
        return seconds

    last_save, seconds, chunk_size = time.monotonic(), before, 64
    bar = Progress(title, experiment, iteration, enabled=show_progress)
    with graceful_stop() as stop_asked, bar:
        while True:
            env_steps, best = iteration * experiment.num_envs, False
            if iteration in schedule.evaluation_points and history.last_env_steps < env_steps:
                last = max(0, history.last_env_steps) // experiment.num_envs
                row, lanes = program.evaluate(lanes, iteration, last)
                history.append(env_steps, row)
                bar.show(row)
                if tracker:
                    tracker.log(history, elapsed())
                best = checkpoints is not None and checkpoints.is_best(history)
            finished, stopped = iteration == experiment.iterations, stop_asked()
            if finished or stopped or best or time.monotonic() - last_save > checkpoint_seconds:
                seconds, last_save = save(), time.monotonic()
            if finished or stopped:
                result = Result(history, program.unpadded(lanes.learner), env_steps, seconds)
                if finished:
                    return result
                raise InterruptedRunError(result)

            stop = min(schedule.next_evaluation(iteration), iteration + chunk_size)
            began = time.monotonic()
            lanes, healthy = program.chunk(lanes, iteration, stop)
            if not healthy.all():
                if checkpoints:
                    checkpoints.save_history(history)
                raise DivergedError(program.lane_names(~healthy), stop * experiment.num_envs, history)
            speed = (stop - iteration) / (time.monotonic() - began)
            chunk_size = max(1, min(int(speed * CHUNK_SECONDS), 4 * chunk_size))
            bar.advance(stop - iteration)
            iteration = stop


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a question, asked between chunks. A second Ctrl-C ends at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread hears signals
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
