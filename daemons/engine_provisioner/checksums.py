"""SHA-256 checksums of files, cached for as long as a file is unchanged.

Owns `checksums/` in the cache directory: for each path the digest and the device, inode, size and mtime that the file
had when it was hashed. Without it every restart would read 40 GB of models again.
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
    """Return device, inode, size and mtime, which change with the file's content. Blocks; raises OSError."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def digest(path: Path, cache_dir: Path, on_block: OnBlock) -> str:
    """Return the file's `sha256:…`, from the cache if the file is unchanged. Blocks; raises OSError.

    `on_block` is called after each BLOCK bytes, to report progress.
    """
    entry = _entry(path, cache_dir)
    before = signature(path)
    if cached := _read_entry(entry, before):
        return cached
    found = _hash(path, on_block)
    if signature(path) == before:  # else the file changed while it was read
        _write_entry(entry, json.dumps({"signature": before, "digest": found}).encode())
    return found


def remember(path: Path, found: str, cache_dir: Path) -> None:
    """Store the digest of a file that was hashed while it was written. Blocks; raises OSError."""
    _write_entry(_entry(path, cache_dir), json.dumps({"signature": signature(path), "digest": found}).encode())


def verify(
    path: Path, expected: str, cache_dir: Path, on_block: OnBlock, authority: str = "the pools file requires"
) -> None:
    """Raise ProvisioningFailure unless the file's digest is `expected`. Blocks; raises OSError."""
    found = digest(path, cache_dir, on_block)
    if found != expected:
        message = f"{path} has the checksum {found}, but {authority} {expected}"
        hint = "The file is damaged or not the expected one, or the required checksum is wrong."
        raise ProvisioningFailure(message, hint, Retry.AFTER_FIX, [path])


def _entry(path: Path, cache_dir: Path) -> Path:
    return cache_dir / "checksums" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _write_entry(entry: Path, content: bytes) -> None:
    with contextlib.suppress(OSError):  # a missing entry only costs time at the next start
        entry.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(entry, content)


def _read_entry(entry: Path, expected_signature: list[int]) -> str | None:
    try:
        content = json.loads(entry.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("signature") != expected_signature:
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
