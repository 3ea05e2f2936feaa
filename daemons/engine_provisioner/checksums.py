"""SHA-256 of files, computed once for as long as a file stays the same.

Owns `checksums/` in the cache directory: one small file for each path, with what identified the file's content when
it was hashed (device, inode, size, time of change). A restart does not read 40 GB again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure, Retry
from llama_orch.files import durable

BLOCK = 4 << 20
OnBlock = Callable[[], None]


def signature(path: Path) -> list[int]:
    """What changes when the content of `path` does: device, inode, size, mtime. Blocks; raises OSError."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def digest(path: Path, cache_dir: Path, on_block: OnBlock) -> str:
    """The file's `sha256:…`, from the cache where the file is unchanged. Blocks; raises OSError.

    `on_block` is called for each BLOCK bytes read, as a sign of life.
    """
    note = cache_dir / "checksums" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    now = signature(path)
    if known := _noted(note, now):
        return known
    found = _hash(path, on_block)
    if signature(path) == now:  # else it changed while it was read
        _note(note, json.dumps({"signature": now, "digest": found}).encode())
    return found


def verify(path: Path, wanted: str, cache_dir: Path, on_block: OnBlock) -> None:
    """Raise ProvisioningFailure where the file's digest is not `wanted`. Blocks; raises OSError."""
    found = digest(path, cache_dir, on_block)
    if found != wanted:
        what = f"{path} has the checksum {found}, and the pools file wants {wanted}"
        hint = "The file is damaged or another one, or the checksum belongs to another file."
        raise ProvisioningFailure(what, hint, Retry.MENDING, [path])


def _note(note: Path, content: bytes) -> None:
    """A note that cannot be written costs time at the next start, nothing else."""
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(note, content)


def _noted(note: Path, now: list[int]) -> str | None:
    try:
        content = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("signature") != now:
        return None
    found = content.get("digest")
    return found if isinstance(found, str) else None


def _hash(path: Path, on_block: OnBlock) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            hasher.update(block)
            on_block()
    return f"sha256:{hasher.hexdigest()}"
