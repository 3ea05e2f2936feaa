"""A session as the store holds it: JSON without open turns, which are opened again after a restart.

In the store, times are wall clock, so that the TTL runs while queen-rbee does not. In memory they are trio's clock, so
that setting the wall clock neither ends sessions nor keeps them.
"""

import logging
import time
from dataclasses import replace
from functools import cache

import trio
from pydantic import TypeAdapter, ValidationError

from queen_rbee.sessions.session import Session
from queen_rbee.store.protocol import Document

OPEN_TURN_FIELDS = {"epoch", "open_turns", "reserved_tokens", "reserved_cost"}

log = logging.getLogger(__name__)


@cache
def _adapter() -> TypeAdapter[Session]:
    """Created with the first session: queen-rbee without sessions holds no validator for them."""
    return TypeAdapter(Session)


def wall_offset_s() -> float:
    """Return wall clock minus trio's clock, in seconds; changes when the wall clock is set."""
    return time.time() - trio.current_time()


def encode_session(session: Session, offset_s: float) -> Document:
    """`offset_s` is the wall clock minus trio's clock."""
    stored = replace(session, used_at=session.used_at + offset_s)
    body = _adapter().dump_json(stored, exclude=OPEN_TURN_FIELDS).decode()
    return Document(str(session.session_id), body, stored=stored.used_at)


def decode_session(document: Document, offset_s: float) -> Session | None:
    """Return the stored session; log a warning and return None if the document is invalid."""
    try:
        stored = _adapter().validate_json(document.body)
    except ValidationError as error:
        log.warning("ignoring stored session %s, which is invalid: %s", document.key, error)
        return None
    return replace(stored, used_at=stored.used_at - offset_s)
