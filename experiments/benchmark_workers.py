"""Processes that are measured by turns: each reads a request, a line of JSON, and answers with another.

Imports nothing but Python's own library, so that a process without this suite's dependencies can serve.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

#: Of this suite, from which workers are imported if it is a checkout.
ROOT = Path(__file__).parents[1]


class NoAnswerError(Exception):
    """A worker has ended, failed, or not answered in time.

    Attributes:
        seconds: how long it was waited for.
    """

    def __init__(self, why: str, seconds: float):
        super().__init__(why)
        self.seconds = seconds


class Worker:
    """A child process in a session of its own, which ends with all that it has started.

    Args:
        python: the interpreter.
        module: what it runs: a module of this suite that calls `serve`.

    Raises:
        OSError: if the interpreter cannot be started.
    """

    def __init__(self, python: str | Path, module: str):
        self._unread = b""
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115, closed by `end`
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # compile times are measured
        if (ROOT / "pyproject.toml").is_file():  # not installed, where other packages lie beside it
            environment["PYTHONPATH"] = str(ROOT)
        try:
            self._process = subprocess.Popen(
                [python, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                env=environment,
                start_new_session=True,
            )
        except OSError:
            self._messages.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, patience: float, action: str, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Args:
            patience: how many seconds to wait for it. The process is ended when they are over.
            action: name of what to do.
            request: its arguments.

        Raises:
            NoAnswerError: if the process has ended, has failed, or does not answer in time.
        """
        assert self._process.stdin is not None
        start = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended, and said why
            self._process.stdin.write(json.dumps({"action": action, **request}).encode() + b"\n")
            self._process.stdin.flush()
        line = self._line(start + patience)
        seconds = time.monotonic() - start
        if line is None:
            self.end()
            raise NoAnswerError("no answer", seconds)
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            self.end()
            raise NoAnswerError(answer["error"], seconds)
        return answer

    def end(self) -> None:
        """End the process and all that it has started, at once."""
        # Its group outlives it where it has started others.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._messages):
            with contextlib.suppress(OSError):  # what was not yet written
                stream.close()  # type: ignore[union-attr]

    def _line(self, deadline: float) -> bytes | None:
        """The next line of its answers; empty if there is none to come, None if it comes too late."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(self._process.stdout.fileno(), 2**16)
                if not piece:
                    return b""
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        """Why a process has ended without an answer."""
        status = self._process.wait()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        if status < 0:
            return f"it was ended by {signal.Signals(-status).name}"
        return lines[-1] if lines else f"it ended with status {status}"


def serve(worker: object) -> None:
    """Answer requests by methods of `worker` until there are no more; an exception is its first line.

    What else is printed goes to stderr.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        with contextlib.suppress(OSError):  # where memory runs out, this process is to be the one that ends
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(worker, request.pop("action"))(**request)
            except Exception as error:
                traceback.print_exc()
                words = str(error).strip().splitlines() or [type(error).__name__]
                answer = {"error": words[0]}
            print(json.dumps(answer), file=answers, flush=True)


def cores() -> list[int]:
    """The CPU cores that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _end_with(parent: int) -> None:
    """End this process when `parent` has ended, even amid a computation."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
