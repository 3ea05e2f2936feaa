"""The queen as orchctl asks her: one URL, one token, and errors in words."""

import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlencode

import trio
from pydantic import BaseModel, ValidationError

from llama_orch.http.client import KeptConnections, Response, UpstreamError, request
from llama_orch.http.tls import Tls
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.loading import ConfigurationError
from llama_orch.settings.tls import TlsFiles
from llama_orch.settings.tokens import TOKEN
from llama_orch.settings.types import http_url
from orchctl.encoding import as_json
from orchctl.failure import FOREIGN_HINT, Failure, refused
from orchctl.tls_hints import over_tls

URL_VARIABLE = "ORCHESTRATORD_URL"
DEFAULT_URL = "http://127.0.0.1:8080"
LIMIT_S = 30.0
ANSWER_LIMIT = 64 << 20


def below(path: str, *names: str, **query: object) -> str:
    """`path` with `names` below it and what is not None of `query` behind it, as a URL writes them."""
    found = "/".join((path, *(quote(name, safe="") for name in names)))
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    return f"{found}?{asked}" if asked else found


@dataclass(frozen=True)
class Queen:
    """Where the queen is and what proves that we may ask. `connections`: those that are kept between two requests."""

    url: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    connections: KeptConnections | None = None

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        head_s: float = LIMIT_S,
        allowed: tuple[int, ...] = (),
        repeatable: bool = False,
    ) -> AsyncIterator[Response]:
        """One request; leaving before the end of the answer closes the connection.

        A `repeatable` one is sent again where a connection that was kept turns out to be closed.

        Raises Failure where the status is neither a success nor `allowed`, UpstreamError where nobody answers within
        `head_s` seconds.
        """
        fields = {**self._headers(), **({"content-type": "application/json"} if body else {}), **(headers or {})}
        with ungrouped():
            asking = partial(request, method, self.url + path, headers=fields, body=body, head_s=head_s, tls=self.tls)
            async with asking(connections=self.connections, repeatable=repeatable) as response:
                if not 200 <= response.status < 300 and response.status not in allowed:
                    raise refused(response.status, await response.read(limit_s=LIMIT_S), response.headers)
                yield response

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        allowed: tuple[int, ...] = (),
        repeatable: bool = False,
    ) -> bytes:
        """The body of the answer to one request, whose own is `body` as JSON. Raises Failure."""
        data = b"" if body is None else as_json(body)
        try:
            async with self.ask(method, path, data, allowed=allowed, repeatable=repeatable) as response:
                return await response.read(ANSWER_LIMIT, limit_s=LIMIT_S)
        except UpstreamError as error:
            raise self.unreachable(error) from error

    async def get(self, path: str) -> bytes:
        """The body of a GET. Raises Failure."""
        return await self.call("GET", path)

    async def bid(self, method: str, path: str) -> None:
        """A request whose answer is empty, and that does no more when it is served twice. Raises Failure."""
        if await self.call(method, path, repeatable=True):
            raise _foreign()

    def unreachable(self, error: UpstreamError) -> Failure:
        """Nobody answers at the URL."""
        hint = over_tls(self.url, error) or f"Is it running (systemctl status queen-rbee)? Is {URL_VARIABLE} right?"
        return Failure(f"queen-rbee at {self.url} does not answer: {error}", hint, ExitStatus.UNAVAILABLE)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


@contextmanager
def ungrouped() -> Iterator[None]:
    """Ctrl-C as it is: what ends a nursery, such as the one in which trio connects to a name, comes in a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def from_environment(url: str | None) -> Queen:
    """The queen of `url`, or of ORCHESTRATORD_URL, or of this machine. Raises Failure for what cannot be used."""
    found = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not _is_url(found):
        hint = f"It must be of the form http://HOST:PORT or https://HOST:PORT, as in {DEFAULT_URL}."
        raise Failure(f"{found} is no URL of a queen", hint, ExitStatus.USAGE)
    return Queen(found.rstrip("/"), _token(), _tls())


def _tls() -> ssl.SSLContext | None:
    """What the files that the environment names are good for. Raises Failure."""
    try:
        return Tls.of(TlsFiles.named(os.environ)).client
    except ConfigurationError as error:
        message = "\n".join(map(str, error.problems))
        raise Failure(message, "See TLS in llama-orch(7).", ExitStatus.CONFIG) from error


def _is_url(text: str) -> bool:
    try:
        return text.isascii() and text.isprintable() and not set(text) & set(" ?#@") and bool(http_url(text))
    except ValueError:
        return False


def _token() -> str | None:
    try:
        token = TOKEN.read(os.environ)
    except OSError as error:
        message = f"{TOKEN.file}: {error.filename}: {error.strerror}"
        raise Failure(message, "Make it readable, or unset it.", ExitStatus.NO_INPUT) from error
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        message = f"the token of {TOKEN.file if os.environ.get(TOKEN.file) else TOKEN.variable} cannot be one"
        raise Failure(message, "A token is printable ASCII without blanks, in one line.", ExitStatus.CONFIG)
    return token


M = TypeVar("M", bound=BaseModel)


@trio.lowlevel.enable_ki_protection  # a Ctrl-C while pydantic builds a validator would be lost in its native code
def understood(model: type[M], body: bytes) -> M:
    """`body` as a `model`. Raises Failure where somebody else than a queen of this release has answered."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _foreign() from error


def _foreign() -> Failure:
    return Failure("the answer is not understood", FOREIGN_HINT, ExitStatus.UNAVAILABLE)
