"""An unusable database is refused with a clear message and a hint. It is never replaced by an empty one."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queen_rbee.store.protocol import Document, StoreFailure
from queen_rbee.store.sqlite import opening
from queen_rbee.store.sqlite.opening import NAME
from queen_rbee.store.sqlite.store import open_store
from tests.unit.queen_rbee.store.test_store import task

LOG = f"{NAME}-wal"
NOBODY_UID = 65534


async def fill(directory: Path, tasks: int = 20) -> None:
    async with open_store(directory) as store:
        for number in range(tasks):
            await store.accept(task(number, request="x" * (100 * number)))
            store.put_later("record", Document(str(number), "{}"))


async def refusal(directory: Path) -> StoreFailure:
    with pytest.raises(StoreFailure) as caught:
        async with open_store(directory):
            pass
    assert caught.value.hint
    return caught.value


def execute_in(file: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)


def removed(file: Path) -> Path:
    """Remove the file and return its path."""
    file.unlink()
    return file


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "garbage": (lambda file: file.write_bytes(os.urandom(20_000)), "is not a SQLite database"),
    "text": (lambda file: file.write_text("hello"), "is not a SQLite database"),
    "cut": (lambda file: os.truncate(file, file.stat().st_size // 2), "is damaged"),
    "holed": (
        lambda file: file.write_bytes(file.read_bytes()[:2048] + bytes(4096) + file.read_bytes()[6144:]),
        "damag",
    ),
    "foreign": (lambda file: execute_in(file, "PRAGMA application_id=0"), "is not a database of queen-rbee"),
    "newer": (lambda file: execute_in(file, "PRAGMA user_version=2"), "layout 2, supported is 1"),
    "tableless": (lambda file: execute_in(file, "DROP TABLE task"), "no such table: task"),
    "directory": (lambda file: removed(file).mkdir(), "cannot be opened"),
    "dangling link": (lambda file: removed(file).symlink_to("nowhere"), "is a symbolic link"),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_damaged_or_foreign_database_is_refused_unchanged(name, tmp_path: Path) -> None:
    await fill(tmp_path)
    damage, message = DAMAGE[name]
    damage(tmp_path / NAME)
    before = snapshot(tmp_path)
    failure = await refusal(tmp_path)
    assert message in str(failure)
    assert str(tmp_path / NAME) in str(failure)
    assert snapshot(tmp_path) == before


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.fixture
def intact(tmp_path: Path) -> bytes:
    """The content of an intact database."""
    trio.run(fill, tmp_path / "intact")
    return (tmp_path / "intact" / NAME).read_bytes()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True), flips=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1))))
async def test_truncated_or_damaged_file_is_a_store_failure(cut, flips, intact, tmp_path_factory) -> None:
    directory = tmp_path_factory.mktemp("store")
    (directory / NAME).write_bytes(intact[: int(len(intact) * cut)])
    await refusal(directory)
    content = bytearray(intact)
    for place, wrong in flips:
        start = int((len(intact) - len(wrong)) * place)
        content[start : start + len(wrong)] = wrong
    (directory / NAME).write_bytes(content)
    with contextlib.suppress(StoreFailure):
        async with open_store(directory) as store:
            await store.open_tasks()
            await store.list_documents("record")
            await store.accept(task(999))


@pytest.mark.parametrize("wrong", ["task SET request = 5", "task SET correlation = x'00'", "record SET body = x'00'"])
async def test_row_with_wrong_column_type_is_a_store_failure(wrong: str, tmp_path: Path) -> None:
    await fill(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as connection, connection:
        assert connection.execute(f"UPDATE {wrong}").rowcount
    async with open_store(tmp_path) as store:
        with pytest.raises(StoreFailure, match="is damaged"):
            await (store.open_tasks() if wrong.startswith("task") else store.list_documents("record"))


async def test_missing_database_with_log_is_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.accept(task(1))
        shutil.copy(tmp_path / LOG, tmp_path / "copy")
    (tmp_path / NAME).unlink()
    (tmp_path / "copy").rename(tmp_path / LOG)
    assert "is missing, but its write-ahead log" in str(await refusal(tmp_path))
    assert (tmp_path / LOG).exists()


async def test_second_queen_on_same_directory_is_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert f"another queen-rbee uses {tmp_path}" in str(await refusal(tmp_path))
        await store.accept(task(1))
    async with open_store(tmp_path) as store:
        assert len(await store.open_tasks()) == 1


async def test_database_in_use_by_other_program_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path)
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(1); input()"
    command = [sys.executable, "-uc", program, str(tmp_path / NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        failure = await refusal(tmp_path)
        other.stdin.close()
    assert "is in use by another program" in str(failure)
    assert "fuser" in failure.hint


async def test_directory_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file" in str(await refusal(tmp_path / "file" / "store"))
    assert f"{tmp_path}/file" in str(await refusal(tmp_path / "file"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try as another user")
@pytest.mark.parametrize("unwritable", [".", NAME])
async def test_unwritable_state_is_refused(unwritable: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    await fill(state)
    for path in (state, *state.iterdir()):
        os.chown(path, NOBODY_UID, NOBODY_UID)
    os.chown(state / unwritable, 0, 0)
    (state / unwritable).chmod(0o755 if unwritable == "." else 0o644)
    output = as_another(state, drops=True)
    assert output.startswith(f"refused: {state}")
    assert "ls -la" in output


def as_another(state: Path, *, drops: bool = False, before: tuple[str, ...] = ()) -> str:
    """Open the store in another process, optionally as another user or with a command prefix; return its output."""
    command = [*before, sys.executable, "-m", __name__, str(state), str(int(drops))]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout


async def test_files_are_private_regardless_of_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        async with open_store(tmp_path / "a" / "b") as store:
            await store.accept(task(1))
            store.mark_delivered(task(1).task_id)
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()}
    finally:
        os.umask(umask)
    assert modes == {NAME: 0o600, LOG: 0o600, "queen.marks": 0o600}
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o750


async def test_leftovers_of_killed_first_start_are_ignored(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.new").write_bytes(b"half")
    (tmp_path / ".queen.marks.new").write_bytes(b"half")
    await fill(tmp_path, 3)
    async with open_store(tmp_path) as store:
        assert len(await store.open_tasks()) == 3


async def test_long_integrity_check_is_abandoned_and_logged(tmp_path: Path, monkeypatch, caplog) -> None:
    await fill(tmp_path, 50)
    monkeypatch.setattr(opening, "CHECK_LIMIT_S", 0.0)
    monkeypatch.setattr(opening, "CHECK_STEPS", 1)
    async with open_store(tmp_path) as store:
        assert len(await store.open_tasks()) == 50
    assert "too large for an integrity check within 0 s" in caplog.text


async def test_exception_of_caller_passes_through(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012 -- the exception is raised inside
        async with open_store(tmp_path) as store:
            store.put_later("model", Document("kept", "{}"))
            raise KeyError("mine")
    async with open_store(tmp_path) as store:
        assert await store.get("model", "kept")


async def try_open(state: Path) -> None:
    try:
        async with open_store(state) as store:
            await store.ping()
            print("works")
    except StoreFailure as failure:
        print(f"refused: {failure}. {failure.hint}")


if __name__ == "__main__":
    if sys.argv[2] == "1":
        os.setgid(NOBODY_UID)
        os.setuid(NOBODY_UID)
    trio.run(try_open, Path(sys.argv[1]))
