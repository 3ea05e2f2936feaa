"""orchctl's entry: runs one command and turns what goes wrong into words and an exit status."""

import io
import os
import signal
import sys
from contextlib import suppress

import trio

from llama_orch.service.exit import ExitStatus
from orchctl.arguments import parser
from orchctl.failure import Failure
from orchctl.output import explain
from orchctl.queen import from_environment

INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run orchctl; the exit status is one of sysexits(3), or 130 after Ctrl-C, or 141 after a closed pipe."""
    options = parser().parse_args(arguments)
    try:
        _prepare_output()
        trio.run(options.run, options, from_environment(options.url))
        print(end="", flush=True)
    except Failure as failure:
        explain(failure)
        return failure.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        _forget_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _forget_output()
        explain(Failure(f"the output cannot be written: {error.strerror}", "", ExitStatus.IO_ERROR))
        return ExitStatus.IO_ERROR
    return 0


def _prepare_output() -> None:
    """Raises Failure where there is none."""
    if sys.stdout is None:
        raise Failure("standard output is closed", "", ExitStatus.IO_ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may say what the terminal's encoding cannot


def _forget_output() -> None:
    """Give up what is still buffered for stdout, or Python complains about it at its exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
