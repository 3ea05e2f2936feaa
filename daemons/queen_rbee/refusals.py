"""Refusals that many paths have in common, in the one shape that all errors have."""

from collections.abc import Iterable

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from queen_rbee.store.protocol import StoreFailure

SHOWN_PROBLEMS = 20
SHOWN = 128


def invalid(problems: Iterable[tuple[str, str]]) -> ErrorBody:
    """The body of a 400 that names each wrong field, at most SHOWN_PROBLEMS of them."""
    fields = [FieldProblem(field=field[:SHOWN], problem=problem) for field, problem in problems]
    text = "; ".join(f"{item.field}: {item.problem}" for item in fields[:SHOWN_PROBLEMS])
    more = len(fields) - SHOWN_PROBLEMS
    message = f"{text}; and {more} more" if more > 0 else text
    return ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, fields=fields[:SHOWN_PROBLEMS])


def unknown(what: str, name: str, hint: str) -> ApiError:
    """404: there is no `what` (a noun) of that name."""
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=f"there is no {what} {name[:SHOWN]}", hint=hint))


def not_stored(error: StoreFailure) -> ApiError:
    """503: the queen's state could not be written or read; nothing was half done."""
    hint = error.hint or "See journalctl -u queen-rbee. Once that is mended, send the same request again."
    return ApiError(503, ErrorBody(code=ErrorCode.INTERNAL, message=str(error), hint=hint, retriable=True))
