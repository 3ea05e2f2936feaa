"""The part of a download that has come so far: on the disk, hashed as it grows, taken up again after a restart."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from llama_orch.files import durable

BLOCK = 4 << 20


class OutOfStep(Exception):
    """The server sent another part of the file than was asked for."""


class PartialFile:
    """Beside `target`, under a hidden name. All but `resume_headers` and `close` block; they raise OSError."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._validator: str | None = None
        self._url = ""
        self.size = 0
        """Bytes that are there."""

    def open(self, url: str) -> None:
        """Take up what an earlier try left of `url`, or begin anew."""
        self._url = hashlib.sha256(url.encode()).hexdigest()  # a URL may hold secrets
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._validator = self._noted()
        if self._validator is None:
            self._path.unlink(missing_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, durable.GROUP_READABLE)
        self._file = os.fdopen(fd, "r+b")
        while block := self._file.read(BLOCK):
            self._hash.update(block)
            self.size += len(block)

    def resume_headers(self) -> dict[str, str]:
        """What the request says to get the rest only, and the whole if it has changed (RFC 9110, 13.1.5)."""
        headers = {"accept-encoding": "identity"}
        if self.size and self._validator:
            headers |= {"range": f"bytes={self.size}-", "if-range": self._validator}
        return headers

    def begin(self, rest_only: bool, headers: Mapping[str, str]) -> None:
        """The answer has begun: the rest only, or the whole, so that what was there is dropped. Raises OutOfStep."""
        match = re.fullmatch(r"bytes (\d+)-\d+/.*", headers.get("content-range", ""))
        if rest_only and not (match and int(match[1]) == self.size):
            raise OutOfStep
        if not rest_only:
            self._truncate()
        validator = strong_validator(headers)
        if validator:
            self._note.write_text(json.dumps({"url": self._url, "validator": validator}))
        else:
            self._note.unlink(missing_ok=True)

    def append(self, block: bytes) -> None:
        """Store what has come."""
        self._opened().write(block)
        self._hash.update(block)
        self.size += len(block)

    def digest(self) -> str:
        """The checksum of what is there, as sha256:…"""
        return f"sha256:{self._hash.hexdigest()}"

    def publish(self) -> None:
        """Make it the target."""
        file = self._opened()
        file.flush()
        os.fchmod(file.fileno(), durable.GROUP_READABLE)
        os.fsync(file.fileno())
        self._path.rename(self._target)
        self._note.unlink(missing_ok=True)
        durable.sync_directory(self._target.parent)

    def discard(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; what has come stays on the disk."""
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

    def _noted(self) -> str | None:
        try:
            content = json.loads(self._note.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("url") != self._url:
            return None
        validator = content.get("validator")
        return validator if isinstance(validator, str) else None


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """What tells one version of the file from another: a strong ETag, else the date of its last change."""
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified") or None
