"""Shows one line in place of the stack trace by which XLA ends a process when another is gone, or never came.

`hosts.py` runs this file as a program of its own, between a process and its stderr.
"""

import re
import sys

#: How the trace begins, and lines that belong to it.
FATAL = re.compile(rb"F\d{4} .*distributed service detected fatal errors|terminate called")
TRACE = re.compile(rb"[WEF]\d{4} |\*\*\* |\s+@ |\s+what\(\)|RPC: |Additional GRPC|:UNKNOWN:|\s*$")
#: Messages of JAX's distributed service and of gloo about what is said in one line anyway.
NOISE = re.compile(
    rb"[WE]\d{4} .*(?:coordination|preemption|distributed)|Additional GRPC|:UNKNOWN:|\[Gloo\] "
)
ENDED = "another process of this job has ended or cannot be reached; the same command resumes"
SILENT = "other processes of this job cannot be reached: start all, or raise --connect-seconds"
#: What `hosts.py` writes once the processes are connected.
CONNECTED = b"\0connected\n"


def main() -> None:
    """Copy stdin to stderr, but for the trace."""
    hidden, message = False, SILENT
    for line in sys.stdin.buffer:
        if line == CONNECTED:
            message = ENDED
            continue
        if not hidden and FATAL.match(line):
            hidden = True
            line = f"error: {message}\n".encode()
        elif (TRACE if hidden else NOISE).match(line):
            continue
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


if __name__ == "__main__":
    main()
