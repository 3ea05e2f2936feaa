"""Standard output and error of programs: a write error ends them with an exit status, not with a traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from llama_orch.service.exit import ExitStatus


@contextmanager
def printing(program: str) -> Iterator[None]:
    """Flush standard output at the end of the block.

    Raises SystemExit: 141 if the reader of standard output has gone, 74 for other write errors.
    """
    try:
        try:
            yield
        finally:  # at its exit Python could only print a warning
            print(end="", flush=True)  # noqa: T201
    except BrokenPipeError:
        discard(sys.stdout)
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        discard(sys.stdout)
        complain(f"{program}: cannot write to standard output: {error.strerror}")
        raise SystemExit(ExitStatus.IO_ERROR) from None


def complain(text: str) -> None:
    """Print `text` to standard error. Ignores write errors."""
    if sys.stderr is None:  # print() would use standard output
        return
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Discard the unwritten output of `stream`, or Python prints a warning at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
