"""Where the jobs of a sweep run: here, one after the other, on a Ray cluster, or under SLURM.

A job is a command line of `experiments/train.py` with an output folder. It resumes from that folder, so an
engine may start it again at any time. The machines of a cluster must see the same folders and have the same
Python.
"""

import contextlib
import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from envs.errors import BadInputError
from jaxmarl_fac import cli

TRAIN = Path(__file__).with_name("train.py")
#: What a job on a cluster says, in its folder.
OUTPUT = "output.txt"
#: Seconds between two looks at a job or at SLURM's queue, and that Ray's jobs have to save when stopped.
POLL_SECONDS, STOP_SECONDS = 2, 60


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What each job gets on Ray and under SLURM.

    Attributes:
        cpus: CPU cores of a job.
        gpus: GPUs of a job; on Ray a fraction shares one.
        hours: under SLURM, time limit of a job; one that is stopped by it is queued again and goes on.
        partition: under SLURM, where jobs are queued; SLURM's own default if not given.
        parallel: under SLURM, most jobs at a time; Ray runs as many as the cluster has room for.
        executor: of SLURM's jobs; local runs them as processes of this machine, as a trial.
    """

    cpus: int = 1
    gpus: float = 0.0
    hours: float = 24.0
    partition: str | None = None
    parallel: int = 256
    executor: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.parallel < 1:
            raise BadInputError(f"--{'cpus' if self.cpus < 1 else 'parallel'} must be 1 or above")
        if not 0 <= self.gpus < 1e6:
            raise BadInputError(f"--gpus must be 0 or above, not {self.gpus}")
        if not 0 < self.hours < 1e6:
            raise BadInputError(f"--hours must be above 0, not {self.hours}")


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of train.py.

    Attributes:
        flags: of train.py, without its output folder.
        folder: where it writes.
        about: what it is, for messages.
        script: to call.
    """

    flags: tuple[str, ...]
    folder: Path
    about: str
    script: Path = TRAIN

    @property
    def command(self) -> list[str]:
        """What to run, with the Python of the machine that asks."""
        return [sys.executable, str(self.script.absolute()), *self.flags, f"--out={self.folder.absolute()}"]


class Ended(NamedTuple):
    """How a job ended: its exit status, and where that is not 0 the last thing that it said."""

    status: int
    said: str = ""


Engine = Callable[[Sequence[Job]], Iterator[tuple[Job, Ended]]]


