"""Warn of certificates that expire: at the start of a daemon, after a reload, and once a day."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from llama_orch.bell import Bell
from llama_orch.http.tls.x509 import certificates, ends_at
from llama_orch.settings.tls import CA_FILE, CERT_FILE, TlsFiles
from llama_orch.telemetry.events import service as events
from llama_orch.telemetry.events.event import Event
from llama_orch.telemetry.records import emit

NOTICE = timedelta(days=30)
DAY_S = 86_400.0


class Validity(StrEnum):
    """Whether a certificate is valid, expires within NOTICE, or has expired."""

    GOOD = "good"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True)
class ExpiringCertificate:
    """The certificate of a file that expires first. `number` is its position in the file, from 1."""

    variable: str
    path: Path
    number: int
    ends: datetime


def validity(ends: datetime, now: datetime) -> Validity:
    if now > ends:
        return Validity.ENDED
    return Validity.ENDING if ends - now <= NOTICE else Validity.GOOD


def describe_end(ends: datetime, now: datetime) -> str:
    """Return when a certificate expires, as in `ends on 2027-01-31 12:00 UTC, in 3 days`."""
    days = abs(ends - now).days
    counted = "less than a day" if not days else f"{days} day{'s' * (days > 1)}"
    date = f"{ends:%Y-%m-%d %H:%M} UTC"
    return f"ended on {date}, {counted} ago" if now > ends else f"ends on {date}, in {counted}"


def first_to_expire(files: TlsFiles) -> list[ExpiringCertificate]:
    """Return the certificate of each file that expires first. Skips unreadable files, which are reported on use."""
    found = ((variable, path) for variable, path in ((CERT_FILE, files.cert), (CA_FILE, files.ca)) if path)
    return [first for variable, path in found for first in _first(variable, path)]


def _first(variable: str, path: Path) -> Iterator[ExpiringCertificate]:
    try:
        ends = [ends_at(each) for each in certificates(path.read_text("latin-1"))]
    except (OSError, ValueError):
        return
    if ends:
        yield ExpiringCertificate(variable, path, ends.index(min(ends)) + 1, min(ends))


def warnings(
    certificates: Iterable[ExpiringCertificate], now: datetime
) -> Iterator[tuple[Event, Mapping[str, object]]]:
    """Yield the event and its fields for each certificate that expires soon or has expired."""
    for each in certificates:
        state = validity(each.ends, now)
        if state is not Validity.GOOD:
            event = events.CERTIFICATE_ENDED if state is Validity.ENDED else events.CERTIFICATE_ENDING
            fields = {"number": each.number, "path": each.path, "variable": each.variable}
            yield event, {**fields, "end": describe_end(each.ends, now)}


def wall_clock() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


async def keep_warning(
    certificates: Callable[[], Sequence[ExpiringCertificate]], renewed: Bell, clock: Callable[[], datetime] = wall_clock
) -> NoReturn:
    """Warn now, once a day, and when `renewed` rings.

    `certificates` returns those that the daemon has loaded, which may differ from its files.
    """
    while True:
        for event, fields in warnings(certificates(), clock()):
            emit(event, **fields)
        await renewed.wait(DAY_S)
