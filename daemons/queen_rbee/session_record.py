"""A session as the store has it: JSON without what belongs to open turns, which begin again after a restart."""

import logging
from functools import cache

from pydantic import TypeAdapter, ValidationError

from queen_rbee.session import Session
from queen_rbee.store.protocol import Document

OF_OPEN_TURNS = {"epoch", "open_turns", "reserved_tokens", "reserved_cost"}

log = logging.getLogger(__name__)


@cache
def _adapter() -> TypeAdapter[Session]:
    """Built when the first session is met: a queen without sessions keeps no validator for them."""
    return TypeAdapter(Session)


def written(session: Session) -> Document:
    """`session` for the store."""
    body = _adapter().dump_json(session, exclude=OF_OPEN_TURNS).decode()
    return Document(str(session.session_id), body, stored=session.used_at)


def read(document: Document) -> Session | None:
    """The session that was written; None, and said so in the log, where it cannot be understood."""
    try:
        return _adapter().validate_json(document.body)
    except ValidationError as error:
        log.warning("session %s in the store is not understood and left out: %s", document.key, error)
        return None
