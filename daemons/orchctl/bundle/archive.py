"""The archive of a support bundle: a tar.gz that only its owner can read, complete or not there."""

import gzip
import io
import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError

MODE = 0o600


def write_archive(path: Path, prefix: str, files: Sequence[tuple[str, bytes]], now: float) -> None:
    """Write `files` below the directory `prefix`. An existing file is not overwritten. Raises CommandError.

    `now` is the Unix time that the files get.
    """
    try:
        # O_EXCL: neither a file nor a link of another user in /tmp is written to
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    except FileExistsError as error:
        hint = "Choose another name: -o FILE"
        raise CommandError(f"{path} exists already", hint, ExitStatus.CANNOT_CREATE) from error
    except OSError as error:
        hint = "Choose another place: -o FILE"
        raise CommandError(f"cannot create {path}: {error.strerror}", hint, ExitStatus.CANNOT_CREATE) from error
    try:
        with open(descriptor, "wb") as raw:
            _write(raw, prefix, files, now)
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise CommandError(f"cannot write {path}: {error.strerror}", "", ExitStatus.IO_ERROR) from error
        raise


def _write(raw: io.BufferedWriter, prefix: str, files: Sequence[tuple[str, bytes]], now: float) -> None:
    with (
        gzip.GzipFile("", "wb", 6, raw, now) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in files:
            entry = tarfile.TarInfo(f"{prefix}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now), MODE
            archive.addfile(entry, io.BytesIO(content))
