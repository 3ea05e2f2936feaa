"""The one owner of sessions: in memory, with the store behind it; metadata only, never content.

Open turns are not stored: they belong to open tasks, which begin them again after a restart. Times are wall clock in
seconds since the epoch, so that a session's time runs on while no queen does.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from uuid import UUID

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.sessions import SessionChange, SessionView
from queen_rbee import session_budgets, session_record
from queen_rbee.session import Session, Spent, Turn, begun, changed, given_back, placed, settled, view
from queen_rbee.store.protocol import Store, StoreFailure

LIMIT = 100_000
HEADERS = {
    "tokens_budget_remaining": "x-budget-tokens-remaining",
    "time_budget_remaining_ms": "x-budget-time-ms-remaining",
    "cost_budget_remaining": "x-budget-cost-remaining",
}

log = logging.getLogger(__name__)


class Sessions:
    """At most `limit` sessions, the most recently used last; beyond that the ones that idle longest go."""

    def __init__(self, store: Store, limit: int = LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._sessions: dict[UUID, Session] = {}
        self._open: set[int] = set()
        self._gone: dict[UUID, None] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._sessions)

    async def load(self, now: float) -> None:
        """Know again what was stored. Raises StoreFailure."""
        found = [session_record.read(document) for document in await self._store.listed("session")]
        for session in sorted(filter(None, found), key=lambda session: session.used_at):
            # a clock that was ahead must not make a session live for ever
            self._keep(replace(session, epoch=next(self._numbers), used_at=min(session.used_at, now)))
        self.expire(now)

    def check(
        self, session_id: UUID, tokens_wanted: int | None, now: float, *, price: float | None = None
    ) -> ApiError | None:
        """Why a turn must be refused before it waits, or None; to be followed by `begin` without a wait in between.

        `tokens_wanted` is the most that it may use, None where it does not say; `price` is the cost of 1000 tokens of
        its model, None where it is not known.
        """
        session = self._living(session_id, now)
        if session:
            return session_budgets.refusal(session, tokens_wanted, price)
        return None if self._make_room(now) else _full(self._limit)

    def begin(self, session_id: UUID, tokens_wanted: int | None, now: float, *, price: float | None = None) -> Turn:
        """Count a turn and reserve what it wants. To be ended by exactly one of `ended` and `abandoned`; what comes
        after the first of them does nothing."""
        session = self._living(session_id, now) or self._new(session_id, now)
        tokens, cost = session_budgets.reservation(session, tokens_wanted, price)
        turn = Turn(session_id, session.epoch, next(self._numbers), tokens, cost)
        self._open.add(turn.number)
        self._keep(begun(session, turn, now))
        return turn

    def placed(self, turn: Turn, pool_id: str, replica_id: str) -> bool | None:
        """`turn` runs on this replica: whether the session's last turn did (None: there was none)."""
        session = self._of(turn)
        if session is None or turn.number not in self._open:
            return None
        session = placed(session, (pool_id, replica_id))
        self._sessions[session.session_id] = session
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
            self._store.put_later("session", session_record.written(session))

    def abandoned(self, turn: Turn) -> None:
        """`turn` never ran: its reservation and the turn are given back."""
        self._settle(turn, lambda before: given_back(before, turn))

    def affinity(self, session_id: UUID) -> tuple[str, str] | None:
        """Pool and replica of the last turn, where the session's KV cache is."""
        session = self._sessions.get(session_id)
        return session.place if session else None

    def budgets(self, session_id: UUID) -> dict[str, int | float]:
        """What is left of each budget that is set: tokens, milliseconds, cost."""
        session = self._sessions.get(session_id)
        if session is None:
            return {}
        left: dict[str, int | float | None] = {
            "tokens_budget_remaining": session.tokens_left,
            "time_budget_remaining_ms": session.time_left_ms,
            "cost_budget_remaining": session.cost_left,
        }
        return {name: value for name, value in left.items() if value is not None}

    def budget_headers(self, session_id: UUID) -> list[tuple[str, str]]:
        """The same as headers of an answer."""
        return [(HEADERS[name], f"{value}") for name, value in self.budgets(session_id).items()]

    async def change(self, session_id: UUID, change: SessionChange, now: float) -> SessionView:
        """Set limits of a session, which is made if need be. Durable on return; raises ApiError, StoreFailure."""
        session = self._living(session_id, now)
        if session is None and not self._make_room(now):
            raise _full(self._limit)
        session = changed(session or self._new(session_id, now), change, now)
        self._keep(session)
        seen = view(session, now)
        await self._store.put("session", session_record.written(session))
        return seen

    async def delete(self, session_id: UUID, now: float) -> bool:
        """Forget a session; whether there was one. Its open turns run on and count no more. Raises StoreFailure."""
        if self._living(session_id, now) is None:
            return False
        self._forget(session_id)
        await self._purge(session_id)
        return True

    def view(self, session_id: UUID, now: float) -> SessionView | None:
        """A session as clients see it."""
        session = self._living(session_id, now)
        return view(session, now) if session else None

    def views(self, now: float, limit: int, before: UUID | None = None) -> list[SessionView]:
        """The most recently used ones first, behind `before`. Raises KeyError where that is no session."""
        newest = iter(reversed(self._sessions.values()))
        if before is not None:
            if before not in self._sessions:
                raise KeyError(before)
            while next(newest).session_id != before:
                pass
        return [view(session, now) for session in islice((s for s in newest if not s.expired(now)), limit)]

    def expire(self, now: float) -> None:
        """Drop sessions whose time has run out. Looks at every one: 100,000 take about 10 ms."""
        for session_id in [key for key, session in self._sessions.items() if session.expired(now)]:
            self._forget(session_id)

    async def tidy(self, now: float) -> None:
        """`expire`, and take what was dropped out of the store; what fails is tried again the next time."""
        self.expire(now)
        try:
            while self._gone:
                await self._purge(next(iter(self._gone)))
        except StoreFailure as failure:
            log.warning("%d ended sessions stay in the store for now: %s", len(self._gone), failure)

    async def _purge(self, session_id: UUID) -> None:
        self._gone.pop(session_id, None)  # first: it may be made and dropped again meanwhile
        try:
            await self._store.remove("session", str(session_id))
        except BaseException:
            if session_id not in self._sessions:
                self._gone[session_id] = None
            raise

    def _living(self, session_id: UUID, now: float) -> Session | None:
        session = self._sessions.get(session_id)
        if session and session.expired(now):
            self._forget(session_id)
            return None
        return session

    def _new(self, session_id: UUID, now: float) -> Session:
        self._make_room(now)
        self._gone.pop(session_id, None)
        return Session(session_id, now, epoch=next(self._numbers))

    def _keep(self, session: Session) -> None:
        """As the most recently used one."""
        self._sessions.pop(session.session_id, None)
        self._sessions[session.session_id] = session

    def _forget(self, session_id: UUID) -> None:
        del self._sessions[session_id]
        self._gone[session_id] = None

    def _of(self, turn: Turn) -> Session | None:
        session = self._sessions.get(turn.session_id)
        return session if session and session.epoch == turn.epoch else None

    def _settle(self, turn: Turn, change: Callable[[Session], Session]) -> Session | None:
        """The session after `change`; None where the turn was settled before or its session is gone."""
        known = turn.number in self._open
        self._open.discard(turn.number)
        session = self._of(turn)
        if session is None or not known:
            return None
        session = change(session)
        self._keep(session)
        return session

    def _make_room(self, now: float) -> bool:
        """Whether one more session has a place; the one that idles longest goes for it."""
        if len(self._sessions) < self._limit:
            return True
        idle = next((key for key, session in self._sessions.items() if not session.open_turns), None)
        if idle is None:
            return False
        self._forget(idle)
        return True


def _full(limit: int) -> ApiError:
    body = ErrorBody(
        code=ErrorCode.ADMISSION_REJECT,
        message=f"all {limit} sessions that can be kept have open turns",
        hint="Wait until a task has ended, or go without a session.",
        retriable=True,
        policy_label="sessions-full",
    )
    return ApiError(503, body)
