"""Hot requests as nearly all clients send them: a whole HTTP/1.1 head, and a body with a Content-Length or none.

h11 takes 0.4 ms for such a request and its answer, this module a tenth of that. It accepts less than h11 does, and
leaves everything else to it: the grammar here is a subset of RFC 9112, without leeway.
"""

import re
import time
from dataclasses import dataclass
from email.utils import formatdate

from llama_orch.http.server.exchange import AsgiApp, BrokenOff, ClientGone, Message
from llama_orch.http.server.hang_ups import HangUp
from llama_orch.http.server.hot_exchange import HotExchange, receive
from llama_orch.http.tls.secured import Wire

_HEAD = re.compile(
    rb"([A-Z]{3,16}) ([\x21-\x7e]+) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
_LEFT_TO_H11 = (b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer")
_CONNECTION = (b"keep-alive", b"close")
LENGTH_DIGITS = 15
WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request's head; `rest` was received after it: the body's beginning, or all of it and more."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    length: int
    closes: bool
    rest: bytes


def plain_request(received: bytes) -> PlainRequest | None:
    """Parse a request that begins with `received`; None if h11 has to."""
    found = _HEAD.match(received)
    if found is None:
        return None
    fields = [line.partition(b":") for line in found[3].split(b"\r\n")[:-1]]
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in fields]
    by_name = dict(headers)
    length, connection = by_name.get(b"content-length", b"0"), by_name.get(b"connection", b"keep-alive").lower()
    if b"host" not in by_name or connection not in _CONNECTION or not length.isdigit() or len(length) > LENGTH_DIGITS:
        return None
    for name in _LEFT_TO_H11:
        if name in by_name:
            return None
    if len(by_name) < len(headers):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in (b"host", b"content-length", b"connection")):
            return None
    rest = received[found.end() :]
    return PlainRequest(found[1], found[2], headers, int(length), connection == b"close", rest)


class PlainExchange(HotExchange):
    """One such request and its answer over ASGI."""

    def __init__(self, stream: Wire, app: AsgiApp, hang_up: HangUp, request: PlainRequest) -> None:
        super().__init__(stream, app, hang_up)
        self._request = request
        self._remaining = request.length
        self._body_read = False
        self._head_only = request.method == b"HEAD"
        self._closes = request.closes
        self._chunked = False
        self._head = b""
        self._next_request = request.rest

    async def run(self) -> bytes | None:
        """Serve the request. Return the bytes that follow it, or None to close."""
        request = self._request
        try:
            scope = self._scope(request.method, request.target, "1.1", request.headers)
            await self._app(scope, self.receive, self.send)
        except (BrokenOff, ClientGone):
            return None
        skipped = min(self._remaining, len(self._next_request))
        self._remaining, self._next_request = self._remaining - skipped, self._next_request[skipped:]
        if self._remaining:
            await self._linger()
            return None
        return self._next_request if self._ended and not self._closes else None

    async def receive(self) -> Message:
        """Return the next chunk of the body; after the body, wait until the client disconnects."""
        if self._body_read:
            return await self._disconnect()
        data = b""
        if self._remaining:
            data, self._next_request = self._next_request, b""
            if not data and not (data := await receive(self._stream)):
                return {"type": "http.disconnect"}
            data, self._next_request = data[: self._remaining], data[self._remaining :]
            self._remaining -= len(data)
        self._body_read = not self._remaining
        return {"type": "http.request", "body": data, "more_body": not self._body_read}

    def _encoded(self, message: Message) -> bytes:
        if message["type"] == "http.response.start":
            self._head = self._encoded_head(message["status"], list(message["headers"]))
            return b""
        head, self._head = self._head, b""
        data, last = message.get("body", b""), not message.get("more_body", False)
        self._ended = self._ended or last
        if self._head_only:
            return head
        if not self._chunked:
            return head + data if head else bytes(data)
        end = b"0\r\n\r\n" if last else b""
        return b"%b%x\r\n%b\r\n%b" % (head, len(data), data, end) if data else head + end

    def _encoded_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Raises ValueError for a header that would not be one line."""
        names = [name for name, _ in headers]
        self._chunked = b"content-length" not in names and status not in WITHOUT_BODY
        if self._chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        if b"connection" in names:
            self._closes = self._closes or (b"connection", b"close") in headers
        elif self._closes:
            headers.append((b"connection", b"close"))
        lines = b"".join([b"%b: %b\r\n" % field for field in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
            raise ValueError(f"an answer has a header with a forbidden character: {headers}")
        return b"HTTP/1.1 %d \r\n%bdate: %b\r\n\r\n" % (status, lines, _Date.now())


class _Date:
    """The Date header, formatted once a second."""

    _second = 0
    _text = b""

    @classmethod
    def now(cls) -> bytes:
        second = int(time.time())
        if second != cls._second:
            cls._second, cls._text = second, formatdate(second, usegmt=True).encode()
        return cls._text
