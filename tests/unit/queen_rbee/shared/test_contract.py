"""What each implementation of the shared state must do. A new one is added to IMPLEMENTATIONS."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.shared.in_process import in_process
from queen_rbee.shared.protocol import SharedState
from queen_rbee.store.protocol import Document, StoredTask
from queen_rbee.store.sqlite.store import open_store
from tests.unit.queen_rbee.memory_store import MemoryStore

Open = Callable[[Path], AbstractAsyncContextManager[SharedState]]
KEYS = st.sampled_from([("p", "r0"), ("p", "r1"), ("q", "r0")])
NODES = st.sampled_from(["n1", "n2", "n3"])
SLOTS = 3


@asynccontextmanager
async def in_memory(_directory: Path):
    yield in_process(MemoryStore())


@asynccontextmanager
async def in_sqlite(directory: Path):
    async with open_store(directory) as store:
        yield in_process(store)


IMPLEMENTATIONS: dict[str, Open] = {"in process": in_memory, "in process, with SQLite": in_sqlite}
implementations = pytest.mark.parametrize("opened", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
quick = pytest.mark.parametrize("opened", [in_memory], ids=["in process"])
"""For implementations that can be opened for each example of hypothesis."""


def stored(correlation_id: str = "c") -> StoredTask:
    return StoredTask(uuid4(), uuid4(), '{"prompt":"hello"}', correlation_id, 1.0)


@quick
@given(steps=st.lists(st.tuples(st.sampled_from(["take", "release"]), KEYS), max_size=40))
async def test_leases_are_as_many_as_were_taken_and_not_released(opened: Open, steps):
    async with opened(Path()) as shared:
        model: Counter[tuple[str, str]] = Counter()
        for step, key in steps:
            if step == "take":
                taken = await shared.leases.take(key, SLOTS)
                assert taken is (model[key] < SLOTS)
                model[key] += taken
            elif model[key]:
                shared.leases.release(key)
                model[key] -= 1
            assert shared.leases.held(key) == model[key]
            assert shared.leases.by_replica() == +model
            assert shared.leases.total == model.total()


@implementations
async def test_competing_takers_get_as_many_slots_as_there_are(opened: Open, tmp_path: Path):
    taken: list[bool] = []

    async with opened(tmp_path) as shared:

        async def take() -> None:
            taken.append(await shared.leases.take(("p", "r0"), SLOTS))

        async with trio.open_nursery() as nursery:
            for _taker in range(4 * SLOTS):
                nursery.start_soon(take)
        assert taken.count(True) == SLOTS == shared.leases.held(("p", "r0"))


@implementations
async def test_refused_taker_gets_released_slot(opened: Open, tmp_path: Path):
    async with opened(tmp_path) as shared:
        assert await shared.leases.take(("p", "r0"), 1)
        assert not await shared.leases.take(("p", "r0"), 1)
        assert shared.leases.held(("p", "r0")) == 1
        shared.leases.release(("p", "r0"))
        assert await shared.leases.take(("p", "r0"), 1)


@implementations
async def test_cancelled_taker_holds_what_it_was_told(opened: Open, tmp_path: Path):
    """A caller that is cancelled while it takes a slot either has it, and knows, or has none."""
    async with opened(tmp_path) as shared:
        taken = False
        with trio.CancelScope() as scope:
            scope.cancel()
            taken = await shared.leases.take(("p", "r0"), SLOTS)
        assert shared.leases.total == taken


@implementations
async def test_counts_of_leases_are_a_copy(opened: Open, tmp_path: Path):
    async with opened(tmp_path) as shared:
        assert await shared.leases.take(("p", "r0"), SLOTS)
        before = shared.leases.by_replica()
        shared.leases.release(("p", "r0"))
        assert (before, shared.leases.by_replica()) == ({("p", "r0"): 1}, {})


@quick
@given(steps=st.lists(st.tuples(st.sampled_from(["upsert", "later", "remove"]), NODES), max_size=30))
async def test_node_records_are_those_of_the_last_changes(opened: Open, steps):
    async with opened(Path()) as shared:
        model: dict[str, str] = {}
        for number, (step, node_id) in enumerate(steps):
            record = Document(node_id, f'{{"number":{number}}}')
            if step == "remove":
                assert await shared.nodes.remove(node_id) is (model.pop(node_id, None) is not None)
                continue
            model[node_id] = record.body
            if step == "upsert":
                await shared.nodes.upsert(record)
            else:
                shared.nodes.upsert_later(record)
        assert {found.key: found.body for found in await shared.nodes.all()} == model


@implementations
async def test_later_record_of_node_is_seen_in_order(opened: Open, tmp_path: Path):
    async with opened(tmp_path) as shared:
        await shared.nodes.upsert(Document("n1", "1"))
        shared.nodes.upsert_later(Document("n1", "2"))
        shared.nodes.upsert_later(Document("n2", "3"))
        assert await shared.nodes.remove("n2")
        assert [found.body for found in await shared.nodes.all()] == ["2"]


@implementations
async def test_accepted_tasks_are_open_in_order_until_they_end(opened: Open, tmp_path: Path):
    async with opened(tmp_path) as shared:
        first, second, third = stored("1"), stored("2"), stored("3")
        for task in (first, second, third):
            await shared.tasks.accept(task)
        shared.tasks.mark_delivered(third.task_id)
        shared.tasks.mark_ended(second.task_id)
        found = await shared.tasks.open_tasks()
        assert [(task.task_id, task.delivered) for task in found] == [(first.task_id, False), (third.task_id, True)]


@implementations
async def test_open_task_is_not_accepted_twice(opened: Open, tmp_path: Path):
    async with opened(tmp_path) as shared:
        task = stored()
        await shared.tasks.accept(task)
        with pytest.raises(ValueError, match="open"):
            await shared.tasks.accept(task)
        assert [found.task_id for found in await shared.tasks.open_tasks()] == [task.task_id]
