"""The .deb under test: the one in dist/ if no source is newer, otherwise a new build.

LLAMA_ORCH_TEST_DEB=FILE selects another package.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.engines.cache import locked
from tests.system.lab.prerequisites import missing

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("daemons", "man", "packaging", "requirements", "tmpfiles.d", "units", "pyproject.toml")
BUILD_LIMIT_S = 900


class BuildFailed(Exception):
    """packaging/build_deb.sh failed. The message contains its last lines."""


def built_deb() -> Path:
    """Return the package of the current sources. Raises BuildFailed."""
    if configured := os.environ.get("LLAMA_ORCH_TEST_DEB"):
        return Path(configured)
    with locked("deb"):
        return _build_if_stale(ROOT / "dist")


def newer(deb: Path, directory: Path) -> Path:
    """Make a package with the same files and a newer version in `directory`, and return it.

    Raises CalledProcessError.
    """
    tree, target = directory / "tree", directory / "newer.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", r"\g<0>+b2", control.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "-Znone", "--build", tree, target], check=True, capture_output=True)
    return target


def _build_if_stale(target: Path) -> Path:
    package = max(target.glob("llama-orch_*.deb"), key=_changed, default=None)
    if package is None or _changed(package) < max(map(_changed, _sources())):
        _build(target)
        package = max(target.glob("llama-orch_*.deb"), key=_changed)
    return package


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _sources() -> Iterator[Path]:
    for path in (ROOT / name for name in SOURCES):
        files = [path] if path.is_file() else path.rglob("*")
        yield from (file for file in files if file.is_file() and file.suffix != ".pyc")


def _build(target: Path) -> None:
    print("building the package under test", file=sys.stderr)
    command = [ROOT / "packaging/build_deb.sh", target]
    process = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
    if process.returncode != 0:
        tail = "\n".join((process.stdout + process.stderr).splitlines()[-40:])
        raise BuildFailed(f"packaging/build_deb.sh exited with status {process.returncode}:\n{tail}")


if __name__ == "__main__" and not missing():
    with suppress(BuildFailed):  # the system tests report it
        built_deb()
