"""Certificates run out: what is said of it, and the loop that says it, at the start of a daemon and once a day."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import trio

from llama_orch.http.tls.x509 import certificates, ends_at
from llama_orch.settings.tls import CA_FILE, CERT_FILE, TlsFiles
from llama_orch.telemetry import events
from llama_orch.telemetry.events import Event
from llama_orch.telemetry.records import emit

NOTICE = timedelta(days=30)
DAY_S = 86_400.0


class Standing(StrEnum):
    """How it is with a certificate."""

    GOOD = "good"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True)
class Held:
    """Of the certificates in a file the one that ends first: its place in the file, from 1 on, and its end."""

    variable: str
    path: Path
    number: int
    ends: datetime


def standing(ends: datetime, now: datetime) -> Standing:
    """How it is with a certificate that is good until `ends`."""
    if now > ends:
        return Standing.ENDED
    return Standing.ENDING if ends - now <= NOTICE else Standing.GOOD


def told(ends: datetime, now: datetime) -> str:
    """When it ends, in words."""
    days = abs(ends - now).days
    counted = "less than a day" if not days else f"{days} day{'s' * (days > 1)}"
    date = f"{ends:%Y-%m-%d %H:%M} UTC"
    return f"ended on {date}, {counted} ago" if now > ends else f"ends on {date}, in {counted}"


def held(files: TlsFiles) -> list[Held]:
    """What ends first in each of the files; nothing of a file that cannot be read, which is told when it is used."""
    found = ((variable, path) for variable, path in ((CERT_FILE, files.cert), (CA_FILE, files.ca)) if path)
    return [first for variable, path in found for first in _first(variable, path)]


def _first(variable: str, path: Path) -> Iterator[Held]:
    try:
        ends = [ends_at(each) for each in certificates(path.read_text("latin-1"))]
    except (OSError, ValueError):
        return
    if ends:
        yield Held(variable, path, ends.index(min(ends)) + 1, min(ends))


def warnings(found: Iterable[Held], now: datetime) -> Iterator[tuple[Event, Mapping[str, object]]]:
    """What an operator must be told: events with their fields."""
    for each in found:
        how = standing(each.ends, now)
        if how is not Standing.GOOD:
            event = events.CERTIFICATE_ENDED if how is Standing.ENDED else events.CERTIFICATE_ENDING
            fields = {"number": each.number, "path": each.path, "variable": each.variable}
            yield event, {**fields, "end": told(each.ends, now)}


def wall_clock() -> datetime:
    """The time of day, which certificates go by."""
    return datetime.fromtimestamp(time.time(), UTC)


async def keep_warning(found: Sequence[Held], clock: Callable[[], datetime] = wall_clock) -> None:
    """Warn of them now and once a day; they are those that the daemon has loaded, whatever is in its files by then."""
    while found:
        for event, fields in warnings(found, clock()):
            emit(event, **fields)
        await trio.sleep(DAY_S)
