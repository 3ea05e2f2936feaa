"""Clients with kept connections, each of which sends a request as soon as the last one is answered."""

import asyncio
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.bench.gateway.engine import PACED, TOKENS
from tests.bench.queen import MODEL
from tests.bench.wire import encoded

STOP_WITHIN_S = 60.0
HEAD_END, LAST_CHUNK, FIRST_EVENT = b"\r\n\r\n", b"0\r\n\r\n", b"data: "
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")
CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: chunked\r\n")
PROMPT = "Tell me about the river that runs through the town, and about the bridges that cross it. " * 4


def chat(tokens: int, *, stream: bool) -> bytes:
    """Return a request for a chat completion of `tokens` tokens."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens, "stream": stream}
    return encoded("POST", "/v1/chat/completions", body)


STREAMED, WHOLE, PACED_CHAT = chat(TOKENS, stream=True), chat(TOKENS, stream=False), chat(PACED, stream=True)


@dataclass
class Answers:
    """The answers of all clients. `first_s` and `took_s` are seconds from a request to its first event and its end."""

    first_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _Client(asyncio.Protocol):
    """One connection. Asks `more` before each request."""

    def __init__(self, request: bytes, more: Callable[[], bool], answers: Answers) -> None:
        self._request = request
        self._tokens = PACED if request is PACED_CHAT else TOKENS
        self._more = more
        self._answers = answers
        self._received = b""
        self._first_at = 0.0
        self._left: int | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._ask()

    def _ask(self) -> None:
        self._received, self._first_at, self._left = b"", 0.0, None
        if self._more():
            self._sent_at = time.perf_counter()
            self._transport.write(self._request)
        else:
            self._finish()

    def _finish(self) -> None:
        self._transport.close()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        # a gateway without TCP_NODELAY would otherwise wait up to 40 ms for a delayed ACK, and send many tokens at once
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._received += data
        if not self._first_at and FIRST_EVENT in self._received:
            self._first_at = time.perf_counter()
        if self._left is None:
            at = self._received.find(HEAD_END)
            if at < 0:
                return
            length = LENGTH.search(self._received, 0, at + 2)
            self._left = at + 4 + int(length[1]) if length else 0
        done = len(self._received) >= self._left if self._left else self._received.endswith(LAST_CHUNK)
        if done:
            self._answered()

    def _answered(self) -> None:
        now = time.perf_counter()
        if not self._received.startswith(b"HTTP/1.1 200") or self._received.count(b" word") != self._tokens:
            self._answers.problems.append(self._received[:300].decode(errors="replace"))
            self._finish()
            return
        self._answers.took_s.append(now - self._sent_at)
        self._answers.first_s.append((self._first_at or now) - self._sent_at)
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self._answers.problems.append(f"connection lost: {error}")
            self.ended.set_result(None)


async def _run(port: int, request: bytes, clients: int, more: Callable[[], bool], answers: Answers) -> None:
    loop = asyncio.get_running_loop()
    connect = partial(_Client, request, more, answers)
    protocols = [(await loop.create_connection(connect, "127.0.0.1", port))[1] for _ in range(clients)]
    async with asyncio.timeout(STOP_WITHIN_S):
        await asyncio.gather(*(protocol.ended for protocol in protocols))


def ask(port: int, request: bytes, clients: int, *, seconds: float = 0.0, requests: int = 0) -> Answers:
    """Send `request` from each of `clients` again and again: for `seconds`, or `requests` in total."""
    answers, until, turns = Answers(), time.perf_counter() + seconds, iter(range(requests))

    def more() -> bool:
        return next(turns, None) is not None if requests else time.perf_counter() < until

    asyncio.run(_run(port, request, clients, more, answers))
    return answers
