"""Prompts of ended tasks are removed from the files. The tests search the files themselves."""

import random
import re
import shutil
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
import trio

from queen_rbee.store.protocol import Document
from queen_rbee.store.sqlite import database as sqlite_database
from queen_rbee.store.sqlite import loop, marks
from queen_rbee.store.sqlite.batch import Batch, task_row
from queen_rbee.store.sqlite.database import Database, open_database
from queen_rbee.store.sqlite.opening import NAME
from queen_rbee.store.sqlite.store import SqliteStore, open_store
from tests.unit.queen_rbee.store.test_store import task

LIMIT_S = 20.0
MARKER = "prompt%08d,"
SIZES = (1, 4, 20, 80, 90, 100, 400, 2000)


def prompts_in(directory: Path) -> set[int]:
    """Return the numbers of all prompts of which any part is in a file of `directory`."""
    content = b"".join(path.read_bytes() for path in directory.iterdir())
    return {int(number) for number in re.findall(rb"prompt(\d{8}),", content)}


def repeated_prompt(number: int, times: int) -> str:
    return (MARKER % number) * times


async def until_only(expected: set[int], directory: Path) -> None:
    with trio.fail_after(LIMIT_S):
        while prompts_in(directory) != expected:  # noqa: ASYNC110 -- files send no notification
            await trio.sleep(0.02)


async def accept(store: SqliteStore, number: int) -> None:
    await store.accept(task(number, request=repeated_prompt(number, SIZES[number % len(SIZES)])))


async def test_ended_prompt_is_erased_in_next_pause(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "PAUSE_S", 0.05)
    async with open_store(tmp_path) as store:
        for number in range(1, 41):
            await accept(store, number)
        assert prompts_in(tmp_path) == set(range(1, 41))
        for number in range(1, 40):
            store.mark_ended(UUID(int=number))
        await until_only({40}, tmp_path)


async def test_ended_prompt_is_erased_under_load(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_database, "LOG_MAX_AGE_S", 0.1)
    async with open_store(tmp_path) as store:
        await accept(store, 1)
        store.mark_ended(UUID(int=1))
        with trio.fail_after(LIMIT_S):
            while prompts_in(tmp_path):
                await store.put("model", Document("busy", "{}"))


async def test_ended_prompt_is_erased_on_stop(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in (1, 2, 3):
            await accept(store, number)
        store.mark_ended(UUID(int=2))
    assert prompts_in(tmp_path) == {1, 3}


async def test_ended_prompt_is_erased_after_kill_and_restart(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "PAUSE_S", 3600)
    async with open_store(tmp_path / "a") as store:
        for number in (1, 2, 3):
            await accept(store, number)
        store.mark_ended(UUID(int=2))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert prompts_in(tmp_path / "b") == {1, 2, 3}
    monkeypatch.setattr(loop, "PAUSE_S", 0.02)
    async with open_store(tmp_path / "b") as store:
        assert [each.task_id.int for each in await store.open_tasks() if each.ended] == [2]
        store.mark_ended(UUID(int=2))
        await until_only({1, 3}, tmp_path / "b")


async def test_marks_file_does_not_grow_with_erased_tasks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(marks, "ALLOCATION", 16)
    async with open_store(tmp_path) as store:
        for number in range(1, 100):
            await accept(store, number)
            store.mark_delivered(UUID(int=number))
            store.mark_ended(UUID(int=number))
            await store.ping()
        assert (tmp_path / marks.NAME).stat().st_size <= 8 * (16 + 2)


def write(database: Database, batch: Batch) -> None:
    assert database.work(batch) is None


@pytest.mark.parametrize("seed", range(4))
def test_moved_rows_leave_no_copies(seed: int, tmp_path: Path) -> None:
    """PRAGMA secure_delete alone leaves one prompt of a thousand (see `schema`)."""
    rng, live, number = random.Random(seed), set[int](), 0
    database = open_database(tmp_path)
    for turn in range(400):
        batch = Batch()
        for _ in range(rng.randrange(4)):
            number += 1
            batch.tasks[number] = task_row(number, task(number, request=repeated_prompt(number, rng.choice(SIZES))))
        batch.erased = rng.sample(sorted(live), min(len(live), rng.randrange(4)))
        write(database, batch)
        live = live - set(batch.erased) | set(batch.tasks)
        if turn % 20 == 0:
            assert database.clean_up() is None
            assert prompts_in(tmp_path) == live
    assert database.close() is None
    assert prompts_in(tmp_path) == live


def test_free_pages_are_returned_to_file_system(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_database, "VACUUM_PAGES", 100)
    database = open_database(tmp_path)
    write(database, Batch(tasks={1: task_row(1, task(1)), 2: task_row(2, task(2, request="x" * (2 << 20)))}))
    assert database.clean_up() is None
    assert (tmp_path / NAME).stat().st_size > 2 << 20
    write(database, Batch(erased=[2]))
    for _ in range(30):
        assert database.clean_up() is None
    assert (tmp_path / NAME).stat().st_size < 200 << 10
    assert database.close() is None


async def test_log_is_emptied_at_maximum_size(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_database, "LOG_MAX_BYTES", 100_000)
    log = tmp_path / f"{NAME}-wal"
    async with open_store(tmp_path) as store:
        sizes = []
        for number in range(1, 60):
            await accept(store, number)
            sizes.append(log.stat().st_size)
    assert max(sizes) < 200_000
    assert sum(after < before for before, after in pairwise(sizes)) >= 2
