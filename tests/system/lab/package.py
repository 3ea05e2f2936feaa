"""The .deb under test: the one in dist/ if no source is newer, otherwise a new build.

LLAMA_ORCH_TEST_DEB=FILE tests that package as it is.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.engines.cache import alone

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("daemons", "man", "packaging", "requirements", "tmpfiles.d", "units", "pyproject.toml")
BUILD_LIMIT_S = 900


class BuildFailed(Exception):
    """packaging/build_deb.sh failed; the message has its last lines."""


def built_deb(suffix: str = "") -> Path:
    """The package of the sources as they are; `suffix` makes a build that counts as newer. Raises BuildFailed."""
    if not suffix and (given := os.environ.get("LLAMA_ORCH_TEST_DEB")):
        return Path(given)
    target = ROOT / "build" / f"newer{suffix}" if suffix else ROOT / "dist"
    with alone("deb"):
        return _current(target, suffix)


def _current(target: Path, suffix: str) -> Path:
    found = max(target.glob("llama-orch_*.deb"), key=_changed, default=None)
    if found is None or _changed(found) < max(map(_changed, _sources())):
        _build(target, suffix)
        found = max(target.glob("llama-orch_*.deb"), key=_changed)
    return found


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _sources() -> Iterator[Path]:
    for path in (ROOT / name for name in SOURCES):
        files = [path] if path.is_file() else path.rglob("*")
        yield from (file for file in files if file.is_file() and file.suffix != ".pyc")


def _build(target: Path, suffix: str) -> None:
    print("building the package under test", file=sys.stderr)
    command = [ROOT / "packaging/build_deb.sh", target]
    environment = {**os.environ, "VERSION_SUFFIX": suffix}
    built = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
    if built.returncode != 0:
        tail = "\n".join((built.stdout + built.stderr).splitlines()[-40:])
        raise BuildFailed(f"packaging/build_deb.sh ended with status {built.returncode}:\n{tail}")
