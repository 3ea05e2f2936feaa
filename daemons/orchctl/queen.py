"""The queen as orchctl asks her: one URL, one token, and errors in words."""

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.errors import ErrorBody
from llama_orch.http.client import Response, UpstreamError, fetch, request
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.loading import TOKEN, TOKEN_FILE, read_token
from llama_orch.settings.types import http_url

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
                raise refused(response.status, await response.read(limit_s=LIMIT_S))
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
    """The queen of `url`, or of ORCHESTRATORD_URL, or of this machine. Raises Failure for what cannot be used."""
    found = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not (found.startswith("http://") and _is_url(found)):
        hint = f"It must be of the form http://HOST:PORT, as in {DEFAULT_URL}."
        raise Failure(f"{found} is no URL of a queen", hint, ExitStatus.USAGE)
    return Queen(found.rstrip("/"), _token())


def _is_url(text: str) -> bool:
    try:
        return text.isascii() and text.isprintable() and " " not in text and bool(http_url(text))
    except ValueError:
        return False


def _token() -> str | None:
    try:
        token = read_token(os.environ)
    except OSError as error:
        message = f"{TOKEN_FILE}: {error.filename}: {error.strerror}"
        raise Failure(message, "Make it readable, or unset it.", ExitStatus.NO_INPUT) from error
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        message = f"the token of {TOKEN_FILE if os.environ.get(TOKEN_FILE) else TOKEN} cannot be one"
        raise Failure(message, "A token is printable ASCII without blanks, in one line.", ExitStatus.CONFIG)
    return token


def refused(status: int, body: bytes) -> Failure:
    """The queen's own error, as a person should read it."""
    try:
        error = ErrorBody.model_validate_json(body)
    except ValidationError:
        text = " ".join(body[:200].decode(errors="replace").split())
        return Failure(f"the answer is {status}: {text}", "Is this the address of queen-rbee?", ExitStatus.UNAVAILABLE)
    hint = f"{error.hint or ''} {later(error.retry_after_ms)}".strip()
    return Failure(f"{error.code}: {error.message}", hint, exit_status(status, error.retriable))


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
    return ExitStatus.DATA if status < 500 else ExitStatus.UNAVAILABLE


M = TypeVar("M", bound=BaseModel)


def understood(model: type[M], body: bytes) -> M:
    """`body` as a `model`. Raises Failure where somebody else than a queen of this release has answered."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        message, hint = "the answer is not understood", "Is this the address of queen-rbee, and of the same release?"
        raise Failure(message, hint, ExitStatus.UNAVAILABLE) from error
