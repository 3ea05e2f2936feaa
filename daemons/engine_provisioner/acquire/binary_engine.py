"""Provisioning mode `binary`: a built engine, fetched, checked against its checksum and unpacked.

Owns `engines/` in the cache directory: `engines/<sha256>/` appears whole or not at all, so that what is there has
been checked.
"""

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from engine_provisioner.acquire import archives, checksums
from engine_provisioner.engine import Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.spec.provisioning_spec import Binary
from llama_orch.files import durable

Fetch = Callable[[str, Path, str], Awaitable[None]]
"""Fetches a URL into a file and checks it against `sha256:…`. Raises ProvisioningFailure."""


async def program(how: Binary, cache_dir: Path, fetch: Fetch, on_block: checksums.OnBlock) -> Program:
    """The engine that `how` names, from the cache where it was unpacked before. Raises ProvisioningFailure."""
    tree = cache_dir / "engines" / how.checksum.removeprefix("sha256:")
    if not await trio.Path(tree).is_dir():
        source = await _source(how, cache_dir, fetch, on_block)
        await trio.to_thread.run_sync(_unpack, source, tree)
        if source.is_relative_to(cache_dir):
            await trio.Path(source).unlink(missing_ok=True)
    try:
        executable = await trio.to_thread.run_sync(archives.executable_in, tree)
    except archives.BadArchive as error:
        raise _unusable(how.url, error) from error
    return Program((str(executable),), executable)


async def _source(how: Binary, cache_dir: Path, fetch: Fetch, on_block: checksums.OnBlock) -> Path:
    """The archive on this machine's disk, checked."""
    parts = urlsplit(how.url)
    if parts.scheme != "file":
        download = cache_dir / "downloads" / how.checksum.removeprefix("sha256:")
        await fetch(how.url, download, how.checksum)
        return download
    path = Path(unquote(parts.path))
    try:
        await trio.to_thread.run_sync(partial(checksums.verify, path, how.checksum, cache_dir, on_block))
    except OSError as error:
        what = f"the engine {path} cannot be read: {error.strerror or error}"
        raise ProvisioningFailure(what, "Mend url.", Retry.MENDING, [path]) from error
    return path


def _unpack(source: Path, tree: Path) -> None:
    draft = tree.with_name(f".{tree.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        archives.place(source, draft)
        draft.rename(tree)
        durable.sync_directory(tree.parent)
    except archives.BadArchive as error:
        raise _unusable(str(source), error) from error
    except OSError as error:
        what = f"the engine cannot be unpacked into {tree}: {error.strerror or error}"
        raise ProvisioningFailure(what, "See that there is room, and that the directory is the daemon's.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unusable(where: str, error: archives.BadArchive) -> ProvisioningFailure:
    hint = "The checksum fits, so it is what the pools file names: name another one."
    return ProvisioningFailure(f"the engine at {where} {error}", hint, Retry.NEVER)
