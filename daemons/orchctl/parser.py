"""The list of all commands. orchctl itself uses the index, which is generated from it, and imports one command."""

from collections.abc import Sequence

from llama_orch.service.command_line import Parser
from orchctl.bench.bench import BENCH
from orchctl.bundle.support_bundle import SUPPORT_BUNDLE
from orchctl.chat.chat import CHAT
from orchctl.check.check import CHECK
from orchctl.command import CliCommand
from orchctl.command_line import command_line
from orchctl.commands.artifacts import ARTIFACTS
from orchctl.commands.batch import BATCH
from orchctl.commands.cancel import CANCEL
from orchctl.commands.capabilities import CAPABILITIES
from orchctl.commands.catalog import CATALOG
from orchctl.commands.disk_models import PIN, RM, UNPIN
from orchctl.commands.drain import DRAIN, RESUME
from orchctl.commands.gpus import GPUS
from orchctl.commands.loading import LOAD, UNLOAD
from orchctl.commands.models import MODELS
from orchctl.commands.nodes import NODES
from orchctl.commands.operations import OPERATIONS
from orchctl.commands.pools import POOLS
from orchctl.commands.ps import PS
from orchctl.commands.pull import PULL
from orchctl.commands.sessions import SESSIONS
from orchctl.commands.status import STATUS
from orchctl.commands.tasks import TASKS
from orchctl.commands.usage import USAGE
from orchctl.config.config import CONFIG
from orchctl.doctor.doctor import DOCTOR
from orchctl.events.events import EVENTS
from orchctl.journal.logs import LOGS
from orchctl.machine.key import KEY
from orchctl.machine.pool import POOL
from orchctl.machine.reloading import PURGE, RELOAD
from orchctl.machine.run import RUN, SERVE
from orchctl.submit.submit import SUBMIT
from orchctl.top.top import TOP

COMMANDS = (
    RUN,
    SERVE,
    CHECK,
    DOCTOR,
    LOGS,
    EVENTS,
    CONFIG,
    SUPPORT_BUNDLE,
    STATUS,
    TOP,
    PS,
    POOLS,
    POOL,
    LOAD,
    UNLOAD,
    RELOAD,
    PURGE,
    NODES,
    GPUS,
    DRAIN,
    RESUME,
    OPERATIONS,
    CAPABILITIES,
    SUBMIT,
    CHAT,
    BENCH,
    TASKS,
    CANCEL,
    BATCH,
    SESSIONS,
    KEY,
    USAGE,
    MODELS,
    PULL,
    RM,
    PIN,
    UNPIN,
    CATALOG,
    ARTIFACTS,
)
"""In the order of help, completion and orchctl(1)."""


def build_parser(commands: Sequence[CliCommand] = COMMANDS) -> Parser:
    """Return a parser with all commands imported and declared, for generators and tests."""
    return command_line(commands)
