"""CommandError, the only error that commands raise, and its construction from the queen's error responses."""

import re
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import NO_SUCH_PATH, ErrorCode
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.tokens import TOKEN

ADDRESS_HINT = "Check that this is the address of queen-rbee."
NOT_QUEEN_HINT = f"{ADDRESS_HINT} It must be of the same release as orchctl."
TOKEN_HINT = f"orchctl reads the token from the file named by {TOKEN.file}, or from {TOKEN.variable}."


class CommandError(Exception):
    """A command failed: what failed, what to do about it, and the exit status.

    `document` is the queen's JSON error, if it sent one in the shape of /v1; `code` is the error code of /v2.
    """

    def __init__(
        self, message: str, hint: str, status: ExitStatus, document: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
        self.document = document
        self.code = code


def combine(errors: Sequence[CommandError]) -> CommandError:
    """Join several errors, each distinct message and hint once; the first error decides the exit status."""
    messages, hints = ([*dict.fromkeys(texts)] for texts in zip(*((e.message, e.hint) for e in errors), strict=True))
    return CommandError("\n".join(messages), "\n".join(filter(None, hints)), errors[0].status)


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


def retry_hint(retry_after_ms: int | None) -> str:
    return f"Try again in {max(1, round(retry_after_ms / 1000))} s." if retry_after_ms else ""


def exit_status(status: int, retriable: bool) -> ExitStatus:
    """Return the exit status, as of sysexits(3), for an HTTP status that is not a success."""
    if status in (401, 403):
        return ExitStatus.NO_PERMISSION
    if retriable:
        return ExitStatus.TEMPORARY
    if status == 404:
        return ExitStatus.NO_INPUT
    return ExitStatus.DATA if 400 <= status < 500 else ExitStatus.UNAVAILABLE
