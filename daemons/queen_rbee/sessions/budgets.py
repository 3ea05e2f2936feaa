"""Whether another turn fits into a session, what is reserved for it, and what is left of each budget. Pure.

What is left of a budget for a new turn is less what open turns have reserved. Engine time cannot be reserved: nobody
knows it before. Nor does anybody know how many tokens a prompt has: the last turn may overdraw a budget by its prompt.
"""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.sessions.session import COST_DIGITS, Session

HEADERS = {
    "tokens_budget_remaining": "x-budget-tokens-remaining",
    "time_budget_remaining_ms": "x-budget-time-ms-remaining",
    "cost_budget_remaining": "x-budget-cost-remaining",
}


def left(session: Session) -> dict[str, int | float]:
    """What ended turns have left of each budget that is set: tokens, milliseconds, cost."""
    found: dict[str, int | float | None] = {
        "tokens_budget_remaining": session.tokens_left,
        "time_budget_remaining_ms": session.time_left_ms,
        "cost_budget_remaining": session.cost_left,
    }
    return {name: value for name, value in found.items() if value is not None}


def headers(session: Session) -> list[tuple[str, str]]:
    """The same as headers of an answer."""
    return [(HEADERS[name], f"{value}") for name, value in left(session).items()]


def reservation(session: Session, tokens: int | None, price: float | None) -> tuple[int, float]:
    """Tokens and cost that a turn reserves: all that is left where nobody knows what it may use.

    `price` is the cost of 1000 tokens, None where it is not known.
    """
    reserved = max(0, _tokens_for_another(session) or 0) if tokens is None else tokens
    if price == 0:
        return reserved, 0.0
    if tokens is None or price is None:
        return reserved, max(0.0, _cost_for_another(session) or 0.0)
    return reserved, tokens * price / 1000


def refusal(session: Session, tokens: int | None, price: float | None) -> ApiError | None:
    """Why one more turn does not fit, or None. `tokens` is what it may use, None where it does not say: then it is
    enough that one token is left."""
    need = max(1, tokens or 1)
    return (
        _no_turn(session)
        or _no_tokens(session, need)
        or _no_time(session)
        or _no_money(session, 0.0 if price == 0 else max(10**-COST_DIGITS, need * (price or 0.0) / 1000))
    )


def _no_turn(session: Session) -> ApiError | None:
    limit = session.limits.max_turns
    if session.turns + session.open_turns < limit:
        return None
    return _refused(session, "session-turns", f"has had its {limit} turn{'s' * (limit != 1)}", but_for_open=False)


def _no_tokens(session: Session, need: int) -> ApiError | None:
    left = _tokens_for_another(session)
    if left is None or need <= left:
        return None
    words = f"has {max(0, left)} left of its budget of {session.limits.tokens} tokens, and this turn wants {need}"
    return _refused(session, "session-tokens-budget", words, but_for_open=need <= (session.tokens_left or 0))


def _no_time(session: Session) -> ApiError | None:
    if session.time_left_ms != 0:
        return None
    words = f"has used its budget of {session.limits.time_ms} ms of engine time"
    return _refused(session, "session-time-budget", words, but_for_open=False)


def _no_money(session: Session, need: float) -> ApiError | None:
    left = _cost_for_another(session)
    if left is None or round(need - left, COST_DIGITS) <= 0:
        return None
    words = f"has {max(0.0, left):g} left of its cost budget of {session.limits.cost:g}, and this turn wants {need:g}"
    but_for_open = round(need - (session.cost_left or 0.0), COST_DIGITS) <= 0
    return _refused(session, "session-cost-budget", words, but_for_open=but_for_open)


def _tokens_for_another(session: Session) -> int | None:
    """Negative where turns have used more than they said."""
    budget = session.limits.tokens
    return None if budget is None else budget - session.spent.tokens - session.reserved_tokens


def _cost_for_another(session: Session) -> float | None:
    budget = session.limits.cost
    return None if budget is None else round(budget - session.spent.cost - session.reserved_cost, COST_DIGITS)


def _refused(session: Session, label: str, words: str, *, but_for_open: bool) -> ApiError:
    """409 with what is left; retriable only where the turn would fit but for what open ones have reserved."""
    hint = f"Raise the limit by PUT /v2/sessions/{session.session_id}, or begin a session with another id."
    if but_for_open:
        hint = f"Wait for the session's {session.open_turns} open turns, which have reserved the rest. Else: {hint}"
    body = ErrorBody(
        code=ErrorCode.ADMISSION_REJECT,
        message=f"session {session.session_id} {words}",
        hint=hint,
        retriable=but_for_open,
        policy_label=label,
    )
    return ApiError(409, body, tuple(headers(session)))
