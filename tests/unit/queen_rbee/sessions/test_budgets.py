"""Budgets are enforced: no order of turns overdraws one, and refusals are accurate."""

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from queen_rbee.sessions.budgets import budget_headers, remaining_budgets, reservation, turn_refusal
from queen_rbee.sessions.session import (
    Session,
    SessionLimits,
    SessionTurn,
    SessionUsage,
    close_turn,
    open_turn,
    undo_turn,
)

ID = UUID(int=1)
ROUNDING = 1e-6

Move = tuple[Any, ...]

budgets = st.none() | st.integers(0, 200)
costs = st.none() | st.integers(0, 2000).map(lambda thousandths: thousandths / 1000)
prices = st.none() | st.sampled_from([0.0, 0.001, 1.0, 7.3, 1000.0])
wishes = st.none() | st.integers(1, 80)
limits = st.builds(SessionLimits, st.just(600_000), st.integers(1, 6), budgets, budgets, costs)


@dataclass
class Ledger:
    """A session, its open turns, and independent counts."""

    session: Session
    opened: list[SessionTurn] = field(default_factory=list)
    tokens: int = 0
    cost: float = 0.0
    turns: int = 0
    overdrawn: bool = False

    def ask(self, tokens: int | None, price: float | None) -> None:
        """Open a turn unless it is refused."""
        if turn_refusal(self.session, tokens, price) is None:
            turn = SessionTurn(ID, 0, self.turns + len(self.opened), *reservation(self.session, tokens, price))
            self.session = open_turn(self.session, turn, now=0.0)
            self.opened.append(turn)

    def abandon(self, number: int) -> None:
        """Undo one of the open turns."""
        self.session = undo_turn(self.session, self.opened.pop(number % len(self.opened)))

    def end(self, number: int, share: float, over: int) -> None:
        """End an open turn that used a share of its reservation, and `over` more tokens."""
        turn = self.opened.pop(number % len(self.opened))
        used = SessionUsage(int(turn.tokens * share) + over, 1.0, turn.cost * share)
        self.overdrawn |= over > 0
        self.tokens, self.cost, self.turns = self.tokens + used.tokens, self.cost + used.cost, self.turns + 1
        self.session = close_turn(self.session, turn, used, 1.0, None)


asked = st.tuples(st.just("ask"), wishes, prices)
abandoned = st.tuples(st.just("abandon"), st.integers(0, 5))
finished = st.tuples(st.just("end"), st.integers(0, 5), st.floats(0, 1), st.sampled_from([0, 0, 0, 3]))


def play(limits: SessionLimits, moves: list[Move]) -> Ledger:
    """Make all `moves`, checking the invariants after each."""
    ledger = Ledger(Session(ID, 0.0, limits))
    for name, *arguments in moves:
        if name == "ask" or ledger.opened:
            getattr(ledger, name)(*arguments)
        check_invariants(ledger)
    return ledger


def check_invariants(ledger: Ledger) -> None:
    session, limits = ledger.session, ledger.session.limits
    assert session.open_turns == len(ledger.opened)
    assert session.turns == ledger.turns
    assert session.turns + session.open_turns <= limits.max_turns
    assert session.reserved_tokens == sum(turn.tokens for turn in ledger.opened)
    assert session.reserved_cost == pytest.approx(sum(turn.cost for turn in ledger.opened), abs=ROUNDING)
    assert session.reserved_cost >= 0
    assert session.spent.tokens == ledger.tokens
    assert session.spent.cost == pytest.approx(ledger.cost, abs=ROUNDING)
    assert all(value >= 0 for value in remaining_budgets(session).values())
    if not ledger.overdrawn:
        assert limits.tokens is None or session.spent.tokens + session.reserved_tokens <= limits.tokens
    assert limits.cost is None or session.spent.cost + session.reserved_cost <= limits.cost + ROUNDING


@settings(deadline=None)
@given(limits, st.lists(asked | abandoned | finished, max_size=40))
def test_no_order_of_turns_overdraws_a_budget(limits: SessionLimits, moves: list[Move]):
    ledger = play(limits, moves)
    while ledger.opened:
        ledger.abandon(0)
        check_invariants(ledger)
    assert (ledger.session.reserved_tokens, ledger.session.reserved_cost) == (0, 0.0)


