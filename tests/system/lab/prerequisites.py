"""What this machine must have before one can be booted in it, and the packages that mend what is missing."""

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
}
"""Programs by the Debian package that has them; the last three build the package under test."""


def missing() -> list[str]:
    """Each thing that is missing, in words; empty where machines can be booted."""
    if os.geteuid() != 0:
        return ["booting a machine in a machine takes root"]
    found = [*_programs()]
    return found or [*_kernel()]


def _programs() -> Iterator[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = {name: package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None}
    if absent:
        yield f"{', '.join(absent)} is missing; apt-get install {' '.join(dict.fromkeys(absent.values()))}"


def _kernel() -> Iterator[str]:
    """Try what a machine is made of."""
    with tempfile.TemporaryDirectory(dir=cache_root()) as directory:
        trial = Overlay(Path(directory) / "trial")
        lower = Path(directory) / "lower"
        lower.mkdir()
        try:
            trial.mount(lower)
        except subprocess.CalledProcessError as error:
            yield f"no overlay can be mounted in {cache_root()}: {error.stderr.strip()}"
        finally:
            trial.remove()
    group = ControlGroup(f"llama-orch-test-trial-{os.getpid()}")
    try:
        group.create()
        group.remove()
    except OSError as error:
        yield f"no control group can be made: {error}"
