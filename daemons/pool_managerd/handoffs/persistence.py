"""The pools that are known, kept across a restart: one file, replaced as a whole.

Owns pools.json in the daemon's state directory.
"""

import contextlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import trio
from pydantic import Field

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.handoff import Handoff
from llama_orch.spool import HandoffFile, Identity
from llama_orch.spool.handoffs import decode
from llama_orch.telemetry.events.pools import POOLS_STATE_NOT_SAVED, POOLS_STATE_SET_ASIDE
from llama_orch.telemetry.records import emit

FILE = "pools.json"

Signature = tuple[int, int, int] | None
"""Inode, time of change and size of a file; None where there is none."""


class SavedFile(Outbound):
    """The identity of the handoff file that a pool came in."""

    name: str
    inode: int
    mtime_ns: int
    sha256: str


class SavedReplica(Outbound):
    """One engine, as it was announced."""

    handoff: Handoff
    file: SavedFile


class SavedPools(Outbound):
    """pools.json."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    replicas: list[SavedReplica]


def encode(known: Iterable[HandoffFile]) -> bytes:
    """pools.json for what is `known`."""
    replicas = [
        SavedReplica(
            handoff=found.handoff,
            file=SavedFile(
                name=found.identity.name.encode("utf-8", "replace").decode(),
                inode=found.identity.inode,
                mtime_ns=found.identity.mtime_ns,
                sha256=found.identity.sha256,
            ),
        )
        for found in known
    ]
    return SavedPools(replicas=replicas).model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()


def decode_saved(content: bytes) -> tuple[HandoffFile, ...]:
    """What pools.json holds. Raises ValueError that says what is wrong with it."""
    saved = decode(content, SavedPools)
    return tuple(HandoffFile(item.handoff, Identity(**item.file.model_dump())) for item in saved.replicas)


class Store:
    """pools.json in `directory`, which is made when something is to be saved."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._written: Signature = None
        self._changed = trio.Event()
        self.trouble: str | None = None
        """Why the pools cannot be saved, as of the last try."""

    def load(self) -> tuple[HandoffFile, ...]:
        """What was saved last. A file that cannot be used is set aside and the log says so; nothing is raised."""
        try:
            saved = decode_saved(self._path.read_bytes())
            self._written = self._signature()
            return saved
        except FileNotFoundError:
            return ()
        except (ValueError, OSError) as error:
            emit(POOLS_STATE_SET_ASIDE, reason=f"{self._path}: {error}", moved_to=self._set_aside())
            return ()

    def _set_aside(self) -> str:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self._path.with_name(f"{FILE}.damaged-{stamp}")
        try:
            self._path.rename(aside)
        except OSError as error:
            return f"nowhere ({error.strerror or error})"
        return str(aside)

    async def save(self, known: Iterable[HandoffFile]) -> bool:
        """Replace the file, in a thread; whether that worked. The log says once when it does not."""
        try:
            await trio.to_thread.run_sync(self._replace, encode(known))
        except OSError as error:
            reason = error.strerror or str(error)
            trouble = f"the pools cannot be saved in {self._path}: {reason}"
            if trouble != self.trouble:
                emit(POOLS_STATE_NOT_SAVED, file=self._path, reason=reason)
            self._say(trouble)
            return False
        self._say(None)
        return True

    def _say(self, trouble: str | None) -> None:
        self.trouble = trouble
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changed(self, shown: str | None) -> None:
        """Return when `trouble` is another than `shown`."""
        while self.trouble == shown:
            await self._changed.wait()

    async def lost(self) -> bool:
        """Whether a file that this process has loaded or saved is gone or was replaced by another."""
        return self._written is not None and await trio.to_thread.run_sync(self._signature) != self._written

    def _signature(self) -> Signature:
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _replace(self, content: bytes) -> None:
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        draft = self._path.with_name(f".{FILE}.tmp")
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            self._written = self._signature()
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
