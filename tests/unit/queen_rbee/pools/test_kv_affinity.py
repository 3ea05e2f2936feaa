"""A session's next turn goes to the replica with its KV cache, does not wait for it, and reports cache warmth."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
import trio

from llama_orch.contracts.pools import PoolStatus, ReplicaStatus
from llama_orch.contracts.tasks import PlacementWish, TaskState
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    TIMEOUT_S,
    QueenCore,
    end_events,
    running_queen,
    wait_for_first_token,
    wait_for_free_slots,
)
from tests.unit.queen_rbee.scripted_engine import scripted_engine


@asynccontextmanager
async def two_replicas(slots: int = 1, **options) -> AsyncIterator[QueenCore]:
    """Run a queen with one pool of two replicas, which round-robin takes in turn."""
    async with running_queen(**options) as queen, scripted_engine() as other:
        urls = {"r0": queen.engine.url, "r1": other.url}
        queen.pool(replicas=[replica(name, url, slots) for name, url in urls.items()])
        yield queen


def replica(name: str, url: str, slots: int = 1) -> ReplicaStatus:
    return ReplicaStatus(replica_id=name, url=url, ready=True, slots_total=slots, slots_free=slots)


async def turn(queen: QueenCore, session_id: UUID | None, **request) -> Task:
    """Run a task to its end."""
    task = queen.submit(session_id=session_id, **request)
    await closed(task)
    assert task.state is TaskState.DONE
    return task


async def closed(task: Task) -> None:
    """Return when `task` has ended and its slot is free again."""
    await end_events(task)
    with trio.fail_after(TIMEOUT_S):
        while task.request.prompt is not None:
            await trio.lowlevel.checkpoint()


async def warm_session(queen: QueenCore) -> tuple[UUID, Task]:
    """Return a session id and its completed first turn."""
    session_id = uuid4()
    return session_id, await turn(queen, session_id)


def reported_warmth(task: Task) -> object:
    """Return kv_warmth from the metrics event of the task's placement."""
    frames = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
    return next(frame for frame in frames if "pool_id" in frame).get("kv_warmth")


async def test_replicas_alternate_without_session():
    async with two_replicas() as queen:
        places = [(await turn(queen, None)).place.replica_id for _ in range(4)]
        assert places in (["r0", "r1"] * 2, ["r1", "r0"] * 2)


async def test_turns_of_session_stay_on_one_replica():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        others = [await turn(queen, session_id) for _ in range(3)]
        assert {task.place.replica_id for task in others} == {first.place.replica_id}
        assert [reported_warmth(task) for task in [first, *others]] == [None, True, True, True]
        seen = queen.sessions.view(session_id, trio.current_time())
        assert seen is not None
        assert (seen.kv_warmth, seen.pool_id, seen.replica_id) == (True, "p", first.place.replica_id)


async def test_session_moves_if_its_replica_is_busy():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        blocking = queen.submit("stall", session_id=session_id)
        await wait_for_first_token(blocking)
        assert blocking.place.replica_id == first.place.replica_id
        moved = await turn(queen, session_id)
        assert moved.place.replica_id != first.place.replica_id
        assert reported_warmth(moved) is False
        queen.dispatcher.cancel(blocking)
        await closed(blocking)
        back = await turn(queen, session_id)
        assert (back.place.replica_id, reported_warmth(back)) == (moved.place.replica_id, True)


async def test_cold_turn_ignores_affinity():
    async with two_replicas() as queen:
        session_id, _first = await warm_session(queen)
        places = [(await turn(queen, session_id, kv_hint="cold")).place.replica_id for _ in range(4)]
        assert set(places) == {"r0", "r1"}
        assert (await turn(queen, session_id, kv_hint="reuse")).place.replica_id == places[-1]


async def test_placement_of_task_overrides_affinity():
    async with two_replicas() as queen:
        session_id, _first = await warm_session(queen)
        elsewhere = queen.status(pool_id="other")
        queen.registry.update("other", 0, [elsewhere])
        for placement in (
            PlacementWish(mode="pin", pin_pool_id="other"),
            PlacementWish(mode="prefer", prefer_pools=("other",)),
            PlacementWish(avoid_pools=("p",)),
        ):
            await turn(queen, session_id, placement=PlacementWish(mode="pin", pin_pool_id="p"))
            moved = await turn(queen, session_id, placement=placement)
            assert (moved.place.pool_id, reported_warmth(moved)) == ("other", False)


async def test_session_moves_if_its_replica_is_gone():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        known: PoolStatus = queen.registry.pools()[0]
        remaining = [each for each in known.replicas if each.replica_id != first.place.replica_id]
        queen.pool(replicas=remaining)
        moved = await turn(queen, session_id)
        assert (moved.place.replica_id, reported_warmth(moved)) == (remaining[0].replica_id, False)


async def test_affinity_survives_restart():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        await wait_for_free_slots(queen)
        store = queen.store.after_restart()
    async with two_replicas(store=store) as queen:
        await queen.sessions.load(trio.current_time())
        for _ in range(2):
            again = await turn(queen, session_id)
            assert (again.place.replica_id, reported_warmth(again)) == (first.place.replica_id, True)


@pytest.mark.parametrize("hint", [None, "reuse"])
async def test_sessions_do_not_share_a_cache(hint: str | None):
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        other_id, other = await warm_session(queen)
        assert other.place.replica_id != first.place.replica_id
        for _ in range(2):
            assert (await turn(queen, session_id, kv_hint=hint)).place.replica_id == first.place.replica_id
            assert (await turn(queen, other_id, kv_hint=hint)).place.replica_id == other.place.replica_id
