"""Which of a job's processes this one is; imports no JAX, which takes long. `hosts.py` connects them."""

import os
import re
import sys
import traceback
from typing import NoReturn

from jaxmarl_fac.stderr_filter import ENDED

#: Messages of JAX, gRPC and gloo when another process is gone.
GONE = re.compile(
    r"gloo|connection closed|connection reset|socket closed|broken pipe|unavailable|deadline.exceeded|"
    r"coordination service|distributed service|heartbeat|barrier",
    re.IGNORECASE,
)

_process, _processes = 0, 1


def joined(process: int, processes: int) -> None:
    """Remember that this is one of several processes."""
    global _process, _processes
    _process, _processes = process, processes


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return _process == 0


def count() -> int:
    """How many processes train together."""
    return _processes


def leave(error: Exception) -> NoReturn:
    """End a process, one of several, in which an error came up: at once, as the others may wait for it."""
    if GONE.search(str(error)):
        print(f"error: {ENDED}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
    os._exit(1)
