"""What an operator-visible event is, and the catalog of all of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One kind of event. `text` is filled with the event's fields; `advice` is what `journalctl -x` shows."""

    name: str
    message_id: str
    logger: str
    level: int
    text: str
    advice: str


CATALOG: list[Event] = []


def declared(name: str, message_id: str, logger: str, level: int, text: str, advice: str) -> Event:
    """A new event, entered in the catalog."""
    event = Event(name, message_id, logger, level, text, advice)
    CATALOG.append(event)
    return event
