"""The queen as orchctl asks her: one URL, one token, and errors in words."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.errors import ErrorBody
from llama_orch.http.client import Response, UpstreamError, fetch, request
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.loading import TOKEN_FILE, read_token

URL_VARIABLE = "ORCHESTRATORD_URL"
DEFAULT_URL = "http://127.0.0.1:8080"
LIMIT_S = 30.0


class Failure(Exception):
    """orchctl cannot do what it was asked: what is wrong, how to mend it, and the exit status."""

    def __init__(self, message: str, hint: str, status: ExitStatus) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


@dataclass(frozen=True)
class Queen:
    """Where the queen is and what proves that we may ask."""

    url: str
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Response]:
        """One request; leaving closes the connection. Raises Failure where the queen refuses or is not there."""
        fields = {**self.headers, **({"content-type": "application/json"} if body else {}), **(headers or {})}
        async with request(method, self.url + path, headers=fields, body=body, head_s=LIMIT_S) as response:
            if response.status >= 400:
                raise refused(response.status, await response.read())
            yield response

    async def get(self, path: str) -> bytes:
        """The body of a GET. Raises Failure."""
        try:
            status, body = await fetch(self.url + path, limit_s=LIMIT_S, headers=self.headers, size=64 << 20)
        except UpstreamError as error:
            raise self.unreachable(error) from error
        if status >= 400 and path != "/ready":
            raise refused(status, body)
        return body

    def unreachable(self, error: UpstreamError) -> Failure:
        """Nobody answers at the URL."""
        hint = f"Is it running (systemctl status queen-rbee)? Is {URL_VARIABLE} right?"
        return Failure(f"queen-rbee at {self.url} does not answer: {error}", hint, ExitStatus.UNAVAILABLE)


def from_environment(url: str | None) -> Queen:
    """The queen of `url`, or of ORCHESTRATORD_URL, or of this machine. Raises Failure for an unreadable token."""
    try:
        token = read_token(os.environ)
    except OSError as error:
        raise Failure(f"{TOKEN_FILE}: {error}", "Make it readable, or unset it.", ExitStatus.NO_INPUT) from error
    found = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not found.startswith("http://"):
        hint = f"It must begin with http://, as in {DEFAULT_URL}."
        raise Failure(f"{found} is no URL of a queen", hint, ExitStatus.USAGE)
    return Queen(found.rstrip("/"), token)


def refused(status: int, body: bytes) -> Failure:
    """The queen's own error, as a person should read it."""
    try:
        error = ErrorBody.model_validate_json(body)
    except ValidationError:
        text = body[:200].decode(errors="replace")
        return Failure(f"the answer is {status}: {text}", "Is this the address of queen-rbee?", ExitStatus.UNAVAILABLE)
    hint = error.hint or ""
    if error.retry_after_ms:
        hint = f"{hint} Try again in {max(1, round(error.retry_after_ms / 1000))} s.".strip()
    return Failure(f"{error.code}: {error.message}", hint, exit_status(status, error.retriable))


def exit_status(status: int, retriable: bool) -> ExitStatus:
    """sysexits(3) for an HTTP status: what a script can branch on."""
    if status in (401, 403):
        return ExitStatus.NO_PERMISSION
    if retriable:
        return ExitStatus.TEMPORARY
    if status == 404:
        return ExitStatus.NO_INPUT
    return ExitStatus.DATA if status < 500 else ExitStatus.UNAVAILABLE


M = TypeVar("M", bound=BaseModel)


def understood(model: type[M], body: bytes) -> M:
    """`body` as a `model`. Raises Failure where somebody else than a queen of this release has answered."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        message, hint = "the answer is not understood", "Is this the address of queen-rbee, and of the same release?"
        raise Failure(message, hint, ExitStatus.UNAVAILABLE) from error
