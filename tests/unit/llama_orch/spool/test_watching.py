"""Notifications of changes in a directory."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from llama_orch.bell import Bell
from llama_orch.spool import watch
from tests.unit.llama_orch.spool.samples import publish

LIMIT_S = 10.0
NEVER_S = 3600.0


@asynccontextmanager
async def watched(directory: Path, interval_s: float = NEVER_S) -> AsyncIterator[Bell]:
    """Watch `directory` during the block; yield the bell."""
    bell = Bell()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(watch, directory, bell.ring, interval_s=interval_s))
        yield bell
        nursery.cancel_scope.cancel()


async def rings(bell: Bell) -> bool:
    return await bell.wait(LIMIT_S)


async def no_ring(bell: Bell) -> bool:
    """Return whether the bell has not rung after all tasks have run."""
    await trio.testing.wait_all_tasks_blocked(0.02)
    return not await bell.wait(0)


def _write_in_place(directory: Path) -> None:
    (directory / "x.json").write_text("{}")


def _delete(directory: Path) -> None:
    (directory / "old.json").unlink()


@pytest.mark.parametrize("change", [publish, _write_in_place, _delete])
async def test_document_change_rings(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / "old.json").write_text("{}")
    async with watched(tmp_path) as bell:
        change(tmp_path)
        assert await rings(bell)


async def test_temporary_files_do_not_ring(tmp_path: Path) -> None:
    async with watched(tmp_path) as bell:
        (tmp_path / ".draft.json").write_text("{}")
        (tmp_path / "draft.tmp").write_text("{}")
        (tmp_path / "rejected").mkdir()
        assert await no_ring(bell)


async def test_later_directory_is_watched(tmp_path: Path) -> None:
    spool = tmp_path / "engines"
    async with watched(spool, interval_s=0.01) as bell:
        spool.mkdir()
        assert await rings(bell)
        publish(spool)
        assert await rings(bell)


@pytest.mark.parametrize("how", ["removed", "moved"])
async def test_replaced_directory_is_watched(tmp_path: Path, how: str) -> None:
    spool = tmp_path / "engines"
    spool.mkdir()
    async with watched(spool, interval_s=0.01) as bell:
        if how == "removed":
            shutil.rmtree(spool)
        else:
            spool.rename(tmp_path / "old")
        spool.mkdir()
        assert await rings(bell)
        publish(spool)
        assert await rings(bell)


async def test_missing_directory_is_checked_once_per_interval(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def count(follower: object) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr("llama_orch.spool.watching._Follower.attach", count)
    async with watched(tmp_path / "missing", interval_s=1.0):
        await trio.sleep(100.5)
    assert looks == 101


async def test_start_works_without_inotify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**options: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("llama_orch.spool.watching.INotify", refused)
    async with watched(tmp_path):
        pass
    assert "polling every" in caplog.text


async def test_rings_are_kept_and_merged() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait(NEVER_S)
    assert not await bell.wait(0)
