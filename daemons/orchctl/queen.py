"""The queen as orchctl asks her: one URL, one token, and errors in words."""

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlencode

import trio
from pydantic import BaseModel, ValidationError

from llama_orch.http.client.client import IdleConnections, Response, UpstreamError, request
from llama_orch.http.client.connecting import unix_url
from llama_orch.service.exit import ExitStatus
from orchctl.encoding import as_json
from orchctl.failure import FOREIGN_HINT, Failure, refused
from orchctl.tls_hints import over_tls

URL_VARIABLE = "ORCHESTRATORD_URL"
UNIX = "unix:"
LIMIT_S = 30.0
ANSWER_LIMIT = 64 << 20


def below(path: str, *names: str, **query: object) -> str:
    """`path` with `names` below it and what is not None of `query` behind it, as a URL writes them."""
    found = "/".join((path, *(quote(name, safe="") for name in names)))
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    return f"{found}?{asked}" if asked else found


@dataclass(frozen=True)
class Queen:
    """Where the queen is and what proves that we may ask. `connections`: those that are kept between two requests.

    `url` is an http:// or https:// URL, or unix: and the path of a socket. `socket_advice` says how to do without a
    token; it is added to the error when one is missing.
    """

    url: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    connections: IdleConnections | None = None
    socket_advice: str = ""

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
            asking = partial(request, method, self._base + path, headers=fields, body=body, head_s=head_s, tls=self.tls)
            async with asking(connections=self.connections, repeatable=repeatable) as response:
                if not 200 <= response.status < 300 and response.status not in allowed:
                    failure = refused(response.status, await response.read(limit_s=LIMIT_S), response.headers)
                    if response.status == 401 and self.socket_advice:
                        failure.hint = f"{failure.hint}\n{self.socket_advice}".strip()
                    raise failure
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
        right = "" if self.url.startswith(UNIX) else f" Is {URL_VARIABLE} right?"
        hint = over_tls(self.url, error) or f"Is it running (systemctl status queen-rbee)?{right}"
        return Failure(f"queen-rbee at {self.url} does not answer: {error}", hint, ExitStatus.UNAVAILABLE)

    @property
    def _base(self) -> str:
        return unix_url(self.url.removeprefix(UNIX)) if self.url.startswith(UNIX) else self.url

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


@contextmanager
def ungrouped() -> Iterator[None]:
    """Ctrl-C as it is: what ends a nursery, such as the one in which trio connects to a name, comes in a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


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
