"""orchctl's entry: loads what it needs, which Ctrl-C may interrupt as it may all else, and runs one command."""

import sys
import warnings
from signal import SIGINT

INTERRUPTED = 128 + SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run orchctl; the exit status is one of sysexits(3), or 130 after Ctrl-C, or 141 after a closed pipe."""
    # Ctrl-C comes between a coroutine and its await, too: it ends the command, and nobody needs to know of the rest
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        from orchctl.run import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
