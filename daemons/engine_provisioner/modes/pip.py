"""Running pip: which pip, with which environment, and the meaning of its output."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import trio

from engine_provisioner.engine import base_environment
from engine_provisioner.failures import ProvisioningFailure, Retry
from llama_orch.packages import Tool, install_command

INSTALL_S = 900.0
WHEELS = Path("/usr/share/python-wheels")
"""Where Debian's python3-venv and Fedora's python-pip-wheel put the wheel of pip."""

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
PIP_VARIABLES = (
    "PIP_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_TIMEOUT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_CONFIG_FILE",
)
"""Variables that say where pip finds packages. Those that say where it installs them are not passed on."""
DEFAULTS = {"PIP_RETRIES": "1"}
"""The supervisor retries the pool and logs each attempt; pip's own five retries can take minutes without output."""

RETRYING = re.compile(r"connection broken by '(.+)': /")
SKIPPED = re.compile(r"Could not fetch URL \S+: (?!404 )(.+?)(?: - skipping)?$", re.MULTILINE)
PASSWORD = re.compile(r"(?<=://)[^/\s@'\"]+@")
OBJECT = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>: ")
QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
REASON_LIMIT = 300

OPTIONS = (
    "-vv",  # without it pip does not say why it cannot reach an index
    "--progress-bar",
    "off",
    "--no-input",
    "--no-cache-dir",
    "--disable-pip-version-check",
    "--only-binary",
    ":all:",
)


async def install(requirement: str, target: Path) -> None:
    """Install `requirement` into the directory `target`, from wheels only.

    The system's Python packages stay untouched. Raises ProvisioningFailure, also after INSTALL_S seconds.
    """
    argv = [*await trio.to_thread.run_sync(command), "install", *OPTIONS, "--target", str(target), requirement]
    variables = {**base_environment(), **environment(os.environ)}
    with trio.move_on_after(INSTALL_S):
        done = await trio.run_process(argv, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=variables)
        if done.returncode == 0:
            return
        raise failure(requirement, done.stdout.decode(errors="replace"))
    raise ProvisioningFailure(f"pip did not install {requirement} within {INSTALL_S:g} s")


def command() -> list[str]:
    """Return the command for pip: this Python's own, or the wheel of python3-venv.

    Blocks on the disk. Raises ProvisioningFailure where there is neither.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if wheels := sorted(WHEELS.glob("pip-*.whl")):
        return [sys.executable, str(wheels[-1] / "pip")]
    hint = f"Install it: {install_command([package_of_pip()])}"
    raise ProvisioningFailure(f"{sys.executable} has no pip", hint, Retry.AFTER_FIX)


def package_of_pip() -> Tool:
    """Return the package with pip for this Python. On EL, further Pythons have packages of their own."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    default = os.path.realpath("/usr/bin/python3").endswith(f"python{version}")
    return Tool("pip", apt="python3-venv", dnf="python3-pip" if default else f"python{version}-pip")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environ` that pip needs. A proxy URL may hold a password, so none is an argument."""
    names = (*PROXIES, *map(str.lower, PROXIES), *CERTIFICATES, *PIP_VARIABLES)
    return DEFAULTS | {name: environ[name] for name in names if environ.get(name)}


def failure(requirement: str, output: str) -> ProvisioningFailure:
    """Return the failure that pip's output describes: an unreachable index, or a package that it does not have."""
    text = without_passwords(output)
    if unreachable := SKIPPED.search(text) or RETRYING.search(text):
        reason = _quoted_texts(unreachable[1])
        message = f"pip cannot install {requirement}: cannot reach the package index: {reason}"
        hint = (
            "Check the network; HTTPS_PROXY, NO_PROXY, PIP_PROXY and PIP_INDEX_URL can be set for engine-provisioner."
        )
        return ProvisioningFailure(message, hint)
    lines = text.strip().splitlines()
    last = next((line for line in reversed(lines) if line.startswith("ERROR")), text.strip()[-REASON_LIMIT:])
    message = f"pip cannot install {requirement}: {last.removeprefix('ERROR: ')[:REASON_LIMIT]}"
    hint = "Check that the package index has this version for this Python."
    return ProvisioningFailure(message, hint, Retry.AFTER_FIX)


def without_passwords(output: str) -> str:
    """Mask the user names and passwords of URLs in `output`."""
    return PASSWORD.sub("***@", output)


def _quoted_texts(reason: str) -> str:
    """Return the texts in an exception as urllib3 prints it, without memory addresses, which differ each time."""
    reason = OBJECT.sub("", reason).strip()
    texts = [one or other for one, other in QUOTED.findall(reason)]
    return (": ".join(texts) or reason)[:REASON_LIMIT]
