"""Records of fetched models, and the interface of the component that keeps them."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from engine_provisioner.engine import LocalModel
from engine_provisioner.fetch.remote_file import Role


@dataclass(frozen=True)
class StoredFile:
    """A file of a fetched model. `path` is the name by which the engine opens it, possibly a symbolic link to a file
    that other models share; `digest` is sha256:… of what was downloaded."""

    path: Path
    size_bytes: int
    digest: str | None
    role: Role


@dataclass(frozen=True)
class ModelRecord:
    """A model that was fetched and verified. The first file is the one that the engine opens."""

    ref: str
    revision: str | None
    files: tuple[StoredFile, ...]
    fetched_at: datetime


class ModelKeeper(Protocol):
    """Keeps records of fetched models, and removes old ones when room is needed."""

    async def record(self, record: ModelRecord) -> None:
        """Remember a model that was fetched and verified."""

    async def used(self, ref: str, model: LocalModel) -> None:
        """Note that a model was obtained to be used."""

    async def make_room(self, size_bytes: int, directory: Path, present_bytes: int = 0) -> None:
        """Make room for `size_bytes` in `directory`, of which `present_bytes` are there. Raises ProvisioningFailure."""


class NoKeeper:
    """Remembers nothing and removes nothing."""

    async def record(self, record: ModelRecord) -> None:
        """Do nothing."""

    async def used(self, ref: str, model: LocalModel) -> None:
        """Do nothing."""

    async def make_room(self, size_bytes: int, directory: Path, present_bytes: int = 0) -> None:
        """Do nothing."""
