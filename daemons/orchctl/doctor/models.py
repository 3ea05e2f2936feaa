"""Models that are files of this machine: whether the sandboxes and users of the units reach them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from llama_orch.files.reachability import Obstacle, find_obstacle, find_user
from orchctl.check.findings import Finding, ok, problem
from orchctl.config.units import show
from orchctl.doctor.site import Site, Unknown
from orchctl.errors import CommandError

UNITS = ("engine-provisioner.service", "llama-engine@.service")
PROPERTIES = ("User", "ProtectHome", "PrivateTmp", "InaccessiblePaths")
HOMES = ("/home", "/root", "/run/user")
FILE = "file:"


@dataclass(frozen=True)
class Sandbox:
    """A unit and the properties that hide paths from it."""

    unit: str
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFile:
    """A pool's model. `obstacles` are, by unit, what keeps the unit's user from reading it."""

    pool_id: str
    path: str
    exists: bool = True
    obstacles: Mapping[str, Obstacle] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """The models that are files, and the sandboxes that must reach them."""

    files: Sequence[ModelFile] = ()
    sandboxes: Sequence[Sandbox] = ()


async def observe_models(site: Site) -> Models | Unknown:
    if isinstance(site.pools, CommandError):
        return Models()
    models = ((pool.pool_id, pool.model or "") for pool in site.pools)
    paths = {pool_id: model.removeprefix(FILE) for pool_id, model in models if model.startswith(FILE)}
    sandboxes = [Sandbox(unit, await show(unit.replace("@.", "@doctor."), PROPERTIES)) for unit in UNITS]
    found = await trio.to_thread.run_sync(_look, paths, sandboxes, abandon_on_cancel=True)
    return Models(found, sandboxes)


def _look(paths: Mapping[str, str], sandboxes: Sequence[Sandbox]) -> list[ModelFile]:
    files = []
    for pool_id, path in paths.items():
        obstacles = {}
        for sandbox in sandboxes:
            user = find_user(sandbox.properties.get("User", ""))
            if user and (obstacle := find_obstacle(Path(path), user)):
                obstacles[sandbox.unit] = obstacle
        files.append(ModelFile(pool_id, path, _may_exist(path), obstacles))
    return files


def _may_exist(path: str) -> bool:
    """Whether the file exists; also true where this user cannot look."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def model_findings(models: Models) -> Iterator[Finding]:
    bad = 0
    for file in models.files:
        for finding in _findings_of(file, models.sandboxes):
            bad += 1
            yield finding
    if models.files and not bad:
        yield ok("models", f"{len(models.files)} models are files that the units can read")


def _findings_of(file: ModelFile, sandboxes: Sequence[Sandbox]) -> Iterator[Finding]:
    subject = f"pool {file.pool_id}"
    if not file.exists:
        yield problem(subject, f"its model {file.path} does not exist", f"ls -l {os.path.dirname(file.path)}")
        return
    for sandbox in sandboxes:
        if reason := hiding(file.path, sandbox.properties):
            text = f"its model {file.path} is hidden from {sandbox.unit} by {reason}"
            mend = f"Move it, for example to /srv/models, or change {reason.partition('=')[0]}= by "
            yield problem(subject, text, f"{mend}systemctl edit {sandbox.unit}")
            return
    for unit, obstacle in file.obstacles.items():
        yield problem(subject, f"{unit} cannot read its model: {obstacle}", obstacle.command)
        return


def hiding(path: str, properties: Mapping[str, str]) -> str | None:
    """Return the property of a unit, with its value, that hides `path` from it; None if none does."""
    if properties.get("ProtectHome") in ("yes", "tmpfs") and _below(path, HOMES):
        return f"ProtectHome={properties['ProtectHome']}"
    if properties.get("PrivateTmp") in ("yes", "disconnected") and _below(path, ("/tmp", "/var/tmp")):  # noqa: S108
        return f"PrivateTmp={properties['PrivateTmp']}"
    paths = [each.lstrip("-+") for each in properties.get("InaccessiblePaths", "").split()]
    if hidden := next((each for each in paths if _below(path, (each,))), None):
        return f"InaccessiblePaths={hidden}"
    return None


def _below(path: str, directories: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each.rstrip('/')}/") for each in directories)
