"""Several processes that train together: one on each host of a cluster, or several on one machine.

`jax.distributed` connects them; every process runs the same script with the same flags. The lanes are spread
over all of their devices. Process 0 alone writes files and prints; checkpoints are written by all, into one
folder that all of them see. What a process decides by its clock or by a signal, they decide together.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from envs.errors import BadInputError
from jaxmarl_fac import job
from jaxmarl_fac.stderr_filter import CONNECTED

#: Where a cluster's scheduler tells JAX the rest: SLURM, Cloud TPU, Kubernetes, Open MPI.
AUTO = "auto"
#: Of --connect-seconds: a day.
LONGEST_WAIT = 86_400
#: How long process 0 listens to one that has connected.
GREETING_SECONDS = 5.0
#: Seconds without a sign of life after which a process counts as dead, if no connection has broken before.
HEARTBEAT_SECONDS = 40
#: Seconds that a process which has ended waits for the others. Process 0 may draw and report long after them,
#: and one that fails does not come to its end but exits, which the heartbeat tells.
SHUTDOWN_SECONDS = 86_400


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Processes that train together; give all of them the same flags but --process-id.

    Attributes:
        coordinator: address and port of process 0, such as 10.0.0.1:1234, the same for all; or auto, where
            SLURM, Cloud TPU, Kubernetes or Open MPI tell who takes part.
        num_processes: how many there are; not with auto.
        process_id: number of this one, from 0; not with auto.
        connect_seconds: how long to wait for the others at the start.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    connect_seconds: float = 60.0


def join(argv: Sequence[str]) -> None:
    """Connect to the other processes that the command line names; does nothing if it names none.

    Must be called before anything starts JAX's backends, which importing jumanji does.

    Raises:
        BadInputError: for flags that do not fit together, or if the others cannot be reached, are too few, or
            were given another command.
    """
    hosts = _flags(argv)
    if hosts.coordinator is None:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # the loop handles SIGTERM itself
    filtered = bool(hosts.process_id) or not sys.stderr.isatty()  # a progress bar needs the terminal itself
    if filtered:
        _hide_fatal_errors()
    patience = {
        "initialization_timeout": int(hosts.connect_seconds),
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    if hosts.coordinator == AUTO:
        try:
            jax.distributed.initialize(**patience)  # type: ignore[arg-type]
        except ValueError as error:
            raise BadInputError(
                f"--coordinator auto: JAX found no cluster here ({error}); give HOST:PORT, --num-processes "
                "and --process-id"
            ) from error
        job.joined(jax.process_index(), jax.process_count(), _meet_at_barrier)
    else:
        assert hosts.num_processes is not None and hosts.process_id is not None
        _meet(hosts, _digest(_without_flag(argv, "--process-id")))
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.num_processes,
            hosts.process_id,
            cluster_detection_method="deactivate",
            **patience,  # type: ignore[arg-type]
        )
        job.joined(hosts.process_id, hosts.num_processes, _meet_at_barrier)
    if filtered:
        os.write(2, CONNECTED)
    if job.is_main():
        sys.stdout = open(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what gloo prints


def on_main(function: Callable[[], None]) -> None:
    """Call a function on process 0, while the others wait.

    Raises:
        BadInputError: on all processes, if it raises one.
    """
    message = ""
    if job.is_main():
        try:
            function()
        except BadInputError as error:
            if job.count() == 1:
                raise
            message = str(error)
    if job.count() > 1:
        message = _from_main(message)
        if message:
            raise BadInputError(message)


def agree(stop: bool, due: bool, chunk_size: int) -> tuple[bool, bool, int]:
    """What all processes do next: stop if one was asked to; the rest is as process 0 says."""
    if job.count() == 1:
        return stop, due, chunk_size
    each = np.asarray(multihost_utils.process_allgather(np.asarray([stop, due, chunk_size], np.int32)))
    return bool(each[:, 0].any()), bool(each[0, 1]), int(each[0, 2])


def as_main(decision: bool) -> bool:
    """Process 0's decision, which may rest on files that others see later."""
    if job.count() == 1:
        return decision
    return bool(multihost_utils.broadcast_one_to_all(np.int32(decision)))


def check_same(what: str, text: str) -> None:
    """Check that all processes have the same text.

    Raises:
        BadInputError: on all of them, if not.
    """
    own = np.frombuffer(bytes.fromhex(_digest([text])), np.uint32)
    each = np.asarray(multihost_utils.process_allgather(own))
    others = [index for index in range(job.count()) if not np.array_equal(each[index], each[0])]
    if others:
        raise BadInputError(
            f"process {others[0]} has another {what} than process 0: give all processes the same command"
        )


#: Numbers of barriers, as each can be used once.
_barriers = itertools.count()


