"""Fetch and unpack Debian packages without installing them, and without root.

apt verifies the signatures of the archive. It uses its own lists and cache, so that those of the machine do not change.
The mirror comes from the apt sources of the machine.
"""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")
MIRROR = re.compile(r"^(?:deb\s+(?:\[[^\]]*\]\s+)?|URIs:\s*)(https?://\S*/debian)/?(?:\s|$)", re.MULTILINE)


class PackagesUnavailable(Exception):
    """The packages cannot be fetched. The message says why and what to do."""


@dataclass(frozen=True)
class Pin:
    """A package with a version that is known to work, and the SHA-256 of its .deb."""

    name: str
    version: str
    sha256: str


def debian_mirror() -> str:
    """Return the Debian mirror of this machine, or $MIRROR. Raises PackagesUnavailable if there is none."""
    if chosen := os.environ.get("MIRROR"):
        return chosen.rstrip("/")
    for source in SOURCES:
        path = Path(source)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            found = MIRROR.search(file.read_text()) if file.is_file() else None
            if found:
                return found.group(1)
    raise PackagesUnavailable("no Debian mirror in /etc/apt/sources.list*; set MIRROR=https://HOST/debian")


def unpack(pins: tuple[Pin, ...], suite: str, workspace: Path) -> tuple[Path, dict[str, str]]:
    """Fetch `pins` from `suite` and unpack them. Return the tree and the version of each package.

    If the suite no longer has a pinned version, all packages are fetched in the suite's current versions, which are
    consistent with each other, with a message on standard error. Raises PackagesUnavailable.
    """
    apt = _Apt(suite, workspace)
    versions = {pin.name: pin.version for pin in pins}
    if apt.has(versions):
        apt.download([f"{name}={version}" for name, version in versions.items()])
        _check(pins, apt.debs)
    else:
        print(f"{suite} no longer has the pinned versions; fetching the current ones", file=sys.stderr)
        apt.download(list(versions))
        versions = _versions(apt.debs)
    tree = workspace / "tree"
    for deb in sorted(apt.debs.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
    return tree, versions


def unpack_current(names: tuple[str, ...], suite: str, architecture: str, workspace: Path) -> Path:
    """Fetch the current versions of the packages `names` for `architecture`, unpack them and return the tree.

    Raises PackagesUnavailable.
    """
    apt = _Apt(suite, workspace, architecture)
    apt.download(list(names))
    tree = workspace / "tree"
    for deb in sorted(apt.debs.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
    return tree


def _check(pins: tuple[Pin, ...], debs: Path) -> None:
    found = {hashlib.sha256(deb.read_bytes()).hexdigest() for deb in debs.glob("*.deb")}
    if wrong := [pin.name for pin in pins if pin.sha256 not in found]:
        raise PackagesUnavailable(f"the mirror's {', '.join(wrong)} differ from the pinned files of that version")


def _versions(debs: Path) -> dict[str, str]:
    show = ["dpkg-deb", "-W", "--showformat=${Package} ${Version}"]
    rows = [subprocess.run([*show, deb], check=True, capture_output=True, text=True) for deb in debs.glob("*.deb")]
    return dict(sorted((name, version) for name, version in (row.stdout.split() for row in rows)))


class _Apt:
    """apt-get with its own state under `workspace`. It downloads to `debs`."""

    def __init__(self, suite: str, workspace: Path, architecture: str = "amd64") -> None:
        self._architecture = architecture
        self.debs = workspace / "debs"
        self._state = workspace / "apt"
        for directory in (self.debs, self._state / "lists/partial", self._state / "cache/archives/partial"):
            directory.mkdir(parents=True)
        source = f"deb [signed-by={KEYRING}] {debian_mirror()} {suite} main\n"
        (self._state / "sources.list").write_text(source)
        self._run("apt-get", "update", "--error-on=any")

    def has(self, versions: dict[str, str]) -> bool:
        """Whether the suite still has every package in the given version."""
        listed = self._run("apt-cache", "show", "--no-all-versions", *versions)
        offered = re.findall(r"^Package: (\S+)$|^Version: (\S+)$", listed, re.MULTILINE)
        names = [name for name, _version in offered if name]
        return dict(zip(names, [version for _name, version in offered if version], strict=True)) == versions

    def download(self, packages: list[str]) -> None:
        """Fetch the packages (`name` or `name=version`) into `debs`. Raises PackagesUnavailable."""
        self._run("apt-get", "download", *packages)

    def _run(self, program: str, *arguments: str) -> str:
        command = [program, *self._options(), *arguments]
        try:
            return subprocess.run(command, cwd=self.debs, check=True, capture_output=True, text=True).stdout
        except FileNotFoundError as error:
            raise PackagesUnavailable(f"{program} not found; it fetches the engine from Debian's archive") from error
        except subprocess.CalledProcessError as error:
            raise PackagesUnavailable(f"{program} {arguments[0]} failed: {error.stderr.strip()}") from error

    def _options(self) -> list[str]:
        settings = {
            "Dir::State": self._state,
            "Dir::State::Lists": self._state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._state / "cache",
            "Dir::Etc::sourcelist": self._state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Sandbox::User": "",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "Acquire::Languages": "none",
        }
        return ["-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
