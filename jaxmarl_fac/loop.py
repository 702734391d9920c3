"""The training loop of all algorithms.

A lane is one learner: one seed of one game. All arrays have a leading lane axis, sharded over all devices.
The devices run jitted chunks of many iterations (`program.py`); between chunks the host shows progress, logs,
saves and handles signals. Results do not depend on the chunk size.
"""

import dataclasses
import functools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.errors import BadInputError
from jaxmarl_fac import hosts, job
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.checkpoints import Checkpoints
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import as_path
from jaxmarl_fac.growth import run_in
from jaxmarl_fac.parallel import to_host
from jaxmarl_fac.program import MAX_COUNT, Program
from jaxmarl_fac.progress import Progress
from jaxmarl_fac.saved import to_json
from jaxmarl_fac.settings import leaves
from jaxmarl_fac.tracking import History, Tracker

#: Target wall-clock time of one jitted chunk, in seconds.
CHUNK_SECONDS = 2.0


class InterruptedRunError(KeyboardInterrupt):
    """A signal stopped a run early, after saving a checkpoint; the same call resumes it.

    It is a KeyboardInterrupt, so that a script that trains several runs stops too unless it handles it.

    Attributes:
        result: the result so far.
    """

    def __init__(self, result: "Result"):
        self.result = result
        super().__init__(f"stopped after {result.env_steps:,} environment steps; the same call resumes it")


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        history: metrics by name, each `(evaluations, lanes, ...)`, and the environment steps. From when a
            variant diverged its lanes have NaN.
        learner: state of every lane, leading axis `(lanes,)`.
        env_steps: environment steps of each lane.
        seconds: wall-clock time, summed over all sessions of the run.
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
    """Train an experiment to its end, resuming from the newest checkpoint in `out` if there is one.

    A run with fewer env_steps in `out`, finished or not, is trained further; its remaining evaluations follow
    the new number. Schedules that span training (linear learning rates, annealing) stretch to the new end
    from then on; without them the results equal those of a single run. Seeds that a finished run lacks are
    trained in `out`/.added, evaluated at the same steps, and merged; the old seeds' results do not change.
    If both are raised, seeds are added first.

    Args:
        experiment: what to run.
        out: folder for checkpoints; None writes none.
        tracker: receives every evaluation.
        title: of the progress bar.
        show_progress: on stderr, a bar on a terminal and one line a minute in a log.
        checkpoint_seconds: minimum time between two checkpoints; one is always written at the end.
        keep: number of newest checkpoints to keep, or "all".
        keep_best: also keep the checkpoint with the highest mean return, and write one whenever that rises.
        grow: False refuses to extend a run with fewer env_steps or seeds, for results that must come from a
            single run.

    Raises:
        DivergedError: if a lane's parameters or metrics become NaN or infinite. Of several variants those
            without such a lane are trained on, and it is raised when none is left.
        InterruptedRunError: on SIGINT (Ctrl-C) or SIGTERM, after the checkpoint is written.
        BadInputError: if `experiment` or `out` has another type, no update is due within `env_steps`,
            `checkpoint_seconds` is negative or not finite, `keep` is below 1, or `out` cannot be written, is
            in use, or holds another experiment, more steps or a damaged checkpoint.

    Example:
        >>> import baselines
        >>> from envs.matrix_games import matrix_game
        >>> game = matrix_game([[1, 0], [0, 0]])
        >>> learner = baselines.make("iql-tabular", epsilon_end=1.0)
        >>> experiment = Experiment(
        ...     algorithm=learner, environment=game, seeds=(0, 1, 2), env_steps=1000, evaluations=2
        ... )
        >>> result = train(experiment)
        >>> result.history.arrays()["env_steps"]
        array([   0,  500, 1000])
        >>> result.history.last["episode_return"]  # one number for each seed
        array([1., 1., 1.], dtype=float32)
    """
    if not isinstance(experiment, Experiment):
        raise BadInputError(f"experiment must be an Experiment, not {type(experiment).__name__}")
    folder = None if out is None else as_path(out, "out")
    schedule = experiment.schedule
    if not schedule.updates(experiment.iterations):
        settings = leaves(experiment.algorithm)
        waits = [name for name in ("learning_starts", "rollout_length") if name in settings]
        raise BadInputError(
            f"nothing would be learned: no update is due within {experiment.iterations:,} iterations of "
            f"{experiment.num_envs} environment(s), the first one comes after {schedule.warmup:,}: raise "
            f"env_steps above {schedule.warmup * experiment.num_envs:,}"
            + (f", or lower {' or '.join(waits)}" if waits else "")
        )
    if not (isinstance(checkpoint_seconds, int | float) and 0 <= checkpoint_seconds < math.inf):
        raise BadInputError(
            f"checkpoint_seconds must be a finite number, 0 or above, not {checkpoint_seconds!r}"
        )
    if keep != "all" and not (isinstance(keep, int) and keep >= 1):
        raise BadInputError(f"keep must be 'all' or a whole number above 0, not {keep!r}")
    evaluated = len(schedule.eval_iterations) * experiment.evaluation_episodes
    time_limit = experiment.environment.time_limit
    if evaluated * time_limit > MAX_COUNT:
        raise BadInputError(
            f"{evaluated:,} episodes of evaluation would take up to {time_limit:,} steps each: "
            "ask for fewer evaluations or evaluation_episodes, or a lower time limit"
        )
    if job.count() > 1:
        hosts.check_same("experiment or folder", json.dumps([to_json(experiment), str(folder)]))
    program = Program(experiment)
    program.check_variants()
    program.check_memory()
    run = functools.partial(
        _run,
        eval_iterations=schedule.eval_iterations,
        tracker=tracker,
        title=title,
        show_progress=show_progress,
        checkpoint_seconds=checkpoint_seconds,
    )
    return run(program, None) if folder is None else run_in(folder, program, run, keep, keep_best, grow)


