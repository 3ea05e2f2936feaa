"""A disk that fails while the queen runs: callers are told, nothing is half stored, and it works again by itself."""

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
    """What becomes of each write: it fails while `full`, and waits while `stalled`. `flushed` says how each was asked
    for."""

    def __init__(self) -> None:
        self.full = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.at_work = threading.Event()
        self.flushed: list[bool] = []

    def write(self, writer: Writer, batch: Batch) -> None:
        self.at_work.set()
        assert self.goes_on.wait(LIMIT_S)
        self.flushed.append(batch.durable)
        if self.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        WRITE(writer, batch)


WRITE = Writer.write


@pytest.fixture
def disk(monkeypatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(Writer, "write", lambda writer, batch: disk.write(writer, batch))  # noqa: PLW0108 -- a function, to be bound
    monkeypatch.setattr(loop, "RETRY_S", 0.01)
    yield disk
    disk.goes_on.set()


async def until_it_works(store: SqliteStore) -> None:
    with trio.fail_after(LIMIT_S):
        while True:
            try:
                return await store.ping()
            except StoreFailure:
                await trio.sleep(0.01)


async def numbers(store: SqliteStore) -> list[int]:
    return [each.task_id.int for each in await store.open_tasks()]


async def test_everyone_who_waits_is_told_and_nothing_of_it_is_stored(disk, tmp_path: Path) -> None:
    told = []

    async def refused(deed) -> None:
        with pytest.raises(StoreFailure) as caught:
            await deed
        told.append(caught.value)

    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        disk.full = True
        async with trio.open_nursery() as nursery:
            for deed in (store.accept(task(2)), store.put("model", Document("m", "{}")), store.remove("model", "x")):
                nursery.start_soon(refused, deed)
        assert await numbers(store) == [1]
        assert await store.get("model", "m") is None
        disk.full = False
        await until_it_works(store)
        await store.accept(task(2))
    assert {str(failure) for failure in told} == {f"the file system of {tmp_path} is full"}
    assert len({id(failure) for failure in told}) == 3
    assert all("Make room" in failure.hint for failure in told)
    async with open_store(tmp_path) as store:
        assert await numbers(store) == [1, 2]


async def test_while_nothing_can_be_stored_callers_are_told_without_another_try(
    disk, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "RETRY_S", 3600)
    async with open_store(tmp_path) as store:
        disk.full = True
        for deed in (store.ping(), store.accept(task(1)), store.put("model", Document("m", "{}"))):
            with pytest.raises(StoreFailure, match="is full"):
                await deed
        assert disk.flushed == [True]
        assert await store.get("model", "m") is None


async def test_the_journal_is_told_once_of_the_trouble_and_once_of_its_end(disk, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    async with open_store(tmp_path) as store:
        disk.full = True
        for _ in range(5):
            with pytest.raises(StoreFailure):
                await store.accept(task(1))
        disk.full = False
        await until_it_works(store)
    texts = [record.getMessage() for record in caplog.records if record.name == "queen_rbee.store"]
    assert [text[:43] for text in texts] == [
        "the queen's state cannot be stored: the fil",
        "the queen's state is stored again in " + f"{tmp_path}"[:6],
    ]
    assert texts[0].count("Make room") == 1


async def test_what_nobody_waits_for_is_stored_when_it_can_be_in_its_order(disk, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in (1, 2):
            await store.accept(task(number))
        disk.full = True
        store.ended(UUID(int=1))
        store.put_later("record", Document("a", "old"))
        with pytest.raises(StoreFailure):
            await store.put("record", Document("a", "refused"))
        assert await numbers(store) == [2]
        store.put_later("record", Document("a", "new"))
        store.put_later("record", Document("b", "{}"))
        disk.full = False
        await until_it_works(store)
        assert await store.get("record", "a") == Document("a", "new")
        assert await numbers(store) == [2]
    async with open_store(tmp_path) as store:
        assert [document.key for document in await store.listed("record")] == ["b", "a"]
        assert await numbers(store) == [2]


async def test_what_waits_for_a_full_disk_is_bounded_and_what_was_given_up_is_counted(
    disk, tmp_path: Path, monkeypatch, caplog
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(loop, "KEPT_DOCUMENTS", 10)
    async with open_store(tmp_path) as store:
        disk.full = True
        for number in range(25):
            store.put_later("record", Document(str(number), "{}"))
            store.put_later("artifact", Document("only one", str(number)))
        with pytest.raises(StoreFailure):
            await store.ping()
        disk.full = False
        await until_it_works(store)
        assert [document.key for document in await store.listed("record")] == [str(n) for n in range(24, 14, -1)]
        assert await store.get("artifact", "only one") == Document("only one", "24")
    assert "30 records written meanwhile were lost" in caplog.text


async def test_a_disk_that_does_not_answer_keeps_nobody_waiting_nor_the_pulse_from_beating(
    disk, tmp_path: Path, monkeypatch
) -> None:
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
            while pulse.count < beats + 3:  # noqa: ASYNC110 -- a pulse wakes nobody
                await trio.sleep(0.01)
        disk.goes_on.set()
        await until_it_works(store)
        assert await numbers(store) == [1]
        await store.accept(task(4))
    async with open_store(tmp_path) as store:
        assert await numbers(store) == [1, 4]


async def test_a_caller_that_is_cancelled_while_its_task_is_written_leaves_nothing_behind(disk, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        disk.at_work.clear()
        disk.goes_on.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.accept, task(1))
            assert await trio.to_thread.run_sync(disk.at_work.wait, LIMIT_S)
            nursery.cancel_scope.cancel()
        disk.goes_on.set()
        assert await numbers(store) == []
        await store.accept(task(1))
        assert await numbers(store) == [1]


async def test_only_what_is_awaited_waits_for_the_disk(disk, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for deed in (
            store.accept(task(1)),
            store.put("model", Document("m", "{}")),
            store.remove("model", "m"),
            store.ping(),
        ):
            await deed
        assert disk.flushed == [True] * 4
        store.ended(UUID(int=1))
        store.put_later("record", Document("r", "{}"))
        assert await store.get("record", "r")
        assert disk.flushed[4:] == [False]


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_to_wait_for_the_disk_is_to_have_sqlite_flush_with_the_commit(durable, synchronous, tmp_path: Path) -> None:
    database = sqlite_database.open_database(tmp_path)
    for other in (not durable, durable):
        assert database.work(Batch(ping=True, durable=other)) is None
    assert database.connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    assert database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.close() is None


@pytest.mark.parametrize("name", [NAME, f"{NAME}-wal"])
async def test_nothing_is_accepted_into_a_file_that_was_removed(name: str, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        (tmp_path / name).unlink()
        with pytest.raises(StoreFailure, match=f"{tmp_path / name} was removed or replaced in use"):
            await store.accept(task(2))
        shutil.copy(__file__, tmp_path / name)
        with pytest.raises(StoreFailure, match="was removed or replaced in use"):
            await store.accept(task(3))


async def test_a_mark_that_cannot_be_made_is_reported_once_and_holds_up_nobody(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    def broken(_marks: Marks, _number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        await store.accept(task(2))
        with monkeypatch.context() as patch:
            patch.setattr(Marks, "_write", broken)
            store.delivered(UUID(int=1))
            store.ended(UUID(int=1))
        assert await numbers(store) == [2]
    assert caplog.text.count(f"{tmp_path}/queen.marks cannot be used (Input/output error)") == 1


async def test_a_prompt_leaves_the_files_though_the_disk_was_full_when_it_ended(
    disk: Disk, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "PAUSE_S", 0.02)
    async with open_store(tmp_path) as store:
        for number in (1, 2):
            await accept(store, number)
        disk.full = True
        store.ended(UUID(int=1))
        with pytest.raises(StoreFailure):
            await store.ping()
        disk.full = False
        await until_only({2}, tmp_path)


def records(*keys: str) -> list[DocumentRow | Removal]:
    return [(key, "", 0.0, "{}") for key in keys]


def test_a_batch_of_which_a_part_fails_leaves_no_trace_not_even_in_the_counting(tmp_path: Path, monkeypatch) -> None:
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
    assert queries.numbers(database.connection) == {}
    assert database.close() is None


def test_that_it_works_again_is_proved_by_a_write(tmp_path: Path) -> None:
    database = sqlite_database.open_database(tmp_path)
    before = database.connection.total_changes
    assert database.work(Batch(repairs=True, durable=True)) is None
    assert database.connection.total_changes == before + 1
    assert database.close() is None


async def test_after_the_end_the_store_says_so(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        store.put_later("record", Document("r", "{}"))
    store.delivered(UUID(int=1))
    store.ended(UUID(int=1))
    for deed in (store.ping(), store.get("record", "r"), store.accept(task(2))):
        with pytest.raises(StoreFailure, match="stopping"):
            await deed
    async with open_store(tmp_path) as store:
        assert await store.get("record", "r")
        assert [each.delivered for each in await store.open_tasks()] == [False]


def mounting() -> str | None:
    """Why a small file system cannot be had here."""
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        None
        if shutil.which("unshare") and not subprocess.run(words, capture_output=True, check=False).returncode
        else "no mount"
    )


@pytest.mark.skipif(mounting() is not None, reason="a small file system cannot be mounted: needs root")
@pytest.mark.parametrize("case", ["full", "read_only"])
def test_a_real_disk_that_is_full_or_read_only(case: str, tmp_path: Path) -> None:
    words = ["unshare", "-m", sys.executable, "-m", __name__, case, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def mount(directory: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(directory)], check=True)


async def full(directory: Path) -> None:
    """Accept tasks until the disk is full; make room; go on; look what is there. Then the same at an opening."""
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
        await until_it_works(store)
        await store.accept(task(20_000))
        for number in accepted[3:]:
            store.ended(UUID(int=number))
    async with open_store(directory / "state") as store:
        assert await numbers(store) == [*accepted[:3], 20_000]
    with pytest.raises(OSError, match="space"):
        ballast.write_bytes(bytes(8 << 20))
    with pytest.raises(StoreFailure, match=r"is full|No space left"):
        async with open_store(directory / "other"):
            pass


async def read_only(directory: Path) -> None:
    """A file system that is read-only at an opening, and one that becomes so."""
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
