"""What a daemon says about its configuration: refusals, notices, and all that is in force for `--check-config`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llama_orch.service.output import complain
from llama_orch.settings.loading import ConfigurationError, Settings
from llama_orch.settings.shared import FORMAT_VARIABLE
from llama_orch.settings.unknown import unknown
from llama_orch.telemetry import events, records
from llama_orch.telemetry.events import Event
from llama_orch.telemetry.levels import parse_levels


@dataclass(frozen=True)
class Refusal:
    """Why a daemon does not start with its configuration: every problem, each complete in itself."""

    headline: str
    event: Event
    problems: Sequence[object]


@dataclass(frozen=True)
class Notice:
    """Something about a configuration that is no error: an event with its fields."""

    event: Event
    fields: Mapping[str, object]

    def __str__(self) -> str:
        return self.event.text.format_map(self.fields)

    def emit(self) -> None:
        """Log it."""
        records.emit(self.event, **self.fields)


def refused(error: ConfigurationError) -> Refusal:
    """The refusal of variables that cannot be used."""
    count = len(error.problems)
    headline = f"{count} setting{'s' * (count > 1)} cannot be used"
    return Refusal(headline, events.CONFIGURATION_REFUSED, error.problems)


def notices(environ: Mapping[str, str], settings: Settings | None = None) -> Iterator[Notice]:
    """What is worth a line at the start: variables that nobody knows, and those that `settings` make no use of."""
    if names := list(unknown(environ)):
        yield Notice(events.UNKNOWN_VARIABLES, {"variables": ", ".join(names)})
    if settings:
        yield from (Notice(event, fields) for event, fields in settings.remarks())
    if settings and (inert := settings.without_effect(environ)):
        profile = f"{settings.profile.upper()}_PROFILE"
        yield Notice(events.NO_EFFECT, {"profile": profile, "variables": ", ".join(inert)})


def show(daemon: str, settings: Settings, environ: Mapping[str, str]) -> None:
    """`--check-config`: what is in force on standard output, notices on standard error."""
    for variable, value, source in settings.effective(environ):
        print(f"{variable}={value}  # {source}")  # noqa: T201
    for notice in notices(environ, settings):
        complain(f"{daemon}: {notice}")


def report(daemon: str, *refusals: Refusal, environ: Mapping[str, str] = os.environ) -> None:
    """Every problem: to a person in lines, to the journal or as JSON one record each, as logs would be."""
    wanted = environ.get(FORMAT_VARIABLE, "auto")
    if wanted in ("journal", "json") or records.stderr_is_journal(environ):
        records.configure(daemon, parse_levels("info"), "json" if wanted == "json" else "journal")
        for refusal in refusals:
            for problem in refusal.problems:
                records.emit(refusal.event, problems=problem)
        for notice in notices(environ):
            notice.emit()
        return
    for refusal in refusals:
        complain("\n  ".join((f"{daemon}: {refusal.headline}:", *map(str, refusal.problems))))
    for notice in notices(environ):
        complain(f"  {notice}")
