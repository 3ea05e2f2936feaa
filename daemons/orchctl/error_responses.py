"""Construction of a CommandError from the queen's error responses, those of /v2 and those in OpenAI's format."""

import re
from collections.abc import Mapping

from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import NO_SUCH_PATH, ErrorCode
from llama_orch.service.exit import ExitStatus
from orchctl.errors import ADDRESS_HINT, NOT_QUEEN_HINT, TOKEN_HINT, CommandError, exit_status, retry_hint


class V2Error(Outbound):
    """An error below /v2. `code` is not an ErrorCode because a newer queen may have more."""

    code: str
    message: str
    reason: str | None = None
    hint: str | None = None
    retriable: bool = False
    retry_after_ms: int | None = None


class V1Error(Outbound):
    """An error below /v1, in OpenAI's format."""

    message: str
    type: str | None = None
    code: str | int | None = None


class V1ErrorBody(Outbound):
    """The body of a response, or the data of an event, that carries a V1Error."""

    error: V1Error


def error_from_response(status: int, body: bytes, headers: Mapping[str, str]) -> CommandError:
    for parse in (_parse_v2, _parse_v1):
        try:
            return parse(status, body, headers)
        except ValidationError:
            continue
    text = " ".join(body[:200].decode(errors="replace").split())
    return CommandError(f"unexpected HTTP status {status}: {text}", ADDRESS_HINT, ExitStatus.UNAVAILABLE)


def _parse_v2(status: int, body: bytes, _headers: Mapping[str, str]) -> CommandError:
    error = V2Error.model_validate_json(body)
    if error.reason == NO_SUCH_PATH:
        return CommandError(error.message, NOT_QUEEN_HINT, ExitStatus.UNAVAILABLE, code=error.code)
    hint = _hint(status, error.hint or "", retry_hint(error.retry_after_ms))
    return CommandError(f"{error.code}: {error.message}", hint, exit_status(status, error.retriable), code=error.code)


def _parse_v1(status: int, body: bytes, headers: Mapping[str, str]) -> CommandError:
    error = V1ErrorBody.model_validate_json(body).error
    if error.code == ErrorCode.NOT_FOUND:  # the path does not exist; an unknown model has the code model_not_found
        return CommandError(error.message, NOT_QUEEN_HINT, ExitStatus.UNAVAILABLE, document=body.decode())
    seconds = headers.get("retry-after", "")
    hint = retry_hint(int(seconds) * 1000) if re.fullmatch(r"[0-9]{1,9}", seconds) else ""
    retriable = headers.get("x-should-retry") == "true"
    return CommandError(describe_v1(error), _hint(status, hint), exit_status(status, retriable), document=body.decode())


def _hint(status: int, *hints: str) -> str:
    hint = " ".join(filter(None, hints))
    return "\n".join(filter(None, (hint, TOKEN_HINT if status == 401 else "")))


def describe_v1(error: V1Error) -> str:
    return ": ".join(filter(None, (str(error.code or error.type or ""), error.message)))


def v1_stream_error(error: V1Error, document: str) -> CommandError:
    """Convert an error event of a stream below /v1, which has no status to tell whether a retry helps."""
    retriable = error.type in ("server_error", "rate_limit_error")
    status = ExitStatus.TEMPORARY if retriable else ExitStatus.SOFTWARE
    hint = "The request can be retried." if retriable else ""
    return CommandError(f"the answer failed: {describe_v1(error)}", hint, status, document)
