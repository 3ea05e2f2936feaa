"""The llama.cpp engine of the demo: one that this machine can run without root and without a compiler.

xllamacpp from the Python package index contains the server of llama.cpp and needs the OpenMP library of the system. If
that is missing, apt-get fetches llama-server of Debian unstable with all its libraries, and they are packed into an
archive.
"""

import ctypes
from dataclasses import dataclass

from tests.engines.debian_packages import PackagesUnavailable
from tests.engines.llama_server import llama_server_archive

XLLAMACPP = "2026.10.11549"
OPENMP = "libgomp.so.1"


class NoEngine(Exception):
    """No engine is available for this machine. The message says what to do."""


@dataclass(frozen=True)
class DemoEngine:
    """An engine: its name, and the lines of the table `[pools.provisioning]`."""

    name: str
    provisioning: str


def demo_engine() -> DemoEngine:
    """Return the engine for this machine; may fetch 13 MB of packages. Blocks. Raises NoEngine."""
    try:
        ctypes.CDLL(OPENMP)
    except OSError:
        return _from_debian()
    lines = ('mode = "package"', 'name = "pip:xllamacpp"', f'version = "{XLLAMACPP}"', "allow_package_installs = true")
    return DemoEngine(f"xllamacpp {XLLAMACPP}, a download of 34 MB at the first run", "\n".join(lines))


def _from_debian() -> DemoEngine:
    try:
        archive = llama_server_archive()
    except PackagesUnavailable as error:
        hint = f"Install {OPENMP} (Debian: apt install libgomp1; Fedora: dnf install libgomp) and try again."
        raise NoEngine(f"{OPENMP} is missing, and Debian's llama-server cannot be fetched: {error}. {hint}") from error
    lines = (
        'mode = "binary"',
        f'url = "file:{archive.path}"',
        f'checksum = "{archive.checksum}"',
        "allow_binary_downloads = true",
    )
    return DemoEngine("Debian's llama-server", "\n".join(lines))
