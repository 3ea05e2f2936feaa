"""The environment of the daemon's unit, for `--check-config` and other commands that a person runs in a shell."""

import glob
import shlex
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from llama_orch.service.output import complain
from llama_orch.settings.environment_file import parse

LIMIT_S = 5.0
CREDENTIALS = Path("/etc/llama-orch")
"""Where the units load their credentials from, each from a file of its name."""
IGNORED_IF_ABSENT = " (ignore_errors=yes)"
FILE_LIMIT = 1 << 20


def adopt(daemon: str, environ: MutableMapping[str, str]) -> None:
    """Add the variables and credentials of the unit of `daemon` that `environ` does not set. Blocks.

    Does nothing if there is no such unit or it runs another installation of the daemon. A file that this user cannot
    read is reported on standard error.
    """
    properties = list(_properties(f"{daemon}.service"))
    if not any(name == "ExecStart" and f" path={sys.executable} " in value for name, value in properties):
        return
    found: dict[str, str] = {}
    for name, value in properties:
        if name == "Environment":
            found |= assignments(value)
    for name, value in properties:
        if name == "EnvironmentFiles":
            for path in files_named(value):
                found |= _read(daemon, path)
    for variable, value in {"CREDENTIALS_DIRECTORY": str(CREDENTIALS), **found}.items():
        environ.setdefault(variable, value)


def assignments(value: str) -> dict[str, str]:
    """Return the variables of an Environment= line, or of the property Environment. Raises ValueError."""
    return dict(word.split("=", 1) for word in shlex.split(value) if "=" in word)


def files_named(value: str) -> list[Path]:
    """Return the files that a value of the property EnvironmentFiles names, in the order in which they are read."""
    pattern = value.removesuffix(IGNORED_IF_ABSENT).removesuffix(" (ignore_errors=no)")
    return [Path(path) for path in sorted(glob.glob(pattern))]


def _read(daemon: str, path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            return parse(file.read(FILE_LIMIT).decode(errors="replace"))
    except OSError as error:
        complain(f"{daemon}: {path} cannot be read ({error.strerror}): its variables are missing here; try sudo")
        return {}


def _properties(unit: str) -> Iterator[tuple[str, str]]:
    """Yield the properties of `unit` as systemctl shows them; none without systemd."""
    command = ["systemctl", "show", "--property=ExecStart,Environment,EnvironmentFiles", unit]
    try:
        shown = subprocess.run(  # noqa: S603 -- fixed words and the name of the daemon
            command, capture_output=True, text=True, timeout=LIMIT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in shown.splitlines():
        name, _equals, value = line.partition("=")
        yield name, value
