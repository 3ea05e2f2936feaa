"""What programs print: what cannot be written ends them with a status of its own, never with a traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from llama_orch.service.exit import ExitStatus


@contextmanager
def printing(program: str) -> Iterator[None]:
    """What the block prints is written when it ends.

    Raises SystemExit: 141 where whoever read standard output has gone, 74 where it cannot be written.
    """
    try:
        try:
            yield
        finally:  # as late as at its exit, Python could only complain of what it cannot write
            print(end="", flush=True)  # noqa: T201
    except BrokenPipeError:
        give_up(sys.stdout)
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        give_up(sys.stdout)
        complain(f"{program}: the output cannot be written: {error.strerror}")
        raise SystemExit(ExitStatus.IO_ERROR) from None


def complain(text: str) -> None:
    """`text` on standard error, wherever that goes; it is no failure that nobody reads it."""
    if sys.stderr is None:  # print() would take standard output then
        return
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Forget what could not be written to `stream`, or Python complains about it at its exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
