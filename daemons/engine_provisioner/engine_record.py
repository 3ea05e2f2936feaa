"""`engine.json`: what an engine in the cache directory is, and how it was made."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.files import durable

FILE = "engine.json"
LIMIT_BYTES = 1 << 16


class EngineRecord(Outbound):
    """How an engine was obtained. `flags` are those of cmake; `digest` is that of `executable`, a path below the
    directory; `version` and `options` are what the engine itself reports. None: unknown or not applicable."""

    mode: str
    source: str
    commit: str | None = None
    ref: str | None = None
    flags: list[str] = []
    generator: str | None = None
    compilers: list[str] = []
    executable: str | None = None
    digest: str | None = None
    version: str | None = None
    options: list[str] = []
    built_at: datetime

    @classmethod
    def of(cls, directory: Path, mode: str, source: str, executable: Path, **more: Any) -> "EngineRecord":
        """Return the record of an engine that is complete in `directory` now. Blocks; raises OSError."""
        with executable.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        name = str(executable.relative_to(directory))
        return cls(mode=mode, source=source, executable=name, digest=digest, built_at=datetime.now(UTC), **more)


def write(directory: Path, record: EngineRecord) -> None:
    """Write the record of the engine in `directory`. Blocks; raises OSError."""
    content = record.model_dump_json(exclude_none=True, indent=1).encode() + b"\n"
    durable.replace(directory / FILE, content)


def read(directory: Path) -> EngineRecord | None:
    """Return the record of the engine in `directory`, or None without a valid one. Blocks."""
    try:
        with (directory / FILE).open("rb") as file:
            return EngineRecord.model_validate(json.loads(file.read(LIMIT_BYTES)))
    except (OSError, ValueError, ValidationError):
        return None


def note_report(directory: Path, version: str, options: frozenset[str]) -> None:
    """Add the version and options that the engine reports, unless the record has them. Blocks; raises OSError."""
    record = read(directory)
    reported = {"version": version, "options": sorted(options)}
    if record is not None and {"version": record.version, "options": record.options} != reported:
        write(directory, record.model_copy(update=reported))
