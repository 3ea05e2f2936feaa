"""A server on loopback that answers each path with given bytes, HTTP or not."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import trio

from tests.connections import receive_some

HANG = b""
"""No answer, while the connection stays open."""


def http(status: int, body: bytes) -> bytes:
    """Encode a complete answer."""
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(body), body)


@asynccontextmanager
async def scripted_http(answers: Mapping[str, bytes]) -> AsyncIterator[int]:
    """Run a server that answers any other path with 404; yields its port."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            head = bytearray()
            while b"\r\n\r\n" not in head:
                head += await receive_some(stream)
            answer = answers.get(head.split(b" ")[1].decode(), http(404, b"{}"))
            if answer == HANG:
                await trio.sleep_forever()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
