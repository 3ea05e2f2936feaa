"""Root file systems of Debian releases, made by debootstrap and cached."""

import hashlib
import subprocess
from pathlib import Path

from tests.engines.cache import cached
from tests.engines.debian_packages import debian_mirror

SUITES = ("bookworm", "trixie")

PACKAGES = (
    # a bootable Debian, with useful packages of its default installation
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "polkitd",
    "procps",
    "iproute2",
    "curl",
    "ca-certificates",
    "man-db",
    # sets the time of day for a single daemon, because machines share the clock of their host
    "libfaketime",
    # dependencies of the package, because machines have no access to a mirror
    "adduser",
    "python3",
    "python3-systemd",
)


class RootfsUnavailable(Exception):
    """debootstrap failed. The message contains its last lines."""


def rootfs(suite: str) -> Path:
    """Return the root file system of `suite`, which is never booted or written to. Making it takes about a minute.

    Raises RootfsUnavailable.
    """
    key = hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:8]
    return cached(f"rootfs-{suite}-{key}", lambda draft: _bootstrap(suite, draft))


def _bootstrap(suite: str, root: Path) -> None:
    include = f"--include={','.join(PACKAGES)}"
    # In its own mount namespace, so that its mounts disappear even if it is killed.
    command = [
        "unshare",
        "--mount",
        "nice",
        "debootstrap",
        "--variant=minbase",
        include,
        suite,
        str(root),
        debian_mirror(),
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        tail = "\n".join((process.stdout + process.stderr).splitlines()[-10:])
        raise RootfsUnavailable(f"debootstrap of {suite} failed:\n{tail}")
    _make_anonymous(root)


def _make_anonymous(root: Path) -> None:
    """Remove the machine id, the host name, and caches of apt."""
    (root / "etc/machine-id").write_text("")
    for name in ("var/lib/dbus/machine-id", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*_*"):
        for file in root.glob(pattern):
            file.unlink()
