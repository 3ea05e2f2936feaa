"""The events of queen-rbee: the section `journal` of its event stream, which begins anew with every connection."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import trio
from pydantic import JsonValue, ValidationError

from llama_orch.contracts.live import LiveChange, LiveJournalEntry
from llama_orch.http.client.client import UpstreamError
from llama_orch.http.client.sse import MalformedStream, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, parse_response
from orchctl.errors import CommandError
from orchctl.output import print_progress
from orchctl.submit.event_stream import IdleLimited

PATH = "/v2/events"
SECTION = "journal"
RECONNECT_S = (0.5, 1.0, 2.0, 5.0)
"""Waits before the attempts to reconnect; the last one is repeated."""
READY_S = 30.0
"""How long the queen may take to send every section once."""
REMEMBERED = 1000
"""Entries by which repetitions after a new connection are recognized; the queen sends the last 100."""


@dataclass
class EventStream:
    """Passes each event from `since` on to `show`, once. With `follow` it reads until it is cancelled."""

    queen: QueenClient
    show: Callable[[LiveJournalEntry], None]
    since: datetime | None = None
    follow: bool = False
    _seen: OrderedDict[tuple[datetime, str, str], None] = field(default_factory=OrderedDict)
    _failures: int = 0
    _connected: bool = False

    async def run(self) -> None:
        """Raises CommandError if the queen refuses, or cannot be reached at first or without `follow`."""
        while True:
            try:
                await self._read()
                return
            except (UpstreamError, MalformedStream, CommandError) as error:
                if not self._may_retry(error):
                    raise self._final(error) from error
                if not self._failures:
                    print_progress(f"the connection to queen-rbee is lost ({error}); connecting again")
            await trio.sleep(RECONNECT_S[min(self._failures, len(RECONNECT_S) - 1)])
            self._failures += 1

    async def _read(self) -> None:
        """Read one connection: to its end, or without `follow` until every section has come."""
        limit_s = math.inf if self.follow else READY_S
        with trio.move_on_after(limit_s) as scope:
            async with self.queen.request("GET", PATH) as response:
                self._connected = True
                async for event in read_events(IdleLimited(response.chunks())):
                    self._failures = 0
                    if event.name == SECTION:
                        self._take(parse_response(LiveChange, event.data.encode()))
                    elif event.name == "ready" and not self.follow:
                        return
        if scope.cancelled_caught:
            raise UpstreamError(f"not all events came within {limit_s:g} s")
        raise UpstreamError("the stream ended")

    def _take(self, change: LiveChange) -> None:
        for _number, document in sorted(change.set.items(), key=_order):
            entry = _entry(document)
            key = (entry.at, entry.event, entry.text)
            if key in self._seen or (self.since and entry.at < self.since):
                continue
            self._seen[key] = None
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            self.show(entry)

    def _may_retry(self, error: Exception) -> bool:
        refused = isinstance(error, CommandError) and error.status is not ExitStatus.TEMPORARY
        return self.follow and self._connected and not refused

    def _final(self, error: Exception) -> CommandError:
        if isinstance(error, CommandError):
            return error
        if isinstance(error, UpstreamError) and not self._connected:
            return self.queen.unreachable(error)
        return CommandError(f"the stream of events broke off: {error}", "Try again.", ExitStatus.UNAVAILABLE)


def _order(item: tuple[str, dict[str, JsonValue]]) -> tuple[int, str]:
    """Sort by number; the keys are decimal."""
    return len(item[0]), item[0]


def _entry(document: dict[str, JsonValue]) -> LiveJournalEntry:
    try:
        return LiveJournalEntry.model_validate(document, strict=False)
    except ValidationError:
        return parse_response(LiveJournalEntry, b"{}")  # raises the error for another release
