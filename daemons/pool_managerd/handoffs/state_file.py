"""pools.json: the known pools, saved across restarts.

Owns pools.json in the daemon's state directory. The file is replaced as a whole.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import trio
from pydantic import Field

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.handoff import Handoff
from llama_orch.files import durable
from llama_orch.spool import HandoffFile, Identity
from llama_orch.spool.handoffs import decode
from llama_orch.telemetry.events.pools import POOLS_STATE_NOT_SAVED, POOLS_STATE_SET_ASIDE
from llama_orch.telemetry.records import emit

FILE = "pools.json"

Signature = tuple[int, int, int] | None
"""Inode, modification time and size of a file; None if it does not exist."""


class SavedFile(Outbound):
    """The identity of the handoff file that announced an engine."""

    name: str
    inode: int
    mtime_ns: int
    sha256: str


class SavedReplica(Outbound):
    """One engine as announced."""

    handoff: Handoff
    file: SavedFile


class SavedPools(Outbound):
    """pools.json."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    replicas: list[SavedReplica]


def encode(known: Iterable[HandoffFile]) -> bytes:
    """Return the content of pools.json."""
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
    """Parse pools.json. Raises ValueError that names the problem."""
    saved = decode(content, SavedPools)
    return tuple(HandoffFile(item.handoff, Identity(**item.file.model_dump())) for item in saved.replicas)


class StateFile:
    """pools.json in `directory`, which is created on the first save."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._written: Signature = None
        self._changed = trio.Event()
        self.trouble: str | None = None
        """Why the last save failed, if it did."""

    def load(self) -> tuple[HandoffFile, ...]:
        """Return what was saved last. An unusable file is renamed and logged. Blocks; never raises."""
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
        """Replace the file, in a thread. Returns whether that worked; a failure is logged once."""
        try:
            await trio.to_thread.run_sync(self._replace, encode(known))
        except OSError as error:
            reason = error.strerror or str(error)
            trouble = f"the pools cannot be saved in {self._path}: {reason}"
            if trouble != self.trouble:
                emit(POOLS_STATE_NOT_SAVED, file=self._path, reason=reason)
            self._set_trouble(trouble)
            return False
        self._set_trouble(None)
        return True

    def _set_trouble(self, trouble: str | None) -> None:
        self.trouble = trouble
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changed(self, shown: str | None) -> None:
        """Return when `trouble` differs from `shown`."""
        while self.trouble == shown:
            await self._changed.wait()

    async def lost(self) -> bool:
        """Whether the file that this process has loaded or saved was removed or replaced by somebody else."""
        return self._written is not None and await trio.to_thread.run_sync(self._signature) != self._written

    def _signature(self) -> Signature:
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _replace(self, content: bytes) -> None:
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        durable.replace(self._path, content)
        self._written = self._signature()
