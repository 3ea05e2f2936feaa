"""Budgets bind: no order of turns that begin, end and are given back overdraws one, and refusals say the truth."""

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from queen_rbee.sessions.budgets import headers, left, refusal, reservation
from queen_rbee.sessions.session import Limits, Session, Spent, Turn, begun, given_back, settled

ID = UUID(int=1)
ROUNDING = 1e-6

Move = tuple[Any, ...]

budgets = st.none() | st.integers(0, 200)
costs = st.none() | st.integers(0, 2000).map(lambda thousandths: thousandths / 1000)
prices = st.none() | st.sampled_from([0.0, 0.001, 1.0, 7.3, 1000.0])
wishes = st.none() | st.integers(1, 80)
limits = st.builds(Limits, st.just(600_000), st.integers(1, 6), budgets, budgets, costs)


@dataclass
class Books:
    """A session, its open turns, and what has been counted apart from it."""

    session: Session
    opened: list[Turn] = field(default_factory=list)
    tokens: int = 0
    cost: float = 0.0
    turns: int = 0
    overdrawn: bool = False

    def ask(self, tokens: int | None, price: float | None) -> None:
        """Begin a turn, unless it is refused."""
        if refusal(self.session, tokens, price) is None:
            turn = Turn(ID, 0, self.turns + len(self.opened), *reservation(self.session, tokens, price))
            self.session = begun(self.session, turn, now=0.0)
            self.opened.append(turn)

    def give_back(self, number: int) -> None:
        """One of the open turns never ran."""
        self.session = given_back(self.session, self.opened.pop(number % len(self.opened)))

    def end(self, number: int, share: float, over: int) -> None:
        """One of them used a share of what it had reserved, and `over` more tokens."""
        turn = self.opened.pop(number % len(self.opened))
        used = Spent(int(turn.tokens * share) + over, 1.0, turn.cost * share)
        self.overdrawn |= over > 0
        self.tokens, self.cost, self.turns = self.tokens + used.tokens, self.cost + used.cost, self.turns + 1
        self.session = settled(self.session, turn, used, 1.0, None)


asked = st.tuples(st.just("ask"), wishes, prices)
given_up = st.tuples(st.just("give_back"), st.integers(0, 5))
finished = st.tuples(st.just("end"), st.integers(0, 5), st.floats(0, 1), st.sampled_from([0, 0, 0, 3]))


def played(limits: Limits, moves: list[Move]) -> Books:
    """All `moves`, with what always holds looked at after each."""
    books = Books(Session(ID, 0.0, limits))
    for name, *arguments in moves:
        if name == "ask" or books.opened:
            getattr(books, name)(*arguments)
        consistent(books)
    return books


def consistent(books: Books) -> None:
    session, limits = books.session, books.session.limits
    assert session.open_turns == len(books.opened)
    assert session.turns == books.turns
    assert session.turns + session.open_turns <= limits.max_turns
    assert session.reserved_tokens == sum(turn.tokens for turn in books.opened)
    assert session.reserved_cost == pytest.approx(sum(turn.cost for turn in books.opened), abs=ROUNDING)
    assert session.reserved_cost >= 0
    assert session.spent.tokens == books.tokens
    assert session.spent.cost == pytest.approx(books.cost, abs=ROUNDING)
    assert all(value >= 0 for value in left(session).values())
    if not books.overdrawn:
        assert limits.tokens is None or session.spent.tokens + session.reserved_tokens <= limits.tokens
    assert limits.cost is None or session.spent.cost + session.reserved_cost <= limits.cost + ROUNDING


@settings(deadline=None)
@given(limits, st.lists(asked | given_up | finished, max_size=40))
def test_no_order_of_turns_overdraws_a_budget_or_loses_a_reservation(limits: Limits, moves: list[Move]):
    books = played(limits, moves)
    while books.opened:
        books.give_back(0)
        consistent(books)
    assert (books.session.reserved_tokens, books.session.reserved_cost) == (0, 0.0)


@settings(deadline=None)
@given(limits, st.lists(asked | finished, max_size=20), wishes, prices)
def test_a_refusal_is_retriable_just_where_the_turn_would_fit_but_for_the_open_ones(
    limits: Limits, moves: list[Move], tokens: int | None, price: float | None
):
    books = played(limits, moves)
    refused = refusal(books.session, tokens, price)
    while books.opened:
        books.give_back(0)
    alone = refusal(books.session, tokens, price)
    if refused is None:
        assert alone is None
    elif refused.body.retriable:
        assert alone is None or alone.body.policy_label != refused.body.policy_label
    elif refused.body.policy_label != "session-turns":  # open turns count: usually they run
        assert alone is not None


