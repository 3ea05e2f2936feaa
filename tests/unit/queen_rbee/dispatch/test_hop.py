"""Requests through a node: token, session header, and connections that are reused unless a task was cancelled."""

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import pytest
import trio
import trio.testing

from llama_orch.contracts.nodes import SESSION_HEADER, SESSION_MARK_PATTERN
from llama_orch.contracts.tasks import TaskRequest, TaskState
from llama_orch.engines.connections import ENGINE_IDLE_S, engine_connections
from llama_orch.engines.wire.adapters import adapters
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.settings.types import Secret
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.failures import FailureKind, RelayFailure
from queen_rbee.dispatch.hop import Hop
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.pools.test_placement import candidate
from tests.unit.queen_rbee.scripted_engine import HEAD, LAST, TOKEN, chunk

SECRET = Secret("0123456789abcdef")
LIMITS = StallLimits()


@dataclass
class Node:
    """A node's relay, or an engine, with kept connections. `heads` lists the head of each request."""

    url: str = ""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    streams: list[trio.SocketStream] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.streams.append(stream)
        received = b""
        while data := await stream.receive_some(65536):
            received += data
            head, blank, body = received.partition(b"\r\n\r\n")
            if not blank or not body.endswith(b"}"):
                continue
            self.heads.append(head.lower())
            received = b""
            if b"vanish" in body:
                await stream.aclose()
                return
            await stream.send_all(HEAD + chunk(TOKEN))
            if b"stall" in body:
                await stream.receive_some(1)
                return
            await stream.send_all(chunk(LAST))
            await trio.testing.wait_all_tasks_blocked()  # send the end of the body separately
            await stream.send_all(b"0\r\n\r\n")


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    found = Node()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, found.handle, 0, host="127.0.0.1"))
        found.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield found
        nursery.cancel_scope.cancel()


async def run(at: Node, hop: Hop, prompt: str = "hello", node_id: str | None = "n1", **request) -> Task:
    task = Task(TaskRequest(prompt=prompt, **request), "c", trio.current_time())
    task.start("p", "n1", trio.current_time())
    await relay.run(task, candidate(url=at.url, node_id=node_id), adapters()["llamacpp"], LIMITS, hop)
    return task


async def test_consecutive_tasks_reuse_an_authenticated_connection():
    async with node() as relay_node, IdleConnections() as connections:
        for _ in range(3):
            assert (await run(relay_node, Hop(SECRET, connections))).state is TaskState.DONE
        assert (relay_node.connections, len(relay_node.heads)) == (1, 3)
        assert all(b"authorization: bearer 0123456789abcdef" in head for head in relay_node.heads)


async def test_connection_of_a_cancelled_task_is_closed():
    async with node() as relay_node, IdleConnections() as connections:
        hop = Hop(SECRET, connections)
        with trio.move_on_after(0.1) as scope:
            await run(relay_node, hop, "stall")
        assert scope.cancelled_caught
        assert connections.idle == 0
        await run(relay_node, hop)
        assert relay_node.connections == 2


async def test_direct_engine_gets_no_token():
    async with node() as engine, IdleConnections() as connections:
        await run(engine, Hop(SECRET, connections), node_id=None)
        assert connections.idle == 0
        assert b"authorization" not in engine.heads[0]


async def test_connection_to_direct_engine_is_reused():
    async with node() as engine, engine_connections() as connections:
        for _ in range(3):
            assert (await run(engine, Hop(engines=connections), node_id=None)).state is TaskState.DONE
        assert (engine.connections, len(engine.heads)) == (1, 3)


async def test_connection_that_engine_has_closed_is_not_reused():
    async with node() as engine, engine_connections() as connections:
        hop = Hop(engines=connections)
        await run(engine, hop, node_id=None)
        engine.streams[0].socket.shutdown(socket.SHUT_WR)
        assert (await run(engine, hop, node_id=None)).state is TaskState.DONE
        assert (engine.connections, len(engine.heads)) == (2, 2)


async def test_request_is_not_repeated_once_engine_may_have_it():
    async with node() as engine, engine_connections() as connections:
        hop = Hop(engines=connections)
        await run(engine, hop, node_id=None)
        with pytest.raises(RelayFailure) as failed:
            await run(engine, hop, "vanish", node_id=None)
        assert failed.value.kind is FailureKind.CONNECTION_LOST
        assert len(engine.heads) == 2


async def test_idle_connection_to_engine_is_given_up_after_a_second(autojump_clock):
    async with node() as engine, engine_connections() as connections:
        hop = Hop(engines=connections)
        await run(engine, hop, node_id=None)
        await trio.sleep(ENGINE_IDLE_S)
        await run(engine, hop, node_id=None)
        assert engine.connections == 2


def session_of(head: bytes) -> bytes | None:
    found = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(SESSION_HEADER.encode())]
    return found[0] if found else None


async def test_session_header_is_stable_and_hides_the_session_id():
    first, second = uuid4(), uuid4()
    async with node() as relay_node:
        for session_id, hint in [(first, None), (first, "reuse"), (second, None), (first, "cold"), (None, None)]:
            await run(relay_node, Hop(SECRET), session_id=session_id, kv_hint=hint)
    one, again, other, *none = map(session_of, relay_node.heads)
    assert one == again != other
    assert none == [None, None]
    assert one
    assert re.fullmatch(SESSION_MARK_PATTERN, one.decode())
    assert not [head for head in relay_node.heads if str(first).encode() in head or first.hex.encode() in head]


async def test_direct_engine_gets_no_session_header():
    async with node() as relay_node:
        await run(relay_node, Hop(SECRET), node_id=None, session_id=uuid4())
        assert b"session" not in relay_node.heads[0]


async def test_aclose_closes_kept_connections():
    async with node() as relay_node:
        hop = Hop(SECRET, IdleConnections())
        await run(relay_node, hop)
        assert hop.connections
        assert hop.connections.idle == 1
        await hop.aclose()
        assert hop.connections.idle == 0


@pytest.mark.parametrize("node_id", ["n1", None])
async def test_unreachable_engine_is_blamed(node_id):
    task = Task(TaskRequest(prompt="hello"), "c", trio.current_time())
    target = candidate(url="http://127.0.0.1:1", node_id=node_id)
    with pytest.raises(RelayFailure) as failed:
        await relay.run(task, target, adapters()["llamacpp"], LIMITS, Hop())
    assert failed.value.kind is FailureKind.UNAVAILABLE
