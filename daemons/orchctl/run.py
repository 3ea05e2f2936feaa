"""One run of orchctl: from the command line to the exit status, and words for whatever goes wrong between them."""

import io
import sys

import trio

from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import printing
from orchctl.arguments import parser
from orchctl.destination import from_environment
from orchctl.failure import Failure
from orchctl.output import explain


def run(arguments: list[str] | None) -> int:
    """Run one command; its exit status. Raises KeyboardInterrupt and, as argparse, SystemExit."""
    try:
        _prepare_output()
        with printing("orchctl"):
            _obey(arguments)
    except Failure as failure:
        explain(failure)
        return failure.status
    return 0


def _obey(arguments: list[str] | None) -> None:
    """Raises Failure, and SystemExit behind a help text or for a wrong command line."""
    options = parser().parse_args(arguments)
    trio.run(options.run, options, from_environment(options.url))


def _prepare_output() -> None:
    """Raises Failure where there is none."""
    if sys.stdout is None:
        raise Failure("standard output is closed", "", ExitStatus.IO_ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may say what the terminal's encoding cannot
