"""The SQLite store and the in-memory store of other tests both implement the protocol."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queen_rbee.store import protocol
from queen_rbee.store.protocol import Document, Kind, Store, StoredTask
from queen_rbee.store.sqlite import database, loop, writing
from queen_rbee.store.sqlite.store import open_store
from tests.unit.queen_rbee import memory_store
from tests.unit.queen_rbee.memory_store import MemoryStore


def task(number: int = 1, **more) -> StoredTask:
    default = StoredTask(UUID(int=number), UUID(int=2**64 + number), f'{{"prompt":"p{number}"}}', f"c{number}", 1000.5)
    return replace(default, **more)


class InMemory:
    """Opens in-memory stores, each with the content of the previous one."""

    def __init__(self) -> None:
        self._previous: MemoryStore | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        store = self._previous.after_restart() if self._previous else MemoryStore()
        yield store
        self._previous = store


class InSqlite:
    """Opens SQLite stores on the same directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        async with open_store(self._directory) as store:
            yield store


@pytest.fixture(params=["memory", "sqlite"])
def reopenable(request, tmp_path: Path) -> InMemory | InSqlite:
    return InMemory() if request.param == "memory" else InSqlite(tmp_path)


async def keys(store: Store, kind: Kind, **more) -> list[str]:
    return [document.key for document in await store.list_documents(kind, **more)]


async def let_tasks_start() -> None:
    """Return when all started tasks have run once."""
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


async def test_open_tasks_survive_restart_in_order(reopenable) -> None:
    tasks = [task(number, traceparent=f"00-{number}" if number % 2 else None) for number in (3, 1, 2)]
    async with reopenable.open() as store:
        for each in tasks:
            await store.accept(each)
        assert await store.open_tasks() == tasks
        store.mark_ended(tasks[1].task_id)
    for generation in (1, 2):
        async with reopenable.open() as store:
            assert await store.open_tasks() == [replace(tasks[i], generation=generation) for i in (0, 2)]


async def test_delivery_is_known_after_restarts(reopenable) -> None:
    async with reopenable.open() as store:
        await store.accept(task(1))
        await store.accept(task(2))
        store.mark_delivered(task(2).task_id)
        assert [each.delivered for each in await store.open_tasks()] == [False, True]
    for _ in range(2):
        async with reopenable.open() as store:
            assert [each.delivered for each in await store.open_tasks()] == [False, True]


async def test_task_may_end_before_accept_returns(reopenable) -> None:
    async with reopenable.open() as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.accept, task(1))
            nursery.start_soon(store.accept, task(2))
            await let_tasks_start()
            for number in (1, 2):
                store.mark_delivered(task(number).task_id)
            store.mark_ended(task(1).task_id)
        assert await store.open_tasks() == [task(2, delivered=True)]


async def test_id_of_ended_task_can_be_reused(reopenable) -> None:
    async with reopenable.open() as store:
        await store.accept(task(1, delivered=True, generation=7))
        with pytest.raises(ValueError, match="open"):
            await store.accept(task(1))
        store.mark_delivered(task(1).task_id)
        store.mark_ended(task(1).task_id)
        store.mark_ended(task(1).task_id)
        await store.accept(task(1, request="{}"))
    async with reopenable.open() as store:
        assert await store.open_tasks() == [task(1, request="{}", generation=1)]


async def test_task_of_cancelled_caller_is_not_accepted(reopenable) -> None:
    async with reopenable.open() as store:
        with trio.move_on_after(0) as scope:
            await store.accept(task(1))
        assert scope.cancelled_caught
        await store.accept(task(2))
        assert await store.open_tasks() == [task(2)]
        await store.accept(task(1))
    async with reopenable.open() as store:
        assert [each.task_id.int for each in await store.open_tasks()] == [2, 1]


async def test_unknown_keys_are_no_error(reopenable) -> None:
    async with reopenable.open() as store:
        store.mark_delivered(task(9).task_id)
        store.mark_ended(task(9).task_id)
        assert not await store.remove("model", "none")
        assert await store.get("model", "none") is None
        assert list(await store.list_documents("model")) == []
        await store.ping()


async def test_replaced_document_becomes_the_newest(reopenable) -> None:
    async with reopenable.open() as store:
        for key in "abc":
            await store.put("session", Document(key, "{}", "t", 1.5))
        store.put_later("session", Document("a", '{"n":1}', "", 2.5))
        assert await store.get("session", "a") == Document("a", '{"n":1}', "", 2.5)
    async with reopenable.open() as store:
        assert await keys(store, "session") == ["a", "c", "b"]
        assert await store.get("session", "b") == Document("b", "{}", "t", 1.5)


async def test_kinds_are_separate_and_removal_is_final(reopenable) -> None:
    async with reopenable.open() as store:
        for kind in protocol.KINDS:
            await store.put(kind, Document("same", kind))
        store.put_later("node", Document("later", "{}"))
        assert await store.remove("node", "later")
        assert await store.remove("model", "same")
        assert not await store.remove("model", "same")
    async with reopenable.open() as store:
        found = [[document.body for document in await store.list_documents(kind)] for kind in protocol.KINDS]
        assert found == [["session"], [], ["artifact"], ["node"], ["record"]]


