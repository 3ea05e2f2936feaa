"""A prompt is in the files only for as long as its task is open: the files themselves are searched."""

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


def found(directory: Path) -> set[int]:
    """The numbers of all prompts of which a piece is in any file of `directory`."""
    content = b"".join(path.read_bytes() for path in directory.iterdir())
    return {int(number) for number in re.findall(rb"prompt(\d{8}),", content)}


def prompted(number: int, times: int) -> str:
    return (MARKER % number) * times


async def until_only(wanted: set[int], directory: Path) -> None:
    with trio.fail_after(LIMIT_S):
        while found(directory) != wanted:  # noqa: ASYNC110 -- a file tells nobody that it has changed
            await trio.sleep(0.02)


async def accept(store: SqliteStore, number: int) -> None:
    await store.accept(task(number, request=prompted(number, SIZES[number % len(SIZES)])))


async def test_an_ended_prompt_leaves_the_files_in_the_next_pause(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "PAUSE_S", 0.05)
    async with open_store(tmp_path) as store:
        for number in range(1, 41):
            await accept(store, number)
        assert found(tmp_path) == set(range(1, 41))
        for number in range(1, 40):
            store.ended(UUID(int=number))
        await until_only({40}, tmp_path)


async def test_it_leaves_them_under_load_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_database, "ERASED_WITHIN_S", 0.1)
    async with open_store(tmp_path) as store:
        await accept(store, 1)
        store.ended(UUID(int=1))
        with trio.fail_after(LIMIT_S):
            while found(tmp_path):
                await store.put("model", Document("busy", "{}"))


async def test_it_leaves_them_when_the_queen_stops(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in (1, 2, 3):
            await accept(store, number)
        store.ended(UUID(int=2))
    assert found(tmp_path) == {1, 3}


async def test_it_leaves_them_after_a_kill_once_the_next_queen_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "PAUSE_S", 3600)
    async with open_store(tmp_path / "a") as store:
        for number in (1, 2, 3):
            await accept(store, number)
        store.ended(UUID(int=2))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert found(tmp_path / "b") == {1, 2, 3}
    monkeypatch.setattr(loop, "PAUSE_S", 0.02)
    async with open_store(tmp_path / "b") as store:
        assert [each.task_id.int for each in await store.open_tasks() if each.ended] == [2]
        store.ended(UUID(int=2))
        await until_only({1, 3}, tmp_path / "b")


async def test_the_marks_of_tasks_that_are_erased_make_room_for_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(marks, "ROOM", 16)
    async with open_store(tmp_path) as store:
        for number in range(1, 100):
            await accept(store, number)
            store.delivered(UUID(int=number))
            store.ended(UUID(int=number))
            await store.ping()
        assert (tmp_path / marks.NAME).stat().st_size <= 8 * (16 + 2)


def written(database: Database, batch: Batch) -> None:
    assert database.work(batch) is None


@pytest.mark.parametrize("seed", range(4))
def test_in_no_order_of_coming_and_going_do_copies_of_moved_rows_stay_behind(seed: int, tmp_path: Path) -> None:
    """PRAGMA secure_delete alone leaves one prompt of a thousand (see sqlite_schema)."""
    chance, live, number = random.Random(seed), set[int](), 0
    database = open_database(tmp_path)
    for turn in range(400):
        batch = Batch()
        for _ in range(chance.randrange(4)):
            number += 1
            batch.tasks[number] = task_row(number, task(number, request=prompted(number, chance.choice(SIZES))))
        batch.gone = chance.sample(sorted(live), min(len(live), chance.randrange(4)))
        written(database, batch)
        live = live - set(batch.gone) | set(batch.tasks)
        if turn % 20 == 0:
            assert database.tidied() is None
            assert found(tmp_path) == live
    assert database.close() is None
    assert found(tmp_path) == live


def test_room_that_is_free_is_given_back_to_the_file_system(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_database, "PAGES_GIVEN_BACK", 100)
    database = open_database(tmp_path)
    written(database, Batch(tasks={1: task_row(1, task(1)), 2: task_row(2, task(2, request="x" * (2 << 20)))}))
    assert database.tidied() is None
    assert (tmp_path / NAME).stat().st_size > 2 << 20
    written(database, Batch(gone=[2]))
    for _ in range(30):
        assert database.tidied() is None
    assert (tmp_path / NAME).stat().st_size < 200 << 10
    assert database.close() is None


async def test_the_log_is_emptied_when_it_has_grown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_database, "LOG_BYTES", 100_000)
    log = tmp_path / f"{NAME}-wal"
    async with open_store(tmp_path) as store:
        sizes = []
        for number in range(1, 60):
            await accept(store, number)
            sizes.append(log.stat().st_size)
    assert max(sizes) < 200_000
    assert sum(after < before for before, after in pairwise(sizes)) >= 2
