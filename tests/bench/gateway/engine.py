"""An engine that costs nearly nothing: it answers at once, or token by token at a fixed pace.

A request for PACED tokens is answered at the pace, any other at once. It runs on asyncio's protocols, because trio
would need more CPU than the fastest of the gateways that are measured.
"""

import asyncio
import json
import multiprocessing
import os
import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.queen import MODEL

TOKENS, PACED = 16, 64
INTERVAL_S = 0.02
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
# sglang-router renames the field
PACED_MARK = re.compile(rb'"max(?:_completion)?_tokens": ?%d\b' % PACED)
STREAM_MARK = re.compile(rb'"stream": ?true')
HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5, max=100\r\n"
STREAM_HEAD = HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
COMMON = {"id": "chatcmpl-bench", "created": 1, "model": MODEL, "system_fingerprint": "b1"}


def _document(body: object) -> bytes:
    data = json.dumps(body).encode()
    return HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def _event(body: dict[str, object] | None) -> bytes:
    data = b"data: " + (b"[DONE]" if body is None else json.dumps(body, separators=(",", ":")).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _chunk(delta: dict[str, str | None], reason: str | None = None, **more: object) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return _event({"choices": choices, **COMMON, "object": "chat.completion.chunk", **more})


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}


def _end(tokens: int) -> bytes:
    timings = {"cache_n": 0, "prompt_n": 8, "predicted_n": tokens}
    last = _event({"choices": [], **COMMON, "object": "chat.completion.chunk", "usage": _usage(tokens)})
    return _chunk({}, "length", timings=timings) + last + _event(None) + b"0\r\n\r\n"


ROLE, TOKEN = _chunk({"role": "assistant", "content": None}), _chunk({"content": " word"})
AT_ONCE = STREAM_HEAD + ROLE + TOKEN * TOKENS + _end(TOKENS)
WHOLE = _document(
    {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": " word" * TOKENS}, "finish_reason": "length"}
        ],
        **COMMON,
        "object": "chat.completion",
        "usage": _usage(TOKENS),
    }
)
STATUS = _document({"status": "ok", "model_path": MODEL, "data": [{"id": MODEL, "object": "model"}]})


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        length = int(matched[1]) if (matched := LENGTH.search(head)) else 0
        if not found or len(rest) < length:
            return
        body, self._received = rest[:length], rest[length:]
        if head.startswith(b"GET"):
            self._transport.write(STATUS)
        elif PACED_MARK.search(body):
            asyncio.get_running_loop().call_later(random.random() * INTERVAL_S, self._begin)
        else:
            self._transport.write(AT_ONCE if STREAM_MARK.search(body) else WHOLE)

    def _begin(self) -> None:
        self._transport.write(STREAM_HEAD + ROLE + TOKEN)
        self._schedule(PACED - 1)

    def _schedule(self, remaining: int) -> None:
        asyncio.get_running_loop().call_later(INTERVAL_S, self._next, remaining)

    def _next(self, remaining: int) -> None:
        if remaining:
            self._transport.write(TOKEN)
            self._schedule(remaining - 1)
        else:
            self._transport.write(_end(PACED))


async def _serve(listener: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, sock=listener)
    await server.serve_forever()


def _run(listener: socket.socket, core: int) -> None:
    os.sched_setaffinity(0, {core})
    asyncio.run(_serve(listener))


@contextmanager
def engine(core: int) -> Iterator[str]:
    """Run an engine in its own process on `core` and yield its URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(listener, core), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.kill()
        process.join()
        listener.close()
