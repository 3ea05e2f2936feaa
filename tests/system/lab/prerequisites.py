"""Requirements for booting machines on this host, and the packages that provide them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.engines.cache import cache_root
from tests.system.lab.cgroups import ControlGroup
from tests.system.lab.overlay import Overlay

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "tc": "iproute2",
    "dpkg-buildpackage": "dpkg-dev",
    "dh": "debhelper",
    "lintian": "lintian",
    "rpmbuild": "rpm",
    "apt-ftparchive": "apt-utils",
    "createrepo_c": "createrepo-c",
    "dnf": "dnf",
    "gpg": "gnupg",
}
"""Programs and the Debian packages that contain them. From dpkg-buildpackage on, they build the packages and
repositories under test."""


def missing() -> list[str]:
    """Return messages about missing requirements; empty if machines can be booted."""
    if os.geteuid() != 0:
        return ["booting machines needs root"]
    found = [*_programs()]
    return found or [*_kernel()]


def _programs() -> Iterator[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = {name: package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None}
    if absent:
        yield f"{', '.join(absent)} is missing; apt-get install {' '.join(dict.fromkeys(absent.values()))}"


def _kernel() -> Iterator[str]:
    """Try the kernel features that a machine needs."""
    with tempfile.TemporaryDirectory(dir=cache_root()) as directory:
        trial = Overlay(Path(directory) / "trial")
        lower = Path(directory) / "lower"
        lower.mkdir()
        try:
            trial.mount(lower)
        except subprocess.CalledProcessError as error:
            yield f"cannot mount an overlay in {cache_root()}: {error.stderr.strip()}"
        finally:
            trial.remove()
    group = ControlGroup(f"llama-orch-test-trial-{os.getpid()}")
    try:
        group.create()
        group.remove()
    except OSError as error:
        yield f"cannot create a control group: {error}"
