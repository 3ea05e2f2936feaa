"""The way through a node: its token, its marks, and connections that are used again unless a task was left."""

import re
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
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.settings.types import Secret
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.failure import Failure
from queen_rbee.dispatch.hop import Hop
from queen_rbee.dispatch.silence import Limits
from queen_rbee.engines import ADAPTERS
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.pools.test_placement import candidate
from tests.unit.queen_rbee.scripted_engine import HEAD, LAST, TOKEN, chunk

TOKEN_OF_ALL = Secret("0123456789abcdef")
LIMITS = Limits()


@dataclass
class Node:
    """A relay that keeps connections; `heads` has what each request began with, in turn."""

    url: str = ""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        asked = b""
        while data := await stream.receive_some(65536):
            asked += data
            head, blank, body = asked.partition(b"\r\n\r\n")
            if not blank or not body.endswith(b"}"):
                continue
            self.heads.append(head.lower())
            asked = b""
            await stream.send_all(HEAD + chunk(TOKEN))
            if b"stall" in body:
                await stream.receive_some(1)
                return
            await stream.send_all(chunk(LAST))
            await trio.testing.wait_all_tasks_blocked()  # the end of the body comes apart from the last word
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
    await relay.run(task, candidate(url=at.url, node_id=node_id), ADAPTERS["llamacpp"], LIMITS, hop)
    return task


async def test_tasks_one_after_the_other_go_over_one_connection_and_show_the_token():
    async with node() as there, IdleConnections() as kept:
        for _ in range(3):
            assert (await run(there, Hop(TOKEN_OF_ALL, kept))).state is TaskState.DONE
        assert (there.connections, len(there.heads)) == (1, 3)
        assert all(b"authorization: bearer 0123456789abcdef" in head for head in there.heads)


async def test_a_connection_that_a_cancelled_task_has_left_is_closed_and_not_used_again():
    async with node() as there, IdleConnections() as kept:
        hop = Hop(TOKEN_OF_ALL, kept)
        with trio.move_on_after(0.1) as scope:
            await run(there, hop, "stall")
        assert scope.cancelled_caught
        assert kept.idle == 0
        await run(there, hop)
        assert there.connections == 2


async def test_an_engine_on_loopback_sees_no_token_and_its_connections_are_not_kept():
    async with node() as there, IdleConnections() as kept:
        await run(there, Hop(TOKEN_OF_ALL, kept), node_id=None)
        assert kept.idle == 0
        assert b"authorization" not in there.heads[0]


def mark(head: bytes) -> bytes | None:
    """What a request says of its session."""
    found = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(SESSION_HEADER.encode())]
    return found[0] if found else None


async def test_the_turns_of_a_session_bear_one_mark_which_is_not_its_id_and_a_cold_one_bears_none():
    first, second = uuid4(), uuid4()
    async with node() as there:
        for session_id, hint in [(first, None), (first, "reuse"), (second, None), (first, "cold"), (None, None)]:
            await run(there, Hop(TOKEN_OF_ALL), session_id=session_id, kv_hint=hint)
    one, again, other, *none = map(mark, there.heads)
    assert one == again != other
    assert none == [None, None]
    assert one
    assert re.fullmatch(SESSION_MARK_PATTERN, one.decode())
    assert not [head for head in there.heads if str(first).encode() in head or first.hex.encode() in head]


async def test_an_engine_that_the_queen_speaks_to_herself_learns_of_no_session():
    async with node() as there:
        await run(there, Hop(TOKEN_OF_ALL), node_id=None, session_id=uuid4())
        assert b"session" not in there.heads[0]


async def test_when_the_queen_ends_nothing_is_kept():
    async with node() as there:
        hop = Hop(TOKEN_OF_ALL, IdleConnections())
        await run(there, hop)
        assert hop.connections
        assert hop.connections.idle == 1
        await hop.aclose()
        assert hop.connections.idle == 0


@pytest.mark.parametrize("node_id", ["n1", None])
async def test_engine_that_cannot_be_reached_is_to_blame_for_it(node_id):
    task = Task(TaskRequest(prompt="hello"), "c", trio.current_time())
    target = candidate(url="http://127.0.0.1:1", node_id=node_id)
    with pytest.raises(Failure) as failed:
        await relay.run(task, target, ADAPTERS["llamacpp"], LIMITS, Hop())
    assert (failed.value.elsewhere, failed.value.blame) == (True, "replica")
