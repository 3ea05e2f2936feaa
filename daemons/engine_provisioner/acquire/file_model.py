"""What every model on the disk must be, and models that are there already (`file:`)."""

import os
from pathlib import Path

from engine_provisioner import checksums
from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.spec.pool_spec import Model
from engine_provisioner.spec.reachability import Reader, myself, obstacle

GGUF = b"GGUF"


def local_path(ref: str) -> Path:
    """The path that a file: reference names: file:/a/b, file:///a/b; nothing in it is encoded."""
    rest = ref.removeprefix("file:")
    return Path("/" + rest.lstrip("/"))


def check_readable(path: Path, engine_user: Reader | None) -> None:
    """Raise ProvisioningFailure where a directory on the way to the model, or its mode, keeps this daemon or the
    engine's user from reading it. Blocks."""
    for reader in (myself(), engine_user):
        if reader and (found := obstacle(path, reader)):
            hint = f"Run: {found.command}"
            raise ProvisioningFailure(f"the model {path} cannot be read: {found}", hint, Retry.MENDING, [path])


def check_gguf(path: Path) -> int:
    """The size in bytes of the GGUF file at `path`. Blocks; raises ProvisioningFailure that says what it is instead."""
    try:
        with path.open("rb") as file:
            head, size = file.read(4), os.fstat(file.fileno()).st_size
    except IsADirectoryError as error:
        raise _failure(path, "is a directory", "Name the .gguf file in it.") from error
    except PermissionError as error:
        hint = "engine-provisioner and the user of the engine must be able to read it, and to enter its directories."
        raise _failure(path, "may not be read", hint) from error
    except OSError as error:
        raise _failure(
            path, f"cannot be read ({error.strerror or error})", "Mend model, or put the file there."
        ) from error
    if head != GGUF:
        raise _failure(path, "is no GGUF file", "llama.cpp serves GGUF files; convert it, or name another one.")
    return size


def on_disk(model: Model, name: str, path: Path, cache_dir: Path, on_block: checksums.OnBlock) -> LocalModel:
    """The model at `path`, checked. Blocks; raises ProvisioningFailure."""
    size = check_gguf(path)
    if model.checksum:
        try:
            checksums.verify(path, model.checksum, cache_dir, on_block)
        except OSError as error:
            raise _failure(path, f"cannot be read to its end ({error.strerror or error})", "") from error
    return LocalModel(name, path, size, model.checksum)


def _failure(path: Path, what: str, hint: str) -> ProvisioningFailure:
    return ProvisioningFailure(f"the model {path} {what}", hint, Retry.MENDING, [path])
