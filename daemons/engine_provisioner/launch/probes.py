"""Query an engine program with --version, --help and --list-devices, each bounded in time."""

import os
import re
import subprocess
from collections.abc import Mapping

import trio

from engine_provisioner.engine import VERSION_LIMIT, Engine, Program, base_environment
from engine_provisioner.failures import ProvisioningFailure, Retry

LIMIT_S = 20.0
OPTION = re.compile(r"(?:^|(?<=[\s,]))(--?[A-Za-z][A-Za-z0-9-]*)")
VERSION = re.compile(r"^version:\s*(\S.*)$", re.MULTILINE)
DEVICE = re.compile(r"^\s+([A-Za-z]+[0-9]+): ", re.MULTILINE)


def options_in(help_text: str) -> frozenset[str]:
    """Return all spellings of the options that begin a line of a --help text."""
    found: set[str] = set()
    for line in help_text.splitlines():
        if line.startswith("-") and not line.startswith("---"):
            found |= set(OPTION.findall(re.split(r"\s{2,}(?=[^-\s])", line, maxsplit=1)[0]))
    return frozenset(found)


def version_in(text: str) -> str:
    """Return the version in the output of --version, or `unknown`."""
    match = VERSION.search(text)
    return " ".join(match[1].split())[:VERSION_LIMIT] if match else "unknown"


def devices_in(text: str) -> list[str]:
    """Return the devices in the output of --list-devices, such as CUDA0."""
    return DEVICE.findall(text.partition("Available devices")[2])


KNOWN_LIMIT = 64
Identity = tuple[Program, int, int, int]
"""A program, and inode, size and time of change of its file: it need not be asked again while they are the same."""


class Probes:
    """What programs have answered, so that a load does not wait for them to be asked again.

    Its GPUs are not remembered: an engine that finds none would silently run on the CPU.
    """

    def __init__(self) -> None:
        self._known: dict[Identity, Engine] = {}

    async def engine(self, program: Program) -> tuple[Engine, bool]:
        """Return what `probe` returns, and whether the program was asked just now. Raises ProvisioningFailure."""
        identity = await trio.to_thread.run_sync(_identity_of, program)
        if identity in self._known:
            return self._known[identity], False
        engine = await probe(program)
        if identity:
            self._known[identity] = engine
            if len(self._known) > KNOWN_LIMIT:
                del self._known[next(iter(self._known))]
        return engine, True


def _identity_of(program: Program) -> Identity | None:
    try:
        found = os.stat(program.file)
    except OSError:
        return None
    return program, found.st_ino, found.st_size, found.st_mtime_ns


async def probe(program: Program) -> Engine:
    """Run --version and --help. Raises ProvisioningFailure if `program` fails.

    An engine in an image has been asked when the image was pulled.
    """
    if image := program.image:
        known = version_in(image.version)
        version = known if known != "unknown" else f"{image.name}@{image.digest or image.image_id}"
        return Engine(program, version[:VERSION_LIMIT], options_in(image.help))
    version = await output(program, "--version")
    return Engine(program, version_in(version), options_in(await output(program, "--help")))


async def output(program: Program, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run `program`; return stdout and stderr. Raises ProvisioningFailure, also after LIMIT_S seconds."""
    command = [*program.argv, *arguments]
    environment = {**base_environment(), **(env or {})}
    try:
        with trio.fail_after(LIMIT_S):
            done = await trio.run_process(
                command, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=environment
            )
    except trio.TooSlowError as error:
        raise _failure(program, f"{arguments[0]} did not end within {LIMIT_S:g} s") from error
    except OSError as error:
        raise _failure(program, f"cannot be executed: {error.strerror or error}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = text.strip().rpartition("\n")[2]
        raise _failure(program, f"{arguments[0]} ended with status {done.returncode}: {last}")
    return text


def _failure(program: Program, message: str) -> ProvisioningFailure:
    hint = "It must be a llama-server built for this machine, with all its libraries installed."
    return ProvisioningFailure(f"the engine {program.file}: {message}", hint, Retry.AFTER_FIX, [program.file])
