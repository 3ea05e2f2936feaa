"""CommandError, the only error that commands raise."""

from collections.abc import Sequence

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
