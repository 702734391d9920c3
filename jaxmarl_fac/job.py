"""Which of a job's processes this one is; imports no JAX, which takes long. `hosts.py` connects them."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from jaxmarl_fac.stderr_filter import ENDED

#: Messages of JAX, gRPC and gloo when another process is gone.
GONE = re.compile(
    r"gloo|connection closed|connection reset|socket closed|broken pipe|unavailable|deadline.exceeded|"
    r"coordination service|distributed service|heartbeat|barrier",
    re.IGNORECASE,
)

#: Seconds for which a process with an error waits for the others to come to one too.
TOGETHER_SECONDS = 10.0

_process, _processes = 0, 1
_meet: Callable[[float], bool] | None = None


def joined(process: int, processes: int, meet: Callable[[float], bool]) -> None:
    """Remember that this is one of several processes.

    Args:
        process: its number.
        processes: how many there are.
        meet: waits until all processes call it, and tells whether they did within so many seconds.
    """
    global _process, _processes, _meet
    _process, _processes, _meet = process, processes, meet


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return _process == 0


def count() -> int:
    """How many processes train together."""
    return _processes


def warn(text: str) -> None:
    """Print what all processes have to say, once, on stderr."""
    if is_main():
        print(text, file=sys.stderr, flush=True)


def all_failed() -> bool:
    """Whether all processes have come to an error, as they do if it has the same cause everywhere."""
    return _meet is None or _meet(TOGETHER_SECONDS)


def end_if_alone(status: int) -> None:
    """End this process, in which an error came up, unless all have come to one: the others wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if not all_failed():
        os._exit(status)


def leave(error: Exception) -> NoReturn:
    """End a process, one of several, at once, in which something failed that should not."""
    if GONE.search(str(error)):
        print(f"error: {ENDED}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
    os._exit(1)
