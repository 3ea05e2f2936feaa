"""Run a daemon: arguments, settings, logging, signals, exit status.

Each daemon's `__main__` calls `main`, which owns the process: nothing below it exits. Errors that an operator can cause
end in a message and a status of sysexits(3), not in a traceback.
"""

import argparse
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from llama_orch import VERSION
from llama_orch.bell import Bell
from llama_orch.service import configuration, core_dumps, unit_environment
from llama_orch.service.command_line import Parser
from llama_orch.service.configuration import ConfigurationRefusal
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.notify import Notifier
from llama_orch.service.output import printing
from llama_orch.service.traces import traces, unusable_files
from llama_orch.service.watchdog import Watchdog
from llama_orch.settings.loading import ConfigurationError, Problem, Settings
from llama_orch.telemetry import records
from llama_orch.telemetry.events import service as events
from llama_orch.telemetry.levels import Levels, parse_levels

S = TypeVar("S", bound=Settings)

log = logging.getLogger("llama_orch.service")


@dataclass(frozen=True)
class Service:
    """A running daemon's connection to the service manager.

    `stop` is set by the first SIGTERM or SIGINT; the daemon then drains and returns. A second signal cancels
    everything at once. SIGHUP rings `hangup`, which the daemon answers with a reload.
    """

    name: str
    notifier: Notifier
    watchdog: Watchdog
    stop: trio.Event
    environ: Mapping[str, str]
    hangup: Bell = field(default_factory=Bell)


def nothing_to_check(_settings: Settings) -> None:
    """Do nothing: the check of a daemon whose settings name no files."""


@dataclass(frozen=True)
class Command(Generic[S]):
    """A command of a daemon's program, besides running the daemon. `run` returns the exit status."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[S, argparse.Namespace], int]


@dataclass(frozen=True)
class Daemon(Generic[S]):
    """A daemon's name, its settings class, and its main coroutine.

    `check` checks the files that the settings name; a problem refuses the start like an invalid variable. It also runs
    on refused settings, in which an unusable variable has its default. `commands` get valid settings.
    """

    name: str
    summary: str
    settings: type[S]
    run: Callable[[S, Service], Awaitable[None]]
    check: Callable[[S], ConfigurationRefusal | None] = nothing_to_check
    commands: tuple[Command[S], ...] = ()


def main(daemon: Daemon[Any], arguments: list[str] | None = None) -> int:
    """Run `daemon` to its end and return the exit status."""
    core_dumps.disable()
    with printing(daemon.name):
        options = _parser(daemon).parse_args(arguments)
        if options.check_config or getattr(options, "command", None):
            unit_environment.adopt(daemon.name, os.environ)
        settings, refusals = _load(daemon, os.environ)
        if refusals:
            configuration.report(daemon.name, *refusals)
            return ExitStatus.CONFIG
        if options.check_config:
            configuration.show(daemon.name, settings, os.environ)
            return ExitStatus.OK
        for command in daemon.commands:
            if options.command == command.name:
                return command.run(settings, options)
    _configure_logging(daemon.name, settings)
    for notice in configuration.notices(os.environ, settings):
        notice.emit()
    return _run(daemon, settings)


def _load(daemon: Daemon[Any], environ: Mapping[str, str]) -> tuple[Settings, list[ConfigurationRefusal]]:
    """Return the settings and why they are refused, including the files that they name."""
    problems: list[Problem] = []
    refusal: ConfigurationRefusal | None = None
    try:
        settings: Settings = daemon.settings.load(environ)
    except ConfigurationError as error:
        settings, problems = error.settings or daemon.settings(), [*error.problems]
    problems += unusable_files(settings)
    try:
        refusal = daemon.check(settings)
    except ConfigurationError as error:
        problems = [*dict.fromkeys((*problems, *error.problems))]
    variables = configuration.refused(ConfigurationError(problems)) if problems else None
    return settings, [found for found in (variables, refusal) if found]


def _parser(daemon: Daemon[Any]) -> Parser:
    parser = Parser(
        daemon.name,
        description=f"{daemon.summary} Configured by environment variables, see {daemon.name}.env(5).",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="print the effective settings and exit (0, or 78 if wrong)"
    )
    parser.add_argument("--version", action="version", version=f"{daemon.name} (llama-orch) {VERSION}")
    if daemon.commands:
        commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
        for command in daemon.commands:
            command.add_arguments(commands.add_parser(command.name, help=command.summary, description=command.summary))
    return parser


def _configure_logging(name: str, settings: Settings) -> None:
    levels = getattr(settings, "log_levels", None)
    records.configure(
        name,
        levels if isinstance(levels, Levels) else parse_levels("info"),
        getattr(settings, "log_format", "auto"),
    )


def _run(daemon: Daemon[Any], settings: Settings) -> int:
    try:
        trio.run(partial(_supervise, daemon, settings), strict_exception_groups=True)
    except BaseException as error:
        return _report_error(daemon, error)
    return ExitStatus.OK


def _report_error(daemon: Daemon[Any], error: BaseException) -> int:
    """Report the error that ended the daemon; return the exit status."""
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, ConfigurationError):  # a file that became invalid after the check
            configuration.report(daemon.name, configuration.refused(cause))
            return ExitStatus.CONFIG
        if isinstance(cause, StartupError):
            records.emit(events.START_FAILED, problem=cause.message, hint=cause.hint)
            return cause.status
    if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return 128 + signal.SIGINT
    log.error("%s ends with an internal error", daemon.name, exc_info=error)
    return ExitStatus.SOFTWARE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _supervise(daemon: Daemon[Any], settings: Settings) -> None:
    notifier = Notifier()
    service = Service(daemon.name, notifier, Watchdog(notifier), trio.Event(), os.environ)
    async with trio.open_nursery() as nursery:
        await nursery.start(_signals, service, nursery.cancel_scope)
        nursery.start_soon(service.watchdog.run)
        async with traces(settings, daemon.name):
            await daemon.run(settings, service)
        if not service.stop.is_set():
            raise RuntimeError(f"{daemon.name} ended without being asked to stop")
        nursery.cancel_scope.cancel()


async def _signals(
    service: Service,
    everything: trio.CancelScope,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                service.hangup.ring()
                continue
            if service.stop.is_set():
                everything.cancel()
                return
            service.notifier.stopping("stopping")
            service.stop.set()
