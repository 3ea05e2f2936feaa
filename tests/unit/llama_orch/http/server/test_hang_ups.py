"""A client that leaves is noticed without a task that reads from its connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from llama_orch.http.server.hang_ups import HangUps

LIMIT_S = 5.0


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[HangUps, trio.socket.SocketType, trio.socket.SocketType]]:
    """Yield the watcher, a watched socket and its client."""
    hang_ups = HangUps()
    server, client = trio.socket.socketpair()
    with server, client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_ups.run)
            yield hang_ups, server, client
            nursery.cancel_scope.cancel()


async def test_leaving_client_is_reported_once():
    async with watched() as (hang_ups, server, client):
        left, reports = trio.Event(), list[int]()

        def react() -> None:
            reports.append(1)
            left.set()

        hang_ups.watch(server).expect(react)
        await client.send(b"the beginning of the next request")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not reports
        client.close()
        with trio.fail_after(LIMIT_S):
            await left.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert reports == [1]


async def test_client_that_has_left_before_is_reported_at_once():
    async with watched() as (hang_ups, server, client):
        hang_up = hang_ups.watch(server)
        client.close()
        with trio.fail_after(LIMIT_S):
            while not hang_up.happened:
                await trio.lowlevel.checkpoint()
        reports = list[int]()
        hang_up.expect(lambda: reports.append(1))
        assert reports == [1]


async def test_nothing_is_reported_after_forget():
    async with watched() as (hang_ups, server, client):
        hang_up, reports = hang_ups.watch(server), list[int]()
        hang_up.expect(lambda: reports.append(1))
        hang_up.forget()
        client.close()
        with trio.fail_after(LIMIT_S):
            while not hang_up.happened:
                await trio.lowlevel.checkpoint()
        assert not reports


async def test_descriptor_of_a_closed_connection_can_be_reused():
    async with watched() as (hang_ups, server, client):
        number, first = server.fileno(), hang_ups.watch(server)
        server.close()
        hang_ups.unwatch(first, number)
        again, other = trio.socket.socketpair()
        with again, other:
            second = hang_ups.watch(again)
            other.close()
            with trio.fail_after(LIMIT_S):
                while not second.happened:
                    await trio.lowlevel.checkpoint()
            assert not first.happened
        client.close()
