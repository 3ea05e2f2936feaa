"""Whether another turn fits into a session, and what is reserved for it. Pure.

What is left of a budget for a new turn is less what open turns have reserved. Engine time cannot be reserved: nobody
knows it before.
"""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.session import COST_DIGITS, Session


def reservation(session: Session, tokens: int | None, price: float | None) -> tuple[int, float]:
    """Tokens and cost that a turn reserves; one that does not say how many tokens reserves all that is left.

    `price` is the cost of 1000 tokens, None where it is not known.
    """
    if tokens is not None:
        return tokens, tokens * (price or 0.0) / 1000
    cost = _cost_for_another(session) if price else None
    return max(0, _tokens_for_another(session) or 0), max(0.0, cost or 0.0)


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
    """409; retriable only where the turn would fit but for what open ones have reserved."""
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
    return ApiError(409, body)
