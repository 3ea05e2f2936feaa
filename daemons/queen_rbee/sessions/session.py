"""One session as a value: its limits, what its turns have used, and what open turns have reserved. No I/O.

A budget lasts for the whole life of a session. The maximum that an open turn may use is reserved, so that concurrent
turns cannot overdraw a budget together; actual usage replaces the reservation when the turn ends.
"""

from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

from llama_orch.contracts.sessions import SessionChange, SessionView

TTL_MS = 600_000
MAX_TURNS = 8
COST_DIGITS = 9
"""Costs are compared and shown to this many decimals: sums of floats are not more exact."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """`tokens` counts prompts and answers, `time_ms` engine time, `cost` the catalog's unit; None: no such budget."""

    ttl_ms: int = TTL_MS
    max_turns: int = MAX_TURNS
    tokens: int | None = None
    time_ms: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """What ended turns have used; `time_ms` is engine time."""

    tokens: int = 0
    time_ms: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionTurn:
    """An open turn and its reservation. `epoch` is that of its session, `number` is unique."""

    session_id: UUID
    epoch: int
    number: int
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class Session:
    """`used_at` is trio's clock in seconds. `epoch` distinguishes sessions that had the same id one after the other.

    `turns` counts ended turns, `open_turns` open ones. `place` is pool and replica of the last turn that was placed.
    """

    session_id: UUID
    used_at: float
    limits: SessionLimits = field(default_factory=SessionLimits)
    spent: SessionUsage = field(default_factory=SessionUsage)
    turns: int = 0
    place: tuple[str, str] | None = None
    kv_warmth: bool | None = None
    kv_bytes: int | None = None
    epoch: int = 0
    open_turns: int = 0
    reserved_tokens: int = 0
    reserved_cost: float = 0.0

    def expired(self, now: float) -> bool:
        """Whether the session has been idle for its TTL; never while a turn is open."""
        return not self.open_turns and now - self.used_at >= self.limits.ttl_ms / 1000

    @property
    def tokens_left(self) -> int | None:
        """The budget less what ended turns have used; None without a budget."""
        budget = self.limits.tokens
        return None if budget is None else max(0, budget - self.spent.tokens)

    @property
    def time_left_ms(self) -> int | None:
        """As `tokens_left`, for engine time."""
        budget = self.limits.time_ms
        return None if budget is None else max(0, int(budget - self.spent.time_ms))

    @property
    def cost_left(self) -> float | None:
        """As `tokens_left`, for the cost."""
        budget = self.limits.cost
        return None if budget is None else max(0.0, round(budget - self.spent.cost, COST_DIGITS))


def apply_change(session: Session, change: SessionChange, now: float) -> Session:
    """Replace the limits that `change` sets. The TTL of a session without turns starts again at `now`."""
    limits = SessionLimits(
        ttl_ms=_value_or(change.ttl_ms, session.limits.ttl_ms),
        max_turns=_value_or(change.max_turns, session.limits.max_turns),
        tokens=_value_or(change.tokens_budget, session.limits.tokens),
        time_ms=_value_or(change.time_budget_ms, session.limits.time_ms),
        cost=_value_or(change.cost_budget, session.limits.cost),
    )
    return replace(session, limits=limits, used_at=session.used_at if session.turns else now)


def _value_or(new: Value | None, old: Value) -> Value:
    return old if new is None else new


def open_turn(session: Session, turn: SessionTurn, now: float) -> Session:
    return replace(
        session,
        used_at=now,
        open_turns=session.open_turns + 1,
        reserved_tokens=session.reserved_tokens + turn.tokens,
        reserved_cost=session.reserved_cost + turn.cost,
    )


def undo_turn(session: Session, turn: SessionTurn) -> Session:
    """Remove an open turn and its reservation."""
    open_turns = session.open_turns - 1
    return replace(
        session,
        open_turns=open_turns,
        reserved_tokens=session.reserved_tokens - turn.tokens,
        reserved_cost=max(0.0, session.reserved_cost - turn.cost) if open_turns else 0.0,
    )


def close_turn(session: Session, turn: SessionTurn, used: SessionUsage, now: float, kv_bytes: int | None) -> Session:
    """Replace the reservation of an open turn by what it used."""
    before = session.spent
    spent = SessionUsage(before.tokens + used.tokens, before.time_ms + used.time_ms, before.cost + used.cost)
    unreserved = undo_turn(session, turn)
    return replace(unreserved, spent=spent, turns=session.turns + 1, used_at=now, kv_bytes=kv_bytes)


def place_turn(session: Session, place: tuple[str, str]) -> Session:
    """Record the replica of the current turn; `kv_warmth` is whether the last turn ran there too."""
    warmth = None if session.place is None else session.place == place
    return replace(session, place=place, kv_warmth=warmth)


def session_view(session: Session, now: float) -> SessionView:
    """Return what clients see of the session."""
    ttl_ms, turns = session.limits.ttl_ms, session.turns + session.open_turns
    idle_ms = 0 if session.open_turns else round((now - session.used_at) * 1000)
    pool_id, replica_id = session.place or (None, None)
    return SessionView(
        session_id=session.session_id,
        ttl_ms_remaining=min(ttl_ms, max(0, ttl_ms - idle_ms)),
        turns=turns,
        turns_remaining=max(0, session.limits.max_turns - turns),
        kv_bytes=session.kv_bytes,
        kv_warmth=bool(session.kv_warmth),
        pool_id=pool_id,
        replica_id=replica_id,
        tokens_budget_remaining=session.tokens_left,
        time_budget_remaining_ms=session.time_left_ms,
        cost_budget_remaining=session.cost_left,
    )
