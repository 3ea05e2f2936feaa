"""Python packages as wheels, for machines without a network: fetched once, from the index that pip uses here."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.engines.cache import cached

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class WheelsUnavailable(Exception):
    """pip cannot fetch the packages. The message has its last lines."""


def wheels(python: str, *requirements: str) -> Path:
    """Return a directory with the wheels of `requirements` and what these need, for a version such as 3.13.

    Raises WheelsUnavailable.
    """
    key = hashlib.sha256(repr((python, PLATFORMS, requirements)).encode()).hexdigest()[:8]
    return cached(f"wheels-{python}-{key}", lambda draft: _fetch(python, requirements, draft))


def _fetch(python: str, requirements: tuple[str, ...], target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", str(target)]
    command += ["--implementation", "cp", "--python-version", python]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise WheelsUnavailable(f"pip download {' '.join(requirements)} failed:\n{tail}")
