"""HTTP client for the queen's API: one URL, one token, and every failure as a CommandError."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlencode

import trio
from pydantic import BaseModel, ValidationError

from llama_orch.http.client.client import IdleConnections, Response, UpstreamError, request
from llama_orch.http.client.connecting import unix_url
from llama_orch.http.client.upstream import NoTls, Unanswered
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE
from orchctl.error_responses import error_from_response
from orchctl.errors import NOT_QUEEN_HINT, CommandError
from orchctl.locations import UNIX, URL_VARIABLE
from orchctl.nurseries import unwrap_groups

LIMIT_S = 30.0
MAX_RESPONSE_BYTES = 64 << 20


def build_path(path: str, *names: str, **query: object) -> str:
    """Append `names`, quoted, and a query string of the parameters that are not None to `path`."""
    full = "/".join((path, *(quote(name, safe="") for name in names)))
    parameters = urlencode({name: value for name, value in query.items() if value is not None})
    return f"{full}?{parameters}" if parameters else full


@dataclass(frozen=True)
class QueenClient:
    """A client for the queen at `url`, which is an http:// or https:// URL, or unix: and the path of a socket.

    With `connections`, connections are kept open between requests. `socket_advice` says how to do without a token; it
    is added to the hint of a 401. `daemon` is the server's name in error messages. `read_only`, if set, says why only
    GET is allowed.
    """

    url: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    connections: IdleConnections | None = None
    socket_advice: str = ""
    daemon: str = "queen-rbee"
    read_only: str = ""

    @asynccontextmanager
    async def request(
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
        """Send a request and yield the response; leaving the block early closes the connection.

        A `repeatable` request is sent again if a kept connection turns out to be closed.

        Raises CommandError if the status is neither a success nor `allowed`, UpstreamError if no response arrives
        within `head_s` seconds.
        """
        if self.read_only and method != "GET":
            raise CommandError(self.read_only, "", ExitStatus.USAGE)
        content_type = {"content-type": "application/json"} if body else {}
        fields = {**self._authorization(), **content_type, **(headers or {})}
        with unwrap_groups():
            send = partial(request, method, self._base_url + path, headers=fields, body=body, head_s=head_s)
            async with send(tls=self.tls, connections=self.connections, repeatable=repeatable) as response:
                if not 200 <= response.status < 300 and response.status not in allowed:
                    content = await response.read(limit_s=LIMIT_S)
                    error = error_from_response(response.status, content, response.headers)
                    if response.status == 401 and self.socket_advice:
                        error.hint = f"{error.hint}\n{self.socket_advice}".strip()
                    raise error
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
        """Send `body` as JSON and return the body of the response. Raises CommandError."""
        data = b"" if body is None else encode_json(body)
        try:
            async with self.request(method, path, data, allowed=allowed, repeatable=repeatable) as response:
                return await response.read(MAX_RESPONSE_BYTES, limit_s=LIMIT_S)
        except UpstreamError as error:
            raise self.unreachable(error) from error

    async def get(self, path: str) -> bytes:
        """Raises CommandError."""
        return await self.call("GET", path)

    async def command(self, method: str, path: str) -> None:
        """Send an idempotent request whose response is empty. Raises CommandError."""
        if await self.call(method, path, repeatable=True):
            raise _invalid_response()

    def unreachable(self, error: UpstreamError) -> CommandError:
        check_url = "" if self.url.startswith(UNIX) else f" and that {URL_VARIABLE} is correct"
        hint = tls_hint(self.url, error) or f"Check that it is running (systemctl status {self.daemon}){check_url}."
        return CommandError(f"{self.daemon} at {self.url} does not answer: {error}", hint, ExitStatus.UNAVAILABLE)

    @property
    def _base_url(self) -> str:
        return unix_url(self.url.removeprefix(UNIX)) if self.url.startswith(UNIX) else self.url

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def tls_hint(url: str, error: UpstreamError) -> str:
    """Return what to check about TLS after `error` at `url`; empty if TLS is not a likely cause."""
    if isinstance(error, NoTls):
        certificate = f"The certificate must be issued by the CA in {CA_FILE} and be valid for the host of the URL."
        return f"{certificate} If the server does not use TLS, use an http:// URL."
    if not isinstance(error, Unanswered) or not url.startswith("http"):
        return ""
    if url.startswith("https:"):
        return (
            f"If the server requires a client certificate, set {CERT_FILE} and {KEY_FILE} to one issued by the CA that "
            "the server trusts."
        )
    return "If the server uses TLS, use an https:// URL."


def encode_json(body: object) -> bytes:
    """Encode a request body. Raises CommandError if a string in it is not valid UTF-8.

    Python passes invalid bytes of the command line on as surrogates.
    """
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        hint = "Text on the command line or typed at the terminal must be UTF-8."
        raise CommandError("cannot send the request: it contains invalid UTF-8", hint, ExitStatus.DATA) from error


M = TypeVar("M", bound=BaseModel)


@trio.lowlevel.enable_ki_protection  # a Ctrl-C while pydantic builds a validator would be lost in its native code
def parse_response(model: type[M], body: bytes) -> M:
    """Raises CommandError if `body` is not a `model`, as from a foreign server or another release."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid_response() from error


def _invalid_response() -> CommandError:
    return CommandError("the server sent an unexpected response", NOT_QUEEN_HINT, ExitStatus.UNAVAILABLE)
