"""Why orchctl cannot do what it was asked: the one shape of every error here, and how the queen's own becomes one."""

import re
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.errors import NO_SUCH_PATH, ErrorCode
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.tokens import TOKEN

FOREIGN_HINT = "Is this the address of queen-rbee, and of the same release?"
TOKEN_HINT = f"orchctl reads the token from the file that {TOKEN.file} names, or from {TOKEN.variable}."


class CommandError(Exception):
    """orchctl cannot do what it was asked: what is wrong, how to mend it, and the exit status.

    `document` is the queen's own JSON about it, where she said some, `code` that of her error.
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


def together(failures: Sequence[CommandError]) -> CommandError:
    """Several failures as one: what each says, a line each and once; the status is the first one's."""
    messages, hints = ([*dict.fromkeys(texts)] for texts in zip(*((f.message, f.hint) for f in failures), strict=True))
    return CommandError("\n".join(messages), "\n".join(filter(None, hints)), failures[0].status)


class Said(Outbound):
    """An error of the queen's API; codes of a newer queen are shown as they are."""

    code: str
    message: str
    reason: str | None = None
    hint: str | None = None
    retriable: bool = False
    retry_after_ms: int | None = None


class SaidV1(Outbound):
    """An error below /v1, in the shape that OpenAI's clients parse."""

    message: str
    type: str | None = None
    code: str | int | None = None


class WrappedV1(Outbound):
    """The body of an answer, or the data of an event, that is such an error."""

    error: SaidV1


def refused(status: int, body: bytes, headers: Mapping[str, str]) -> CommandError:
    """The queen's own error, as a person should read it."""
    for read in (_own, _of_v1):
        try:
            return read(status, body, headers)
        except ValidationError:
            continue
    text = " ".join(body[:200].decode(errors="replace").split())
    return CommandError(f"the answer is {status}: {text}", "Is this the address of queen-rbee?", ExitStatus.UNAVAILABLE)


def _own(status: int, body: bytes, _headers: Mapping[str, str]) -> CommandError:
    error = Said.model_validate_json(body)
    if error.reason == NO_SUCH_PATH:
        return CommandError(error.message, FOREIGN_HINT, ExitStatus.UNAVAILABLE, code=error.code)
    hint = _hint(status, error.hint or "", later(error.retry_after_ms))
    return CommandError(f"{error.code}: {error.message}", hint, exit_status(status, error.retriable), code=error.code)


def _of_v1(status: int, body: bytes, headers: Mapping[str, str]) -> CommandError:
    error = WrappedV1.model_validate_json(body).error
    if error.code == ErrorCode.NOT_FOUND:  # of a model that is not there it is another
        return CommandError(error.message, FOREIGN_HINT, ExitStatus.UNAVAILABLE, document=body.decode())
    seconds = headers.get("retry-after", "")
    hint = later(int(seconds) * 1000) if re.fullmatch(r"[0-9]{1,9}", seconds) else ""
    retriable = headers.get("x-should-retry") == "true"
    return CommandError(said(error), _hint(status, hint), exit_status(status, retriable), document=body.decode())


def _hint(status: int, *words: str) -> str:
    said = " ".join(filter(None, words))
    return "\n".join(filter(None, (said, TOKEN_HINT if status == 401 else "")))


def said(error: SaidV1) -> str:
    """An error of /v1 in words: its code, or else its kind, in front."""
    return ": ".join(filter(None, (str(error.code or error.type or ""), error.message)))


def failed(error: SaidV1, document: str) -> CommandError:
    """An error in the midst of a stream below /v1, where no status tells whether trying again helps."""
    retriable = error.type in ("server_error", "rate_limit_error")
    status = ExitStatus.TEMPORARY if retriable else ExitStatus.SOFTWARE
    hint = "It may be asked again." if retriable else ""
    return CommandError(f"the answer failed: {said(error)}", hint, status, document)


def later(retry_after_ms: int | None) -> str:
    """When to try again, where the queen said so."""
    return f"Try again in {max(1, round(retry_after_ms / 1000))} s." if retry_after_ms else ""


def exit_status(status: int, retriable: bool) -> ExitStatus:
    """sysexits(3) for an HTTP status: what a script can branch on."""
    if status in (401, 403):
        return ExitStatus.NO_PERMISSION
    if retriable:
        return ExitStatus.TEMPORARY
    if status == 404:
        return ExitStatus.NO_INPUT
    return ExitStatus.DATA if 400 <= status < 500 else ExitStatus.UNAVAILABLE
