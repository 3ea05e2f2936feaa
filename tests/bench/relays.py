"""The relay of every simulated node at once: pool-managerd's path to an engine, over connections that are kept.

Behind it stands an engine with any number of slots, which answers a prompt in llama-server's format at once. A prompt
is the number of its task.
"""

import json
import re
import socket
from dataclasses import dataclass

import trio

from tests.bench.nodes import Seen
from tests.bench.stand_in import BACKLOG, Wanted
from tests.bench.wire import HEAD_END

ENGINE = re.compile(rb"POST /v2/pools/[a-z0-9-]+/engine(/completion) ")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
TOKENS = 4
HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(frozen=True)
class Relays:
    """Serves one listening socket on all addresses of loopback; `seen` is told of each task."""

    listener: socket.socket
    seen: Seen

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listener.getsockname()[1])

    async def serve(self, *, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        """Serve for ever."""
        self.listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener))
        await trio.serve_listeners(self._connection, [listener], task_status=task_status)

    async def _connection(self, stream: trio.SocketStream) -> None:
        seen = b""
        try:
            while True:
                head, body, seen = await _request(stream, seen)
                await stream.send_all(self._answer(head, body))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if not (found := ENGINE.match(head)):
            return NOTHING
        self.seen.arrived[int(json.loads(body)["prompt"])] = trio.current_time()
        wanted = Wanted(found[1].decode(), TOKENS, "")
        events = b"".join(map(wanted.token, range(TOKENS))) + wanted.end()
        return HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(events), events)


async def _request(stream: trio.SocketStream, seen: bytes) -> tuple[bytes, bytes, bytes]:
    """Head and body of the next request, and what came behind it; `seen` came before."""
    while HEAD_END not in seen:
        seen += await _received(stream)
    head, _, rest = seen.partition(HEAD_END)
    length = int(found[1]) if (found := LENGTH.search(head)) else 0
    while len(rest) < length:
        rest += await _received(stream)
    return head, rest[:length], rest[length:]


async def _received(stream: trio.SocketStream) -> bytes:
    if not (data := await stream.receive_some()):
        raise trio.BrokenResourceError
    return bytes(data)


def relays(seen: Seen) -> Relays:
    """One on a free port, listening already."""
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listener.listen(BACKLOG)
    return Relays(listener, seen)
