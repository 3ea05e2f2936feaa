"""Deleting and rejecting files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import pytest

from llama_orch.spool import BadFile, HandoffFile, Rejection, delete, reject, scan
from llama_orch.spool.removal import REJECTED_LIMIT
from tests.unit.llama_orch.spool.samples import NEEDS_ROOT, ODD_ENTRIES, OWNERS, age, publish

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@contextmanager
def no_room() -> Iterator[None]:
    """Simulate a full disk: files can be created but not written."""
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))


def found_in(directory: Path) -> HandoffFile:
    (item,) = scan(directory, owners=OWNERS, now_s=NOW.timestamp())
    assert isinstance(item, HandoffFile)
    return item


def bad_in(directory: Path) -> BadFile:
    (item,) = (item for item in scan(directory, owners=OWNERS, now_s=NOW.timestamp()) if isinstance(item, BadFile))
    return item


def rejected_names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "rejected").iterdir())


def test_taken_file_is_deleted(tmp_path: Path) -> None:
    path = publish(tmp_path)
    assert delete(tmp_path, found_in(tmp_path))
    assert not path.exists()


def test_newer_file_of_same_name_is_not_deleted(tmp_path: Path) -> None:
    path = publish(tmp_path)
    taken = found_in(tmp_path)
    publish(tmp_path, url="http://127.0.0.1:18081")
    assert not delete(tmp_path, taken)
    assert path.exists()


def test_deleting_missing_file_is_not_an_error(tmp_path: Path) -> None:
    path = publish(tmp_path)
    taken = found_in(tmp_path)
    path.unlink()
    assert not delete(tmp_path, taken)


@pytest.mark.parametrize("kind", ODD_ENTRIES)
def test_bad_entry_is_moved_with_reason_file(tmp_path: Path, kind: str) -> None:
    if kind in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("giving a file to another user takes root")
    make, _reason = ODD_ENTRIES[kind]
    entry = tmp_path / "bad.json"
    make(entry)
    before = entry.lstat()
    bad = bad_in(tmp_path)
    done = reject(tmp_path, bad, NOW)
    assert done.moved_to
    assert not os.path.lexists(entry)
    moved = tmp_path / done.moved_to
    assert (moved.lstat().st_ino, moved.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert Path(f"{moved}.reason").read_text() == f"bad.json: {bad.reason}\n"


def test_replacement_of_bad_file_stays(tmp_path: Path) -> None:
    (tmp_path / "default-r0.json").write_text("[]")
    bad = bad_in(tmp_path)
    publish(tmp_path)
    assert reject(tmp_path, bad, NOW) == Rejection()
    found_in(tmp_path)


def test_bad_files_of_same_name_are_both_kept(tmp_path: Path) -> None:
    for _turn in range(2):
        (tmp_path / "bad.json").write_text("[]")
        reject(tmp_path, bad_in(tmp_path), NOW)
    assert len(rejected_names(tmp_path)) == 4


def test_oldest_rejected_files_are_deleted(tmp_path: Path) -> None:
    for turn in range(REJECTED_LIMIT + 3):
        (tmp_path / f"bad{turn:03}.json").write_text("[]")
        reject(tmp_path, bad_in(tmp_path), datetime.fromtimestamp(NOW.timestamp() + turn, UTC))
    names = rejected_names(tmp_path)
    assert len(names) == 2 * REJECTED_LIMIT
    assert names[0].endswith("bad003.json")


def test_longest_name_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / ("ä" * 125 + ".json")).write_text("[]")
    assert reject(tmp_path, bad_in(tmp_path), NOW).moved_to


def test_link_named_rejected_is_not_followed(tmp_path: Path) -> None:
    spool, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    spool.mkdir()
    elsewhere.mkdir()
    (spool / "rejected").symlink_to(elsewhere)
    (spool / "bad.json").write_text("[]")
    done = reject(spool, bad_in(spool), NOW)
    assert done.moved_to is None
    assert done.problem
    assert done.problem.startswith("cannot open rejected/")
    assert (spool / "bad.json").exists()
    assert not any(elsewhere.iterdir())


def test_bad_file_is_moved_despite_full_disk(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    bad = bad_in(tmp_path)
    with no_room():
        moved = reject(tmp_path, bad, NOW)
    assert moved.moved_to
    assert not (tmp_path / "bad.json").exists()
    assert (tmp_path / moved.moved_to).read_text() == "[]"


def test_moved_file_keeps_its_date(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text("[]")
    age(path)
    date = path.stat().st_mtime_ns
    done = reject(tmp_path, bad_in(tmp_path), NOW)
    assert done.moved_to
    assert (tmp_path / done.moved_to).stat().st_mtime_ns == date
