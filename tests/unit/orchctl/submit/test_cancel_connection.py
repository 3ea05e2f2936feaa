"""The connection on which an interrupted orchctl submit cancels its task."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from orchctl.client import QueenClient
from orchctl.parser import build_parser
from orchctl.submit.submit import submit
from tests.unit.orchctl.scripted_queen import ACCEPTED, CANCEL, EVENTS, reply, stream, tokens

LIMIT_S = 10


@dataclass
class KeepAliveServer:
    """A server that keeps connections open, or is `closing` them after the first response.

    `requests` has the requests, each with the number of its connection.
    """

    closing: bool = False
    url: str = ""
    connections: int = 0
    requests: list[tuple[int, str]] = field(default_factory=list)
    streaming: trio.Event = field(default_factory=trio.Event)

    async def handle(self, connection: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        while head := await connection.receive_some(65536):
            line = head.split(b" HTTP", 1)[0].decode()
            self.requests.append((number, line))
            if line == f"GET {EVENTS}":
                await connection.send_all(stream(*tokens("first ")))
                self.streaming.set()
                await connection.receive_some(1)
                return
            await connection.send_all(reply(202, ACCEPTED) if line == "POST /v2/tasks" else reply(204))
            if self.closing:
                return


@asynccontextmanager
async def keep_alive_server(*, closing: bool) -> AsyncIterator[KeepAliveServer]:
    queen = KeepAliveServer(closing)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, queen.handle, 0, host="127.0.0.1"))
        queen.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield queen
        nursery.cancel_scope.cancel()


def options() -> Namespace:
    return build_parser().parse_args(["submit", "x"])


@pytest.mark.parametrize("closing", [False, True])
async def test_cancel_reuses_the_connection_of_the_submit(closing: bool) -> None:
    with trio.fail_after(LIMIT_S):
        async with keep_alive_server(closing=closing) as queen, trio.open_nursery() as nursery:
            nursery.start_soon(submit, options(), QueenClient(queen.url))
            await queen.streaming.wait()
            nursery.cancel_scope.cancel()
    expected = 3 if closing else 1
    assert queen.requests == [(1, "POST /v2/tasks"), (2, f"GET {EVENTS}"), (expected, f"POST {CANCEL}")]
