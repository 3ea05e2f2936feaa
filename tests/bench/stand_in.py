"""A cheap stand-in for llama-server. It sends numbered tokens with timestamps at a fixed rate, with unlimited slots.

A token is ` NUMBER:TIME`, where TIME is the time when it was sent, in seconds of CLOCK_MONOTONIC, which all processes
share. If the prompt contains `pad=N`, each token is N characters longer.
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
class SlotIdleTimes:
    """Times in which slots were free: from the end of an answer to the arrival of the next request, oldest first."""

    waits: list[float] = field(default_factory=list)
    served: int = 0
    _freed: deque[float] = field(default_factory=deque)

    def ended(self) -> None:
        """Record the end of an answer."""
        self._freed.append(time.monotonic())
        self.served += 1

    def arrived(self) -> None:
        """Record the arrival of a request."""
        if self._freed:
            self.waits.append(time.monotonic() - self._freed.popleft())

    def reset(self) -> None:
        """Discard the times. Slots that are free now are ignored, because no task was waiting for them."""
        self.waits.clear()
        self._freed.clear()


HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n" + b'{"status":"ok"}'


@dataclass(frozen=True)
class GenerationRequest:
    """A request for tokens."""

    path: str
    tokens: int
    pad: str

    def token(self, number: int) -> bytes:
        """Return the event of a token."""
        text = f" {number}:{time.monotonic():.6f}{self.pad}"
        if self.path == "/completion":
            return _event({"index": 0, "content": text, "tokens": [number], "stop": False, "id_slot": 0})
        return _event(_chunk({"content": text}, None))

    def end(self) -> bytes:
        """Return the last events of the stream."""
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
    """Serves a listening socket. `interval_s` is the time between two tokens of a stream."""

    listener: socket.socket
    interval_s: float
    idle_times: SlotIdleTimes = field(default_factory=SlotIdleTimes)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve forever."""
        self.listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._answer, [listener])
            task_status.started()

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            request = await _request(stream)
            if request is None:
                await stream.send_all(HEALTHY)
                return
            self.idle_times.arrived()
            await self._send_answer(stream, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _send_answer(self, stream: trio.SocketStream, request: GenerationRequest) -> None:
        begun = trio.current_time() + random.random() * self.interval_s
        head = HEAD
        for number in range(request.tokens):
            await trio.sleep_until(begun + number * self.interval_s)
            await stream.send_all(head + _chunked(request.token(number)))
            head = b""
        await stream.send_all(_chunked(request.end()) + b"0\r\n\r\n")
        self.idle_times.ended()


async def _request(stream: trio.SocketStream) -> GenerationRequest | None:
    """Return the request; None if it is queen-rbee's health check."""
    received = b""
    while HEAD_END not in received:
        received += await _receive(stream)
    head, _, body = received.partition(HEAD_END)
    if head.startswith(b"GET"):
        return None
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    while len(body) < length:
        body += await _receive(stream)
    fields = json.loads(body)
    pad = PAD.search(body.decode())
    tokens = fields.get("n_predict") or fields.get("max_tokens") or TOKENS
    return GenerationRequest(head.split(b" ", 2)[1].decode(), tokens, "x" * int(pad[1]) if pad else "")


async def _receive(stream: trio.SocketStream) -> bytes:
    if not (data := await stream.receive_some()):
        raise trio.BrokenResourceError
    return bytes(data)


def stand_in(interval_s: float) -> StandIn:
    """Return a stand-in that listens on a free port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return StandIn(listener, interval_s)


@contextmanager
def stand_in_process(interval_s: float) -> Iterator[str]:
    """Run a stand-in in its own process, on the core that queen-rbee does not use, and yield its URL."""
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
