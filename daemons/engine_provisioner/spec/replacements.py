"""Models that replace those of the pools files, given by reloads. Owns the directory of their records.

The files belong to root, so this daemon cannot write them. A record is in force while the pool's file names the model
that it replaced: once somebody edits that, the file counts again, and the record is removed.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from engine_provisioner.spec import pools_directory
from engine_provisioner.spec.policies import contradictions
from engine_provisioner.spec.pool_spec import Model, Pool
from llama_orch.contracts.base import Outbound
from llama_orch.contracts.reloads import ModelRef
from llama_orch.files import durable

log = logging.getLogger(__name__)

LIMIT_BYTES = 1 << 14
MODE = 0o600
"""References may have credentials."""


class Replacement(Outbound):
    """`model` is in force while the file says `instead_of`."""

    model: ModelRef
    instead_of: Annotated[dict[str, Any] | None, Field(max_length=8)] = None


class Replacements:
    """The records in `directory`. All methods block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def applied(self, pools: Sequence[Pool]) -> list[Pool]:
        """Return the pools with their replaced models. Removes records of pools whose files have another model now."""
        by_id = {pool.id: pool for pool in pools}
        found: dict[str, Pool] = {}
        for path in sorted(self._directory.glob("*.json")):
            pool, record = by_id.get(path.stem), _read(path)
            try:
                if pool is None or record is None or record.instead_of != _model_of(pool):
                    raise ValueError("the pools files have changed")
                found[pool.id] = with_model(pool, record.model)
            except ValueError as reason:
                log.info("the record %s is removed: %s", path, reason)
                with suppress(OSError):
                    self.remove(path.stem)
        return [found.get(pool.id, pool) for pool in pools]

    def save(self, pool: Pool, ref: str) -> None:
        """Record that the model `ref` replaces that of `pool`, as in the file. Raises OSError."""
        if pool.model is not None and pool.model.ref == ref:
            self.remove(pool.id)
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        content = Replacement(model=ref, instead_of=_model_of(pool)).model_dump_json().encode() + b"\n"
        durable.replace(self._path(pool.id), content, MODE)

    def remove(self, pool_id: str) -> None:
        """Remove the record of a pool, if there is one. Raises OSError."""
        self._path(pool_id).unlink(missing_ok=True)

    def _path(self, pool_id: str) -> Path:
        return self._directory / f"{pool_id}.json"


class PoolsSource:
    """The pools as they are to be run: those of the pools files at `path`, with their replaced models."""

    def __init__(self, path: Path, replacements: Replacements) -> None:
        self.path = path
        self.replacements = replacements

    def read(self) -> list[Pool] | None:
        """Return the pools, or None if there is no file at all. Blocks; raises PoolsFileError."""
        pools = pools_directory.read(self.path)
        return None if pools is None else self.replacements.applied(pools)

    def configured(self, pool_id: str) -> Pool | None:
        """Return a pool as its file has it. Blocks; raises PoolsFileError."""
        return next((pool for pool in pools_directory.read(self.path) or [] if pool.id == pool_id), None)


def with_model(pool: Pool, ref: str) -> Pool:
    """Return `pool` with another model, which has no checksum. Raises ValueError if the pool cannot have it."""
    if pool.model is not None and pool.model.ref == ref:
        return pool
    model = Model(ref=ref, cache_dir=pool.model.cache_dir if pool.model else None)
    changed = pool.model_copy(update={"model": model})
    groups = frozenset([pool.group] if pool.group else [])
    for location, problem in contradictions(changed, groups):
        raise ValueError(f"{'.'.join(map(str, location))}: {problem}")
    return changed


def _model_of(pool: Pool) -> dict[str, Any] | None:
    return pool.model.model_dump(mode="json", exclude_none=True) if pool.model else None


def _read(path: Path) -> Replacement | None:
    try:
        with path.open("rb") as file:
            return Replacement.model_validate_json(file.read(LIMIT_BYTES))
    except (OSError, ValidationError) as error:
        log.warning("cannot use %s: %s", path, error)
        return None
