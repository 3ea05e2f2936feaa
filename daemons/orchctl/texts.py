"""The texts that a task is about: those on the command line, or standard input."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.output import note

STDIN = ["-"]


@dataclass(frozen=True)
class TaskInput:
    """What a task is about: a completion has a prompt, an embedding inputs, a rerank a query and documents."""

    prompt: str | None = None
    inputs: Sequence[str] | None = None


def texts_of(workload: str | None, given: list[str]) -> TaskInput:
    """The texts on the command line or on standard input. Raises CommandError where they do not fit the workload."""
    if workload == "embedding":
        return TaskInput(inputs=_each(given))
    if workload == "rerank":
        if given in ([], STDIN):
            raise _misused("a rerank needs the query", "As in: orchctl submit --workload rerank QUERY [DOCUMENT ...]")
        return TaskInput(given[0], _each(given[1:]))
    if len(given) > 1:
        raise _misused("a completion has one prompt", 'Put it into quotes: orchctl submit "...".')
    return TaskInput(read_stdin() if given in ([], STDIN) else given[0])


def _each(given: list[str]) -> list[str]:
    """The texts given, or else each line of standard input that is not empty."""
    return [line for line in read_stdin().split("\n") if line.strip()] if given in ([], STDIN) else given


def _misused(message: str, hint: str) -> CommandError:
    return CommandError(message, hint, ExitStatus.USAGE)


def read_stdin() -> str:
    """All of standard input. Raises CommandError as `standard_input` does."""
    with standard_input() as stdin:
        if stdin.isatty():
            note("reading the text from the terminal; Ctrl-D on a line of its own ends it")
        text = decoded(stdin.buffer.read(), stdin.encoding)
        return text.replace("\r\n", "\n").replace("\r", "\n")


def decoded(data: bytes, encoding: str, offset: int = 0) -> str:
    """What was read of standard input from byte `offset` on. Raises CommandError that names the first byte that is wrong.

    Python would pass wrong bytes on as surrogates where the locale is C or POSIX.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start} (0x{data[error.start]:02x}, counted from 0)"
        message = f"standard input is not text: {place} is not {encoding.upper()}"
        raise CommandError(message, f"orchctl reads it as {encoding.upper()}.", ExitStatus.DATA) from error


@contextmanager
def standard_input() -> Iterator[TextIO]:
    """Standard input, to be read. Raises CommandError where that fails."""
    if sys.stdin is None:
        raise CommandError("standard input is closed", "", ExitStatus.NO_INPUT)
    try:
        yield sys.stdin
    except OSError as error:
        raise CommandError(f"standard input cannot be read: {error.strerror}", "", ExitStatus.NO_INPUT) from error
