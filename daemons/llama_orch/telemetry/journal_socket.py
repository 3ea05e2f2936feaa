"""Sending entries to the journal by its native protocol, as systemd's JOURNAL_NATIVE_PROTOCOL describes it.

An entry is a datagram of fields. One that is too large for that goes into a sealed memory file, and its descriptor is
sent instead.
"""

import array
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

JOURNAL = Path("/run/systemd/journal/socket")
TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournalSocket:
    """A socket for entries. Owns it until the process ends; threads may share it."""

    def __init__(self, path: Path = JOURNAL) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, message: str, **fields: str | int) -> None:
        """Send one entry. The names are upper-case letters, digits and underscores. Raises OSError."""
        entry = b"".join(_encoded({"MESSAGE": message, **fields}))
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in TOO_LARGE:
                raise
            self._send_as_file(entry)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send_as_file(self, entry: bytes) -> None:
        file = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(file, "wb", closefd=False) as out:
                out.write(entry)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(file)


def _encoded(fields: dict[str, str | int]) -> Iterator[bytes]:
    """Yield NAME=value lines; a value of several lines has its length, 64 bits little-endian, before it."""
    for name, value in fields.items():
        text = str(value).encode(errors="backslashreplace")
        if b"\n" in text:
            yield b"%b\n%b%b\n" % (name.encode(), len(text).to_bytes(8, "little"), text)
        else:
            yield b"%b=%b\n" % (name.encode(), text)
