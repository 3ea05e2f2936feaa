"""Handoff files for tests: a valid one, and bad directory entries."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

GOOD = {"pool_id": "default", "engine_version": "b11669", "url": "http://127.0.0.1:18080"}
OWNERS = frozenset({os.geteuid()})
LONG_AGO_S = time.time() - 3600


def publish(directory: Path, name: str = "default-r0.json", **fields: object) -> Path:
    """Write a valid handoff as engine-provisioner does: to a temporary name, then rename."""
    draft = directory / f".{name}.tmp"
    draft.write_text(json.dumps(GOOD | fields))
    return draft.rename(directory / name)


def age(path: Path, seconds: float = 3600) -> None:
    """Set the modification time of `path` to `seconds` ago."""
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def _link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text(json.dumps(GOOD))
    path.symlink_to(target)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inner").write_text("x")


def _foreign(path: Path) -> None:
    path.write_text(json.dumps(GOOD))
    os.chown(path, 12345, -1)


ODD_ENTRIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (_link, "is a symbolic link"),
    "dangling-link": (lambda path: path.symlink_to("/nonexistent"), "is a symbolic link"),
    "fifo": (os.mkfifo, "is a FIFO"),
    "socket": (_socket, "is a socket"),
    "directory": (_directory, "is a directory"),
    "large": (lambda path: path.write_bytes(b" " * 65537), "is 65537 bytes long (at most 65536 are read)"),
    "foreign": (_foreign, "belongs to user id 12345"),
    "no-json": (lambda path: path.write_text("pool_id = 1"), "Invalid JSON"),
    "empty": (lambda path: path.write_text(""), "Invalid JSON"),
    "no-object": (lambda path: path.write_text("[]"), "the document: must be an object"),
    "off-machine": (lambda path: path.write_text(json.dumps(GOOD | {"url": "http://10.0.0.9:80"})), "loopback"),
    "no-pool": (lambda path: path.write_text(json.dumps({"url": "http://127.0.0.1:1"})), "pool_id: is required"),
    "odd-url": (lambda path: path.write_text(json.dumps(GOOD | {"url": "http://127.0.0.1:1/ü"})), "http://HOST:PORT"),
}
"""Bad entries: how to create each, and a part of its reason."""

NEEDS_ROOT = {"foreign"}
