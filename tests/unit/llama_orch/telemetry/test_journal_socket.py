"""Entries over a real datagram socket, in the journal's native protocol."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_orch.telemetry.journal_socket import JournalSocket

LARGE = "long line " * 100_000


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """The receiving end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def journal(journald: socket.socket) -> Iterator[JournalSocket]:
    sending = JournalSocket(Path(journald.getsockname()))
    yield sending
    sending.close()


def test_each_field_is_a_line(journal: JournalSocket, journald: socket.socket) -> None:
    journal.send("task ended", PRIORITY="6", CODE_LINE=7)
    assert journald.recv(4096) == b"MESSAGE=task ended\nPRIORITY=6\nCODE_LINE=7\n"


def test_a_value_cannot_smuggle_in_a_field(journal: JournalSocket, journald: socket.socket) -> None:
    journal.send("one\nPRIORITY=0", POOL="a")
    assert journald.recv(4096) == b"MESSAGE\n" + (14).to_bytes(8, "little") + b"one\nPRIORITY=0\nPOOL=a\n"


def test_text_that_is_not_unicode_is_escaped(journal: JournalSocket, journald: socket.socket) -> None:
    journal.send(os.fsdecode(b"\xff"))
    assert journald.recv(4096) == b"MESSAGE=\\udcff\n"


def test_large_entry_is_sent_as_sealed_file(journal: JournalSocket, journald: socket.socket) -> None:
    journal.send(LARGE)
    data, files, _flags, _sender = socket.recv_fds(journald, 4096, 1)
    assert data == b""
    with open(files[0], "rb") as entry:
        entry.seek(0)
        assert entry.read() == f"MESSAGE={LARGE}\n".encode()
        with pytest.raises(PermissionError):
            os.ftruncate(os.open(f"/proc/self/fd/{files[0]}", os.O_RDWR), 0)


def test_missing_journal_is_an_error(tmp_path: Path) -> None:
    journal = JournalSocket(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        journal.send("lost")
    journal.close()
