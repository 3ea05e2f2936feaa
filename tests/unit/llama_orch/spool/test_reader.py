"""SpoolReader returns each file once and reports each problem once."""

import logging
import os
from pathlib import Path

import pytest

from llama_orch.spool import SpoolReader
from llama_orch.spool.reader import NewFiles
from tests.unit.llama_orch.spool.samples import OWNERS, age, publish


def new_reader(directory: Path, *, moves_bad: bool = True) -> SpoolReader:
    return SpoolReader(directory, moves_bad=moves_bad, owners=lambda: OWNERS)


async def test_unchanged_file_is_returned_once(tmp_path: Path) -> None:
    publish(tmp_path)
    reader = new_reader(tmp_path)
    assert len((await reader.look()).found) == 1
    assert await reader.look() == NewFiles()


async def test_rewritten_file_is_returned_again(tmp_path: Path) -> None:
    reader = new_reader(tmp_path)
    publish(tmp_path)
    await reader.look()
    publish(tmp_path, url="http://127.0.0.1:18081")
    (found,) = (await reader.look()).found
    assert found.handoff.url.endswith(":18081")


async def test_file_taken_before_restart_is_not_returned(tmp_path: Path) -> None:
    publish(tmp_path)
    (found,) = (await new_reader(tmp_path).look()).found
    later = SpoolReader(tmp_path, moves_bad=True, taken=[found.identity], owners=lambda: OWNERS)
    assert await later.look() == NewFiles()


async def test_announcements_are_in_order_of_time(tmp_path: Path) -> None:
    publish(tmp_path, "a.json", url="http://127.0.0.1:2")
    age(publish(tmp_path, "b.json", url="http://127.0.0.1:1"))
    urls = [found.handoff.url for found in (await new_reader(tmp_path).look()).found]
    assert urls == ["http://127.0.0.1:1", "http://127.0.0.1:2"]


async def test_second_reader_sees_only_remaining_files(tmp_path: Path) -> None:
    publish(tmp_path)
    first, second = new_reader(tmp_path), new_reader(tmp_path, moves_bad=False)
    (found,) = (await first.look()).found
    assert len((await second.look()).found) == 1
    await first.delete(found)
    await second.delete(found)
    assert (await second.look(), os.listdir(tmp_path)) == (NewFiles(), [])


async def test_bad_file_is_moved_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bad.json").write_text("[]")
    news = await new_reader(tmp_path).look()
    assert [bad.name for bad in news.bad] == ["bad.json"]
    assert not (tmp_path / "bad.json").exists()
    assert "handoff rejected: bad.json" in caplog.text


async def test_passive_reader_leaves_bad_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bad.json").write_text("[]")
    await new_reader(tmp_path, moves_bad=False).look()
    assert (tmp_path / "bad.json").exists()
    assert not caplog.records


async def test_immovable_bad_file_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rejected").write_text("in the way")
    (tmp_path / "bad.json").write_text("[]")
    reader = new_reader(tmp_path)
    assert len((await reader.look()).bad) == 1
    assert await reader.look() == NewFiles()
    assert caplog.text.count("moved to nowhere: cannot open rejected/") == 1


async def test_unreadable_directory_is_logged_once_per_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spool = tmp_path / "engines"
    reader = new_reader(spool)
    for _turn in range(2):
        spool.write_text("")
        await reader.look()
        await reader.look()
        spool.unlink()
        await reader.look()
    assert caplog.text.count("cannot read handoffs") == 2
