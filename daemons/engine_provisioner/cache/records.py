"""Records of the models on disk: what was fetched from where, and how it is used."""

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from engine_provisioner.sources.model_records import ModelRecord


@dataclass(frozen=True)
class CachedModel:
    """A model on disk. `key` is that of its reference, `record.ref` the reference without secrets.

    `owned` files were downloaded, and may be removed to make room; others belong to the user. `blobs` are the owned
    files by device and inode, with their bytes: models may share them. `recorded` is false for a model that was found
    on disk without a record; its `used_at` is when its file was last changed.
    """

    key: str
    record: ModelRecord
    used_at: datetime
    pinned: bool = False
    recorded: bool = True
    owned: bool = True
    blobs: Mapping[Hashable, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.record.files)


@dataclass(frozen=True)
class ModelUse:
    """The use of a model by a pool. `path` is where the model is, if that is known without its record."""

    pool_id: str
    ref: str
    path: Path | None = None


def key_of(ref: str) -> str:
    """Return the name of the record of `ref`. It does not reveal secrets that a URL may hold."""
    return hashlib.sha256(ref.encode()).hexdigest()
