"""A worker for the tests of `benchmark_workers`."""

import os
import signal
import subprocess
import sys
import time

from experiments.benchmark_workers import serve


def fail():
    raise ValueError("first line\nsecond line")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def ended():
    print("the last line", file=sys.stderr)
    sys.exit(3)


def child():
    """A process of its own, which goes on when this one is killed."""
    return {"pid": subprocess.Popen(["sleep", "60"]).pid}


def sleep(seconds):
    print("not an answer")
    time.sleep(seconds)
    return {"slept": seconds}


def pid():
    return {"pid": os.getpid()}


if __name__ == "__main__":
    serve(sys.modules[__name__])