async def test_listings_can_be_paged_and_filtered(reopenable) -> None:
    async with reopenable.open() as store:
        for number in range(6):
            store.put_later("artifact", Document(str(number), "{}", "odd" if number % 2 else "even"))
        assert await keys(store, "artifact", limit=2) == ["5", "4"]
        assert await keys(store, "artifact", limit=2, before="4") == ["3", "2"]
        assert await keys(store, "artifact", tag="odd", before="4", limit=9) == ["3", "1"]
        assert await keys(store, "artifact", tag="none") == []
        assert await keys(store, "artifact", before="none") == []


async def test_lone_surrogates_are_refused(reopenable) -> None:
    async with reopenable.open() as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.accept, task(1))
        await let_tasks_start()
        for bad in (task(2, request="\ud800"), task(2, correlation_id="\ud800"), task(2, traceparent="\ud800")):
            with pytest.raises(ValueError):
                await store.accept(bad)
        with pytest.raises(ValueError):
            await store.put("model", Document("\ud800", "{}"))
        with pytest.raises(ValueError):
            store.put_later("model", Document("k", "\ud800"))
        await store.accept(task(2, request='"ä\0𝄞"'))
        assert await store.open_tasks() == [task(1), task(2, request='"ä\0𝄞"')]


async def test_oldest_documents_are_removed_at_bound(reopenable, monkeypatch) -> None:
    bounds: dict[Kind, int] = {"record": 200, "artifact": 300}
    for module in (memory_store, writing):
        monkeypatch.setattr(module, "BOUNDS", bounds)
    async with reopenable.open() as store:
        for number in range(700):
            for kind in ("record", "artifact", "session"):
                store.put_later(kind, Document(f"{number:03}", "{}"))
            if number % 37 == 0:
                for kind, bound in bounds.items():
                    assert len(await store.list_documents(kind)) <= bound
    async with reopenable.open() as store:
        for kind, bound in bounds.items():
            found = await keys(store, kind)
            assert bound * 0.99 <= len(found) <= bound
            assert found == [f"{number:03}" for number in range(699, 699 - len(found), -1)]
        assert len(await store.list_documents("session")) == 700


Operation = tuple[Any, ...]
"""A name and its arguments."""

NUMBERS = st.integers(1, 5)
KEYS = st.sampled_from("abcd")
SOME_KINDS: st.SearchStrategy[Kind] = st.sampled_from(["record", "artifact"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), NUMBERS, st.integers(0, 3000)),
        st.tuples(st.just("abandon"), NUMBERS),
        st.tuples(st.sampled_from(["mark_delivered", "mark_ended"]), NUMBERS),
        st.tuples(st.sampled_from(["put", "put_later"]), SOME_KINDS, KEYS, st.text(max_size=2)),
        st.tuples(st.just("remove"), SOME_KINDS, KEYS),
        st.tuples(st.just("listed"), SOME_KINDS, st.none() | KEYS, st.none() | st.text(max_size=1), st.integers(0, 3)),
        st.tuples(st.sampled_from(["close", "kill"])),
    ),
    max_size=25,
)


async def perform(store: Store, operation: Operation) -> object:
    """Perform an operation on a store and return its result."""
    match operation:
        case "accept", number, size:
            try:
                await store.accept(task(number, request="x" * size))
            except ValueError as error:
                return str(type(error))
            return None
        case "abandon", number:
            open_ids = [each.task_id.int for each in await store.open_tasks()]
            with trio.CancelScope() as scope:
                scope.cancel()
                if number not in open_ids:
                    await store.accept(task(number))
        case ("mark_delivered" | "mark_ended") as name, number:
            getattr(store, name)(task(number).task_id)
        case "put", kind, key, body:
            await store.put(kind, Document(key, body, tag=body[:1]))
        case "put_later", kind, key, body:
            store.put_later(kind, Document(key, body, tag=body[:1]))
            return await store.get(kind, key)
        case "remove", kind, key:
            return await store.remove(kind, key)
        case "listed", kind, before, tag, limit:
            return list(await store.list_documents(kind, before=before, tag=tag, limit=limit))
    return None


async def contents(store: Store) -> tuple[Sequence[StoredTask], list[list[Document]]]:
    return await store.open_tasks(), [list(await store.list_documents(kind)) for kind in protocol.KINDS]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
async def test_sqlite_behaves_like_memory_in_any_order(operations, tmp_path_factory, monkeypatch) -> None:
    # a copy of the files equals the state after a kill, provided that the log is not emptied during the copy
    monkeypatch.setattr(loop, "PAUSE_S", 3600)
    monkeypatch.setattr(database, "LOG_MAX_AGE_S", 3600)
    directory, model, remaining = tmp_path_factory.mktemp("store"), MemoryStore(), list(operations)
    while True:
        async with open_store(directory) as store:
            for each in await store.open_tasks():
                if each.ended:
                    store.mark_ended(each.task_id)
            assert await contents(store) == await contents(model)
            end = await perform_until_end(store, model, remaining)
            if end == "kill":
                directory = Path(shutil.copytree(directory, tmp_path_factory.mktemp("killed"), dirs_exist_ok=True))
        if not end:
            return
        model = model.after_restart()


async def perform_until_end(store: Store, model: MemoryStore, remaining: list[Operation]) -> str:
    """Perform the remaining operations on both stores, up to a close, a kill or the end."""
    while remaining:
        operation = remaining.pop(0)
        if operation[0] in ("close", "kill"):
            return str(operation[0])
        assert await perform(store, operation) == await perform(model, operation), operation
    return ""
