"""A session as the store has it: JSON without what belongs to open turns, which begin again after a restart.

Its time is on the wall's clock there, so that it runs on while no queen does; in memory it is on trio's, so that a
clock that is set neither ends sessions nor keeps them.
"""

import logging
import time
from dataclasses import replace
from functools import cache

import trio
from pydantic import TypeAdapter, ValidationError

from queen_rbee.sessions.session import Session
from queen_rbee.store.protocol import Document

OF_OPEN_TURNS = {"epoch", "open_turns", "reserved_tokens", "reserved_cost"}

log = logging.getLogger(__name__)


@cache
def _adapter() -> TypeAdapter[Session]:
    """Built when the first session is met: a queen without sessions keeps no validator for them."""
    return TypeAdapter(Session)


def wall_ahead() -> float:
    """How many seconds the wall's clock is ahead of trio's; another number once it has been set."""
    return time.time() - trio.current_time()


def written(session: Session, ahead_s: float) -> Document:
    """`session` for the store; the wall's clock is `ahead_s` ahead of trio's."""
    dated = replace(session, used_at=session.used_at + ahead_s)
    body = _adapter().dump_json(dated, exclude=OF_OPEN_TURNS).decode()
    return Document(str(session.session_id), body, stored=dated.used_at)


def read(document: Document, ahead_s: float) -> Session | None:
    """The session that was written; None, and said so in the log, where it cannot be understood."""
    try:
        dated = _adapter().validate_json(document.body)
    except ValidationError as error:
        log.warning("session %s in the store is not understood and left out: %s", document.key, error)
        return None
    return replace(dated, used_at=dated.used_at - ahead_s)
