"""Reload a daemon's configuration while it runs: on SIGHUP, and on POST /v2/reload, which `systemctl reload` sends.

systemd reads an environment file again only for a process that it starts, and only root can read the packaged one. So
ExecReload= passes the environment of its own process on, with the new values; after a bare SIGHUP the daemon knows only
the variables of its start. Credentials are copied when the unit starts, so a token or a key from one stays as it is.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import trio

from llama_orch.service.run import Service
from llama_orch.settings.loading import ConfigurationError
from llama_orch.settings.shared import Common
from llama_orch.telemetry import records
from llama_orch.telemetry.events import service as events

UNCHANGED = "nothing has changed"


@dataclass(frozen=True)
class Outcome:
    """What a reload has done: the changes that it applied, and the problems for which it refused others, in words.

    `needs_restart` names the changed variables that are applied only by a restart.
    """

    applied: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.applied + other.applied, self.refused + other.refused, self.needs_restart + other.needs_restart
        )


Part = Callable[[], Awaitable[Outcome]]
"""Reloads one part of the configuration. It logs what it refuses, and raises nothing."""


class Request:
    """A caller that waits for a reload which begins after its request."""

    def __init__(self, environment: Mapping[str, str] | None) -> None:
        self.environment = environment
        self.done = trio.Event()
        self.outcome = Outcome()


class Reloader:
    """Reloads log levels and `parts`, one reload at a time. `status` returns the line for `systemctl status`."""

    def __init__(self, settings: Common, service: Service, status: Callable[[], str], *parts: Part) -> None:
        self._settings = settings
        self._levels = settings.log_levels
        self._service = service
        self._status = status
        self._parts = parts
        self._environment: Mapping[str, str] = service.environ
        self._requests: list[Request] = []

    async def reload(self, environment: Mapping[str, str] | None = None) -> Outcome:
        """Reload; `environment` is that of the unit now, None if it is unknown."""
        request = Request(environment)
        self._requests.append(request)
        self._service.hangup.ring()
        await request.done.wait()
        return request.outcome

    async def run(self) -> NoReturn:
        """Serve requests and SIGHUP until cancelled."""
        while True:
            await self._service.hangup.wait(math.inf)
            requests, self._requests = self._requests, []
            for request in requests or [Request(None)]:
                request.outcome = await self._once(request.environment)
                request.done.set()

    async def _once(self, environment: Mapping[str, str] | None) -> Outcome:
        self._service.notifier.reloading("reading the configuration again")
        try:
            outcome = await self._reload_settings(environment)
            for part in self._parts:
                outcome += await part()
        finally:
            self._service.notifier.ready(self._status())
        records.emit(
            events.CONFIGURATION_RELOADED,
            daemon=self._service.name,
            applied="; ".join(outcome.applied) or UNCHANGED,
            refused=len(outcome.refused) or None,
        )
        if outcome.needs_restart:
            records.emit(
                events.RELOAD_NEEDS_RESTART,
                daemon=self._service.name,
                variables=", ".join(outcome.needs_restart),
            )
        return outcome

    async def _reload_settings(self, environment: Mapping[str, str] | None) -> Outcome:
        """Apply changed log levels. All other settings are immutable: name those that have changed."""
        if environment is not None:
            own = {name: value for name, value in self._service.environ.items() if name == "CREDENTIALS_DIRECTORY"}
            self._environment = {**environment, **own}
        try:
            settings = await trio.to_thread.run_sync(type(self._settings).load, self._environment)
        except ConfigurationError as error:
            return refuse(*map(str, error.problems))
        former, self._levels = self._levels, settings.log_levels
        changed = changed_variables(self._settings, settings)
        if former == self._levels:
            return Outcome(needs_restart=changed)
        records.change_levels(self._service.name, self._levels)
        return Outcome((f"RUST_LOG: {former} is now {self._levels}",), needs_restart=changed)


def changed_variables(former: Common, settings: Common) -> tuple[str, ...]:
    """Return the variables whose values differ and need a restart: all but RUST_LOG."""
    return tuple(
        var.env
        for name, var in former.variables().items()
        if name != "log_levels" and getattr(former, name) != getattr(settings, name)
    )


def refuse(*problems: str) -> Outcome:
    """Log each problem, and return that the change was refused for them."""
    for problem in problems:
        records.emit(events.RELOAD_REFUSED, problem=problem)
    return Outcome(refused=problems)
