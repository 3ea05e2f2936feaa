"""Executes a program that the kernel kills when the daemon that started it dies, however that happens.

Run as a script by `child_launcher`: `python3 -IS die_with_parent.py PARENT PROGRAM [ARGUMENT…]`. Without it a
provisioner that is killed would leave an engine behind which nobody owns.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_EXECUTABLE = 126


def main() -> None:
    """Never returns: becomes the program, or exits."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was told
        sys.exit(NOT_EXECUTABLE)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- the operator's engine, no shell
    except OSError as error:
        sys.exit(f"cannot execute {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
