"""Refusals that many paths have in common, in the one shape that all errors have."""

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.store.protocol import StoreFailure

SHOWN = 128


def unknown(what: str, name: str, hint: str) -> ApiError:
    """404: there is no `what` (a noun) of that name."""
    return ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=f"there is no {what} {name[:SHOWN]}", hint=hint))


def not_stored(error: StoreFailure) -> ApiError:
    """503: the queen's state could not be written or read; nothing was half done."""
    hint = error.hint or "See journalctl -u queen-rbee. Once that is mended, send the same request again."
    return ApiError(503, ErrorBody(code=ErrorCode.INTERNAL, message=str(error), hint=hint, retriable=True))
