"""The checks of a download: before the first byte, at the first bytes, and before the file appears."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.part_file import PartFile
from engine_provisioner.fetch.progress import size_text
from engine_provisioner.fetch.remote_file import GGUF_ROLES, RemoteFile
from engine_provisioner.gguf.reader import MAGIC, read_header
from engine_provisioner.gguf.source import GgufError
from engine_provisioner.step_deadline import DISK_STEP_S

SPARE_BYTES = 64 << 20


def check_size(remote: RemoteFile, size: int | None) -> None:
    """Raise ProvisioningFailure if the server's file has another size than announced."""
    if remote.size is not None and size is not None and size != remote.size:
        message = f"{remote.shown}: the server sends {size} bytes, but announced {remote.size}"
        raise ProvisioningFailure(message, "The file on the server is damaged or is being replaced.", Retry.REFETCH)


def check_free_space(remote: RemoteFile, missing: int) -> None:
    """Raise ProvisioningFailure if `missing` bytes do not fit on the disk. Blocks; raises OSError."""
    free = shutil.disk_usage(remote.target.parent).free
    if missing + SPARE_BYTES > free:
        directory = remote.target.parent
        message = f"{remote.shown} needs {size_text(missing)} in {directory}, but {size_text(free)} are free"
        raise ProvisioningFailure(message, "Free disk space, or set another cache_dir.", Retry.AFTER_FIX)


def check_beginning(remote: RemoteFile, data: bytes) -> None:
    """Raise ProvisioningFailure if a model does not begin like a GGUF file."""
    if remote.role not in GGUF_ROLES or data.startswith(MAGIC[: len(data)]):
        return
    page = data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml", b"<head"))
    what = "is a web page, not a GGUF file" if page else "is not a GGUF file"
    hint = (
        "Set the reference of the file itself, not of the page that describes it; it may require credentials."
        if page
        else "llama.cpp serves GGUF files: name another file."
    )
    raise ProvisioningFailure(f"{remote.shown} {what}", hint, Retry.REFETCH)


async def finish(remote: RemoteFile, part: PartFile, size: int, expect: Callable[[float, str], None]) -> str:
    """Verify the complete file, let its target appear, return its SHA-256. Raises ProvisioningFailure and OSError."""
    while part.hashed < size:
        expect(DISK_STEP_S, "verifying a download")
        await trio.to_thread.run_sync(part.hash_block, size)
    found = part.digest()
    if remote.sha256 is not None and found != remote.sha256:
        message = f"{remote.shown} has the checksum sha256:{found}, but {remote.authority} sha256:{remote.sha256}"
        hint = "The file is damaged or not the expected one, or the required checksum is wrong."
        raise ProvisioningFailure(message, hint, Retry.REFETCH)
    expect(DISK_STEP_S, "verifying a download")
    if remote.role in GGUF_ROLES:
        await trio.to_thread.run_sync(_check_gguf, remote, part, size)
    await trio.to_thread.run_sync(part.publish)
    return found


def _check_gguf(remote: RemoteFile, part: PartFile, size: int) -> None:
    try:
        absent = read_header(part.path).truncated_by
    except GgufError as error:
        message = f"{remote.shown} has no readable GGUF header: {error}"
        raise ProvisioningFailure(message, "The file on the server is damaged.", Retry.REFETCH) from error
    if absent:
        message = f"{remote.shown} is incomplete: it has {size} bytes, but its header describes {size + absent}"
        hint = "The file on the server is damaged: upload it again, or name another one."
        raise ProvisioningFailure(message, hint, Retry.REFETCH)


@contextmanager
def disk_failures(remote: RemoteFile) -> Iterator[None]:
    """Turn OSError into ProvisioningFailure."""
    try:
        yield
    except OSError as error:
        message = f"cannot store {remote.shown} in {remote.target.parent}: {error.strerror or error}"
        hint = "Check that the directory exists and belongs to engine-provisioner."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free disk space, or set another cache_dir."
        raise ProvisioningFailure(message, hint, Retry.AFTER_FIX) from error
