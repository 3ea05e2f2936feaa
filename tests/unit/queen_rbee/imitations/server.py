"""The base of all fake engines: an HTTP server on loopback that behaves as a word in the request tells.

The word is the first of MOODS in the request's body; without one the answer is complete and correct.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import trio

from tests.connections import receive_some
from tests.unit.queen_rbee.scripted_engine import HEAD, ScriptedEngine, chunk

MOODS = (
    "refuse",
    "busy",
    "break",
    "close",
    "silence",
    "garbage",
    "nothing",
    "hang up",
    "stall",
    "midway",
    "comments",
    "signs",
    "endless",
)
Json = dict[str, Any]
SIGNS_EVERY_S = 0.01
MANY = 500


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Json

    @property
    def mood(self) -> str:
        """How to behave."""
        words = json.dumps(self.body)
        return next((mood for mood in MOODS if mood in words), "well")


@dataclass
class Call:
    """A request and the connection to answer it on."""

    asked: Asked
    stream: trio.SocketStream

    async def document(self, status: int, document: object) -> None:
        """Send a complete answer: JSON, or a str as text."""
        body = (document if isinstance(document, str) else json.dumps(document)).encode()
        await self.stream.send_all(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))

    async def begin(self) -> None:
        """Send the head of a stream."""
        await self.stream.send_all(HEAD)

    async def send(self, data: bytes) -> None:
        """Send bytes as one chunk."""
        await self.stream.send_all(chunk(data))

    async def event(self, data: Json | str) -> None:
        """Send one event."""
        text = data if isinstance(data, str) else json.dumps(data)
        await self.send(f"data: {text}\n\n".encode())

    async def end(self) -> None:
        """End the stream."""
        await self.stream.send_all(b"0\r\n\r\n")

    async def until_left(self) -> None:
        """Send nothing until the client disconnects."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(1):
                pass

    async def repeat(self, data: bytes) -> None:
        """Send `data` repeatedly until the client disconnects."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat, data)
            await self.until_left()
            nursery.cancel_scope.cancel()

    async def _repeat(self, data: bytes) -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await self.send(data)
                await trio.sleep(SIGNS_EVERY_S)


@dataclass
class Imitation(ScriptedEngine, ABC):
    """Counts connections, as its base does; `heard` has every request so far."""

    engine = ""
    heard: list[Asked] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        self.connected += 1
        try:
            call = Call(await _request(stream), stream)
            self.heard.append(call.asked)
            await self.answer(call, call.asked.mood)
        except trio.BrokenResourceError:
            pass  # the client left during the answer
        finally:
            self.connected -= 1
            self.served += 1
            self.disconnected.set()
            self.disconnected = trio.Event()

    async def answer(self, call: Call, mood: str) -> None:
        """Behave as `mood` tells."""
        if mood in ("refuse", "busy", "break"):
            await call.document(*self.error(mood))
        elif mood == "silence":
            await call.until_left()
        elif mood != "close":
            await self.stream_out(call, mood)

    async def stream_out(self, call: Call, mood: str) -> None:
        """Answer with a stream; `mood` tells how it continues after its head."""
        await call.begin()
        if mood == "garbage":
            await call.event("<html>")
        elif mood == "nothing":
            await call.end()
        elif mood == "comments":
            await call.repeat(b": ping\n\n")
        elif mood == "signs":
            await call.repeat(self.encoded(call.asked, ""))
        elif mood == "endless":
            await call.send(b"".join(self.encoded(call.asked, "on ") for _ in range(MANY)))
            await call.until_left()
        else:
            await self.speak(call, mood)

    def encoded(self, asked: Asked, text: str) -> bytes:
        """Encode one token's event."""
        return f"data: {json.dumps(self.token(asked, text))}\n\n".encode()

    async def speak(self, call: Call, mood: str) -> None:
        """Send one token and the rest of the stream."""
        await call.event(self.token(call.asked, "hello "))
        if mood == "stall":
            await call.until_left()
        elif mood == "midway":
            for event in self.midway():
                await call.event(event)
            await call.end()
        elif mood != "hang up":
            await call.event(self.token(call.asked, "world"))
            for event in self.last(call.asked):
                await call.event(event)
            await call.end()

    @abstractmethod
    def token(self, asked: Asked, text: str) -> Json:
        """The event of one token."""

    @abstractmethod
    def last(self, asked: Asked) -> list[Json | str]:
        """The events after the last token."""

    @abstractmethod
    def midway(self) -> list[Json | str]:
        """The events of a failure midway."""

    @abstractmethod
    def error(self, mood: str) -> tuple[int, Json | str]:
        """Status and body for `refuse` (bad request), `busy` and `break`."""


async def _request(stream: trio.SocketStream) -> Asked:
    request = b""
    while b"\r\n\r\n" not in request:
        request += await receive_some(stream)
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await receive_some(stream)
    method, path, _version = first.split(" ")
    return Asked(method, path, headers, json.loads(body) if body else {})


Some = TypeVar("Some", bound=ScriptedEngine)


@asynccontextmanager
async def listening(engine: Some) -> AsyncIterator[Some]:
    """Run `engine` on a free loopback port."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, engine.handle, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        engine.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield engine
        nursery.cancel_scope.cancel()
