"""Report a daemon's configuration: problems, notices, and the effective settings for `--check-config`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llama_orch.service.output import complain
from llama_orch.settings.loading import ConfigurationError, Settings
from llama_orch.settings.shared import FORMAT_VARIABLE
from llama_orch.settings.unknown import unknown
from llama_orch.telemetry import records
from llama_orch.telemetry.events import service as events
from llama_orch.telemetry.events.event import Event
from llama_orch.telemetry.levels import parse_levels


@dataclass(frozen=True)
class ConfigurationRefusal:
    """Why a configuration is refused: all problems, with a headline for people and an event for the journal."""

    headline: str
    event: Event
    problems: Sequence[object]


@dataclass(frozen=True)
class Notice:
    """A remark on a configuration that is not an error: an event with its fields."""

    event: Event
    fields: Mapping[str, object]

    def __str__(self) -> str:
        return self.event.text.format_map(self.fields)

    def emit(self) -> None:
        records.emit(self.event, **self.fields)


def refused(error: ConfigurationError) -> ConfigurationRefusal:
    """Return the refusal for unusable variables."""
    count = len(error.problems)
    headline = f"{count} setting{'s' * (count > 1)} cannot be used"
    return ConfigurationRefusal(headline, events.CONFIGURATION_REFUSED, error.problems)


def notices(environ: Mapping[str, str], settings: Settings | None = None) -> Iterator[Notice]:
    """Yield notices for the start: unknown variables, remarks of `settings`, and variables without effect."""
    if names := list(unknown(environ)):
        yield Notice(events.UNKNOWN_VARIABLES, {"variables": ", ".join(names)})
    if settings:
        yield from (Notice(event, fields) for event, fields in settings.remarks())
    if settings and (inert := settings.without_effect(environ)):
        profile = f"{settings.profile.upper()}_PROFILE"
        yield Notice(events.NO_EFFECT, {"profile": profile, "variables": ", ".join(inert)})


def show(daemon: str, settings: Settings, environ: Mapping[str, str]) -> None:
    """Print the effective settings to standard output and notices to standard error, for `--check-config`."""
    for variable, value, source in settings.effective(environ):
        print(f"{variable}={value}  # {source}")  # noqa: T201
    for notice in notices(environ, settings):
        complain(f"{daemon}: {notice}")


def report(daemon: str, *refusals: ConfigurationRefusal, environ: Mapping[str, str] = os.environ) -> None:
    """Report all problems: as lines to a person, or as one record each to the journal or as JSON, like logs."""
    log_format = environ.get(FORMAT_VARIABLE, "auto")
    if log_format in ("journal", "json") or records.stderr_is_journal(environ):
        records.configure(daemon, parse_levels("info"), "json" if log_format == "json" else "journal")
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
