"""The type of operator-visible events."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One kind of event.

    `message_id` never changes and is never reused; a new event gets a fresh one (`systemd-id128 new`). `text` is the
    log message, formatted with the event's fields. `advice` is the text of the journal catalog (`journalctl -x`).
    """

    name: str
    message_id: str
    logger: str
    level: int
    text: str
    advice: str
