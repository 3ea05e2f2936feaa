"""Handoff files, which announce running engines to pool-managerd.

Owns `<pool_id>-r0.json` in the handoff directory. Other programs may write files with other names there.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine_provisioner.engine import LocalModel
from llama_orch.contracts.engines import EngineKind, Workload
from llama_orch.contracts.handoff import Handoff, HandoffModel
from llama_orch.files import durable

REPLICA = "r0"
NAME_LIMIT = 256


@dataclass(frozen=True)
class Announcement:
    """A healthy engine. `ctx` is in tokens per slot; `model` is a name only if another program runs the engine."""

    pool_id: str
    engine: EngineKind
    engine_version: str
    mode: str
    url: str
    slots: int
    ctx: int | None
    device_mask: str | None
    model: LocalModel | str | None
    flags: tuple[str, ...] = ()
    pid: int | None = None
    unit: str | None = None
    workloads: list[Workload] | None = None


def document_of(announced: Announcement, created_at: datetime) -> Handoff:
    """Return the content of the handoff file for `announced`."""
    return Handoff(
        pool_id=announced.pool_id,
        replica_id=REPLICA,
        engine=announced.engine,
        engine_version=announced.engine_version,
        provisioning_mode=announced.mode,
        url=announced.url,
        model=_model(announced.model, announced.ctx),
        device_mask=announced.device_mask,
        slots_total=announced.slots,
        slots_free=announced.slots,
        flags=list(announced.flags),
        workloads=announced.workloads or None,
        pid=announced.pid,
        unit=announced.unit,
        created_at=created_at,
    )


def _model(model: LocalModel | str | None, ctx: int | None) -> HandoffModel | None:
    if model is None:
        return None
    if isinstance(model, str):
        return HandoffModel(id=model[:NAME_LIMIT], path=model[:NAME_LIMIT], ctx_max=ctx)
    return HandoffModel(
        id=model.name, path=str(model.path), digest=model.digest, ctx_max=ctx, size_bytes=model.size_bytes
    )


def path_of(directory: Path, pool_id: str) -> Path:
    """Return the path of the pool's handoff file, which pool-managerd removes when it takes it."""
    return directory / f"{pool_id}-{REPLICA}.json"


def write(directory: Path, announced: Announcement) -> Handoff:
    """Write the handoff file for `announced`; return its content. Blocks; raises OSError."""
    document = document_of(announced, datetime.now(UTC))
    content = document.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode() + b"\n"
    durable.replace(path_of(directory, announced.pool_id), content)
    return document


def remove(directory: Path, pool_id: str) -> None:
    """Remove the pool's handoff file if it is still there. Blocks; raises OSError."""
    path_of(directory, pool_id).unlink(missing_ok=True)
