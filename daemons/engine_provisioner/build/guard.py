"""Run a program, and kill it with all its descendants when standard input ends.

`processes` runs it as a script: `python3 -IS guard.py PROGRAM [ARGUMENT…]`, with a pipe as standard input whose other
end the daemon holds. However the daemon ends, the kernel closes that end. A parent-death signal would reach only the
program itself, and leave the compilers that it started. Under systemd the control group of the daemon's unit does the
same once more.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
NICENESS = 10
"""Builds give way to engines and daemons."""
NOT_EXECUTABLE = 126


def main() -> NoReturn:
    """Run the program and exit with its status, 128 plus the number of the signal that ended it, or 137."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the program become children of this process
    signal.signal(signal.SIGTERM, lambda *_: _end(128 + signal.SIGTERM))
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _execute(sys.argv[1:], guard)
    pidfd = os.pidfd_open(child)
    ready, _, _ = select.select([pidfd, 0], [], [])
    if pidfd not in ready:
        _end(128 + signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _end(128 - status if status < 0 else status)


def _execute(argv: list[str], guard: int) -> NoReturn:
    try:
        if os.getppid() != guard:  # it died before prctl
            os._exit(NOT_EXECUTABLE)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.nice(NICENESS)
        os.execvp(argv[0], argv)  # noqa: S606 -- no shell; the daemon wrote argv
    except OSError as error:
        os.write(2, f"cannot execute {argv[0]}: {error.strerror}\n".encode())
    os._exit(NOT_EXECUTABLE)


def _end(status: int) -> NoReturn:
    """Kill all descendants, which turn into children as their parents end, and exit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            os._exit(status)


def _children() -> list[int]:
    """Return the children that have not been reaped. They stay valid: only this process reaps them."""
    return list(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


if __name__ == "__main__":
    main()
