"""The owner of all sessions: in memory, written through to the store; metadata only, no content.

Open turns are not stored: they belong to open tasks, which open them again after a restart. Times are trio's clock in
seconds; in the store they are wall clock.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from uuid import UUID

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.sessions import SessionChange, SessionView
from queen_rbee.sessions.budgets import budget_headers, remaining_budgets, reservation, turn_refusal
from queen_rbee.sessions.record import decode_session, encode_session, wall_offset_s
from queen_rbee.sessions.session import (
    Session,
    SessionLimits,
    SessionTurn,
    SessionUsage,
    apply_change,
    close_turn,
    open_turn,
    place_turn,
    session_view,
    undo_turn,
)
from queen_rbee.sessions.table import SessionTable
from queen_rbee.store.protocol import Document, Store, StoreFailure

MAX_SESSIONS = 100_000
CONCURRENT_REMOVALS = 256
"""Removals that wait for the disk at once: one after the other, many expired sessions would take minutes."""

log = logging.getLogger(__name__)


class Sessions:
    """At most `limit` sessions; beyond that, the longest idle ones are removed. `offset_s` returns wall clock minus
    trio's clock."""

    def __init__(self, store: Store, limit: int = MAX_SESSIONS, offset_s: Callable[[], float] = wall_offset_s) -> None:
        self._store = store
        self._offset_s = offset_s
        self._limit = limit
        self._table = SessionTable(limit)
        self._open: set[int] = set()
        """The numbers of open turns."""
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._table)

    async def load(self, now: float) -> None:
        """Load the stored sessions, expired ones too: restored tasks may open turns in them. Raises StoreFailure."""
        offset_s = self._offset_s()
        sessions = [decode_session(document, offset_s) for document in await self._store.list_documents("session")]
        # not in the future: a wall clock that was ahead must not keep a session for ever
        self._table.load(
            replace(session, epoch=next(self._numbers), used_at=min(session.used_at, now))
            for session in sessions
            if session
        )

    def turn_refusal(
        self, session_id: UUID, tokens: int | None, now: float, *, price: float | None = None
    ) -> ApiError | None:
        """Return why a turn must be refused, or None; then call `open_turn` without awaiting in between.

        `tokens` is the turn's maximum, None if unknown. `price` is the cost of 1000 tokens, None if unknown.
        """
        session = self._table.get_unexpired(session_id, now)
        if session:
            return turn_refusal(session, tokens, price)
        return None if self._table.has_room() else _table_full(self._limit)

    def open_turn(self, session_id: UUID, tokens: int | None, now: float, *, price: float | None = None) -> SessionTurn:
        """Count a turn and reserve its maximum. End it by `end_turn` or `abandon_turn`; only the first call counts."""
        session = self._table.get(session_id) or self._create(session_id, now)
        reserved_tokens, reserved_cost = reservation(session, tokens, price)
        turn = SessionTurn(session_id, session.epoch, next(self._numbers), reserved_tokens, reserved_cost)
        self._open.add(turn.number)
        self._table.put(open_turn(session, turn, now))
        return turn

    def place_turn(self, turn: SessionTurn, pool_id: str, replica_id: str) -> bool | None:
        """Record the turn's replica; return whether the session's last turn ran there (None: there was no turn)."""
        session = self._current(turn)
        if session is None or turn.number not in self._open:
            return None
        session = place_turn(session, (pool_id, replica_id))
        self._table.replace(session)
        return session.kv_warmth

    def end_turn(
        self,
        turn: SessionTurn,
        *,
        tokens_in: int,
        tokens_out: int,
        engine_ms: float,
        cost: float,
        now: float,
        kv_bytes: int | None = None,
    ) -> None:
        """Charge the session with what the turn used."""
        used = SessionUsage(tokens_in + tokens_out, engine_ms, cost)
        session = self._settle(turn, lambda before: close_turn(before, turn, used, now, kv_bytes))
        if session:
            self._store.put_later("session", self._encode(session))

    def abandon_turn(self, turn: SessionTurn) -> None:
        """Undo a turn that never ran."""
        self._settle(turn, lambda before: undo_turn(before, turn))

    def affinity(self, session_id: UUID) -> tuple[str, str] | None:
        """Return pool and replica of the last turn, which may hold the session's KV cache."""
        session = self._table.get(session_id)
        return session.place if session else None

    def budgets(self, session_id: UUID) -> dict[str, int | float]:
        """Return what is left of each budget that is set: tokens, milliseconds, cost."""
        session = self._table.get(session_id)
        return remaining_budgets(session) if session else {}

    def budget_headers(self, session_id: UUID) -> list[tuple[str, str]]:
        """Return `budgets` as response headers."""
        session = self._table.get(session_id)
        return budget_headers(session) if session else []

    async def change(self, session_id: UUID, change: SessionChange, now: float) -> SessionView:
        """Set limits of a session, creating it if needed. Durable on return.

        Raises ApiError 503 if there is no room, or StoreFailure; then the limits are unchanged.
        """
        before = self._table.get_unexpired(session_id, now)
        if before is None and not self._table.has_room():
            raise _table_full(self._limit)
        after = apply_change(before or self._create(session_id, now), change, now)
        self._table.put(after)
        try:
            await self._store.put("session", self._encode(after))
        except StoreFailure:
            self._undo_change(after, before)
            raise
        return session_view(after, now)

    def _undo_change(self, after: Session, before: Session | None) -> None:
        """Restore the limits after a failed write. Keeps turns opened or ended meanwhile, and a later change."""
        session = self._current(after)
        if session is None or session.limits != after.limits:
            return
        if session is after and before is None:
            self._table.remove(after.session_id)
            return
        session = replace(session, limits=before.limits if before else SessionLimits())
        self._table.replace(session)
        self._store.put_later("session", self._encode(session))

    async def delete(self, session_id: UUID, now: float) -> bool:
        """Delete a session; return whether it existed. Its open turns run on without being counted.

        Durable on return. Raises StoreFailure; then the session still exists.
        """
        session = self._table.get_unexpired(session_id, now)
        if session is None:
            return False
        await self._store.remove("session", str(session_id))
        if self._current(session):
            # schedules another removal from the store: a turn that ended meanwhile may have written the session again
            self._table.remove(session_id)
        return True

    def view(self, session_id: UUID, now: float) -> SessionView | None:
        session = self._table.get_unexpired(session_id, now)
        return session_view(session, now) if session else None

    def views(self, now: float, limit: int, before: UUID | None = None) -> list[SessionView]:
        """Return up to `limit` sessions after `before`, most recently used first. Raises KeyError for an unknown id."""
        unexpired = (session for session in self._table.newest_first(before) if not session.expired(now))
        return [session_view(session, now) for session in islice(unexpired, limit)]

    async def remove_expired(self, now: float) -> None:
        """Remove expired sessions, and all removed ones from the store. Failed removals are repeated next time."""
        self._table.remove_expired(now)
        failures: list[StoreFailure] = []
        while self._table.removed and not failures:
            async with trio.open_nursery() as nursery:
                for session_id in list(islice(self._table.removed, CONCURRENT_REMOVALS)):
                    nursery.start_soon(self._remove_stored, session_id, failures)
        if failures:
            number = len(self._table.removed)
            log.warning("%d expired sessions cannot be removed from the store yet: %s", number, failures[0])

    async def _remove_stored(self, session_id: UUID, failures: list[StoreFailure]) -> None:
        if session_id in self._table:
            return  # created again meanwhile
        self._table.removed.pop(session_id, None)  # before the await: it may be created and removed again meanwhile
        try:
            await self._store.remove("session", str(session_id))
        except StoreFailure as failure:
            failures.append(failure)
            if session_id not in self._table:
                self._table.removed[session_id] = None

    def _create(self, session_id: UUID, now: float) -> Session:
        """Create a session with default limits, removing the longest idle one if the table is full."""
        self._table.make_room()
        return Session(session_id, now, epoch=next(self._numbers))

    def _encode(self, session: Session) -> Document:
        return encode_session(session, self._offset_s())

    def _current(self, known: SessionTurn | Session) -> Session | None:
        """Return the session's current value; None if it was removed, even if its id is in use again."""
        session = self._table.get(known.session_id)
        return session if session and session.epoch == known.epoch else None

    def _settle(self, turn: SessionTurn, change: Callable[[Session], Session]) -> Session | None:
        """Apply `change` and return the result; None if the turn is settled already or its session was removed."""
        is_open = turn.number in self._open
        self._open.discard(turn.number)
        session = self._current(turn)
        if session is None or not is_open:
            return None
        session = change(session)
        self._table.put(session)
        return session


def _table_full(limit: int) -> ApiError:
    body = ErrorBody(
        code=ErrorCode.ADMISSION_REJECT,
        message=f"the maximum of {limit} sessions is reached, and all have open turns",
        hint="Wait until a task has ended, or submit the task without a session.",
        retriable=True,
        policy_label="sessions-full",
    )
    return ApiError(503, body)
