"""Root file systems of Debian releases, made by debootstrap and kept once a machine."""

import hashlib
import subprocess
from pathlib import Path

from tests.engines.cache import cached
from tests.engines.debian_packages import debian_mirror

SUITES = ("bookworm", "trixie")

PACKAGES = (
    # a Debian that boots, with what its default installation has of use here
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
    # its library lies to one daemon about the time of day: machines here have the clock of their host
    "libfaketime",
    # what the package depends on, since nothing can be fetched in there
    "adduser",
    "python3",
    "python3-systemd",
)


class RootfsUnavailable(Exception):
    """debootstrap failed; the message has its last lines."""


def rootfs(suite: str) -> Path:
    """The root file system of `suite`, never booted and never written to; about a minute when it is new.

    Raises RootfsUnavailable.
    """
    key = hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:8]
    return cached(f"rootfs-{suite}-{key}", lambda draft: _bootstrap(suite, draft))


def _bootstrap(suite: str, root: Path) -> None:
    include = f"--include={','.join(PACKAGES)}"
    # in a mount namespace of its own: what it mounts goes with it, also when it is killed
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
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        tail = "\n".join((made.stdout + made.stderr).splitlines()[-10:])
        raise RootfsUnavailable(f"debootstrap of {suite} failed:\n{tail}")
    _make_anonymous(root)


def _make_anonymous(root: Path) -> None:
    """Take out what makes a machine one of its kind, and what apt would only use with a network."""
    (root / "etc/machine-id").write_text("")
    for name in ("var/lib/dbus/machine-id", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*_*"):
        for file in root.glob(pattern):
            file.unlink()
