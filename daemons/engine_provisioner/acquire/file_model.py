"""Models on disk: paths of `file:` references, permissions, file format and checksum."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from engine_provisioner import checksums
from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.spec.pool_spec import Model
from engine_provisioner.spec.reachability import UnixUser, current_user, find_obstacle

GGUF = b"GGUF"
FILES_LIMIT = 10_000

CheckFile = Callable[[Path], int]
"""Returns the size in bytes of a model that an engine can load. Blocks; raises ProvisioningFailure."""


def local_path(ref: str) -> Path:
    """Return the path of a file: reference, such as file:/a/b or file:///a/b. It is not percent-encoded."""
    rest = ref.removeprefix("file:")
    return Path("/" + rest.lstrip("/"))


def check_readable(path: Path, engine_user: UnixUser | None) -> None:
    """Raise ProvisioningFailure if permissions keep this daemon or `engine_user` from reading the model. Blocks."""
    for user in (current_user(), engine_user):
        if user and (found := find_obstacle(path, user)):
            hint = f"Run: {found.command}"
            raise ProvisioningFailure(f"cannot read the model {path}: {found}", hint, Retry.AFTER_FIX, [path])


def check_gguf(path: Path) -> int:
    """Return the size in bytes of the GGUF file at `path`. Blocks; raises ProvisioningFailure if it is not one."""
    try:
        with path.open("rb") as file:
            head, size = file.read(4), os.fstat(file.fileno()).st_size
    except IsADirectoryError as error:
        raise _failure(path, "is a directory", "Name the .gguf file in it.") from error
    except PermissionError as error:
        hint = "engine-provisioner and llama-engine need read permission, and search permission on all its directories."
        raise _failure(path, "is not readable", hint) from error
    except OSError as error:
        raise _failure(
            path, f"cannot be read ({error.strerror or error})", "Correct the key model, or provide the file."
        ) from error
    if head != GGUF:
        raise _failure(path, "is not a GGUF file", "llama.cpp serves GGUF files: convert it, or name another file.")
    return size


def check_any(path: Path) -> int:
    """Return the size in bytes of a model that may be a directory. Blocks; raises ProvisioningFailure."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(file.stat().st_size for file in islice(path.rglob("*"), FILES_LIMIT) if file.is_file())
    except OSError as error:
        hint = "Correct the key model, or provide the model."
        raise _failure(path, f"cannot be read ({error.strerror or error})", hint) from error


def verified(
    model: Model,
    name: str,
    path: Path,
    cache_dir: Path,
    on_block: checksums.OnBlock,
    check_file: CheckFile = check_gguf,
) -> LocalModel:
    """Verify the model at `path`. Blocks; raises ProvisioningFailure."""
    size = check_file(path)
    if model.checksum:
        try:
            checksums.verify(path, model.checksum, cache_dir, on_block)
        except OSError as error:
            raise _failure(path, f"cannot be read completely ({error.strerror or error})", "") from error
    return LocalModel(name, path, size, model.checksum)


def _failure(path: Path, message: str, hint: str) -> ProvisioningFailure:
    return ProvisioningFailure(f"the model {path} {message}", hint, Retry.AFTER_FIX, [path])
