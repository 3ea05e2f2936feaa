"""Remove the files of a model, and what is empty afterwards. Blocks."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from engine_provisioner.cache.on_disk import CacheDirectories
from engine_provisioner.cache.records import CachedModel


def remove_files(model: CachedModel, others: Iterable[CachedModel], directories: CacheDirectories) -> int:
    """Remove the files of `model` that none of `others` has; return the bytes freed. Raises OSError.

    A blob of the hub's layout goes with the last link to it, and a snapshot with its last file.
    """
    shared = {file.path for other in others for file in other.record.files}
    freed = 0
    for file in model.record.files:
        if file.path not in shared:
            repository = directories.repository_of(file.path)
            freed += _remove_link(file.path, repository) if repository else _remove(file.path)
            _remove_empty(file.path.parent, model, directories)
    for repository in {directories.repository_of(file.path) for file in model.record.files} - {None}:
        if repository is not None:
            _tidy(repository)
    return freed


def _remove(path: Path) -> int:
    try:
        size = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _remove_link(path: Path, repository: Path) -> int:
    """Remove a file of a snapshot, and its blob if no other file of a snapshot is a link to it."""
    if not path.is_symlink():
        return _remove(path)
    blob = path.parent / path.readlink()
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        blob = blob.resolve()
    if not blob.is_relative_to((repository / "blobs").resolve()) or _is_linked(blob, repository):
        return 0
    return _remove(blob)


def _is_linked(blob: Path, repository: Path) -> bool:
    links = (path for path in (repository / "snapshots").rglob("*") if path.is_symlink())
    return any((link.parent / link.readlink()).resolve() == blob for link in links)


def _remove_empty(directory: Path, model: CachedModel, directories: CacheDirectories) -> None:
    """Remove `directory` and those around it, as far as they are empty and belong to the cache or to the download."""
    while directories.contains(directory) and directory not in (directories.downloads, directories.hub):
        with contextlib.suppress(OSError):  # it is not empty
            directory.rmdir()
        directory = directory.parent
    if not directories.contains(model.record.files[0].path):
        with contextlib.suppress(OSError):
            model.record.files[0].path.parent.rmdir()


def _tidy(repository: Path) -> None:
    """Remove what a repository of the hub keeps beside its files, once no snapshot and no blob is left."""
    left = [path for name in ("snapshots", "blobs") for path in (repository / name).rglob("*") if not path.is_dir()]
    if not left:
        shutil.rmtree(repository, ignore_errors=True)
