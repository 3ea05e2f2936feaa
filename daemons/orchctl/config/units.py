"""The units of the daemons: their files, environments and processes, as systemctl and /proc show them."""

import os
import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import trio

from llama_orch.service.unit_environment import CREDENTIALS, FILE_LIMIT, files_named
from llama_orch.settings.declared import DECLARED
from orchctl.child import output_of
from orchctl.config.sources import TextFile, UnitSources

PROPERTIES = ("LoadState", "ActiveState", "MainPID", "FragmentPath", "DropInPaths", "EnvironmentFiles")
PROCESS_LIMIT = 1 << 20


async def show(unit: str, names: Iterable[str]) -> dict[str, str]:
    """Return properties of `unit` as systemctl shows them; empty without systemd. Repeated ones are joined by lines."""
    shown = await output_of("systemctl", "show", f"--property={','.join(names)}", "--", unit)
    found: dict[str, str] = {}
    for line in shown.out.splitlines() if shown.ok else ():
        name, _equals, value = line.partition("=")
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


async def unit_sources(daemon: str, environ: Mapping[str, str]) -> UnitSources:
    """Return what decides about the environment of `daemon` on this machine."""
    unit = f"{daemon}.service"
    properties = await show(unit, PROPERTIES)
    if properties.get("LoadState") != "loaded":
        return UnitSources(daemon, None, shell=environ)
    return await trio.to_thread.run_sync(partial(_read_all, daemon, unit, properties), abandon_on_cancel=True)


def _read_all(daemon: str, unit: str, properties: Mapping[str, str]) -> UnitSources:
    fragments = [properties.get("FragmentPath", ""), *shlex.split(properties.get("DropInPaths", ""))]
    files = [path for value in properties.get("EnvironmentFiles", "").splitlines() for path in files_named(value)]
    credentials = {declared.credential for declared in DECLARED[daemon] if declared.credential}
    pid = properties.get("MainPID", "0")
    return UnitSources(
        daemon,
        unit,
        [_read(Path(path)) for path in fragments if path],
        [_read(path) for path in files],
        frozenset(name for name in credentials if _has_content(CREDENTIALS / name)),
        process_environment(pid) if pid != "0" else None,
        running=pid != "0",
    )


def _read(path: Path) -> TextFile:
    try:
        with path.open("rb") as file:
            return TextFile(path, file.read(FILE_LIMIT).decode(errors="replace"))
    except OSError:
        return TextFile(path, None)


def _has_content(path: Path) -> bool:
    """Whether the file of a credential has more than blanks. One that this user cannot read counts."""
    try:
        with path.open("rb") as file:
            return bool(file.read(4096).strip())
    except FileNotFoundError:
        return False
    except OSError:
        return os.path.lexists(path)


def process_environment(pid: str) -> dict[str, str] | None:
    """Return the environment with which a process was started; None if this user cannot see it."""
    try:
        with Path("/proc", pid, "environ").open("rb") as file:
            text = file.read(PROCESS_LIMIT).decode(errors="replace")
    except OSError:
        return None
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
