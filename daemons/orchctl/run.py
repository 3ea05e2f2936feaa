"""One run of orchctl: parse the command line, run the command, and turn an error into output and exit status."""

import io
import sys

import trio

from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import printing
from orchctl.destination import client_for
from orchctl.errors import CommandError
from orchctl.output import print_error
from orchctl.parser import build_parser


def run(arguments: list[str] | None) -> int:
    """Run one command and return the exit status. Raises KeyboardInterrupt and, like argparse, SystemExit."""
    try:
        _prepare_stdout()
        with printing("orchctl"):
            options = build_parser().parse_args(arguments)
            trio.run(options.run, options, client_for(options.url))
    except CommandError as error:
        print_error(error)
        return error.status
    return 0


def _prepare_stdout() -> None:
    """Raises CommandError if standard output is closed."""
    if sys.stdout is None:
        raise CommandError("standard output is closed", "", ExitStatus.IO_ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may emit what the terminal's encoding cannot represent
