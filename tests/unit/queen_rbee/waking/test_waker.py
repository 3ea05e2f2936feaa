"""Nodes are woken for waiting tasks and operators; a node that does not wake ends the tasks that only it could run."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from llama_orch.addresses import Host
from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.operations import Operation, OperationState
from llama_orch.contracts.pools import PoolState, Residency
from llama_orch.contracts.wake import Wake
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.managers import PoolManagers
from queen_rbee.fleet.operations import Operations
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.shared.in_process import StoredNodes
from queen_rbee.tasks.task import Task
from queen_rbee.waking.packets import magic_packet
from queen_rbee.waking.waker import LOOK_S, Waker
from tests.unit.queen_rbee.fleet_rig import heartbeat, registration, snapshot
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine

Clock = trio.testing.MockClock
LIMIT_S = 180.0
MAC = "52:54:00:12:34:56"


@contextmanager
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.setblocking(False)
        yield found


def received(packets: socket.socket) -> int:
    """Take all packets that have arrived; return their number, if all are for MAC."""
    count = 0
    while True:
        try:
            assert packets.recv(200) == magic_packet(MAC)
        except BlockingIOError:
            return count
        count += 1


@dataclass
class Scene:
    """A fleet of nodes with pool `p`, that all sleep, and a waker that runs."""

    queen: QueenCore
    fleet: Fleet
    waker: Waker
    operations: Operations
    packets: socket.socket
    wanted: set[PoolKey] = field(default_factory=set)

    async def join(self, node_id: str) -> None:
        await self.fleet.register(registration(node_id, wake=Wake(macs=[MAC])), "192.0.2.1")
        self.beat(node_id)

    def beat(self, node_id: str, **changes) -> bool:
        unloaded = snapshot(node_id, ready=False, state=PoolState.UNLOADED, residency=Residency())
        return self.fleet.heartbeat(node_id, heartbeat(node_id, **{"pools": [unloaded], **changes})).may_sleep

    async def ended(self, operation: Operation) -> Operation:
        with trio.move_on_after(2 * LIMIT_S):
            while self.operations.view(operation.operation_id).state is OperationState.RUNNING:  # noqa: ASYNC110
                await trio.sleep(LOOK_S)
        return self.operations.view(operation.operation_id)


@asynccontextmanager
async def scene(*node_ids: str) -> AsyncIterator[Scene]:
    with receiver() as packets:
        queen = build_queen(ScriptedEngine())
        registry, metrics = queen.registry, queen.metrics
        fleet = Fleet(registry, StoredNodes(queen.store), metrics, lambda _keys, _reason: 0, 30_000, 10.0)
        operations = Operations(registry, PoolManagers(fleet, registry, ()), lambda _keys, _reason: 0)
        wanted: set[PoolKey] = set()

        def drop(task: Task, reason: str, retry_ms: int) -> None:
            queen.dispatcher.drop(task, ErrorCode.POOL_UNREADY, reason, retriable=True, retry_after_ms=retry_ms)

        target = Host("127.0.0.1", packets.getsockname()[1])
        waker = Waker(fleet, registry, queen.queue, operations, metrics, lambda: wanted, drop, LIMIT_S, target)
        fleet.may_sleep = waker.may_sleep
        found = Scene(queen, fleet, waker, operations, packets, wanted)
        for node_id in node_ids:
            await found.join(node_id)
            assert found.beat(node_id, sleeping=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(operations.run)
            await nursery.start(waker.run)
            yield found
            nursery.cancel_scope.cancel()


async def test_waiting_task_wakes_the_node(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        await trio.sleep(60)
        assert received(play.packets) == 0
        play.queen.submit()
        await trio.sleep(1.5 * LOOK_S)
        assert received(play.packets) in (1, 2)
        play.beat("n1")
        await trio.sleep(LOOK_S)
        received(play.packets)
        await trio.sleep(LIMIT_S)
        assert received(play.packets) == 0
        assert play.fleet.node("n1").status != "asleep"


async def test_packets_are_repeated_until_the_node_wakes(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        play.queen.submit()
        await trio.sleep(60)
        assert 5 <= received(play.packets) <= 8


async def test_node_that_does_not_wake_ends_tasks_with_its_name(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        task = play.queen.submit()
        await trio.sleep(LIMIT_S + 2 * LOOK_S)
        assert play.fleet.node("n1").status == "offline"
        assert task.state == "failed"
        assert task.error is not None
        assert (task.error.code, task.error.retriable) == (ErrorCode.POOL_UNREADY, True)
        assert "node n1 did not wake within 180 s" in task.error.message


async def test_task_fails_over_to_another_sleeping_node(autojump_clock: Clock) -> None:
    async with scene("n1", "n2") as play:
        task = play.queen.submit()
        await trio.sleep(LIMIT_S + 3 * LOOK_S)
        assert (play.fleet.node("n1").status, play.fleet.node("n2").status) == ("offline", "asleep")
        assert task.state == "queued"
        play.beat("n2")
        await trio.sleep(LOOK_S)
        assert play.fleet.node("n2").status == "online"


async def test_node_that_tasks_wait_for_may_not_sleep(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        play.queen.submit()
        play.beat("n1")
        assert not play.beat("n1", sleeping=True)


async def test_operators_load_wakes_the_node(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        play.wanted.add(("p", "n1"))
        await trio.sleep(1.5 * LOOK_S)
        assert received(play.packets) in (1, 2)
        play.beat("n1")
        assert not play.beat("n1", sleeping=True)


async def test_operator_wakes_a_node(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        operation = play.waker.wake("n1")
        await trio.sleep(2 * LOOK_S)
        assert received(play.packets) >= 1
        play.beat("n1")
        ended = await play.ended(operation)
        assert (ended.state, ended.node_id) == (OperationState.DONE, "n1")
        again = await play.ended(play.waker.wake("n1"))
        assert (again.state, again.message) == (OperationState.DONE, "it is awake")


async def test_operator_learns_that_a_node_did_not_wake(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        ended = await play.ended(play.waker.wake("n1"))
        assert ended.state is OperationState.FAILED
        assert ended.message == "it did not wake within 180 s"


async def test_operator_wakes_an_offline_node(autojump_clock: Clock) -> None:
    async with scene("n1") as play:
        play.fleet.give_up("n1", 1)
        operation = play.waker.wake("n1")
        await trio.sleep(2 * LOOK_S)
        assert received(play.packets) >= 1
        play.beat("n1")
        assert (await play.ended(operation)).state is OperationState.DONE


async def test_node_without_mac_cannot_be_woken(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.fleet.register(registration("n1"), "192.0.2.1")
        play.beat("n1")
        play.fleet.give_up("n1", 1)
        with pytest.raises(ApiError) as refused:
            play.waker.wake("n1")
        assert refused.value.status == 409


async def test_attempts_are_counted(autojump_clock: Clock) -> None:
    async with scene("n1", "n2") as play:
        play.waker.wake("n1")
        play.waker.wake("n2")
        await trio.sleep(LOOK_S)
        play.beat("n1")
        await trio.sleep(LIMIT_S + LOOK_S)
        value = play.queen.metrics.registry.get_sample_value
        assert value("orchd_node_wakes_total", {"node_id": "n1", "outcome": "success"}) == 1
        assert value("orchd_node_wakes_total", {"node_id": "n2", "outcome": "error"}) == 1
