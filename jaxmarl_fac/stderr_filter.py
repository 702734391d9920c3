"""Shows one line in place of the stack trace by which XLA ends a process when another is gone, or never came.

`hosts.py` runs this file as a program of its own, between a process and its stderr.
"""

import re
import sys

#: How XLA begins to say that another process is gone; it always ends the process, a few lines later.
FATAL = re.compile(
    rb"F\d{4} .*distributed service detected fatal errors|"
    rb"E\d{4} .*coordination_service.*(?:Shutdown barrier .* failed|error polling|Polled an error)|"
    rb"terminate called .*'(?:gloo|xla|tsl|absl)"
)
#: Messages of JAX's distributed service and of gloo about what is said in one line anyway.
NOISE = re.compile(
    rb"[WE]\d{4} .*(?:coordination|preemption|distributed)|Additional GRPC|:UNKNOWN:|\[Gloo\] "
)
ENDED = "another process of this job has ended or cannot be reached; the same command resumes"
SILENT = "other processes of this job cannot be reached: start all, or raise --connect-seconds"
#: What `hosts.py` writes once the processes are connected.
CONNECTED = b"\0connected\n"


def main() -> None:
    """Copy stdin to stderr until the process says that another is gone; of what follows nothing is of use."""
    message = SILENT
    for line in sys.stdin.buffer:
        if line == CONNECTED:
            message = ENDED
            continue
        last = FATAL.match(line) is not None
        if last:
            line = f"error: {message}\n".encode()
        elif NOISE.match(line):
            continue
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        if last or line == f"error: {ENDED}\n".encode():
            break
    while sys.stdin.buffer.read(4096):  # so that the process can end
        pass


if __name__ == "__main__":
    main()
