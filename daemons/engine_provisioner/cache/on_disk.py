"""Models in the cache's own directories, also those without a record.

- `models/KEY/NAME`, where KEY is a digest: files from https:;
- `huggingface/hub/models--ORG--NAME/{refs,blobs,snapshots}`, the layout of the Hugging Face hub: the files of a
  snapshot are links to blobs, which several snapshots may share.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from engine_provisioner.cache.records import CachedModel, key_of
from engine_provisioner.fetch.remote_file import Role
from engine_provisioner.sources.model_records import ModelRecord, StoredFile

ENTRIES_LIMIT = 20_000
"""Entries of a directory that are looked at."""
DEPTH_LIMIT = 6
REPOSITORY = re.compile(r"models--(?P<organization>[^/]{1,128}?)--(?P<name>[^/]{1,128})")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
BLOB_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CacheDirectories:
    """The directories of the cache in `root`."""

    root: Path

    @property
    def index(self) -> Path:
        return self.root / "index"

    @property
    def downloads(self) -> Path:
        return self.root / "models"

    @property
    def hub(self) -> Path:
        return self.root / "huggingface" / "hub"

    def contains(self, path: Path) -> bool:
        """Whether `path` is in a directory that holds nothing but downloaded models."""
        return path.is_relative_to(self.downloads) or path.is_relative_to(self.hub)

    def repository_of(self, path: Path) -> Path | None:
        """Return the directory models--ORG--NAME that `path` is in, or None."""
        if not path.is_relative_to(self.hub) or path == self.hub:
            return None
        return self.hub / path.relative_to(self.hub).parts[0]


def found_models(directories: CacheDirectories) -> Iterator[CachedModel]:
    """Yield every model in the directories of the cache, as if it had no record. Blocks; skips what it cannot read."""
    for directory in _entries(directories.downloads):
        for path in _entries(directory):
            yield from _model(f"file:{path}", None, [path])
    for repository in _entries(directories.hub):
        match = REPOSITORY.fullmatch(repository.name)
        if match is None:
            continue
        snapshots = list(_entries(repository / "snapshots"))
        for snapshot in snapshots:
            ref = f"hf:{match['organization']}/{match['name']}"
            if len(snapshots) > 1:
                ref = f"{ref}@{snapshot.name}"
            yield from _model(ref, snapshot.name, [path for path in _files(snapshot) if path.suffix == ".gguf"])


def without(model: CachedModel, paths: set[Path]) -> CachedModel | None:
    """Return `model` without the files in `paths`, which belong to a record; None if nothing is left."""
    files = tuple(file for file in model.record.files if file.path not in paths)
    return replace(model, record=replace(model.record, files=files)) if files else None


def blobs_of(files: tuple[StoredFile, ...]) -> dict[object, int]:
    """Return device and inode of each file that exists, with its bytes. Blocks."""
    blobs: dict[object, int] = {}
    for file in files:
        try:
            found = file.path.stat()
        except OSError:
            continue
        blobs[found.st_dev, found.st_ino] = found.st_size
    return blobs


def _model(ref: str, revision: str | None, paths: list[Path]) -> Iterator[CachedModel]:
    files = [(path, found) for path in sorted(paths, key=_loaded_first) if (found := _status(path)) is not None]
    if not files:
        return
    changed = datetime.fromtimestamp(max(found.st_mtime for _path, found in files), UTC)
    stored = tuple(StoredFile(path, found.st_size, _digest(path), role_of(path)) for path, found in files)
    yield CachedModel(key_of(ref), ModelRecord(ref, revision, stored, changed), changed, recorded=False)


def role_of(path: Path) -> Role:
    """Return the role of a file of a model, by its name."""
    if path.name.startswith("mmproj"):
        return "mmproj"
    match = SHARD.search(path.name)
    if match and int(match[1]) > 1:
        return "shard"
    return "model" if path.suffix == ".gguf" else "template" if path.suffix == ".jinja" else "model"


def _loaded_first(path: Path) -> tuple[bool, str]:
    return role_of(path) != "model", path.name


def _digest(path: Path) -> str | None:
    """Return the digest that the name of the blob states: that of a file in Git LFS is its SHA-256."""
    if not path.is_symlink():
        return None
    name = os.path.basename(os.readlink(path))
    return f"sha256:{name}" if BLOB_DIGEST.fullmatch(name) else None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat() if path.is_file() else None
    except OSError:
        return None


def _files(directory: Path, depth: int = 0) -> Iterator[Path]:
    for path in _entries(directory):
        if path.is_dir() and not path.is_symlink():
            if depth < DEPTH_LIMIT:
                yield from _files(path, depth + 1)
        else:
            yield path


def _entries(directory: Path) -> Iterator[Path]:
    """Yield the entries that are not hidden, sorted; none if `directory` cannot be read."""
    try:
        names = sorted(islice((entry.name for entry in os.scandir(directory)), ENTRIES_LIMIT))
    except OSError:
        return
    yield from (directory / name for name in names if not name.startswith("."))