@settings(deadline=None)
@given(limits, st.lists(asked | finished, max_size=20), wishes, prices)
def test_refusal_is_retriable_if_open_turns_hold_the_rest(
    limits: SessionLimits, moves: list[Move], tokens: int | None, price: float | None
):
    ledger = play(limits, moves)
    refused = turn_refusal(ledger.session, tokens, price)
    while ledger.opened:
        ledger.abandon(0)
    alone = turn_refusal(ledger.session, tokens, price)
    if refused is None:
        assert alone is None
    elif refused.body.retriable:
        assert alone is None or alone.body.policy_label != refused.body.policy_label
    elif refused.body.policy_label != "session-turns":  # open turns count, since they usually run
        assert alone is not None


@settings(deadline=None)
@given(limits, wishes, prices)
def test_unused_session_refuses_only_beyond_its_limits(limits: SessionLimits, tokens: int | None, price: float | None):
    need = tokens or 1
    allowed = (
        (limits.tokens is None or need <= limits.tokens)
        and limits.time_ms != 0
        and (limits.cost is None or price == 0 or 0 < limits.cost >= need * (price or 0.0) / 1000 - ROUNDING)
    )
    assert (turn_refusal(Session(ID, 0.0, limits), tokens, price) is None) is allowed


def session(**changes) -> Session:
    """Return a session that has used 90 tokens, 900 ms and a cost of 0.9."""
    return replace(Session(ID, 0.0, spent=SessionUsage(90, 900.0, 0.9), turns=3), **changes)


@pytest.mark.parametrize(
    ("limits", "label", "words"),
    [
        (SessionLimits(max_turns=3), "session-turns", "has had its 3 turns"),
        (
            SessionLimits(tokens=99),
            "session-tokens-budget",
            "has 9 left of its budget of 99 tokens; this turn needs 10",
        ),
        (SessionLimits(tokens=10), "session-tokens-budget", "has 0 left of its budget of 10 tokens"),
        (SessionLimits(time_ms=900), "session-time-budget", "has used its budget of 900 ms of engine time"),
        (
            SessionLimits(cost=0.905),
            "session-cost-budget",
            "has 0.005 left of its cost budget of 0.905; this turn needs",
        ),
    ],
)
def test_refusal_names_session_limit_and_remedy(limits: SessionLimits, label: str, words: str):
    refused = turn_refusal(session(limits=limits), 10, 1.0)
    assert refused is not None
    body = refused.body
    assert (refused.status, body.code, body.policy_label) == (409, ErrorCode.ADMISSION_REJECT, label)
    assert body.message.startswith(f"session {ID} {words}")
    assert not body.retriable
    assert f"PUT /v2/sessions/{ID}" in (body.hint or "")


@pytest.mark.parametrize(
    "limits",
    [SessionLimits(tokens=100), SessionLimits(time_ms=901), SessionLimits(cost=0.91), SessionLimits(max_turns=4)],
)
def test_turn_that_just_fits_is_admitted(limits: SessionLimits):
    assert turn_refusal(session(limits=limits), 10, 1.0) is None


def test_turn_of_unknown_size_needs_one_token_reserves_all():
    limited = session(limits=SessionLimits(tokens=91, cost=1.0))
    assert turn_refusal(limited, None, 1.0) is None
    tokens, cost = reservation(limited, None, 1.0)
    assert (tokens, round(cost, 9)) == (1, 0.1)
    assert turn_refusal(session(limits=SessionLimits(tokens=90)), None, 1.0) is not None


def test_turn_of_unknown_price_reserves_all_cost():
    limited = session(limits=SessionLimits(cost=1.0))
    tokens, cost = reservation(limited, 10, None)
    assert (tokens, round(cost, 9)) == (10, 0.1)
    other = open_turn(limited, SessionTurn(ID, 0, 1, tokens, cost), now=0.0)
    refused = turn_refusal(other, 10, None)
    assert refused is not None
    assert refused.body.retriable
    assert "Wait for open turns to end, which reserve the rest (now: 1)" in (refused.body.hint or "")


def test_free_turn_fits_an_exhausted_cost_budget():
    used_up = session(limits=SessionLimits(cost=0.9))
    assert turn_refusal(used_up, 10, 1.0) is not None
    assert turn_refusal(used_up, 10, 0.0) is None
    assert reservation(used_up, 10, 0.0) == (10, 0.0)


def test_headers_report_each_budget_that_is_set():
    limited = session(limits=SessionLimits(tokens=100, time_ms=1000, cost=1.0))
    expected = [
        ("x-budget-tokens-remaining", "10"),
        ("x-budget-time-ms-remaining", "100"),
        ("x-budget-cost-remaining", "0.1"),
    ]
    assert budget_headers(limited) == expected
    assert budget_headers(session()) == []
    refused = turn_refusal(limited, 11, 1.0)
    assert refused is not None
    assert refused.headers == tuple(expected)
