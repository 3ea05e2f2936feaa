"""Disk failures at run time: callers get errors, nothing is partially stored, and the store recovers by itself."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import trio

from llama_orch.service.watchdog import Pulse
from queen_rbee.store.protocol import Document, StoreFailure
from queen_rbee.store.sqlite import database as sqlite_database
from queen_rbee.store.sqlite import loop, queries, writing
from queen_rbee.store.sqlite.batch import Batch, DocumentRow, Removal, task_row
from queen_rbee.store.sqlite.marks import Marks
from queen_rbee.store.sqlite.opening import NAME
from queen_rbee.store.sqlite.store import SqliteStore, open_store
from queen_rbee.store.sqlite.writing import Writer
from tests.unit.queen_rbee.store.test_erasure import accept, until_only
from tests.unit.queen_rbee.store.test_store import task

LIMIT_S = 20.0


class Disk:
    """Makes writes fail while `full`, and block until `goes_on` is set. `durable` records how each was requested."""

    def __init__(self) -> None:
        self.full = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.writing = threading.Event()
        self.durable: list[bool] = []

    def write(self, writer: Writer, batch: Batch) -> None:
        self.writing.set()
        assert self.goes_on.wait(LIMIT_S)
        self.durable.append(batch.durable)
        if self.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        WRITE(writer, batch)


WRITE = Writer.write


@pytest.fixture
def disk(monkeypatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(Writer, "write", lambda writer, batch: disk.write(writer, batch))  # noqa: PLW0108 -- only a function is bound to the instance
    monkeypatch.setattr(loop, "RETRY_S", 0.01)
    yield disk
    disk.goes_on.set()


async def wait_for_recovery(store: SqliteStore) -> None:
    with trio.fail_after(LIMIT_S):
        while True:
            try:
                return await store.ping()
            except StoreFailure:
                await trio.sleep(0.01)


async def numbers(store: SqliteStore) -> list[int]:
    return [each.task_id.int for each in await store.open_tasks()]


async def test_failure_reaches_all_callers_and_stores_nothing(disk, tmp_path: Path) -> None:
    failures = []

    async def expect_failure(operation) -> None:
        with pytest.raises(StoreFailure) as caught:
            await operation
        failures.append(caught.value)

    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        disk.full = True
        async with trio.open_nursery() as nursery:
            for operation in (
                store.accept(task(2)),
                store.put("model", Document("m", "{}")),
                store.remove("model", "x"),
            ):
                nursery.start_soon(expect_failure, operation)
        assert await numbers(store) == [1]
        assert await store.get("model", "m") is None
        disk.full = False
        await wait_for_recovery(store)
        await store.accept(task(2))
    assert {str(failure) for failure in failures} == {f"the file system of {tmp_path} is full"}
    assert len({id(failure) for failure in failures}) == 3
    assert all("Make room" in failure.hint for failure in failures)
    async with open_store(tmp_path) as store:
        assert await numbers(store) == [1, 2]


async def test_callers_fail_at_once_while_disk_is_failing(disk, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "RETRY_S", 3600)
    async with open_store(tmp_path) as store:
        disk.full = True
        for operation in (store.ping(), store.accept(task(1)), store.put("model", Document("m", "{}"))):
            with pytest.raises(StoreFailure, match="is full"):
                await operation
        assert disk.durable == [True]
        assert await store.get("model", "m") is None


async def test_failure_and_recovery_are_logged_once(disk, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    async with open_store(tmp_path) as store:
        disk.full = True
        for _ in range(5):
            with pytest.raises(StoreFailure):
                await store.accept(task(1))
        disk.full = False
        await wait_for_recovery(store)
    texts = [record.getMessage() for record in caplog.records if record.name == "queen_rbee.store"]
    assert [text[:43] for text in texts] == [
        "the queen's state cannot be stored: the fil",
        "the queen's state is stored again in " + f"{tmp_path}"[:6],
    ]
    assert texts[0].count("Make room") == 1


async def test_unawaited_operations_are_retried_in_order(disk, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in (1, 2):
            await store.accept(task(number))
        disk.full = True
        store.mark_ended(UUID(int=1))
        store.put_later("record", Document("a", "old"))
        with pytest.raises(StoreFailure):
            await store.put("record", Document("a", "refused"))
        assert await numbers(store) == [2]
        store.put_later("record", Document("a", "new"))
        store.put_later("record", Document("b", "{}"))
        disk.full = False
        await wait_for_recovery(store)
        assert await store.get("record", "a") == Document("a", "new")
        assert await numbers(store) == [2]
    async with open_store(tmp_path) as store:
        assert [document.key for document in await store.list_documents("record")] == ["b", "a"]
        assert await numbers(store) == [2]


async def test_unawaited_documents_are_bounded_and_counted(disk, tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(loop, "UNAWAITED_LIMIT", 10)
    async with open_store(tmp_path) as store:
        disk.full = True
        for number in range(25):
            store.put_later("record", Document(str(number), "{}"))
            store.put_later("artifact", Document("only one", str(number)))
        with pytest.raises(StoreFailure):
            await store.ping()
        disk.full = False
        await wait_for_recovery(store)
        assert [document.key for document in await store.list_documents("record")] == [
            str(n) for n in range(24, 14, -1)
        ]
        assert await store.get("artifact", "only one") == Document("only one", "24")
    assert "30 records written meanwhile were lost" in caplog.text


async def test_stalled_disk_fails_callers_and_feeds_watchdog(disk, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "STALL_S", 0.05)
    pulse = Pulse("store", 0.01)
    async with open_store(tmp_path, pulse) as store:
        await store.accept(task(1))
        disk.goes_on.clear()
        with trio.fail_after(LIMIT_S), pytest.raises(StoreFailure, match=r"has not answered for 0\.05 s"):
            await store.accept(task(2))
        with trio.fail_after(LIMIT_S), pytest.raises(StoreFailure, match="has not answered"):
            await store.accept(task(3))
        beats = pulse.count
        with trio.fail_after(LIMIT_S):
            while pulse.count < beats + 3:  # noqa: ASYNC110 -- a pulse has no event
                await trio.sleep(0.01)
        disk.goes_on.set()
        await wait_for_recovery(store)
        assert await numbers(store) == [1]
        await store.accept(task(4))
    async with open_store(tmp_path) as store:
        assert await numbers(store) == [1, 4]


async def test_task_of_cancelled_caller_is_not_stored(disk, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        disk.writing.clear()
        disk.goes_on.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.accept, task(1))
            assert await trio.to_thread.run_sync(disk.writing.wait, LIMIT_S)
            nursery.cancel_scope.cancel()
        disk.goes_on.set()
        assert await numbers(store) == []
        await store.accept(task(1))
        assert await numbers(store) == [1]


async def test_only_awaited_operations_are_durable(disk, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for operation in (
            store.accept(task(1)),
            store.put("model", Document("m", "{}")),
            store.remove("model", "m"),
            store.ping(),
        ):
            await operation
        assert disk.durable == [True] * 4
        store.mark_ended(UUID(int=1))
        store.put_later("record", Document("r", "{}"))
        assert await store.get("record", "r")
        assert disk.durable[4:] == [False]


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_durable_batch_sets_synchronous_full(durable, synchronous, tmp_path: Path) -> None:
    database = sqlite_database.open_database(tmp_path)
    for other in (not durable, durable):
        assert database.work(Batch(ping=True, durable=other)) is None
    assert database.connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    assert database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.close() is None


@pytest.mark.parametrize("name", [NAME, f"{NAME}-wal"])
async def test_removed_file_is_detected(name: str, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        (tmp_path / name).unlink()
        with pytest.raises(StoreFailure, match=f"{tmp_path / name} was removed or replaced while in use"):
            await store.accept(task(2))
        shutil.copy(__file__, tmp_path / name)
        with pytest.raises(StoreFailure, match="was removed or replaced while in use"):
            await store.accept(task(3))


async def test_failing_mark_is_logged_once_and_not_fatal(tmp_path: Path, monkeypatch, caplog) -> None:
    def broken(_marks: Marks, _number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        await store.accept(task(2))
        with monkeypatch.context() as patch:
            patch.setattr(Marks, "_write", broken)
            store.mark_delivered(UUID(int=1))
            store.mark_ended(UUID(int=1))
        assert await numbers(store) == [2]
    assert caplog.text.count(f"{tmp_path}/queen.marks cannot be used (Input/output error)") == 1


async def test_prompt_ended_on_full_disk_is_erased_later(disk: Disk, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "PAUSE_S", 0.02)
    async with open_store(tmp_path) as store:
        for number in (1, 2):
            await accept(store, number)
        disk.full = True
        store.mark_ended(UUID(int=1))
        with pytest.raises(StoreFailure):
            await store.ping()
        disk.full = False
        await until_only({2}, tmp_path)


def records(*keys: str) -> list[DocumentRow | Removal]:
    return [(key, "", 0.0, "{}") for key in keys]


def test_partly_failing_batch_is_rolled_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writing, "BOUNDS", {"record": 100})
    database = sqlite_database.open_database(tmp_path)
    refused: DocumentRow = ("key", None, 0.0, "{}")  # type: ignore[assignment]
    for turn in range(6):
        assert database.work(Batch(documents={"record": records(*(f"{turn} {n}" for n in range(25)))})) is None
        bad = Batch(
            tasks={1: task_row(1, task(1))},
            documents={"record": records(*(f"no {n}" for n in range(60))), "model": [refused]},
        )
        assert "NOT NULL constraint failed: model.tag" in str(database.work(bad))
        found = queries.listed(database.connection, "record", None, None, 1000)
        assert len(found) == min(25 * (turn + 1), len(found))
        assert min(25 * (turn + 1), 99) <= len(found) <= 100
        assert not any(document.key.startswith("no") for document in found)
    assert queries.task_numbers(database.connection) == {}
    assert database.close() is None


def test_repairing_batch_always_writes(tmp_path: Path) -> None:
    database = sqlite_database.open_database(tmp_path)
    before = database.connection.total_changes
    assert database.work(Batch(repairs=True, durable=True)) is None
    assert database.connection.total_changes == before + 1
    assert database.close() is None


async def test_closed_store_refuses_operations(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        store.put_later("record", Document("r", "{}"))
    store.mark_delivered(UUID(int=1))
    store.mark_ended(UUID(int=1))
    for operation in (store.ping(), store.get("record", "r"), store.accept(task(2))):
        with pytest.raises(StoreFailure, match="stopping"):
            await operation
    async with open_store(tmp_path) as store:
        assert await store.get("record", "r")
        assert [each.delivered for each in await store.open_tasks()] == [False]


def mounting() -> str | None:
    """Return why a small file system cannot be mounted here, None if it can."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        None
        if shutil.which("unshare") and not subprocess.run(command, capture_output=True, check=False).returncode
        else "no mount"
    )


