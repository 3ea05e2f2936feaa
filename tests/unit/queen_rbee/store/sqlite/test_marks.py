"""Marks survive the death of the process, torn tails, replacement of the file, and full disks."""

import os
import resource
import subprocess
import sys
from array import array
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.store.sqlite import marks
from queen_rbee.store.sqlite.marks import NAME, Marks


def nonzero_marks(path: Path) -> list[int]:
    return [mark for mark in marks.read(path) if mark]


def files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_mark_is_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / NAME
    file = Marks(path, [])
    file.mark_delivered(5)
    assert nonzero_marks(path) == [5]
    file.mark_delivered(5)
    file.mark_ended(7)
    file.mark_ended(5)
    assert nonzero_marks(path) == [5, -7, -5]
    assert [file.is_delivered(number) for number in (5, 7, 8)] == [False, False, False]
    file.close()


def test_new_file_starts_with_live_marks(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert nonzero_marks(path) == []
    file = Marks(path, [3, 2**40])
    assert nonzero_marks(path) == [3, 2**40]
    assert file.is_delivered(3)
    file.close()
    assert (files(tmp_path), path.stat().st_mode & 0o777) == ([NAME], 0o600)


@given(cut=st.integers(0, 200), tail=st.binary(max_size=20))
def test_torn_tail_is_ignored(cut, tail, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("marks") / NAME
    content = array("q", range(1, 21)).tobytes()
    path.write_bytes(content[:cut] + tail)
    complete = min(cut, len(content)) // 8
    assert nonzero_marks(path)[:complete] == list(range(1, complete + 1))


def test_full_file_is_replaced_by_live_marks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(marks, "ALLOCATION", 10)
    file = Marks(tmp_path / NAME, [])
    for number in range(1, 1000):
        file.mark_delivered(number)
        if number % 100:
            file.mark_ended(number)
            file.forget([number])
        assert (tmp_path / NAME).stat().st_size <= 8 * (10 + 10)
    assert {mark for mark in nonzero_marks(tmp_path / NAME) if mark % 100 == 0} == set(range(100, 1000, 100))
    assert files(tmp_path) == [NAME]
    file.close()


def test_allocated_marks_survive_full_disk(tmp_path: Path) -> None:
    """A limit on the file size simulates a full disk."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(tmp_path / NAME)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["20", "OSError"]
    assert nonzero_marks(tmp_path / NAME) == list(range(1, 21))
    assert files(tmp_path) == [NAME]


def until_full(path: Path) -> None:
    marks.ALLOCATION = 10
    file = Marks(path, [])
    resource.setrlimit(resource.RLIMIT_FSIZE, (160, 160))
    written = 0
    try:
        for number in range(1, 100):
            file.mark_delivered(number)
            written = number
    except OSError as error:
        print(written, type(error).__name__)


if __name__ == "__main__":
    until_full(Path(sys.argv[1]))
