"""Provisioning mode `package`: the distribution's llama-server, or xllamacpp installed privately by pip.

Owns `engines/pip-xllamacpp-*` in the cache directory; each appears whole or not at all.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import trio

from engine_provisioner.acquire import pip_words
from engine_provisioner.engine import Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.probes import base_environment
from engine_provisioner.spec.provisioning_spec import Package
from llama_orch.files import durable

EXECUTABLE = "llama-server"
RUNNER = Path(__file__).parents[1] / "xllamacpp_server.py"
INSTALL_S = 900.0
WHEELS = Path("/usr/share/python-wheels")
PACKAGE = "xllamacpp"


def from_distribution() -> Program:
    """llama-server on the PATH. Raises ProvisioningFailure. Blocks on the disk."""
    found = shutil.which(EXECUTABLE, path=base_environment()["PATH"])
    if found is None:
        hint = "Install it: apt install llama.cpp (Debian 14 and later have it). Or use mode binary, or pip:xllamacpp."
        raise ProvisioningFailure(f"there is no {EXECUTABLE} on the PATH", hint, Retry.MENDING)
    return Program((found,), Path(found))


async def from_pip(how: Package, cache_dir: Path) -> Program:
    """xllamacpp at the version of the pools file, installed under `cache_dir` once. Raises ProvisioningFailure."""
    abi = sysconfig.get_config_var("SOABI") or "any"
    site = cache_dir / "engines" / f"pip-{PACKAGE}-{how.version}-{abi}"
    if not await trio.Path(site).is_dir():
        await _install(how, site)
    module = site / PACKAGE / "__init__.py"
    return Program((sys.executable, "-I", str(RUNNER), "--site", str(site)), module)


async def _install(how: Package, site: Path) -> None:
    draft = site.with_name(f".{site.name}.draft")
    await trio.to_thread.run_sync(_clear, draft)
    try:
        await _pip(f"{PACKAGE}=={how.version}", draft)
        await trio.to_thread.run_sync(_settle, draft, site)
    except OSError as error:
        what = f"{PACKAGE} cannot be installed into {site}: {error.strerror or error}"
        raise ProvisioningFailure(what, "See that there is room, and that the directory is the daemon's.") from error
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_clear, draft)


async def _pip(requirement: str, target: Path) -> None:
    """Run pip; nothing is compiled and nothing of this machine's own Python is touched.

    -vv: otherwise it does not say why an index could not be asked.
    """
    runner = await trio.to_thread.run_sync(pip)
    options = [
        "-vv",
        "--progress-bar",
        "off",
        "--no-input",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    argv = [*runner, "install", *options, "--target", str(target), requirement]
    environment = {**base_environment(), **pip_words.environment(os.environ)}
    with trio.move_on_after(INSTALL_S):
        done = await trio.run_process(argv, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=environment)
        if done.returncode == 0:
            return
        raise pip_words.failure(requirement, done.stdout.decode(errors="replace"))
    raise ProvisioningFailure(f"pip did not install {requirement} within {INSTALL_S:g} s")


def pip() -> list[str]:
    """The words that run pip: this Python's own, or the wheel that python3-venv brings.

    Blocks on the disk; raises ProvisioningFailure where there is neither.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if wheels := sorted(WHEELS.glob("pip-*.whl")):
        return [sys.executable, str(wheels[-1] / "pip")]
    hint = "Install it: apt install python3-venv."
    raise ProvisioningFailure("there is no pip for this daemon's own Python", hint, Retry.MENDING)


def _clear(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _settle(draft: Path, site: Path) -> None:
    """Let the engine's user, a member of this one's group, read it; then put it in its place."""
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o750 if path.is_dir() or path.stat().st_mode & 0o100 else 0o640)
    draft.rename(site)
    durable.sync_directory(site.parent)
