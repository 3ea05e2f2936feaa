"""orchctl's command line: all commands, in the order in which help and manual name them."""

from llama_orch import VERSION
from llama_orch.service.command_line import Parser
from orchctl.chat import chat
from orchctl.check import check
from orchctl.command_line import Commands, common
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
