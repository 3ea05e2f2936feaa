"""Tasks are placed correctly when another instance takes slots too, and when taking a slot takes time."""

from collections.abc import Callable, Coroutine
from typing import Any

import trio
import trio.testing

from llama_orch.contracts.pools import ReplicaStatus
from queen_rbee.pools.candidates import ReplicaKey
from tests.unit.queen_rbee.queen_core import QueenCore, end_events, running_queen, wait_for_free_slots

Take = Callable[[ReplicaKey, int], Coroutine[Any, Any, bool]]


def replace_take(queen: QueenCore, take: Take) -> Take:
    """Let leases be taken by `take`; return what took them before."""
    before = queen.parts.shared.leases.take
    queen.parts.shared.leases.take = take  # type: ignore[assignment, method-assign]
    return before


def two_replicas(queen: QueenCore) -> None:
    replicas = [
        ReplicaStatus(replica_id=name, url=queen.engine.url, ready=True, slots_total=1, slots_free=1)
        for name in ("r0", "r1")
    ]
    queen.pool(replicas=replicas)


async def test_slot_that_another_instance_took_is_passed_over():
    async with running_queen() as queen:
        two_replicas(queen)
        refused: list[ReplicaKey] = []

        async def take(key: ReplicaKey, slots: int) -> bool:
            if refused:
                return await taken(key, slots)
            refused.append(key)
            await taken(key, slots)  # by the other instance
            return False

        taken = replace_take(queen, take)
        task = queen.submit()
        assert (await end_events(task))[-1] == "end"
        assert {("p", task.place.replica_id), *refused} == {("p", "r0"), ("p", "r1")}


async def test_task_waits_while_other_instances_hold_all_slots():
    async with running_queen() as queen:
        two_replicas(queen)
        others: list[ReplicaKey] = []

        async def take(key: ReplicaKey, slots: int) -> bool:
            others.append(key)
            await taken(key, slots)
            return False

        taken = replace_take(queen, take)
        task = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert (len(others), task in queen.queue) == (2, True)
        replace_take(queen, taken)
        queen.registry.release(others[0])
        assert (await end_events(task))[-1] == "end"


async def test_task_that_ends_while_its_slot_is_taken_holds_none():
    async with running_queen() as queen:
        asked, answered = trio.Event(), trio.Event()

        async def take(key: ReplicaKey, slots: int) -> bool:
            asked.set()
            await answered.wait()
            return await taken(key, slots)

        taken = replace_take(queen, take)
        task = queen.submit()
        await asked.wait()
        queen.dispatcher.cancel(task)
        answered.set()
        assert (await end_events(task))[-1] == "error"
        later = queen.submit()
        assert (await end_events(later))[-1] == "end"
        await wait_for_free_slots(queen)
        assert queen.registry.leased == 0
