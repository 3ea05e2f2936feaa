"""Entry point. It imports the rest inside main(), so that Ctrl-C is handled during the imports, too."""

import sys
import warnings
from signal import SIGINT

INTERRUPTED = 128 + SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run orchctl and return its exit status: one of sysexits(3), or 130 after Ctrl-C.

    Raises SystemExit with 141 if the reader of standard output has gone away.
    """
    # Ctrl-C may arrive between the creation of a coroutine and its await; the warning would only confuse the user
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        from orchctl.run import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