def _run(
    program: "Program",
    checkpoints: Checkpoints | None,
    *,
    eval_iterations: tuple[int, ...],
    tracker: Tracker | None,
    title: str,
    show_progress: bool,
    checkpoint_seconds: float,
) -> Result:
    """See `train`; `eval_iterations` replace those of the experiment's schedule."""
    start, experiment = time.monotonic(), program.experiment
    schedule = program.schedule._replace(eval_iterations=eval_iterations)
    saved = checkpoints.restore(program.abstract_lanes()) if checkpoints else None
    if saved:
        lanes, iteration, history, before = saved
        lanes = program.repad(lanes)
        start = time.monotonic()  # time spent restoring a checkpoint is not counted
    else:
        lanes, iteration, history, before = program.initial_lanes(), 0, History(), 0.0
    if tracker:
        tracker.start(history)
    lost = program.whole_variants(np.broadcast_to(history.undefined(), experiment.lanes))  # to divergence

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
            if iteration in schedule.eval_iterations and history.last_env_steps < env_steps:
                last = max(0, history.last_env_steps) // experiment.num_envs
                row, lanes = program.evaluate(lanes, iteration, last)
                if lost.any():  # what they play after NaN is nobody's policy
                    row = {name: _without(lost, metric) for name, metric in row.items()}
                history.append(env_steps, row)
                bar.show(row)
                if tracker:
                    tracker.log(history, elapsed())
                best = checkpoints is not None and checkpoints.is_best(history)
            finished = iteration == experiment.iterations
            stopped, due, chunk_size = hosts.agree(
                stop_asked(), time.monotonic() - last_save > checkpoint_seconds, chunk_size
            )
            if finished or stopped or best or due:
                seconds, last_save = save(), time.monotonic()
            if finished or stopped:
                learner = to_host(lanes.learner) if job.count() > 1 else lanes.learner
                result = Result(history, program.unpad(learner), env_steps, seconds)
                if finished:
                    return result
                raise InterruptedRunError(result)

            stop = min(schedule.next_evaluation(iteration), iteration + chunk_size)
            began = time.monotonic()
            lanes, healthy = program.chunk(lanes, iteration, stop)
            lost |= program.whole_variants(~healthy)
            if lost.all():
                if checkpoints:
                    checkpoints.save_history(history)
                raise DivergedError(program.lane_names(~healthy), stop * experiment.num_envs, history)
            speed = (stop - iteration) / (time.monotonic() - began)
            chunk_size = max(1, min(int(speed * CHUNK_SECONDS), 4 * chunk_size))
            bar.advance(stop - iteration)
            iteration = stop


def _without(lost: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """A metric `(lanes, ...)` with NaN for the `lost (lanes,)`."""
    spread = lost.reshape(-1, *[1] * (metric.ndim - 1))
    return np.where(spread, np.float32(np.nan), metric)


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT or SIGTERM has arrived; a second signal stops at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python delivers signals to the main thread only
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
