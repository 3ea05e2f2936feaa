"""Tasks that arrive together are stored together; a task that arrives alone waits for no other."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.store.protocol import StoreFailure
from queen_rbee.store.sqlite import loop
from queen_rbee.store.sqlite.batch import Batch
from queen_rbee.store.sqlite.database import Database
from queen_rbee.store.sqlite.loop import PACE_S, pause_before_write
from queen_rbee.store.sqlite.store import open_store
from tests.unit.queen_rbee.store.test_store import task

LIMIT_S, LONG_S = 10.0, 1000.0


async def nothing() -> None:
    pass


@contextmanager
def written_sizes(during_first: Callable[[], Awaitable[None]] = nothing) -> Iterator[list[int]]:
    """Yield the numbers of tasks in each write that has any. The first one waits for `during_first`."""
    sizes: list[int] = []
    work = Database.work

    def recorded(database: Database, batch: Batch) -> StoreFailure | None:
        if batch.tasks:
            sizes.append(len(batch.tasks))
            if len(sizes) == 1:
                trio.from_thread.run(during_first)
        return work(database, batch)

    with patch.object(Database, "work", recorded):
        yield sizes


@given(callers=st.integers(0, 100), since_s=st.floats(0, 10))
def test_only_shared_writes_are_followed_by_a_pause(callers, since_s):
    pause_s = pause_before_write(callers, since_s)
    assert 0 <= pause_s <= PACE_S
    assert bool(pause_s) is (callers > 1 and since_s < PACE_S)
    assert since_s + pause_s >= PACE_S - 1e-9 or callers <= 1


async def test_write_after_shared_one_collects_what_arrives_meanwhile(tmp_path: Path, monkeypatch):
    pausing, pause_over = trio.Event(), trio.Event()

    async def sleep(seconds: float, real_sleep: Callable[[float], Awaitable[None]] = trio.sleep) -> None:
        if seconds < LONG_S / 2:
            await real_sleep(seconds)
            return
        pausing.set()
        await pause_over.wait()

    monkeypatch.setattr(loop, "PACE_S", LONG_S)
    with written_sizes() as sizes:
        async with open_store(tmp_path) as store, trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked()  # else the loop, which starts, may find only one of the two
            async with trio.open_nursery() as together:
                together.start_soon(store.accept, task(1))
                together.start_soon(store.accept, task(2))
                monkeypatch.setattr(trio, "sleep", sleep)
            nursery.start_soon(store.accept, task(3))
            with trio.fail_after(LIMIT_S):
                await pausing.wait()
            nursery.start_soon(store.accept, task(4))
            await trio.testing.wait_all_tasks_blocked()
            pause_over.set()
    assert sizes == [2, 2]


async def test_lone_task_is_stored_with_those_that_arrive_meanwhile(tmp_path: Path):
    """The second write has every task that arrived during the first."""

    async def others_wait() -> None:
        for number in (2, 3, 4):
            nursery.start_soon(store.accept, task(number))
        await trio.testing.wait_all_tasks_blocked()

    with written_sizes(during_first=others_wait) as sizes:
        async with open_store(tmp_path) as store, trio.open_nursery() as nursery:
            await store.accept(task(1))
    assert sizes == [1, 3]
