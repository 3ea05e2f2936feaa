"""The .deb under test: the one in dist/ if no source is newer, otherwise a new build.

LLAMA_ORCH_TEST_DEB=FILE selects another package.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.engines.cache import locked

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("daemons", "man", "packaging", "requirements", "tmpfiles.d", "units", "pyproject.toml")
BUILD_LIMIT_S = 900


class BuildFailed(Exception):
    """packaging/build_deb.sh failed. The message contains its last lines."""


def built_deb(suffix: str = "") -> Path:
    """Return the package of the current sources, with a newer version if `suffix` is set. Raises BuildFailed."""
    if not suffix and (configured := os.environ.get("LLAMA_ORCH_TEST_DEB")):
        return Path(configured)
    target = ROOT / "build" / f"newer{suffix}" if suffix else ROOT / "dist"
    with locked("deb"):
        return _build_if_stale(target, suffix)


def _build_if_stale(target: Path, suffix: str) -> Path:
    package = max(target.glob("llama-orch_*.deb"), key=_changed, default=None)
    if package is None or _changed(package) < max(map(_changed, _sources())):
        _build(target, suffix)
        package = max(target.glob("llama-orch_*.deb"), key=_changed)
    return package


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
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False
    )
    if process.returncode != 0:
        tail = "\n".join((process.stdout + process.stderr).splitlines()[-40:])
        raise BuildFailed(f"packaging/build_deb.sh exited with status {process.returncode}:\n{tail}")
