"""A stand-in for llama-server that costs little and tells when it did what: its wire format with tokens that are
numbered and dated, at a steady pace, over as many slots as there are connections.

A token is ` NUMBER:TIME` with the time of its emission on CLOCK_MONOTONIC in seconds, which all processes share. What
the prompt says of `pad=N` adds N characters to each token.
"""

import json
import multiprocessing
import os
import random
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from tests.bench.figures import cores
from tests.bench.wire import HEAD_END

TOKENS = 64
PAD = re.compile(r"pad=(\d+)")
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
BACKLOG = 1024


@dataclass
class Turnover:
    """How long slots stood free: from the end of an answer to the arrival of the next request, oldest first."""

    waits: list[float] = field(default_factory=list)
    served: int = 0
    _freed: deque[float] = field(default_factory=deque)

    def ended(self) -> None:
        """A slot is free from now on."""
        self._freed.append(time.monotonic())
        self.served += 1

    def arrived(self) -> None:
        """A slot is taken."""
        if self._freed:
            self.waits.append(time.monotonic() - self._freed.popleft())

    def forget(self) -> None:
        """Begin anew: slots that are free by now had nobody to wait for them."""
        self.waits.clear()
        self._freed.clear()


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    path: str
    tokens: int
    pad: str

    def token(self, number: int) -> bytes:
        """One event of the stream."""
        text = f" {number}:{time.monotonic():.6f}{self.pad}"
        if self.path == "/completion":
            return _event({"index": 0, "content": text, "tokens": [number], "stop": False, "id_slot": 0})
        return _event(_chunk({"content": text}, None))

    def end(self) -> bytes:
        """The last events of the stream."""
        if self.path == "/completion":
            counts = {"tokens_evaluated": 8, "tokens_predicted": self.tokens, "timings": {"cache_n": 0}}
            return _event({"index": 0, "content": "", "tokens": [], "stop": True, **counts})
        usage = {"prompt_tokens": 8, "completion_tokens": self.tokens, "total_tokens": 8 + self.tokens}
        return (
            _event(_chunk({}, "length"))
            + _event({**_chunk({}, None), "choices": [], "usage": usage})
            + b"data: [DONE]\n\n"
        )


def _event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _chunk(delta: dict[str, str], reason: str | None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "tiny",
        "choices": [choice],
    }


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class StandIn:
    """Serves one listening socket; `interval_s` is between two tokens of a stream."""

    listener: socket.socket
    interval_s: float
    turnover: Turnover = field(default_factory=Turnover)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever."""
        self.listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._answer, [listener])
            task_status.started()

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            wanted = await _request(stream)
            self.turnover.arrived()
            await self._speak(stream, wanted)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _speak(self, stream: trio.SocketStream, wanted: Wanted) -> None:
        begun = trio.current_time() + random.random() * self.interval_s
        head = HEAD
        for number in range(wanted.tokens):
            await trio.sleep_until(begun + number * self.interval_s)
            await stream.send_all(head + _chunked(wanted.token(number)))
            head = b""
        await stream.send_all(_chunked(wanted.end()) + b"0\r\n\r\n")
        self.turnover.ended()


async def _request(stream: trio.SocketStream) -> Wanted:
    seen = b""
    while HEAD_END not in seen:
        seen += await _received(stream)
    head, _, body = seen.partition(HEAD_END)
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    while len(body) < length:
        body += await _received(stream)
    asked = json.loads(body)
    pad = PAD.search(body.decode())
    tokens = asked.get("n_predict") or asked.get("max_tokens") or TOKENS
    return Wanted(head.split(b" ", 2)[1].decode(), tokens, "x" * int(pad[1]) if pad else "")


async def _received(stream: trio.SocketStream) -> bytes:
    if not (data := await stream.receive_some()):
        raise trio.BrokenResourceError
    return bytes(data)


def stand_in(interval_s: float) -> StandIn:
    """One on a free port, listening already."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return StandIn(listener, interval_s)


@contextmanager
def apart(interval_s: float) -> Iterator[str]:
    """One in a process of its own, on the core that is not the queen's; its URL."""
    engine = stand_in(interval_s)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(engine.serve,), daemon=True)
    process.start()
    try:
        yield engine.url
    finally:
        process.kill()
        process.join()
        engine.listener.close()


def _run(serve: Callable[[], Awaitable[None]]) -> None:
    os.sched_setaffinity(0, {cores()[1]})
    trio.run(serve)