@settings(deadline=None)
@given(limits, wishes, prices)
def test_a_session_without_a_turn_refuses_only_what_its_limits_do_not_allow(
    limits: Limits, tokens: int | None, price: float | None
):
    need = tokens or 1
    allowed = (
        (limits.tokens is None or need <= limits.tokens)
        and limits.time_ms != 0
        and (limits.cost is None or price == 0 or 0 < limits.cost >= need * (price or 0.0) / 1000 - ROUNDING)
    )
    assert (refusal(Session(ID, 0.0, limits), tokens, price) is None) is allowed


def session(**changes) -> Session:
    """One that has used 90 tokens, 900 ms and a cost of 0.9."""
    return replace(Session(ID, 0.0, spent=Spent(90, 900.0, 0.9), turns=3), **changes)


@pytest.mark.parametrize(
    ("limits", "label", "words"),
    [
        (Limits(max_turns=3), "session-turns", "has had its 3 turns"),
        (Limits(tokens=99), "session-tokens-budget", "has 9 left of its budget of 99 tokens, and this turn wants 10"),
        (Limits(tokens=10), "session-tokens-budget", "has 0 left of its budget of 10 tokens"),
        (Limits(time_ms=900), "session-time-budget", "has used its budget of 900 ms of engine time"),
        (Limits(cost=0.905), "session-cost-budget", "has 0.005 left of its cost budget of 0.905, and this turn wants"),
    ],
)
def test_a_refusal_names_the_session_the_limit_and_the_way_out(limits: Limits, label: str, words: str):
    refused = refusal(session(limits=limits), 10, 1.0)
    assert refused is not None
    body = refused.body
    assert (refused.status, body.code, body.policy_label) == (409, ErrorCode.ADMISSION_REJECT, label)
    assert body.message.startswith(f"session {ID} {words}")
    assert not body.retriable
    assert f"PUT /v2/sessions/{ID}" in (body.hint or "")


@pytest.mark.parametrize("limits", [Limits(tokens=100), Limits(time_ms=901), Limits(cost=0.91), Limits(max_turns=4)])
def test_what_just_fits_is_let_in(limits: Limits):
    assert refusal(session(limits=limits), 10, 1.0) is None


def test_a_turn_that_does_not_say_what_it_wants_needs_one_token_and_reserves_all():
    limited = session(limits=Limits(tokens=91, cost=1.0))
    assert refusal(limited, None, 1.0) is None
    tokens, cost = reservation(limited, None, 1.0)
    assert (tokens, round(cost, 9)) == (1, 0.1)
    assert refusal(session(limits=Limits(tokens=90)), None, 1.0) is not None


def test_a_turn_whose_price_is_not_known_yet_reserves_all_that_is_left_of_the_cost():
    limited = session(limits=Limits(cost=1.0))
    tokens, cost = reservation(limited, 10, None)
    assert (tokens, round(cost, 9)) == (10, 0.1)
    other = begun(limited, Turn(ID, 0, 1, tokens, cost), now=0.0)
    refused = refusal(other, 10, None)
    assert refused is not None
    assert refused.body.retriable
    assert "Wait for the session's 1 open turns" in (refused.body.hint or "")


def test_what_costs_nothing_is_let_in_when_the_cost_budget_is_used_up_and_reserves_nothing():
    used_up = session(limits=Limits(cost=0.9))
    assert refusal(used_up, 10, 1.0) is not None
    assert refusal(used_up, 10, 0.0) is None
    assert reservation(used_up, 10, 0.0) == (10, 0.0)


def test_what_is_left_is_told_in_headers_one_for_each_budget_that_is_set():
    limited = session(limits=Limits(tokens=100, time_ms=1000, cost=1.0))
    told = [
        ("x-budget-tokens-remaining", "10"),
        ("x-budget-time-ms-remaining", "100"),
        ("x-budget-cost-remaining", "0.1"),
    ]
    assert headers(limited) == told
    assert headers(session()) == []
    refused = refusal(limited, 11, 1.0)
    assert refused is not None
    assert refused.headers == tuple(told)
