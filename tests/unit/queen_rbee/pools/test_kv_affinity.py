"""A session's next turn goes where its KV cache is, is not kept waiting for it, and is told whether it found it."""

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
    """A queen with one pool of two replicas, which round-robin would take in turns."""
    async with running_queen(**options) as queen, scripted_engine() as other:
        urls = {"r0": queen.engine.url, "r1": other.url}
        queen.pool(replicas=[replica(name, url, slots) for name, url in urls.items()])
        yield queen


def replica(name: str, url: str, slots: int = 1) -> ReplicaStatus:
    return ReplicaStatus(replica_id=name, url=url, ready=True, slots_total=slots, slots_free=slots)


async def turn(queen: QueenCore, session_id: UUID | None, **request) -> Task:
    """A task from its beginning to its end."""
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
    """A session that has had its first turn, and that."""
    session_id = uuid4()
    return session_id, await turn(queen, session_id)


def told_warmth(task: Task) -> object:
    """What the task's readers are told, in the metrics event of its placement."""
    frames = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
    return next(frame for frame in frames if "pool_id" in frame).get("kv_warmth")


async def test_without_a_session_replicas_take_turns():
    async with two_replicas() as queen:
        places = [(await turn(queen, None)).place.replica_id for _ in range(4)]
        assert places in (["r0", "r1"] * 2, ["r1", "r0"] * 2)


async def test_the_turns_of_a_session_go_to_one_replica_and_all_but_the_first_are_warm():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        others = [await turn(queen, session_id) for _ in range(3)]
        assert {task.place.replica_id for task in others} == {first.place.replica_id}
        assert [told_warmth(task) for task in [first, *others]] == [None, True, True, True]
        seen = queen.sessions.view(session_id, trio.current_time())
        assert seen is not None
        assert (seen.kv_warmth, seen.pool_id, seen.replica_id) == (True, "p", first.place.replica_id)


async def test_a_busy_replica_is_not_waited_for_and_the_session_moves_with_its_cache():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        blocking = queen.submit("stall", session_id=session_id)
        await wait_for_first_token(blocking)
        assert blocking.place.replica_id == first.place.replica_id
        moved = await turn(queen, session_id)
        assert moved.place.replica_id != first.place.replica_id
        assert told_warmth(moved) is False
        queen.dispatcher.cancel(blocking)
        await closed(blocking)
        back = await turn(queen, session_id)
        assert (back.place.replica_id, told_warmth(back)) == (moved.place.replica_id, True)


async def test_a_cold_turn_goes_wherever_its_turn_comes():
    async with two_replicas() as queen:
        session_id, _first = await warm_session(queen)
        places = [(await turn(queen, session_id, kv_hint="cold")).place.replica_id for _ in range(4)]
        assert set(places) == {"r0", "r1"}
        assert (await turn(queen, session_id, kv_hint="reuse")).place.replica_id == places[-1]


async def test_a_wish_of_the_task_goes_before_the_sessions_cache():
    async with two_replicas() as queen:
        session_id, _first = await warm_session(queen)
        elsewhere = queen.status(pool_id="other")
        queen.registry.update("other", 0, [elsewhere])
        for wish in (
            PlacementWish(mode="pin", pin_pool_id="other"),
            PlacementWish(mode="prefer", prefer_pools=("other",)),
            PlacementWish(avoid_pools=("p",)),
        ):
            await turn(queen, session_id, placement=PlacementWish(mode="pin", pin_pool_id="p"))
            moved = await turn(queen, session_id, placement=wish)
            assert (moved.place.pool_id, told_warmth(moved)) == ("other", False)


async def test_a_replica_that_is_gone_or_not_ready_is_no_hindrance():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        known: PoolStatus = queen.registry.pools()[0]
        left = [each for each in known.replicas if each.replica_id != first.place.replica_id]
        queen.pool(replicas=left)
        moved = await turn(queen, session_id)
        assert (moved.place.replica_id, told_warmth(moved)) == (left[0].replica_id, False)


async def test_the_next_queen_knows_where_the_cache_is():
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        await wait_for_free_slots(queen)
        store = queen.store.after_restart()
    async with two_replicas(store=store) as queen:
        await queen.sessions.load(trio.current_time())
        for _ in range(2):
            again = await turn(queen, session_id)
            assert (again.place.replica_id, told_warmth(again)) == (first.place.replica_id, True)


@pytest.mark.parametrize("hint", [None, "reuse"])
async def test_sessions_do_not_share_a_cache(hint: str | None):
    async with two_replicas() as queen:
        session_id, first = await warm_session(queen)
        other_id, other = await warm_session(queen)
        assert other.place.replica_id != first.place.replica_id
        for _ in range(2):
            assert (await turn(queen, session_id, kv_hint=hint)).place.replica_id == first.place.replica_id
            assert (await turn(queen, other_id, kv_hint=hint)).place.replica_id == other.place.replica_id
