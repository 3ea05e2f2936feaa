"""The records on disk: `index/KEY.json` in the cache directory, one for each model.

Each file is replaced atomically. A damaged record is removed: its model is then found on disk, without its reference.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from engine_provisioner.cache.records import CachedModel
from engine_provisioner.fetch.remote_file import Role
from engine_provisioner.sources.model_records import ModelRecord, StoredFile
from llama_orch.files import durable

log = logging.getLogger(__name__)

RECORDS_LIMIT = 10_000
RECORD_BYTES = 1 << 20
FILES_LIMIT = 1000
KEY_LENGTH = 64

Absolute = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=4096)]


class FileDocument(BaseModel):
    """One file in a record."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    path: Absolute
    size_bytes: Annotated[int, Field(ge=0)]
    digest: Annotated[str, StringConstraints(max_length=256)] | None = None
    role: Role = "model"


class RecordDocument(BaseModel):
    """The content of a record's file."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    ref: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    revision: Annotated[str, StringConstraints(max_length=4096)] | None = None
    files: Annotated[list[FileDocument], Field(min_length=1, max_length=FILES_LIMIT)]
    fetched_at: datetime
    used_at: datetime
    pinned: bool = False


class Index:
    """The records in `directory`. All methods block; they raise OSError unless noted otherwise."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> Iterator[CachedModel]:
        """Yield each record, without looking at its files. Removes damaged ones; raises nothing."""
        try:
            paths = sorted(islice(self._directory.glob("*.json"), RECORDS_LIMIT))
        except OSError as error:
            log.warning("cannot read the records of models in %s: %s", self._directory, error.strerror or error)
            return
        for path in paths:
            if path.name.startswith(".") or len(path.stem) != KEY_LENGTH:
                continue
            try:
                yield _parse(path.stem, _read(path))
            except FileNotFoundError:
                continue  # removed meanwhile
            except (OSError, ValueError) as error:
                reason = "it is not a record" if isinstance(error, ValidationError) else error
                log.warning("the record %s is dropped: %s; its model stays on disk", path, reason)
                _discard(path)

    def write(self, model: CachedModel) -> None:
        """Create or replace the record of `model`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        record = model.record
        files = [
            FileDocument(path=str(file.path), size_bytes=file.size_bytes, digest=file.digest, role=file.role)
            for file in record.files
        ]
        document = RecordDocument(
            ref=record.ref,
            revision=record.revision,
            files=files,
            fetched_at=record.fetched_at,
            used_at=model.used_at,
            pinned=model.pinned,
        )
        durable.replace(self._path(model.key), document.model_dump_json(indent=1).encode() + b"\n")

    def remove(self, key: str) -> None:
        """Remove a record, if there is one."""
        self._path(key).unlink(missing_ok=True)
        if self._directory.exists():
            durable.sync_directory(self._directory)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(RECORD_BYTES + 1)
    if len(content) > RECORD_BYTES:
        raise ValueError(f"it has more than {RECORD_BYTES} bytes")
    return content


def _parse(key: str, content: bytes) -> CachedModel:
    """Raises ValidationError."""
    document = RecordDocument.model_validate_json(content)
    files = tuple(StoredFile(Path(each.path), each.size_bytes, each.digest, each.role) for each in document.files)
    record = ModelRecord(document.ref, document.revision, files, _aware(document.fetched_at))
    return CachedModel(key, record, _aware(document.used_at), document.pinned)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error.strerror or error)
