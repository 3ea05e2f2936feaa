"""One session as a value: its limits, what its turns have used, and what those that are open have reserved. Pure.

A budget is for the whole life of a session. What an open turn may use is reserved for it, so that two at once cannot
overdraw a budget together; what it did use is counted when it has ended.
"""

from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

from llama_orch.contracts.sessions import SessionChange, SessionView

TTL_MS = 600_000
MAX_TURNS = 8
COST_DIGITS = 9
"""Costs are compared and shown to so many decimals: sums of floats are no more exact."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Limits:
    """`ttl_ms` and `time_ms` in milliseconds, `tokens` of prompts and answers, `cost` in the catalog's unit. None: no
    such budget."""

    ttl_ms: int = TTL_MS
    max_turns: int = MAX_TURNS
    tokens: int | None = None
    time_ms: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What turns have used; `time_ms` is the engine's time."""

    tokens: int = 0
    time_ms: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn that was begun, and what is reserved for it. `number` is its own, `epoch` that of its session."""

    session_id: UUID
    epoch: int
    number: int
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class Session:
    """A session. `used_at` is trio's clock in seconds; `epoch` tells it from an earlier one of its id.

    `turns` have ended, `open_turns` have not. `place` is the pool and the replica of the last turn that was placed.
    """

    session_id: UUID
    used_at: float
    limits: Limits = field(default_factory=Limits)
    spent: Spent = field(default_factory=Spent)
    turns: int = 0
    place: tuple[str, str] | None = None
    kv_warmth: bool | None = None
    kv_bytes: int | None = None
    epoch: int = 0
    open_turns: int = 0
    reserved_tokens: int = 0
    reserved_cost: float = 0.0

    def expired(self, now: float) -> bool:
        """Whether its time has run out; it does not while a turn is open."""
        return not self.open_turns and now - self.used_at >= self.limits.ttl_ms / 1000

    @property
    def tokens_left(self) -> int | None:
        """The budget less what ended turns have used; None without one."""
        budget = self.limits.tokens
        return None if budget is None else max(0, budget - self.spent.tokens)

    @property
    def time_left_ms(self) -> int | None:
        """Likewise in milliseconds of engine time."""
        budget = self.limits.time_ms
        return None if budget is None else max(0, int(budget - self.spent.time_ms))

    @property
    def cost_left(self) -> float | None:
        """Likewise in cost."""
        budget = self.limits.cost
        return None if budget is None else max(0.0, round(budget - self.spent.cost, COST_DIGITS))


def changed(session: Session, change: SessionChange, now: float) -> Session:
    """`session` with the limits that `change` names; one that had no turn yet lives on from `now`."""
    old, new = session.limits, change
    limits = Limits(
        ttl_ms=_given(new.ttl_ms, old.ttl_ms),
        max_turns=_given(new.max_turns, old.max_turns),
        tokens=_given(new.tokens_budget, old.tokens),
        time_ms=_given(new.time_budget_ms, old.time_ms),
        cost=_given(new.cost_budget, old.cost),
    )
    return replace(session, limits=limits, used_at=session.used_at if session.turns else now)


def _given(new: Value | None, old: Value) -> Value:
    return old if new is None else new


def begun(session: Session, turn: Turn, now: float) -> Session:
    """With one more open turn."""
    return replace(
        session,
        used_at=now,
        open_turns=session.open_turns + 1,
        reserved_tokens=session.reserved_tokens + turn.tokens,
        reserved_cost=session.reserved_cost + turn.cost,
    )


def given_back(session: Session, turn: Turn) -> Session:
    """Without the open turn, as if it had not been."""
    still = session.open_turns - 1
    return replace(
        session,
        open_turns=still,
        reserved_tokens=session.reserved_tokens - turn.tokens,
        reserved_cost=max(0.0, session.reserved_cost - turn.cost) if still else 0.0,
    )


def settled(session: Session, turn: Turn, used: Spent, now: float, kv_bytes: int | None) -> Session:
    """With the open turn ended, and what it used counted."""
    before = session.spent
    spent = Spent(before.tokens + used.tokens, before.time_ms + used.time_ms, before.cost + used.cost)
    back = given_back(session, turn)
    return replace(back, spent=spent, turns=session.turns + 1, used_at=now, kv_bytes=kv_bytes)


def placed(session: Session, place: tuple[str, str]) -> Session:
    """With its turn on the replica `place`; `kv_warmth` is whether that is where the last turn was."""
    warmth = None if session.place is None else session.place == place
    return replace(session, place=place, kv_warmth=warmth)


def view(session: Session, now: float) -> SessionView:
    """What clients see of it."""
    ttl_ms, used = session.limits.ttl_ms, session.turns + session.open_turns
    idle_ms = 0 if session.open_turns else round((now - session.used_at) * 1000)
    pool_id, replica_id = session.place or (None, None)
    return SessionView(
        session_id=session.session_id,
        ttl_ms_remaining=min(ttl_ms, max(0, ttl_ms - idle_ms)),
        turns=used,
        turns_remaining=max(0, session.limits.max_turns - used),
        kv_bytes=session.kv_bytes,
        kv_warmth=bool(session.kv_warmth),
        pool_id=pool_id,
        replica_id=replica_id,
        tokens_budget_remaining=session.tokens_left,
        time_budget_remaining_ms=session.time_left_ms,
        cost_budget_remaining=session.cost_left,
    )
