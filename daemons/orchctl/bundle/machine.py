"""The environments of the daemons on this machine, and every secret in them that this user can read."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from llama_orch.service.unit_environment import CREDENTIALS
from llama_orch.settings.declared import DECLARED
from orchctl.bundle.redaction import is_secret_name
from orchctl.client import QueenClient
from orchctl.config.config import DAEMONS
from orchctl.config.sources import UnitSources, assignments_of
from orchctl.config.units import unit_sources

PUBLIC = (".env", ".toml", ".pem", ".crt", ".d")
"""Suffixes of files in /etc/llama-orch that are no credentials."""
MAX_CREDENTIALS = 64
CREDENTIAL_BYTES = 4096


@dataclass(frozen=True)
class Machine:
    """The units of the daemons, and the secrets in their environments, in credentials and of this command."""

    sources: Sequence[UnitSources]
    secrets: frozenset[str]


async def look_at_machine(queen: QueenClient) -> Machine:
    """Read the environments and the secrets."""
    sources = [await unit_sources(daemon, os.environ) for daemon in DAEMONS]
    found = {queen.token or "", *_secrets_of(os.environ)}
    for each in sources:
        found.update(_secrets_of({name: assigned.value for name, assigned in assignments_of(each).items()}))
        found.update(_secrets_of(each.process or {}))
    found.update(await trio.to_thread.run_sync(_credentials, abandon_on_cancel=True))
    return Machine(sources, frozenset(value for value in found if value))


def _secrets_of(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets in an environment, and those in the files that it names."""
    files = {declared.file for each in DECLARED.values() for declared in each if declared.file} | {"HF_TOKEN_PATH"}
    for name, value in environ.items():
        if is_secret_name(name):
            yield value
        elif name in files:
            yield _first_line(Path(value))


def _credentials() -> list[str]:
    try:
        paths = [path for path in sorted(CREDENTIALS.iterdir())[:MAX_CREDENTIALS] if path.suffix not in PUBLIC]
    except OSError:
        return []
    return [_first_line(path) for path in paths]


def _first_line(path: Path) -> str:
    """Return the first line of a file; nothing if this user cannot read it: then it gets into no part, either."""
    try:
        with path.open("rb") as file:
            return file.read(CREDENTIAL_BYTES).decode(errors="replace").strip().partition("\n")[0]
    except OSError:
        return ""
