"""Session budgets: what is left, what a turn reserves, whether another turn fits. No I/O.

A new turn can use what the budget leaves after ended turns and the reservations of open ones. Engine time is not
reserved, because nobody knows it in advance. Neither is the prompt's length known: the last turn may overdraw a budget
by its prompt.
"""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.sessions.session import COST_DIGITS, Session

HEADERS = {
    "tokens_budget_remaining": "x-budget-tokens-remaining",
    "time_budget_remaining_ms": "x-budget-time-ms-remaining",
    "cost_budget_remaining": "x-budget-cost-remaining",
}


def remaining_budgets(session: Session) -> dict[str, int | float]:
    """Return what ended turns have left of each budget that is set: tokens, milliseconds, cost."""
    budgets: dict[str, int | float | None] = {
        "tokens_budget_remaining": session.tokens_left,
        "time_budget_remaining_ms": session.time_left_ms,
        "cost_budget_remaining": session.cost_left,
    }
    return {name: value for name, value in budgets.items() if value is not None}


def budget_headers(session: Session) -> list[tuple[str, str]]:
    """Return `remaining_budgets` as response headers."""
    return [(HEADERS[name], f"{value}") for name, value in remaining_budgets(session).items()]


def reservation(session: Session, tokens: int | None, price: float | None) -> tuple[int, float]:
    """Return the tokens and the cost that a turn reserves; everything that is left if its usage is unbounded.

    `tokens` is the turn's maximum, None if unknown. `price` is the cost of 1000 tokens, None if unknown.
    """
    reserved_tokens = max(0, _available_tokens(session) or 0) if tokens is None else tokens
    if price == 0:
        return reserved_tokens, 0.0
    if tokens is None or price is None:
        return reserved_tokens, max(0.0, _available_cost(session) or 0.0)
    return reserved_tokens, tokens * price / 1000


def turn_refusal(session: Session, tokens: int | None, price: float | None) -> ApiError | None:
    """Return why another turn does not fit, or None. A turn of unknown size (`tokens` is None) needs one token."""
    needed = max(1, tokens or 1)
    needed_cost = 0.0 if price == 0 else max(10**-COST_DIGITS, needed * (price or 0.0) / 1000)
    return (
        _turns_refusal(session)
        or _tokens_refusal(session, needed)
        or _time_refusal(session)
        or _cost_refusal(session, needed_cost)
    )


def _turns_refusal(session: Session) -> ApiError | None:
    limit = session.limits.max_turns
    if session.turns + session.open_turns < limit:
        return None
    return _refuse(session, "session-turns", f"has had its {limit} turn{'s' * (limit != 1)}", fits_later=False)


def _tokens_refusal(session: Session, needed: int) -> ApiError | None:
    available = _available_tokens(session)
    if available is None or needed <= available:
        return None
    message = f"has {max(0, available)} left of its budget of {session.limits.tokens} tokens; this turn needs {needed}"
    return _refuse(session, "session-tokens-budget", message, fits_later=needed <= (session.tokens_left or 0))


def _time_refusal(session: Session) -> ApiError | None:
    if session.time_left_ms != 0:
        return None
    message = f"has used its budget of {session.limits.time_ms} ms of engine time"
    return _refuse(session, "session-time-budget", message, fits_later=False)


def _cost_refusal(session: Session, needed: float) -> ApiError | None:
    available = _available_cost(session)
    if available is None or round(needed - available, COST_DIGITS) <= 0:
        return None
    message = (
        f"has {max(0.0, available):g} left of its cost budget of {session.limits.cost:g}; this turn needs {needed:g}"
    )
    fits_later = round(needed - (session.cost_left or 0.0), COST_DIGITS) <= 0
    return _refuse(session, "session-cost-budget", message, fits_later=fits_later)


def _available_tokens(session: Session) -> int | None:
    """Return what a new turn may use; negative if turns have used more than they reserved."""
    budget = session.limits.tokens
    return None if budget is None else budget - session.spent.tokens - session.reserved_tokens


def _available_cost(session: Session) -> float | None:
    budget = session.limits.cost
    return None if budget is None else round(budget - session.spent.cost - session.reserved_cost, COST_DIGITS)


def _refuse(session: Session, label: str, message: str, *, fits_later: bool) -> ApiError:
    """Return a 409; retriable if the turn fits once open turns release their reservations (`fits_later`)."""
    hint = f"Raise the limit with PUT /v2/sessions/{session.session_id}, or start a session with another id."
    if fits_later:
        hint = f"Wait for open turns to end, which reserve the rest (now: {session.open_turns}). Otherwise: {hint}"
    body = ErrorBody(
        code=ErrorCode.ADMISSION_REJECT,
        message=f"session {session.session_id} {message}",
        hint=hint,
        retriable=fits_later,
        policy_label=label,
    )
    return ApiError(409, body, tuple(budget_headers(session)))
