"""One run of orchctl: from the command line to the exit status, and words for whatever goes wrong between them."""

import io
import sys

import trio

from llama_orch import VERSION
from llama_orch.service.command_line import Parser
from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import printing
from orchctl.chat import chat
from orchctl.check import check
from orchctl.command import Commands, common
from orchctl.commands import (
    artifacts,
    capabilities,
    catalog,
    drain,
    gpus,
    models,
    nodes,
    operations,
    pools,
    sessions,
    tasks,
)
from orchctl.destination import from_environment
from orchctl.errors import CommandError
from orchctl.output import explain
from orchctl.submit import submit

MODULES = (
    check,
    pools,
    nodes,
    gpus,
    drain,
    operations,
    capabilities,
    submit,
    chat,
    tasks,
    sessions,
    models,
    catalog,
    artifacts,
)
"""In the order in which help and manual name their commands."""


def parser() -> Parser:
    """The parser of the whole command line; `run` of what it returns is the command's coroutine."""
    top = Parser("orchctl", description="The command line client of llama-orch, see orchctl(1).")
    top.add_argument("--version", action="version", version=f"orchctl (llama-orch) {VERSION}")
    common(top)
    commands = Commands(top, required=True)
    for module in MODULES:
        module.add(commands)
    return top


def run(arguments: list[str] | None) -> int:
    """Run one command; its exit status. Raises KeyboardInterrupt and, as argparse, SystemExit."""
    try:
        _prepare_output()
        with printing("orchctl"):
            _obey(arguments)
    except CommandError as failure:
        explain(failure)
        return failure.status
    return 0


def _obey(arguments: list[str] | None) -> None:
    """Raises CommandError, and SystemExit behind a help text or for a wrong command line."""
    options = parser().parse_args(arguments)
    trio.run(options.run, options, from_environment(options.url))


def _prepare_output() -> None:
    """Raises CommandError where there is none."""
    if sys.stdout is None:
        raise CommandError("standard output is closed", "", ExitStatus.IO_ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model may say what the terminal's encoding cannot
