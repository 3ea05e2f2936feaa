"""Bounded reading of a GGUF header: every length is checked before it is used, and tensor data is never read."""

import struct
from pathlib import Path
from struct import Struct
from typing import BinaryIO

CHUNK = 1 << 20
HEADER_LIMIT = 256 << 20
"""Bytes of a header. Tokenizers of 262,144 tokens need about 20 MB."""
STRINGS_LIMIT = 4 << 20
"""Strings in arrays, all together: skipping that many takes less than a second."""

UINT32 = Struct("<I")
UINT64 = Struct("<Q")


class GgufError(Exception):
    """The file is not a GGUF file that can be read. The message says why, without the path."""


class Source:
    """The header in `file`, read in chunks. All methods block; they raise GgufError and OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, 2)
        file.seek(0)
        self._file = file
        self._limit = min(self.size, HEADER_LIMIT)
        self._strings_left = STRINGS_LIMIT
        self._data = b""
        self._at = 0
        self._base = 0

    @property
    def position(self) -> int:
        """Bytes from the begin of the file."""
        return self._base + self._at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        self._load(count)
        start, self._at = self._at, self._at + count
        return self._data[start : self._at]

    def uint32(self) -> int:
        value: int = UINT32.unpack(self.take(4))[0]
        return value

    def uint64(self) -> int:
        value: int = UINT64.unpack(self.take(8))[0]
        return value

    def text(self, limit: int, what: str) -> str:
        """Return a string of at most `limit` bytes; invalid UTF-8 is replaced."""
        length = self.uint64()
        if length > limit:
            raise GgufError(f"{what} has {length} bytes (at most {limit} are allowed)")
        return self.take(length).decode(errors="replace")

    def short_text(self, limit: int) -> str | None:
        """Return a string, or None if it is longer than `limit` bytes."""
        length = self.uint64()
        if length <= limit:
            return self.take(length).decode(errors="replace")
        self.skip(length)
        return None

    def skip(self, count: int) -> None:
        """Move over `count` bytes without keeping them."""
        if self._at + count <= len(self._data):
            self._at += count
            return
        self._check_left(count)
        self._base, self._at, self._data = self.position + count, 0, b""
        self._file.seek(self._base)

    def skip_strings(self, count: int) -> None:
        """Move over `count` strings. These are the longest part of a header: tokens and merges of the tokenizer."""
        if count > self._strings_left:
            raise GgufError(f"it has more than {STRINGS_LIMIT} strings in arrays")
        self._strings_left -= count
        unpack = UINT64.unpack_from
        while count:
            self._load(8)
            data, at, done = self._data, self._at, count
            try:  # 0.1 µs a string; with a comparison for each it would take twice as long
                for place in range(count):  # noqa: B007 -- tells where the error came
                    at += 8 + unpack(data, at)[0]
            except (struct.error, OverflowError):  # the next length is not in memory
                done = place
            count -= done
            self._at = min(at, len(data))
            self.skip(at - self._at)

    def _load(self, count: int) -> None:
        """Have the next `count` bytes in memory."""
        missing = self._at + count - len(self._data)
        if missing <= 0:
            return
        self._check_left(count)
        end = self._base + len(self._data)
        more = self._file.read(min(max(missing, CHUNK), self._limit - end))
        self._base, self._data, self._at = self.position, self._data[self._at :] + more, 0
        if len(self._data) < count:
            raise GgufError("it became shorter while it was read")

    def _check_left(self, count: int) -> None:
        left = self._limit - self.position
        if count <= left:
            return
        if self._limit < self.size:
            raise GgufError(f"its header has more than {HEADER_LIMIT} bytes")
        raise GgufError(f"it ends in its header: {count - left} bytes are missing")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, without waiting for the writer of a FIFO. Blocks; raises GgufError and OSError."""
    path.stat()  # raises for a missing file
    if not path.is_file():
        raise GgufError("it is not a regular file")
    return path.open("rb", buffering=0)
