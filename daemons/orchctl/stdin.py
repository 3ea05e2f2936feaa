"""Standard input, decoded strictly: an invalid byte is reported with its offset."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.output import print_note


@contextmanager
def open_stdin() -> Iterator[TextIO]:
    """Yield standard input. Raises CommandError if it is closed or reading it fails."""
    if sys.stdin is None:
        raise CommandError("standard input is closed", "", ExitStatus.NO_INPUT)
    try:
        yield sys.stdin
    except OSError as error:
        raise CommandError(f"cannot read standard input: {error.strerror}", "", ExitStatus.NO_INPUT) from error


def read_stdin() -> str:
    """Read all of standard input, with line ends as \\n. Raises CommandError."""
    with open_stdin() as stdin:
        if stdin.isatty():
            print_note("reading from the terminal; end with Ctrl-D on an empty line")
        text = decode_stdin(stdin.buffer.read(), stdin.encoding)
        return text.replace("\r\n", "\n").replace("\r", "\n")


def decode_stdin(data: bytes, encoding: str, offset: int = 0) -> str:
    """Decode bytes that were read at `offset`. Raises CommandError that names the first invalid byte.

    In the C and POSIX locales, Python would pass invalid bytes on as surrogates.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        position = f"byte {offset + error.start} (0x{data[error.start]:02x}, counting from 0)"
        message = f"standard input: {position} is not valid {encoding.upper()}"
        hint = f"Convert the input to {encoding.upper()}, the encoding of the locale."
        raise CommandError(message, hint, ExitStatus.DATA) from error


def is_confirmed(question: str) -> bool:
    """Ask on the terminal; return whether the answer is yes. Without a terminal nobody is asked, and it is no."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