def here(jobs: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
    """Run the jobs one after the other, each with all cores and accelerators; they show their progress."""
    for number, job in enumerate(jobs, start=1):
        print(f"job {number} of {len(jobs)}: {job.about}", flush=True)
        ended = Ended(run(job.command), "see its output above")
        yield job, ended
        if ended.status == cli.STOPPED:
            return


def run(command: Sequence[str]) -> int:
    """Run a command; returns its exit status."""
    try:
        return wait_for(subprocess.Popen(command, process_group=0))
    except KeyboardInterrupt:
        return cli.STOPPED


def wait_for(child: subprocess.Popen[bytes]) -> int:
    """The exit status of a process in a group of its own; it is told to save and stop if we are stopped.

    Raises:
        KeyboardInterrupt: and whatever else stops us, once it has ended.
    """
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(POLL_SECONDS)  # Ray's way to stop us waits for a next line
    except BaseException:
        child.terminate()  # saves as SIGINT does, which Ray's workers and their children block
        child.wait()
        raise


class Logged:
    """A job as a cluster runs it: what it says goes into its folder.

    Args:
        job: which.
    """

    def __init__(self, job: Job):
        self._job = job
        self._place = os.getcwd()  # relative paths in the sweep file begin here

    def __call__(self) -> Ended:
        """Run it."""
        self._job.folder.mkdir(parents=True, exist_ok=True)
        path = self._job.folder.absolute() / OUTPUT
        with path.open("wb") as output:
            child = subprocess.Popen(
                self._job.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._place,
                process_group=0,
            )
            status = wait_for(child)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or [
            line.strip() for line in lines if line.strip()
        ]
        return Ended(status, said[-1] if said and status else "")

    def checkpoint(self) -> Any:
        """What submitit queues again when SLURM stops the job before its end: the same, which resumes."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self)


def on_ray(cluster: Cluster) -> Engine:
    """Jobs as tasks of the Ray cluster that `ray start` or RAY_ADDRESS names, or of one on this machine.

    Raises:
        BadInputError: if Ray is not installed, or cannot be reached.
    """
    ray = _imported("ray")

    def engine(jobs: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
        try:
            ray.init(log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInputError(f"Ray could not start: {_line(error)}") from error
        try:
            _warn_if_too_large(ray, cluster)
            task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus)(_call)
            pending = {task.remote(Logged(job)): job for job in jobs}
            try:
                while pending:
                    (reference,), _ = ray.wait(list(pending), num_returns=1)
                    job = pending.pop(reference)
                    try:
                        ended = ray.get(reference)
                    except ray.exceptions.RayError as error:  # such as a lost machine, after some tries
                        ended = Ended(cli.FAILED, _line(error))
                    yield job, ended
            except BaseException:
                for reference in pending:
                    ray.cancel(reference)
                ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
                raise
        finally:
            ray.shutdown()

    return engine


def _call(job: Logged) -> Ended:
    return job()


def _warn_if_too_large(ray: Any, cluster: Cluster) -> None:
    """Say so if no machine of the cluster has room for a job: Ray waits for one that has."""
    rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(room.get("CPU", 0) >= cluster.cpus and room.get("GPU", 0) >= cluster.gpus for room in rooms):
        print(
            f"no machine of this Ray cluster has {cluster.cpus} CPU core(s) and {cluster.gpus:g} GPU(s): "
            "jobs wait until one comes",
            file=sys.stderr,
        )


def on_slurm(cluster: Cluster, logs: Path) -> Engine:
    """Jobs as an array of SLURM's, submitted by submitit.

    Args:
        cluster: what each gets.
        logs: folder for submitit's scripts and logs.

    Raises:
        BadInputError: if submitit is not installed, or there is no SLURM here.
    """
    submitit = _imported("submitit", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=logs.absolute(), cluster=cluster.executor)
        executor.update_parameters(
            name="sweep",
            timeout_min=max(1, round(60 * cluster.hours)),
            cpus_per_task=cluster.cpus,
            gpus_per_node=int(cluster.gpus),
            slurm_array_parallelism=cluster.parallel,
            **({"slurm_partition": cluster.partition} if cluster.partition else {}),
        )
    except RuntimeError as error:
        raise BadInputError(
            f"there is no SLURM here ({_line(error)}): --executor local tries the same on this machine"
        ) from error
    if cluster.gpus != int(cluster.gpus):
        raise BadInputError(f"--gpus must be a whole number under SLURM, not {cluster.gpus}")

    def engine(jobs: Sequence[Job]) -> Iterator[tuple[Job, Ended]]:
        with executor.batch():
            submitted = [executor.submit(Logged(job)) for job in jobs]
        jobs_of = dict(zip(submitted, jobs, strict=True))
        try:
            for done in submitit.helpers.as_completed(submitted, poll_frequency=POLL_SECONDS):
                error = done.exception()
                yield jobs_of.pop(done), Ended(cli.FAILED, _line(error)) if error else done.result()
        except BaseException:
            for queued in jobs_of:
                with contextlib.suppress(Exception):  # it may have ended by now
                    queued.cancel()
            raise

    return engine


def _imported(module: str, extra: str = "") -> Any:
    """A module of an optional dependency, which `extra` installs; its own name if not given.

    Raises:
        BadInputError: if it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = extra or module
        raise BadInputError(f"--engine {extra} needs {module}: pip install 'jaxmarl_fac[{extra}]'") from error


def _line(error: BaseException) -> str:
    """The last line of what an error says, which for one of another machine ends a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
