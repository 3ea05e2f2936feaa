"""One run of orchctl: parse the command line, run the command, and turn an error into output and exit status."""

import argparse
import io
import sys
from contextlib import suppress

from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import printing
from orchctl.command_line import command_line
from orchctl.errors import CommandError
from orchctl.index import INDEX

COMPLETE = "__complete"
"""The word before what a shell wants completed. It is for scripts, so it is no command."""


def run(arguments: list[str] | None) -> int:
    """Run one command and return the exit status. Raises KeyboardInterrupt and, like argparse, SystemExit."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _prepare_stdout()
        with printing("orchctl"):
            if words[:1] == [COMPLETE]:
                from orchctl.completion import complete

                complete(words[1:])
                return 0
            _run_command(command_line(INDEX).parse_args(words))
    except CommandError as error:
        from orchctl.output import print_error

        print_error(error)
        return error.status
    return 0


def _run_command(options: argparse.Namespace) -> None:
    """Raises CommandError. What it imports takes most of the time of a start; --help does without."""
    import trio

    from orchctl.destination import client_for

    queen = client_for(options.url)
    if getattr(options, "watch", None) is None:
        trio.run(options.run, options, queen)
        return
    from orchctl.watch import watch

    with suppress(KeyboardInterrupt):  # the only way to end it
        trio.run(watch, options.run, options, queen)


def _prepare_stdout() -> None:
    """Raises CommandError if standard output is closed."""
    if sys.stdout is None:
        raise CommandError("standard output is closed", "", ExitStatus.IO_ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may emit what the terminal's encoding cannot represent
