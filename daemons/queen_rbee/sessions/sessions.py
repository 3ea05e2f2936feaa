"""The one owner of sessions: in memory, with the store behind it; metadata only, never content.

Open turns are not stored: they belong to open tasks, which begin them again after a restart. Times are trio's clock in
seconds; the store has the wall's.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from uuid import UUID

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.sessions import SessionChange, SessionView
from queen_rbee.sessions import budgets as session_budgets
from queen_rbee.sessions import record
from queen_rbee.sessions.session import Limits, Session, Spent, Turn, begun, changed, given_back, placed, settled, view
from queen_rbee.sessions.table import SessionTable
from queen_rbee.store.protocol import Document, Store, StoreFailure

LIMIT = 100_000
REMOVED_TOGETHER = 256
"""So many removals wait for the disk at once: one after the other, a crowd of sessions would take minutes."""

log = logging.getLogger(__name__)


class Sessions:
    """At most `limit` sessions; beyond that the ones that idle longest go. `ahead` tells how many seconds the wall's
    clock is ahead of trio's."""

    def __init__(self, store: Store, limit: int = LIMIT, ahead: Callable[[], float] = record.wall_ahead) -> None:
        self._store = store
        self._ahead = ahead
        self._limit = limit
        self._table = SessionTable(limit)
        self._open: set[int] = set()
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._table)

    async def load(self, now: float) -> None:
        """Know again what was stored. Raises StoreFailure.

        Also those whose time has run out: open tasks that begin their turns again go on with them.
        """
        ahead_s = self._ahead()
        found = [record.read(document, ahead_s) for document in await self._store.list_documents("session")]
        # a clock that was ahead must not make a session live for ever
        self._table.fill(
            replace(session, epoch=next(self._numbers), used_at=min(session.used_at, now))
            for session in found
            if session
        )

    def check(
        self, session_id: UUID, tokens_wanted: int | None, now: float, *, price: float | None = None
    ) -> ApiError | None:
        """Why a turn must be refused before it waits, or None; to be followed by `begin` without a wait in between.

        `tokens_wanted` is the most that it may use, None where it does not say; `price` is the cost of 1000 tokens of
        its model, None where it is not known.
        """
        session = self._table.living(session_id, now)
        if session:
            return session_budgets.refusal(session, tokens_wanted, price)
        return None if self._table.has_room() else _full(self._limit)

    def begin(self, session_id: UUID, tokens_wanted: int | None, now: float, *, price: float | None = None) -> Turn:
        """Count a turn and reserve what it wants. To be ended by exactly one of `ended` and `abandoned`; what comes
        after the first of them does nothing."""
        session = self._table.get(session_id) or self._new(session_id, now)
        tokens, cost = session_budgets.reservation(session, tokens_wanted, price)
        turn = Turn(session_id, session.epoch, next(self._numbers), tokens, cost)
        self._open.add(turn.number)
        self._table.keep(begun(session, turn, now))
        return turn

    def placed(self, turn: Turn, pool_id: str, replica_id: str) -> bool | None:
        """`turn` runs on this replica: whether the session's last turn did (None: there was none)."""
        session = self._of(turn)
        if session is None or turn.number not in self._open:
            return None
        session = placed(session, (pool_id, replica_id))
        self._table.replace(session)
        return session.kv_warmth

    def ended(
        self,
        turn: Turn,
        *,
        tokens_in: int,
        tokens_out: int,
        engine_ms: float,
        cost: float,
        now: float,
        kv_bytes: int | None = None,
    ) -> None:
        """`turn` has run and used this much: `engine_ms` of an engine's time, and `kv_bytes` of its cache if known."""
        used = Spent(tokens_in + tokens_out, engine_ms, cost)
        session = self._settle(turn, lambda before: settled(before, turn, used, now, kv_bytes))
        if session:
            self._store.put_later("session", self._written(session))

    def abandoned(self, turn: Turn) -> None:
        """`turn` never ran: its reservation and the turn are given back."""
        self._settle(turn, lambda before: given_back(before, turn))

    def affinity(self, session_id: UUID) -> tuple[str, str] | None:
        """Pool and replica of the last turn, where the session's KV cache is."""
        session = self._table.get(session_id)
        return session.place if session else None

    def budgets(self, session_id: UUID) -> dict[str, int | float]:
        """What is left of each budget that is set: tokens, milliseconds, cost."""
        session = self._table.get(session_id)
        return session_budgets.left(session) if session else {}

    def budget_headers(self, session_id: UUID) -> list[tuple[str, str]]:
        """The same as headers of an answer."""
        session = self._table.get(session_id)
        return session_budgets.headers(session) if session else []

    async def change(self, session_id: UUID, change: SessionChange, now: float) -> SessionView:
        """Set limits of a session, which is made if need be. Durable on return.

        Raises ApiError 503 where there is no room, StoreFailure, and then the limits are as they were.
        """
        before = self._table.living(session_id, now)
        if before is None and not self._table.has_room():
            raise _full(self._limit)
        after = changed(before or self._new(session_id, now), change, now)
        self._table.keep(after)
        try:
            await self._store.put("session", self._written(after))
        except StoreFailure:
            self._undo(after, before)
            raise
        return view(after, now)

    def _undo(self, after: Session, before: Session | None) -> None:
        """A change was not stored. Turns that have begun or ended meanwhile, and a later change, stay."""
        session = self._of(after)
        if session is None or session.limits != after.limits:
            return
        if session is after and before is None:
            self._table.forget(after.session_id)
            return
        session = replace(session, limits=before.limits if before else Limits())
        self._table.replace(session)
        self._store.put_later("session", self._written(session))

    async def delete(self, session_id: UUID, now: float) -> bool:
        """Forget a session; whether there was one. Its open turns run on and count no more.

        Durable on return; raises StoreFailure, and then it is still there.
        """
        session = self._table.living(session_id, now)
        if session is None:
            return False
        await self._store.remove("session", str(session_id))
        if self._of(session):
            self._table.forget(session_id)  # and out of the store once more: a turn may have ended meanwhile
        return True

    def view(self, session_id: UUID, now: float) -> SessionView | None:
        """A session as clients see it."""
        session = self._table.living(session_id, now)
        return view(session, now) if session else None

    def views(self, now: float, limit: int, before: UUID | None = None) -> list[SessionView]:
        """The most recently used ones first, behind `before`. Raises KeyError where that is no session."""
        living = (session for session in self._table.newest_first(before) if not session.expired(now))
        return [view(session, now) for session in islice(living, limit)]

    async def tidy(self, now: float) -> None:
        """Drop sessions whose time has run out, and take all that were dropped out of the store; what fails is tried
        again the next time."""
        self._table.expire(now)
        failures: list[StoreFailure] = []
        while self._table.gone and not failures:
            async with trio.open_nursery() as nursery:
                for session_id in list(islice(self._table.gone, REMOVED_TOGETHER)):
                    nursery.start_soon(self._remove, session_id, failures)
        if failures:
            log.warning("%d ended sessions stay in the store for now: %s", len(self._table.gone), failures[0])

    async def _remove(self, session_id: UUID, failures: list[StoreFailure]) -> None:
        if session_id in self._table:
            return  # it was made anew meanwhile
        self._table.gone.pop(session_id, None)  # first: it may be made and dropped again meanwhile
        try:
            await self._store.remove("session", str(session_id))
        except StoreFailure as failure:
            failures.append(failure)
            if session_id not in self._table:
                self._table.gone[session_id] = None

    def _new(self, session_id: UUID, now: float) -> Session:
        """A session with the limits that all have; the one that idles longest goes for it if need be."""
        self._table.make_room()
        return Session(session_id, now, epoch=next(self._numbers))

    def _written(self, session: Session) -> Document:
        return record.written(session, self._ahead())

    def _of(self, known: Turn | Session) -> Session | None:
        """The session as it is now; None where it has gone, whether or not there is a new one of its id."""
        session = self._table.get(known.session_id)
        return session if session and session.epoch == known.epoch else None

    def _settle(self, turn: Turn, change: Callable[[Session], Session]) -> Session | None:
        """The session after `change`; None where the turn was settled before or its session is gone."""
        known = turn.number in self._open
        self._open.discard(turn.number)
        session = self._of(turn)
        if session is None or not known:
            return None
        session = change(session)
        self._table.keep(session)
        return session


def _full(limit: int) -> ApiError:
    body = ErrorBody(
        code=ErrorCode.ADMISSION_REJECT,
        message=f"all {limit} sessions that can be kept have open turns",
        hint="Wait until a task has ended, or go without a session.",
        retriable=True,
        policy_label="sessions-full",
    )
    return ApiError(503, body)
