"""HTTP requests to servers on the network: proxies, redirects, credentials, time limits.

The only user of httpx2, which is imported at the first request: a daemon that downloads nothing does without it.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from llama_orch import VERSION
from llama_orch.addresses import is_loopback

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 15.0
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 10
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
REFUSAL_LIMIT = 4096
RETRY_AFTER_MAX_S = 60.0
DEFAULT_PORTS = {"http": 80, "https": 443}


class Broken(Exception):
    """A request failed in a way that may pass by itself. `retry_after_s` is what the server asks for."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Resource:
    """What to request. `shown` is its name in messages, without secrets; `verified`: its checksum is known, so that a
    connection need not protect it."""

    url: str
    shown: str
    verified: bool = False


class Answer:
    """An answer whose body has not been read yet."""

    def __init__(self, response: "httpx2.Response", as_failures: Callable[[], AbstractContextManager[None]]) -> None:
        self._response = response
        self._as_failures = as_failures
        self._body = response.aiter_raw()
        self._began = False
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def receive(self) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises Broken if the body is incomplete."""
        self._began = True
        with self._as_failures():
            return await anext(self._body, b"")

    async def beginning(self, limit: int = REFUSAL_LIMIT) -> bytes:
        """Return at most `limit` bytes of the body. Raises Broken."""
        body = b""
        while len(body) < limit and (chunk := await self.receive()):
            body += chunk
        return body[:limit]

    async def aclose(self) -> None:
        """Close the connection unless the body was read completely.

        Reading on then fails in httpx2's innermost generator. Without that, all its generators would be left
        suspended, for the garbage collector to find.
        """
        await self._response.aclose()
        if self._began:
            with suppress(Exception):
                while await anext(self._body, b""):
                    pass


class Web:
    """An HTTP client. `idle_s` limits how long a server may send nothing. Use it as an async context manager."""

    def __init__(self, idle_s: float) -> None:
        self.idle_s = idle_s
        self._clients: dict[bool, httpx2.AsyncClient] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "Web":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @asynccontextmanager
    async def get(
        self, resource: Resource, headers: Mapping[str, str], private: Mapping[str, str]
    ) -> AsyncIterator["Answer"]:
        """Request `resource` and follow redirects. `private` headers go to the host of its URL only.

        Raises Broken and ProvisioningFailure.
        """
        url = resource.url
        common = {"accept-encoding": "identity", "user-agent": f"llama-orch/{VERSION}", **headers}
        for _hop in range(MAX_REDIRECTS):
            with self._as_failures(resource):
                client = await self._client(url, resource)
                own = private if origin(url) == origin(resource.url) else {}
                request = client.build_request("GET", url, headers={**common, **own})
                answer = Answer(await client.send(request, stream=True), partial(self._as_failures, resource))
            try:
                location = answer.headers.get("location")
                if answer.status not in REDIRECTS or not location:
                    yield answer
                    return
            finally:
                with trio.CancelScope(shield=True):
                    await answer.aclose()
            url = redirected(url, location, resource)
        raise ProvisioningFailure(f"{resource.shown}: too many redirects", "Correct the reference.", Retry.AFTER_FIX)

    async def _client(self, url: str, resource: Resource) -> "httpx2.AsyncClient":
        """Return the client for the host of `url`: no proxy is asked for a loopback address."""
        import httpx2

        by_proxy = not is_loopback(urlsplit(url).hostname or "")
        if by_proxy not in self._clients:
            timeout = httpx2.Timeout(self.idle_s, connect=CONNECT_S)
            limits = httpx2.Limits(max_connections=None)
            try:
                client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=by_proxy)
            except (ValueError, ImportError) as error:  # from a bad proxy URL; the text has no password
                message = f"cannot download {resource.shown}: invalid proxy in the environment: {_text(error)}"
                hint = "Set HTTPS_PROXY and HTTP_PROXY to http://HOST:PORT."
                raise ProvisioningFailure(message, hint, Retry.AFTER_FIX) from error
            self._clients[by_proxy] = await self._open.enter_async_context(client)
        return self._clients[by_proxy]

    @contextmanager
    def _as_failures(self, resource: Resource) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.ConnectTimeout as error:
            raise Broken(f"cannot connect within {CONNECT_S:g} s") from error
        except httpx2.TimeoutException as error:
            raise Broken(f"the server sent nothing for {self.idle_s:g} s") from error
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            message = f"cannot download {resource.shown}: {_text(error)}"
            raise ProvisioningFailure(message, "Correct the reference.", Retry.AFTER_FIX) from error
        except (httpx2.HTTPError, ssl.SSLError) as error:
            raise Broken(_text(error)) from error


def redirected(url: str, location: str, resource: Resource) -> str:
    """Return the URL of a redirect. Raises ProvisioningFailure if it leaves https for a file without a checksum."""
    target = urljoin(url, location)
    leaves_https = urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https"
    if (leaves_https or is_cleartext(target)) and not resource.verified:
        message = f"{resource.shown} redirects to plain http, which does not protect the file"
        raise ProvisioningFailure(message, "Set a checksum or another URL.", Retry.AFTER_FIX)
    return target


def is_cleartext(url: str) -> bool:
    """Whether `url` is plain http to another machine, which needs a checksum to be safe."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of `url`."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds in Retry-After, at most RETRY_AFTER_MAX_S; 0 without it or if it is a date."""
    text = headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 0.0


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
