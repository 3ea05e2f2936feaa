"""Marks say of open tasks what must be known at once, whatever becomes of the process and of the file."""

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


def found(path: Path) -> list[int]:
    return [mark for mark in marks.read(path) if mark]


def files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_each_mark_is_in_the_file_as_soon_as_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / NAME
    subject = Marks(path, [])
    subject.delivered(5)
    assert found(path) == [5]
    subject.delivered(5)
    subject.ended(7)
    subject.ended(5)
    assert found(path) == [5, -7, -5]
    assert [subject.shown(number) for number in (5, 7, 8)] == [False, False, False]
    subject.close()


def test_no_file_means_no_marks_and_the_next_file_begins_with_what_still_counts(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert found(path) == []
    subject = Marks(path, [3, 2**40])
    assert found(path) == [3, 2**40]
    assert subject.shown(3)
    subject.close()
    assert (files(tmp_path), path.stat().st_mode & 0o777) == ([NAME], 0o600)


@given(cut=st.integers(0, 200), tail=st.binary(max_size=20))
def test_a_torn_or_strange_tail_costs_nothing_but_itself(cut, tail, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("marks") / NAME
    content = array("q", range(1, 21)).tobytes()
    path.write_bytes(content[:cut] + tail)
    whole = min(cut, len(content)) // 8
    assert found(path)[:whole] == list(range(1, whole + 1))


def test_a_full_file_is_replaced_by_what_still_counts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(marks, "ROOM", 10)
    subject = Marks(tmp_path / NAME, [])
    for number in range(1, 1000):
        subject.delivered(number)
        if number % 100:
            subject.ended(number)
            subject.forget([number])
        assert (tmp_path / NAME).stat().st_size <= 8 * (10 + 10)
    assert {mark for mark in found(tmp_path / NAME) if mark % 100 == 0} == set(range(100, 1000, 100))
    assert files(tmp_path) == [NAME]
    subject.close()


def test_what_has_room_cannot_fail_and_what_has_none_left_says_so(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full from now on."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(tmp_path / NAME)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["20", "OSError"]
    assert found(tmp_path / NAME) == list(range(1, 21))
    assert files(tmp_path) == [NAME]


def until_full(path: Path) -> None:
    marks.ROOM = 10
    subject = Marks(path, [])
    resource.setrlimit(resource.RLIMIT_FSIZE, (160, 160))
    made = 0
    try:
        for number in range(1, 100):
            subject.delivered(number)
            made = number
    except OSError as error:
        print(made, type(error).__name__)


if __name__ == "__main__":
    until_full(Path(sys.argv[1]))
