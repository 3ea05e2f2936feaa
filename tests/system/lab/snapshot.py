"""Installed machines to boot from: what installing the package and serving its first pools add to a release.

An installation takes 10 s of processor time; booting from a snapshot takes none of it. Snapshots are kept in the cache
of test data for the next run with the same package, and removed when another package is tested.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines.cache import cache_root, cached, discard
from tests.engines.llama_server import Archive
from tests.system.lab.claim import overlay
from tests.system.lab.container import booted
from tests.system.lab.machine import DAEMONS, POOLS_FILE, PROVISIONER_ENV, TARGET, Machine, Pool
from tests.system.lab.rootfs import rootfs

STATE = " ".join(f"/var/lib/{daemon}/*" for daemon in DAEMONS)
"""What the daemons remember. A machine that boots from a snapshot has the engine, but remembers no pool."""


@contextmanager
def snapshot(suite: str, deb: Path, archive: Archive, models: dict[str, Path]) -> Iterator[Path]:
    """Provide the snapshot of `suite` with the package, the engine and models (by their path in the machine).

    The target is disabled, so that nothing starts at boot. Raises the exceptions of `booted`, and CommandFailed.
    """
    contents = [rootfs(suite).name.encode(), deb.read_bytes(), archive.sha256.encode(), Path(__file__).read_bytes()]
    contents += [f"{inside}={model.name}".encode() for inside, model in models.items()]
    name = f"installed-{suite}-{hashlib.sha256(b'|'.join(contents)).hexdigest()[:8]}"
    with _users(name).open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        _discard_others(suite, name)
        yield cached(name, lambda draft: _make(suite, deb, archive, models, draft))


def _users(name: str) -> Path:
    """Return the file that runs with this snapshot lock."""
    return cache_root() / f".{name}.users"


def _discard_others(suite: str, name: str) -> None:
    for other in cache_root().glob(f"installed-{suite}-*"):
        if other.name != name:
            with _users(other.name).open("w") as users:
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                discard(other)


def _make(suite: str, deb: Path, archive: Archive, models: dict[str, Path], draft: Path) -> None:
    with booted(suite, "snapshot") as container:
        machine = Machine(container)
        machine.install(deb)
        machine.place(archive, models)
        shipped = container.path(PROVISIONER_ENV).read_text()
        machine.configure(archive, Pool("first", next(iter(models))))
        machine.systemctl("start", TARGET)
        machine.wait_until_served("first")
        machine.systemctl("stop", TARGET)
        machine.systemctl("disable", TARGET)
        container.check("sh", "-c", f"rm -rf {STATE} {POOLS_FILE}")
        container.path(PROVISIONER_ENV).write_text(shipped)
        container.power_off()
        files = overlay(container.directory)
        files.unmount()
        (files.upper / "etc/machine-id").write_text("")
        (files.upper / "var/lib/dbus/machine-id").unlink(missing_ok=True)
        files.upper.rename(draft)
