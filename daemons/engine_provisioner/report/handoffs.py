"""Handoff files: how pool-managerd learns of an engine.

Owns `<pool_id>-r0.json` in the handoff directory; others may write files of other names there.
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
    """An engine that answers. `ctx` in tokens a slot."""

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


def handoff(announced: Announcement, created_at: datetime) -> Handoff:
    """The document that says so."""
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
    if isinstance(model, str):  # of an engine that somebody else runs, only the name is known
        return HandoffModel(id=model[:NAME_LIMIT], path=model[:NAME_LIMIT], ctx_max=ctx)
    return HandoffModel(
        id=model.name, path=str(model.path), digest=model.digest, ctx_max=ctx, size_bytes=model.size_bytes
    )


def file_of(directory: Path, pool_id: str) -> Path:
    """Where the pool's handoff file is, until pool-managerd takes it."""
    return directory / f"{pool_id}-{REPLICA}.json"


def write(directory: Path, announced: Announcement) -> Handoff:
    """Publish `announced`; the document that is now there. Blocks; raises OSError."""
    document = handoff(announced, datetime.now(UTC))
    content = document.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode() + b"\n"
    durable.replace(file_of(directory, announced.pool_id), content)
    return document


def withdraw(directory: Path, pool_id: str) -> None:
    """Remove the pool's handoff file if nobody has taken it. Blocks; raises OSError."""
    file_of(directory, pool_id).unlink(missing_ok=True)
