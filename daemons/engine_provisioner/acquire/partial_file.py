"""A partial download on disk: hashed as it grows, and resumed after a restart."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from llama_orch.files import durable

BLOCK = 4 << 20


class WrongRange(Exception):
    """The server sent a different range than requested."""


class PartialFile:
    """The partial download of `target`, in a hidden file beside it.

    All methods but `resume_headers` and `close` block, and raise OSError.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.part")
        self._metadata = target.with_name(f".{target.name}.part.json")
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._validator: str | None = None
        self._url = ""
        self.size = 0
        """Bytes downloaded so far."""

    def open(self, url: str) -> None:
        """Continue the partial download of `url`, or begin a new one."""
        self._url = hashlib.sha256(url.encode()).hexdigest()  # a URL may hold secrets
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._validator = self._read_validator()
        if self._validator is None:
            self._path.unlink(missing_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, durable.GROUP_READABLE)
        self._file = os.fdopen(fd, "r+b")
        while block := self._file.read(BLOCK):
            self._hash.update(block)
            self.size += len(block)

    def resume_headers(self) -> dict[str, str]:
        """Return headers that request the rest, or the whole file if it has changed (RFC 9110, 13.1.5)."""
        headers = {"accept-encoding": "identity"}
        if self.size and self._validator:
            headers |= {"range": f"bytes={self.size}-", "if-range": self._validator}
        return headers

    def begin(self, partial: bool, headers: Mapping[str, str]) -> None:
        """Prepare for the response body: the rest if `partial`, else the whole file. Raises WrongRange."""
        match = re.fullmatch(r"bytes (\d+)-\d+/.*", headers.get("content-range", ""))
        if partial and not (match and int(match[1]) == self.size):
            raise WrongRange
        if not partial:
            self._truncate()
        validator = strong_validator(headers)
        if validator:
            self._metadata.write_text(json.dumps({"url": self._url, "validator": validator}))
        else:
            self._metadata.unlink(missing_ok=True)

    def append(self, block: bytes) -> None:
        self._opened().write(block)
        self._hash.update(block)
        self.size += len(block)

    def digest(self) -> str:
        """Return the checksum of the bytes so far, as sha256:…"""
        return f"sha256:{self._hash.hexdigest()}"

    def publish(self) -> None:
        """Rename the complete file to the target, durably."""
        file = self._opened()
        file.flush()
        os.fchmod(file.fileno(), durable.GROUP_READABLE)
        os.fsync(file.fileno())
        self._path.rename(self._target)
        self._metadata.unlink(missing_ok=True)
        durable.sync_directory(self._target.parent)

    def discard(self) -> None:
        """Delete the partial download."""
        self._path.unlink(missing_ok=True)
        self._metadata.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the bytes so far stay on disk."""
        if self._file:
            self._file.close()
            self._file = None

    def _truncate(self) -> None:
        self._opened().seek(0)
        self._opened().truncate()
        self._hash, self.size = hashlib.sha256(), 0

    def _opened(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    def _read_validator(self) -> str | None:
        try:
            content = json.loads(self._metadata.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("url") != self._url:
            return None
        validator = content.get("validator")
        return validator if isinstance(validator, str) else None


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """Return a value that identifies the file's version: a strong ETag, else Last-Modified."""
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified") or None
