"""The files of clients and batches, in one directory within a quota.

A file is two files: its contents, and a document beside it that is written last, so that whatever has no document is
what an interrupted upload left. All functions block: call them in a thread.
"""

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

from llama_orch.contracts.batches import FileObject
from llama_orch.files import durable

DAY_S = 86_400
FILE_LIMIT = 200 << 20
"""Bytes of one file, as OpenAI's."""
FILES_LIMIT = 10_000
NAME_LIMIT = 255
PURPOSE = Literal["batch", "batch_output"]
PRIVATE = 0o600


class QuotaExceeded(Exception):
    """The files would take more than the quota."""


@dataclass
class Draft:
    """A file that is being written. Nobody sees it before `Files.keep`."""

    id: str
    path: Path
    size: int = 0


class Files:
    """Owns `directory`. `quota` is in bytes, `keep_s` the age in seconds at which a file is erased."""

    def __init__(self, directory: Path, quota: int, keep_s: float) -> None:
        self.directory = directory
        self.quota = quota
        self.keep_s = keep_s
        self._known: dict[str, FileObject] = {}
        self._drafts: dict[str, Draft] = {}

    def load(self) -> None:
        """Read what is there. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for document in self.directory.glob("file-*.json"):
            try:
                known = FileObject.model_validate_json(document.read_bytes())
            except ValueError:
                continue  # damaged: its contents are removed below
            if known.id == document.stem and self.path(known.id).exists():
                self._known[known.id] = known

    def remove_leftovers(self, wanted: set[str]) -> None:
        """Remove contents without a document, except those of the drafts with the ids `wanted`. Raises OSError."""
        for path in self.directory.iterdir():
            if path.name.split(".")[0] not in self._known.keys() | wanted:
                path.unlink(missing_ok=True)

    def path(self, file_id: str) -> Path:
        """Return where the contents of a file or draft are."""
        return self.directory / file_id

    def open(self, file_id: str) -> BufferedReader:
        """Open the contents of a file to read them. Raises OSError."""
        return self.path(file_id).open("rb")

    @property
    def used(self) -> int:
        """Bytes of all files and drafts."""
        return sum(known.bytes for known in self._known.values()) + sum(draft.size for draft in self._drafts.values())

    def draft(self, file_id: str | None = None) -> Draft:
        """Begin a file, or go on with the draft `file_id`. Raises OSError, QuotaExceeded."""
        if len(self._known) + len(self._drafts) >= FILES_LIMIT:
            raise QuotaExceeded(f"there are {FILES_LIMIT} files, the most that are kept")
        file_id = file_id or new_id()
        path = self.path(file_id)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE))
        draft = self._drafts[file_id] = Draft(file_id, path, path.stat().st_size)
        return draft

    def append(self, draft: Draft, data: bytes, *, sync: bool = False) -> None:
        """Append to a draft. Raises OSError, QuotaExceeded."""
        if self.used + len(data) > self.quota:
            raise QuotaExceeded(f"the files would take more than {self.quota >> 20} MiB together")
        with draft.path.open("ab", buffering=0) as file:
            file.write(data)
            if sync:
                os.fsync(file.fileno())
        draft.size += len(data)

    def cut(self, draft: Draft, size: int) -> None:
        """Shorten a draft to `size` bytes. Raises OSError."""
        os.truncate(draft.path, size)
        draft.size = size

    def keep(self, draft: Draft, filename: str, purpose: PURPOSE) -> FileObject:
        """Make a draft a file. Raises OSError."""
        with draft.path.open("rb") as file:
            os.fsync(file.fileno())
        now = int(time.time())
        kept = FileObject(
            id=draft.id,
            bytes=draft.size,
            created_at=now,
            expires_at=now + int(self.keep_s),
            filename=filename[:NAME_LIMIT],
            purpose=purpose,
        )
        durable.replace(self.path(f"{draft.id}.json"), kept.model_dump_json().encode(), PRIVATE)
        self._known[kept.id] = kept
        self._drafts.pop(draft.id, None)
        return kept

    def drop(self, draft: Draft) -> None:
        """Remove a draft. Raises OSError."""
        self._drafts.pop(draft.id, None)
        draft.path.unlink(missing_ok=True)

    def get(self, file_id: str) -> FileObject | None:
        return self._known.get(file_id)

    def newest_first(self) -> list[FileObject]:
        return sorted(self._known.values(), key=lambda known: (known.created_at, known.id), reverse=True)

    def delete(self, file_id: str) -> bool:
        """Return whether there was such a file. Raises OSError."""
        if self._known.pop(file_id, None) is None:
            return False
        self.path(f"{file_id}.json").unlink(missing_ok=True)
        self.path(file_id).unlink(missing_ok=True)
        return True

    def expired(self, now: float) -> Iterator[str]:
        """Yield the ids of the files that are too old at `now`, in seconds since the epoch."""
        for known in list(self._known.values()):
            if known.created_at + self.keep_s <= now:
                yield known.id


def new_id() -> str:
    return f"file-{secrets.token_hex(16)}"
