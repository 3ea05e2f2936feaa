"""Models that are files on this machine: `file:/absolute/path.gguf`, which is not percent-encoded."""

import os
from itertools import islice
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.gguf.reader import MAGIC
from engine_provisioner.sources.source import ModelRequest, Source, SourceContext, Stored, StoredPart
from llama_orch.files.reachability import UnixUser, current_user, find_obstacle

FILES_LIMIT = 10_000


def local_path(ref: str) -> Path:
    """Return the path of a file: reference, such as file:/a/b or file:///a/b."""
    return Path("/" + ref.removeprefix("file:").lstrip("/"))


def check(ref: str) -> None:
    """Raise ValueError unless `ref` is an absolute path."""
    if not ref.startswith("file:/"):
        raise ValueError("must be an absolute path, as in file:/srv/models/model.gguf")


def stored(request: ModelRequest, _context: SourceContext) -> Stored:
    """Return the file, whether it is there or not."""
    return Stored(None, (StoredPart(local_path(request.ref), sha256=request.sha256),))


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
        raise unusable(path, "is a directory", "Name the .gguf file in it.") from error
    except PermissionError as error:
        hint = "engine-provisioner and llama-engine need read permission, and search permission on all its directories."
        raise unusable(path, "is not readable", hint) from error
    except OSError as error:
        hint = "Correct the key model, or provide the file."
        raise unusable(path, f"cannot be read ({error.strerror or error})", hint) from error
    if head != MAGIC:
        raise unusable(path, "is not a GGUF file", "llama.cpp serves GGUF files: convert it, or name another file.")
    return size


def unusable(path: Path, message: str, hint: str) -> ProvisioningFailure:
    """Return the failure of a model on disk."""
    return ProvisioningFailure(f"the model {path} {message}", hint, Retry.AFTER_FIX, [path])


def check_any(path: Path) -> int:
    """Return the size in bytes of a model that may be a directory. Blocks; raises ProvisioningFailure."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(file.stat().st_size for file in islice(path.rglob("*"), FILES_LIMIT) if file.is_file())
    except OSError as error:
        hint = "Correct the key model, or provide the model."
        raise unusable(path, f"cannot be read ({error.strerror or error})", hint) from error


SOURCE = Source(("file:",), "file:/", check, stored, None)
