"""An imitation of a link that breaks: a TCP relay on loopback that counts the bytes that a server sends through it.

`python -m tests.imitations.flaky_link LISTEN TARGET SECONDS [BYTES_PER_S]` prints its counts at SIGTERM.
"""

import json
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import trio

BLOCK = 65536
SEND_BUFFER = 256 << 10

Kind = Literal["reset", "end", "stall"]
"""How a connection breaks: by RST, by an early end without an error, by silence."""


@dataclass
class Counts:
    """What went through the link. `down`: bytes that the server sent."""

    connections: int = 0
    broken: int = 0
    down: int = 0


class FlakyLink:
    """Relays to `target` and breaks each connection after `every_s` seconds; `rate` limits each one in bytes/s."""

    def __init__(self, target: int, every_s: float, rate: int = 0, kind: Kind = "reset") -> None:
        self.target, self.every_s, self.rate, self.kind = target, every_s, rate, kind
        self.counts = Counts()

    async def serve(self, port: int = 0, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled; report the port."""
        [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._relay, [listener])

    async def _relay(self, client: trio.SocketStream) -> None:
        self.counts.connections += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # what a break can lose on the way
        server = await trio.open_tcp_stream("127.0.0.1", self.target)
        complete = False
        try:
            with trio.move_on_after(self.every_s):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_up, client, server)
                    await self._pass_down(server, client)
                    complete = True
                    nursery.cancel_scope.cancel()
            if not complete:
                self.counts.broken += 1
                await self._break(client)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(server)
                await trio.aclose_forcefully(client)

    async def _break(self, client: trio.SocketStream) -> None:
        if self.kind == "stall":
            await trio.sleep_forever()
        if self.kind == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _pass_up(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        try:
            while data := await client.receive_some(BLOCK):
                await server.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _pass_down(self, server: trio.SocketStream, client: trio.SocketStream) -> None:
        try:
            while data := await server.receive_some(BLOCK):
                self.counts.down += len(data)
                await client.send_all(data)
                if self.rate:
                    await trio.sleep(len(data) / self.rate)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def flaky_link(link: FlakyLink, port: int = 0) -> AsyncIterator[int]:
    """Relay for the duration of the block; yield the port."""
    async with trio.open_nursery() as nursery:
        listening: int = await nursery.start(link.serve, port)
        yield listening
        nursery.cancel_scope.cancel()


async def main() -> None:
    """Relay until SIGTERM."""
    listen, target, every_s, *rate = sys.argv[1:]
    link = FlakyLink(int(target), float(every_s), int(rate[0]) if rate else 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(link.serve, int(listen)))
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _signal in signals:
                print(json.dumps(asdict(link.counts)), flush=True)
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
