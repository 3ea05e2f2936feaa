"""Root file systems of Debian releases, made by debootstrap and cached."""

import hashlib
import os
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
    # installs the .rpm
    "rpm",
    # sets the time of day for a single daemon, because machines share the clock of their host
    "libfaketime",
    # dependencies of the package, because machines have no access to a mirror
    "adduser",
    "python3",
    "python3-systemd",
)

BUILD_TOOLS = ("git", "cmake", "ninja-build", "g++")
PODMAN = ("podman", "crun")


class RootfsUnavailable(Exception):
    """debootstrap failed. The message contains its last lines."""


def rootfs(suite: str, more: tuple[str, ...] = ()) -> Path:
    """Return the root file system of `suite` with the packages `more`, which is never booted or written to.

    Making it takes about a minute. Raises RootfsUnavailable.
    """
    if more:
        key = hashlib.sha256(repr((PACKAGES, more)).encode()).hexdigest()[:8]
        return cached(f"rootfs-{suite}-{key}", lambda draft: _extend(rootfs(suite), more, draft))
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
    _run(command, f"debootstrap of {suite}")
    _make_anonymous(root)


INSTALL = """
root=$1; shift
cp -a "$BASE" "$root"
mount -t proc proc "$root/proc"
cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq install --no-install-recommends "$@"
rm "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf"
umount "$root/proc"
"""
"""Packages with circular dependencies, such as podman's, cannot be configured by debootstrap, but by apt."""


def _extend(base: Path, packages: tuple[str, ...], root: Path) -> None:
    environment = {**os.environ, "BASE": str(base), "DEBIAN_FRONTEND": "noninteractive"}
    command = ["unshare", "--mount", "nice", "sh", "-ec", INSTALL, "sh", str(root), *packages]
    _run(command, f"installing {', '.join(packages)}", environment)
    _make_anonymous(root)


def _run(command: list[str], what: str, environment: dict[str, str] | None = None) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode != 0:
        tail = "\n".join((process.stdout + process.stderr).splitlines()[-10:])
        raise RootfsUnavailable(f"{what} failed:\n{tail}")


def _make_anonymous(root: Path) -> None:
    """Remove the machine id, the host name, and caches of apt."""
    (root / "etc/machine-id").write_text("")
    for name in ("var/lib/dbus/machine-id", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*_*"):
        for file in root.glob(pattern):
            file.unlink()
