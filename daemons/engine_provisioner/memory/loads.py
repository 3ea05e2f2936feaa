"""What the last load of a pool took: memory, time, context. Kept across restarts of the daemon.

Owns `loads/` in the cache directory: a file for each combination of model, engine and options. All functions block.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from engine_provisioner.engine import Engine, LocalModel
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.contracts.base import Outbound
from llama_orch.contracts.pools import Device
from llama_orch.files import durable

LIMIT_BYTES = 1 << 16
Bytes = Annotated[int, Field(ge=0, le=1 << 53)]


class Load(Outbound):
    """A load that has succeeded. `took_s` is from the engine's start until it was healthy, None if it was adopted."""

    need_bytes: Annotated[Mapping[Device, Bytes], Field(max_length=64)] = {}
    took_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    ctx_max: Annotated[int, Field(ge=1, le=1 << 53)] | None = None


def key_of(pool: Pool, engine: Engine, model: LocalModel, devices: tuple[int, ...]) -> str:
    """Return a key that changes with everything on which a load's memory depends."""
    values = [
        [model.size_bytes, model.digest or str(model.path)],
        [pool.ctx, pool.slots, pool.flags, sorted(pool.env.items()), pool.workloads],
        [engine.version, devices, pool.tensor_split],
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


class Loads:
    """The last load for each key."""

    def __init__(self, cache_dir: Path) -> None:
        self._directory = cache_dir / "loads"

    def last(self, key: str) -> Load | None:
        """Return the last load; None if there is none, or its file is damaged."""
        try:
            with self._path(key).open("rb") as file:
                return Load.model_validate_json(file.read(LIMIT_BYTES))
        except (OSError, ValidationError):
            return None

    def save(self, key: str, load: Load) -> None:
        """Save a load. An error of the disk is ignored: the estimate is used instead."""
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            durable.replace(self._path(key), load.model_dump_json(exclude_none=True).encode())

    def remove(self, key: str) -> None:
        """Forget a load, if it is known. Raises OSError."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"
