"""The last events of the journal catalog that this daemon logged, in memory."""

import logging
import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime

from llama_orch.contracts.live import LiveJournalEntry
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.events.event import Event
from llama_orch.telemetry.records import encodable, fields_of

ENTRY_LIMIT = 100
TEXT_LIMIT = 2048
"""Characters of a message or an advice."""
PLACEHOLDER = re.compile(r"@([A-Z0-9_]+)@")
OMITTED = (events.TASK_ENDED,)
"""Each task has one, which would displace all others. The list of tasks has them."""


class RecentEvents(logging.Handler):
    """Keeps the last ENTRY_LIMIT events. Install it with `logging.getLogger().addHandler`.

    Nothing is formatted until somebody reads: an event costs a microsecond.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._records: deque[tuple[int, logging.LogRecord]] = deque(maxlen=ENTRY_LIMIT)
        self._count = 0
        self._read = 0
        self._documents: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep `record` if it is an event."""
        event: Event | None = getattr(record, "event", None)
        if event and event not in OMITTED:
            self._count += 1
            self._records.append((self._count, record))

    def documents(self) -> dict[str, str]:
        """Return the entries by number, oldest first."""
        if self._read != self._count:
            self._read = self._count
            known = self._documents
            self._documents = {
                key: known.get(key) or _entry(record).model_dump_json() for key, record in self._numbered()
            }
        return self._documents

    def _numbered(self) -> Iterator[tuple[str, logging.LogRecord]]:
        # a thread may log meanwhile, and iterating a deque that changes is an error
        return ((str(number), record) for number, record in self._records.copy())


def _entry(record: logging.LogRecord) -> LiveJournalEntry:
    event: Event = record.__dict__["event"]
    fields = fields_of(record)
    advice = PLACEHOLDER.sub(lambda found: fields.get(found[1].lower(), "-"), event.advice)
    return LiveJournalEntry(
        at=datetime.fromtimestamp(record.created, UTC),
        level=record.levelname.lower(),
        event=event.name,
        text=encodable(record.getMessage())[:TEXT_LIMIT],
        advice=advice.replace("\n", " ")[:TEXT_LIMIT],
    )
