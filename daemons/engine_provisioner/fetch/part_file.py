"""A partial download on disk: any parts of a file, kept across breaks, `kill -9` and power cuts.

Owns three hidden files beside the target, and the target's directory while it is empty:

- `.NAME.part`: the bytes.
- `.NAME.part.json`: what it is, and the spans that were on the disk (fdatasync) before this file was written. It is
  replaced every CHECKPOINT bytes, and survives a power cut.
- `.NAME.part.recent`: the spans that were written since the machine booted. It costs no fsync, and is believed only
  during the same boot, in which the kernel still has what a killed process wrote.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine_provisioner.fetch.spans import Spans, merged
from llama_orch.files import durable

BLOCK = 4 << 20
CHECKPOINT = 64 << 20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RECENT_LIMIT = 64
"""Spans in a `.recent` file, so that it is one page and written at once. More than a few are rare."""


@dataclass(frozen=True)
class FileVersion:
    """The version of the file that the bytes belong to. `ranges`: the server has answered 206."""

    identity: str
    validator: str | None
    size: int | None
    ranges: bool


class PartFile:
    """The partial download of `target`. All methods block, and raise OSError."""

    def __init__(self, target: Path, identity: str, keep: Path) -> None:
        self._target = target
        self._keep = keep
        self._verified = identity.startswith("sha256:")
        self._identity = hashlib.sha256(identity.encode()).hexdigest()  # a URL may hold secrets
        self._path = target.with_name(f".{target.name}.part")
        self._state = target.with_name(f".{target.name}.part.json")
        self._recent = target.with_name(f".{target.name}.part.recent")
        self._boot = _boot_id()
        self._fd = self._recent_fd = -1
        self._hash = hashlib.sha256()
        self.hashed = 0
        """How many bytes from the beginning are hashed."""
        self.version: FileVersion | None = None
        """None: nothing is there that could be continued."""

    def open(self) -> Spans:
        """Return the spans that are on disk from earlier attempts; without any, begin a new file."""
        self._target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, durable.GROUP_READABLE)
        self._recent_fd = os.open(self._recent, flags, durable.GROUP_READABLE)
        self.version, done = self._read_state()
        if self.version is None:
            self.restart()
        return done

    def restart(self) -> None:
        """Forget everything that was downloaded."""
        self._state.unlink(missing_ok=True)
        os.truncate(self._recent_fd, 0)
        os.truncate(self._fd, 0)
        self.version, self._hash, self.hashed = None, hashlib.sha256(), 0

    def begin(self, validator: str | None, size: int | None, ranges: bool, done: Spans) -> None:
        """Set the version of the file, of which `done` is there."""
        self.version = FileVersion(self._identity, validator, size, ranges)
        self.checkpoint(done)

    def write(self, offset: int, data: bytes, done: Spans) -> None:
        """Write `data`, then claim it and `done`, spans whose writes have returned."""
        done = merged((*done, (offset, offset + len(data))))
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count
        if self.version and self._lasts:
            claim = {"boot": self._boot, "version": asdict(self.version), "done": done[:RECENT_LIMIT]}
            os.pwrite(self._recent_fd, json.dumps(claim).encode() + b"\n", 0)

    def checkpoint(self, done: Spans) -> None:
        """Make `done`, spans whose writes have returned, survive a power cut."""
        if self.version is None or not self._lasts:
            return
        os.fdatasync(self._fd)
        durable.replace(self._state, json.dumps({"version": asdict(self.version), "done": done}).encode())

    def hash_block(self, end: int) -> None:
        """Hash up to BLOCK bytes more, at most to `end`: bytes that were just written, and so are still in memory."""
        block = os.pread(self._fd, min(BLOCK, end - self.hashed), self.hashed)
        if not block:
            raise OSError(f"{self._path} has become shorter")
        self._hash.update(block)
        self.hashed += len(block)

    def digest(self) -> str:
        """Return the SHA-256 of the hashed bytes as hex digits."""
        return self._hash.hexdigest()

    @property
    def path(self) -> Path:
        """The file with the bytes so far."""
        return self._path

    def publish(self) -> None:
        """Rename the complete file to the target, durably."""
        os.fchmod(self._fd, durable.GROUP_READABLE)
        os.fsync(self._fd)
        self._path.rename(self._target)
        self._state.unlink(missing_ok=True)
        self._recent.unlink(missing_ok=True)
        durable.sync_directory(self._target.parent)

    def discard(self) -> None:
        """Delete the partial download and the directories that are empty without it."""
        for path in (self._path, self._state, self._recent):
            path.unlink(missing_ok=True)
        for directory in self._target.parents:
            if directory == self._keep or not directory.is_relative_to(self._keep):
                return
            with contextlib.suppress(OSError):
                directory.rmdir()

    def close(self) -> None:
        """Close the files; the bytes so far stay on disk."""
        for fd in (self._fd, self._recent_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._recent_fd = -1

    @property
    def _lasts(self) -> bool:
        """Whether a later attempt can know that the bytes belong to the file that it gets then."""
        return self._verified or (self.version is not None and self.version.validator is not None)

    def _read_state(self) -> tuple[FileVersion | None, Spans]:
        state, recent = _read(self._state), _read(self._recent)
        version = _version(state)
        if version is None or version.identity != self._identity:
            return None, ()
        done = _spans(state)
        if self._boot and recent.get("boot") == self._boot and _version(recent) == version:
            done = merged((*done, *_spans(recent)))
        there = os.fstat(self._fd).st_size
        return version, merged((start, min(end, there)) for start, end in done)


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    """Return the object in the first line of `path`; a shorter claim may have overwritten a longer one."""
    try:
        found = json.loads(path.read_bytes().partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _version(state: dict[str, Any]) -> FileVersion | None:
    try:
        return FileVersion(**state["version"])
    except (KeyError, TypeError):
        return None


def _spans(state: dict[str, Any]) -> Spans:
    try:
        return merged((max(0, int(start)), int(end)) for start, end in state["done"])
    except (KeyError, TypeError, ValueError):
        return ()
