"""Execute a program that the kernel kills when the daemon that started it dies for any reason.

`child_launcher` runs it as a script: `python3 -IS die_with_parent.py PARENT PROGRAM [ARGUMENT…]`. Without it, killing
the daemon would leave an engine without an owner.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_EXECUTABLE = 126


def main() -> None:
    """Execute the program, or exit."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl
        sys.exit(NOT_EXECUTABLE)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- the configured engine, no shell
    except OSError as error:
        sys.exit(f"cannot execute {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