@pytest.mark.skipif(mounting() is not None, reason="a small file system cannot be mounted: needs root")
@pytest.mark.parametrize("case", ["full", "read_only"])
def test_real_file_system_full_or_read_only(case: str, tmp_path: Path) -> None:
    command = ["unshare", "-m", sys.executable, "-m", __name__, case, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def mount(directory: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(directory)], check=True)


async def full(directory: Path) -> None:
    """Fill the disk with tasks, make room, and continue. Then open a store on a full disk."""
    mount(directory, "-o", "size=8m")
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(5 << 20))
    accepted = []
    async with open_store(directory / "state") as store:
        with pytest.raises(StoreFailure, match=f"the file system of {directory}/state is full"):  # noqa: PT012
            for number in range(1, 10_000):
                await store.accept(task(number, request="x" * 10_000))
                accepted.append(number)
        assert await numbers(store) == accepted
        ballast.unlink()
        await wait_for_recovery(store)
        await store.accept(task(20_000))
        for number in accepted[3:]:
            store.mark_ended(UUID(int=number))
    async with open_store(directory / "state") as store:
        assert await numbers(store) == [*accepted[:3], 20_000]
    with pytest.raises(OSError, match="space"):
        ballast.write_bytes(bytes(8 << 20))
    with pytest.raises(StoreFailure, match=r"is full|No space left"):
        async with open_store(directory / "other"):
            pass


async def read_only(directory: Path) -> None:
    """Open a store on a file system that has become read-only."""
    mount(directory)
    async with open_store(directory) as store:
        await store.accept(task(1))
    mount(directory, "-o", "remount,ro")
    with pytest.raises(StoreFailure, match=r"Read-only file system|cannot be") as caught:
        async with open_store(directory):
            pass
    assert "mounted read-write" in caught.value.hint


if __name__ == "__main__":
    trio.run({"full": full, "read_only": read_only}[sys.argv[1]], Path(sys.argv[2]))
    print("done")
