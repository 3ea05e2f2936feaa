"""One relay for all simulated nodes: pool-managerd's path to an engine, over persistent connections.

It answers a prompt at once in llama-server's format, like an engine with unlimited slots. A prompt is the number of its
task.
"""

import json
import re
import socket
from dataclasses import dataclass

import trio

from tests.bench.nodes import NodeObservations
from tests.bench.stand_in import BACKLOG, GenerationRequest
from tests.bench.wire import HEAD_END

ENGINE = re.compile(rb"POST /v2/pools/[a-z0-9-]+/engine(/completion) ")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
TOKENS = 4
HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(frozen=True)
class Relays:
    """Serves a listening socket on all loopback addresses. `observed` records the arrival of each task."""

    listener: socket.socket
    observed: NodeObservations

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    async def serve(self, *, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        """Serve forever."""
        self.listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))
        await trio.serve_listeners(self._connection, [listener], task_status=task_status)

    async def _connection(self, stream: trio.SocketStream) -> None:
        received = b""
        try:
            while True:
                head, body, received = await _request(stream, received)
                await stream.send_all(self._answer(head, body))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if not (found := ENGINE.match(head)):
            return NOT_FOUND
        self.observed.arrived[int(json.loads(body)["prompt"])] = trio.current_time()
        request = GenerationRequest(found[1].decode(), TOKENS, "")
        events = b"".join(map(request.token, range(TOKENS))) + request.end()
        return HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(events), events)


async def _request(stream: trio.SocketStream, received: bytes) -> tuple[bytes, bytes, bytes]:
    """Read the next request. Return its head and body, and the data after it. `received` is data from before."""
    while HEAD_END not in received:
        received += await _receive(stream)
    head, _, rest = received.partition(HEAD_END)
    length = int(found[1]) if (found := LENGTH.search(head)) else 0
    while len(rest) < length:
        rest += await _receive(stream)
    return head, rest[:length], rest[length:]


async def _receive(stream: trio.SocketStream) -> bytes:
    if not (data := await stream.receive_some()):
        raise trio.BrokenResourceError
    return bytes(data)


def relays(observed: NodeObservations) -> Relays:
    """Return a relay that listens on a free port."""
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listener.listen(BACKLOG)
    return Relays(listener, observed)
