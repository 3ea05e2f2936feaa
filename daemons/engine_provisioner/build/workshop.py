"""The directory in which a repository or an archive is built, used by one build at a time.

Contains `lock`, `source/`, one `build-DIGEST/` and `build-DIGEST.log` a recipe, and `engines.json`: the engine that was
last built for each configuration. That one is used when the repository cannot be reached or the compilers are gone.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine_provisioner.engine import base_environment
from llama_orch.files import durable

POLL_S = 0.5
BUILDS_KEPT = 4
RECALLED = 64
CCACHE_SIZE = "2G"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


class Workshop:
    """The workshop of one source, at `directory`."""

    def __init__(self, directory: Path, cache_dir: Path) -> None:
        self.directory = directory
        self._cache_dir = cache_dir

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the workshop for the duration of the block; wait while another task or process holds it. Raises OSError.

        The kernel releases the lock of a process that is killed.
        """
        await trio.to_thread.run_sync(lambda: self.directory.mkdir(parents=True, exist_ok=True))
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while not _lock(fd):  # noqa: ASYNC110 -- held by another process
                await trio.sleep(POLL_S)
            yield
        finally:
            os.close(fd)

    def environment(self) -> dict[str, str]:
        """Return the variables for the programs of a build: no secrets of the daemon, but the way to the network."""
        names = (*PROXIES, *map(str.lower, PROXIES))
        proxies = {name: value for name in names if (value := os.environ.get(name))}
        cache = {"CCACHE_DIR": str(self._cache_dir / "ccache"), "CCACHE_MAXSIZE": CCACHE_SIZE}
        # ccache may take an object of another tree, whose paths it does not compare
        return {**base_environment(), **proxies, **cache, "CCACHE_NOHASHDIR": "1", "LC_ALL": "C.UTF-8"}

    def build_directory(self, digest: str) -> Path:
        """Return the build directory of the recipe with this digest."""
        return self.directory / f"build-{digest}"

    def recall(self, configuration: str) -> tuple[str, str] | None:
        """Return commit and key of the engine that was last built for this configuration. Blocks."""
        found = self._engines().get(configuration)
        return (found[0], found[1]) if isinstance(found, list) and len(found) == 2 else None

    def remember(self, configuration: str, commit: str, key: str) -> None:
        """Record the engine of a configuration, and remove the build directories used least recently.

        Blocks; raises OSError.
        """
        engines = self._engines()
        if engines.get(configuration) == [commit, key]:
            return
        engines.pop(configuration, None)
        engines[configuration] = [commit, key]
        newest = dict(list(engines.items())[-RECALLED:])
        durable.replace(self._index, json.dumps(newest, indent=1).encode())
        builds = sorted(self.directory.glob("build-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in builds[BUILDS_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
            for log in self.directory.glob(f"{path.name}.log*"):
                log.unlink(missing_ok=True)

    @property
    def _index(self) -> Path:
        return self.directory / "engines.json"

    def _engines(self) -> dict[str, object]:
        try:
            content = json.loads(self._index.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def workshop_of(url: str, build_cache: str | None, cache_dir: Path) -> Workshop:
    """Return the workshop of the repository or archive at `url`."""
    base = Path(build_cache) if build_cache else cache_dir / "builds"
    return Workshop(base / hashlib.sha256(url.encode()).hexdigest()[:16], cache_dir)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
