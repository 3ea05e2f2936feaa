"""orchctl pools and status: what the queen knows, as a table for people."""

from collections.abc import Sequence

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.pools import PoolList, PoolStatus
from llama_orch.contracts.tasks import TaskList
from orchctl.queen import Queen, understood

POOL_HEADER = ("POOL", "STATE", "SLOTS", "ENGINE", "DEVICES", "MODELS")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def pools_text(pools: Sequence[PoolStatus]) -> str:
    """One line a pool, and below it why it is not well."""
    if not pools:
        return "no pools are known; see journalctl -u engine-provisioner"
    rows = [POOL_HEADER, *(_row(pool) for pool in pools)]
    errors = [
        f"{pool.pool_id}: {' '.join(pool.last_error.split())}" for pool in pools if pool.last_error and not pool.ready
    ]
    return "\n".join([table(rows), *errors])


def _row(pool: PoolStatus) -> tuple[str, ...]:
    engine = " ".join(filter(None, (pool.engine, pool.engine_version)))
    slots = f"{pool.slots_free}/{pool.slots_total}"
    return pool.pool_id, pool.state, slots, engine, pool.device_mask or "-", ", ".join(pool.models_available) or "-"


async def pools(queen: Queen) -> tuple[bytes, str]:
    """The pools as the queen's own JSON and as a table. Raises Failure."""
    body = await queen.get("/v2/pools")
    return body, pools_text(understood(PoolList, body).pools)


class Version(Outbound):
    """GET /v2/meta/version."""

    version: str
    api_version: str


class Ready(Outbound):
    """GET /ready."""

    ready: bool
    reasons: list[str]


class Status(Outbound):
    """What `orchctl status --json` prints; `tasks` counts the open ones by state."""

    url: str
    version: Version
    ready: Ready
    tasks: dict[str, int]
    pools: list[PoolStatus]


async def status(queen: Queen) -> tuple[str, str]:
    """Version, readiness, open tasks and pools, as JSON and as text. Raises Failure."""
    found = Status(
        url=queen.url,
        version=understood(Version, await queen.get("/v2/meta/version")),
        ready=understood(Ready, await queen.get("/ready")),
        tasks={state: await _count(queen, state) for state in ("queued", "running")},
        pools=understood(PoolList, await queen.get("/v2/pools")).pools,
    )
    tasks = ", ".join(f"{count} {state}" for state, count in found.tasks.items())
    readiness = "ready" if found.ready.ready else f"not ready ({'; '.join(found.ready.reasons)})"
    head = f"queen-rbee {found.version.version} at {found.url}: {readiness}, {tasks}"
    return found.model_dump_json(), f"{head}\n\n{pools_text(found.pools)}"


async def _count(queen: Queen, state: str) -> int:
    return understood(TaskList, await queen.get(f"/v2/tasks?state={state}&limit=500")).count
