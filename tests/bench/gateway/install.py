"""The other gateways, installed into build/gateway: with pip, and nginx from the distribution without installing it."""

import shutil
import subprocess
import sys
from pathlib import Path

DIRECTORY = Path(__file__).parents[3] / "build" / "gateway"
PINNED = {"sglang-router": "sglang-router==0.3.2", "litellm": "litellm[proxy]", "py-spy": "py-spy"}


class NotInstalled(Exception):
    """A program cannot be had; the text says why."""


def installed(name: str, program: str) -> Path:
    """Return the path of `program` of the Python package `name`, installed into an environment of its own."""
    environment = DIRECTORY / name
    found = environment / "bin" / program
    if not found.exists():
        print(f"installing {name} into {environment}", flush=True)
        _run(sys.executable, "-m", "venv", str(environment))
        _run(str(environment / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", PINNED[name])
    return found


def nginx() -> Path:
    """Return the path of nginx: the system's, or that of its package, unpacked."""
    if system := shutil.which("nginx"):
        return Path(system)
    found = DIRECTORY / "nginx" / "usr" / "sbin" / "nginx"
    if not found.exists():
        if not shutil.which("apt-get"):
            raise NotInstalled("there is neither nginx nor apt-get")
        packages = DIRECTORY / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", "nginx", directory=packages)
        for package in packages.glob("nginx_*.deb"):
            _run("dpkg-deb", "-x", str(package), str(DIRECTORY / "nginx"))
    return found


def _run(*words: str, directory: Path | None = None) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, cwd=directory)
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise NotInstalled(f"{' '.join(words)} failed: {why[-1] if why else error}") from error