def _meet_at_barrier(seconds: float) -> bool:
    """Whether all processes call this within some seconds of each other."""
    try:
        multihost.get_barrier_sync_fn()(key=f"meet-{next(_barriers)}", timeout_ms=int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _flags(argv: Sequence[str]) -> Hosts:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for field in dataclasses.fields(Hosts):
        name = f"--{field.name.replace('_', '-')}"
        kind = float if field.name == "connect_seconds" else str if field.name == "coordinator" else int
        parser.add_argument(name, type=kind, default=field.default)
    try:
        hosts = Hosts(**vars(parser.parse_known_args(list(argv))[0]))
    except argparse.ArgumentError as error:
        raise BadInputError(f"{error.argument_name}: {error.message}") from error
    given = hosts.num_processes is not None or hosts.process_id is not None
    if hosts.coordinator is None:
        if given:
            raise BadInputError("--num-processes and --process-id need --coordinator HOST:PORT")
        return hosts
    if not 1 <= hosts.connect_seconds <= LONGEST_WAIT:
        raise BadInputError(f"--connect-seconds must be 1 to {LONGEST_WAIT}, not {hosts.connect_seconds}")
    if hosts.coordinator == AUTO:
        if given:
            raise BadInputError("--coordinator auto finds the processes itself: leave out their numbers")
        return hosts
    if not re.fullmatch(r".+:\d{1,5}", hosts.coordinator) or not 0 < _port(hosts.coordinator) < 2**16:
        raise BadInputError(f"--coordinator must be HOST:PORT or auto, not {hosts.coordinator}")
    if hosts.num_processes is None or hosts.process_id is None:
        raise BadInputError("--coordinator HOST:PORT needs --num-processes and --process-id")
    if hosts.num_processes < 1 or not 0 <= hosts.process_id < hosts.num_processes:
        raise BadInputError(
            f"--process-id must be 0 to --num-processes less 1, not {hosts.process_id} of "
            f"{hosts.num_processes}"
        )
    return hosts


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _without_flag(argv: Sequence[str], flag: str) -> list[str]:
    rest, skip = [], False
    for token in argv:
        if skip or token == flag or token.startswith(f"{flag}="):
            skip = token == flag
            continue
        rest.append(token)
    return rest


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _from_main(text: str) -> str:
    """Process 0's text, on all processes."""
    data = text.encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    if job.is_main():
        padded[:] = np.frombuffer(data, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)).decode() if size else ""


# Before JAX connects the processes they meet at the coordinator's port: JAX ends a process by a stack trace
# when another one does not come, and does not notice that they run different commands.


def _meet(hosts: Hosts, digest: str) -> None:
    host, port = str(hosts.coordinator).rpartition(":")[0], _port(str(hosts.coordinator))
    deadline = time.monotonic() + hosts.connect_seconds
    own = {"process": hosts.process_id, "of": hosts.num_processes, "command": digest}
    if hosts.process_id == 0:
        _receive(port, own, hosts, deadline)
    else:
        _introduce(host.strip("[]"), port, own, hosts, deadline)


def _receive(port: int, own: dict[str, Any], hosts: Hosts, deadline: float) -> None:
    """On process 0: wait for all others, and tell them to go on or what is wrong."""
    try:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise BadInputError(f"--coordinator: port {port} cannot be used here ({error.strerror})") from error
    waiting: dict[int, socket.socket] = {}
    problem = ""
    with listener, contextlib.ExitStack() as stack:
        while len(waiting) < own["of"] - 1 and not problem:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = [index for index in range(1, own["of"]) if index not in waiting]
                problem = (
                    f"process {missing[0]} of {own['of']} did not come within {hosts.connect_seconds:g} s: "
                    "start all processes, or raise --connect-seconds"
                )
                break
            stack.enter_context(connection)
            try:
                connection.settimeout(GREETING_SECONDS)
                other = json.loads(connection.makefile("r", encoding="utf-8").readline())
                process, others = int(other["process"]), (other["of"], other["command"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # somebody else who tried the port
            if others != (own["of"], own["command"]):
                problem = (
                    f"process {process} was given another command than process 0: give all the same flags"
                )
            elif process in waiting:
                problem = f"two processes have --process-id {process}"
            waiting[process if process not in waiting else -1] = connection
        for connection in waiting.values():
            with contextlib.suppress(OSError):
                connection.sendall(f"{problem}\n".encode())
    if problem:
        raise BadInputError(problem)


def _introduce(host: str, port: int, own: dict[str, Any], hosts: Hosts, deadline: float) -> None:
    """On the others: tell process 0 who one is, and wait for its answer."""
    silent = unanswered = (
        f"the coordinator {hosts.coordinator} does not answer within {hosts.connect_seconds:g} s: is process "
        "0 running there, and is the port open?"
    )
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise BadInputError(silent)
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(json.dumps(own).encode() + b"\n")
                connection.settimeout(hosts.connect_seconds + 5)  # process 0 may wait for the others
                answer = connection.makefile("r", encoding="utf-8").readline()
        except OSError as error:
            unknown = isinstance(error, socket.gaierror)  # a pod has its name only once it runs
            reason = f"--coordinator: there is no host {host} within {hosts.connect_seconds:g} s"
            silent = reason if unknown else unanswered
            time.sleep(0.1)
            continue
        if not answer:
            raise BadInputError(silent)
        if answer.strip():
            raise BadInputError(answer.strip())
        return


def _hide_fatal_errors() -> None:
    """Send what this process writes to stderr through `stderr_filter.py`."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stderr_filter.py"))],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is this process's business; the filter ends with it
    )
    assert child.stdin is not None
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    # The old one may think that it writes to a file.
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
