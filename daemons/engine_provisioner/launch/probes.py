"""Asking an engine what it is: `--version`, `--help` and `--list-devices`, each bounded in time and in output."""

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
    """The options that a --help text names at the beginning of a line, with all their spellings."""
    found: set[str] = set()
    for line in help_text.splitlines():
        if line.startswith("-") and not line.startswith("---"):
            found |= set(OPTION.findall(re.split(r"\s{2,}(?=[^-\s])", line, maxsplit=1)[0]))
    return frozenset(found)


def version_in(text: str) -> str:
    """The version in the output of --version, or `unknown`."""
    match = VERSION.search(text)
    return " ".join(match[1].split())[:VERSION_LIMIT] if match else "unknown"


def devices_in(text: str) -> list[str]:
    """The devices that --list-devices names, such as CUDA0."""
    return DEVICE.findall(text.partition("Available devices")[2])


async def probe(program: Program) -> Engine:
    """Ask `program` for its version and options. Raises ProvisioningFailure when it cannot be run."""
    version = await output(program, "--version")
    return Engine(program, version_in(version), options_in(await output(program, "--help")))


async def output(program: Program, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What `program` prints on both its outputs. Raises ProvisioningFailure, also after LIMIT_S seconds."""
    command = [*program.words, *arguments]
    environment = {**base_environment(), **(env or {})}
    try:
        with trio.fail_after(LIMIT_S):
            done = await trio.run_process(
                command, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=environment
            )
    except trio.TooSlowError as error:
        raise _failure(program, f"it did not answer {arguments[0]} within {LIMIT_S:g} s") from error
    except OSError as error:
        raise _failure(program, f"cannot be executed: {error.strerror or error}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = text.strip().rpartition("\n")[2]
        raise _failure(program, f"{arguments[0]} ended with status {done.returncode}: {last}")
    return text


def _failure(program: Program, what: str) -> ProvisioningFailure:
    hint = "It must be a llama-server for this machine, with all the libraries that it needs."
    return ProvisioningFailure(f"the engine {program.file}: {what}", hint, Retry.MENDING, [program.file])
