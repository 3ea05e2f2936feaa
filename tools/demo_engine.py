"""Which real llama.cpp engine the demo has provisioned: what this machine can run without root and without a compiler.

xllamacpp from the package index is llama.cpp's server as a Python module; it wants the system's OpenMP library. Where
that is missing, Debian unstable's llama-server with all its libraries is fetched by apt-get and made into an archive.
"""

import ctypes
from dataclasses import dataclass

from tests.engines.debian_packages import PackagesUnavailable
from tests.engines.llama_server import llama_server_archive

XLLAMACPP = "2026.10.11549"
OPENMP = "libgomp.so.1"


class NoEngine(Exception):
    """No engine can be had here; the text says what to do."""


@dataclass(frozen=True)
class DemoEngine:
    """What it is, and how it is provisioned: the lines of the table `[pools.provisioning]`."""

    name: str
    provisioning: str


def demo_engine() -> DemoEngine:
    """The engine for this machine; may fetch some 13 MB of packages. Blocks. Raises NoEngine."""
    try:
        ctypes.CDLL(OPENMP)
    except OSError:
        return _from_debian()
    lines = ('mode = "package"', 'name = "pip:xllamacpp"', f'version = "{XLLAMACPP}"', "allow_package_installs = true")
    return DemoEngine(f"xllamacpp {XLLAMACPP}, 34 MB to fetch the first time", "\n".join(lines))


def _from_debian() -> DemoEngine:
    try:
        archive = llama_server_archive()
    except PackagesUnavailable as error:
        hint = "Install it (Debian: apt install libgomp1; Fedora: dnf install libgomp) and try again."
        what = f"{OPENMP} is missing here, and Debian's llama-server cannot be fetched: {error}"
        raise NoEngine(f"{what}. {hint}") from error
    lines = (
        'mode = "binary"',
        f'url = "file:{archive.path}"',
        f'checksum = "{archive.checksum}"',
        "allow_binary_downloads = true",
    )
    return DemoEngine("Debian's llama-server", "\n".join(lines))
