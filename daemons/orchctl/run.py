"""One run of orchctl: parse the command line, run the command, and turn an error into output and exit status."""

import argparse
import io
import sys

from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import printing
from orchctl.command_line import command_line
from orchctl.errors import CommandError
from orchctl.index import INDEX


def run(arguments: list[str] | None) -> int:
    """Run one command and return the exit status. Raises KeyboardInterrupt and, like argparse, SystemExit."""
    try:
        _prepare_stdout()
        with printing("orchctl"):
            _run_command(command_line(INDEX).parse_args(arguments))
    except CommandError as error:
        from orchctl.output import print_error

        print_error(error)
        return error.status
    return 0


def _run_command(options: argparse.Namespace) -> None:
    """Raises CommandError. What it imports takes most of the time of a start; --help does without."""
    import trio

    from orchctl.destination import client_for

    trio.run(options.run, options, client_for(options.url))


def _prepare_stdout() -> None:
    """Raises CommandError if standard output is closed."""
    if sys.stdout is None:
        raise CommandError("standard output is closed", "", ExitStatus.IO_ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may emit what the terminal's encoding cannot represent
