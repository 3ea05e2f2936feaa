"""orchctl pools and status: what there is, and how it is."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.meta import Readiness, Version
from llama_orch.contracts.pools import POOLS_EXAMPLE, POOLS_FILE, PoolList, PoolState, PoolStatus
from llama_orch.contracts.tasks import TaskList
from orchctl.client import QueenClient, understood
from orchctl.command import Commands
from orchctl.output import emit, show
from orchctl.paging import PageRange, pages
from orchctl.tables import one_line, table

CONFIGURE = (
    f"On each machine with GPUs, configure them in {POOLS_FILE} (an example is {POOLS_EXAMPLE}), "
    "then: systemctl restart engine-provisioner"
)
POOL_HEADER = ("POOL", "NODE", "STATE", "SLOTS", "ENGINE", "DEVICES", "MODELS")


def add(commands: Commands) -> None:
    """Add the commands `status` and `pools`."""
    commands.add("status", status, "the queen, its tasks and its pools")
    commands.add("pools", pools, "the pools and how they are")


async def pools(options: argparse.Namespace, queen: QueenClient) -> None:
    """The pools. Raises CommandError."""
    show(options.json, await queen.get("/v2/pools"), PoolList, lambda found: pools_text(found.pools))


def pools_text(pools: Sequence[PoolStatus]) -> str:
    """One line a pool, with its node where one has any, and below it why it is not well."""
    if not pools:
        return f"no pools are known\n{CONFIGURE}"
    on_nodes = any(pool.node_id for pool in pools)
    rows = [row if on_nodes else (row[0], *row[2:]) for row in (POOL_HEADER, *map(_row, pools))]
    unwell = (pool for pool in pools if pool.last_error and not pool.ready)
    return "\n".join([table(rows), *(f"{named(pool)}: {one_line(pool.last_error)}" for pool in unwell)])


def named(pool: PoolStatus) -> str:
    """A pool with its node, since several nodes may have a pool of one id."""
    return f"{pool.pool_id} on {pool.node_id}" if pool.node_id else pool.pool_id


def _row(pool: PoolStatus) -> tuple[str, ...]:
    engine = " ".join(filter(None, (pool.engine, pool.engine_version)))
    slots = f"{pool.slots_free}/{pool.slots_total}"
    return (
        pool.pool_id,
        one_line(pool.node_id),
        _state(pool),
        slots,
        engine,
        one_line(pool.device_mask),
        one_line(", ".join(pool.models_available)),
    )


def _state(pool: PoolStatus) -> str:
    draining = "draining" if pool.draining and pool.state is not PoolState.DRAINING else ""
    circuit = "" if pool.circuit == "closed" else f"circuit {pool.circuit}"
    return ", ".join(filter(None, (pool.state, draining, circuit)))


class Status(Outbound):
    """What `orchctl status --json` prints; `tasks` counts the open ones by state."""

    url: str
    version: Version
    ready: Readiness
    tasks: dict[str, int]
    pools: list[PoolStatus]


async def status(options: argparse.Namespace, queen: QueenClient) -> None:
    """Version, readiness, open tasks and pools: several answers of the queen in one document. Raises CommandError."""
    found = Status(
        url=queen.url,
        version=understood(Version, await queen.get("/v2/meta/version")),
        ready=understood(Readiness, await queen.call("GET", "/ready", allowed=(503,))),
        tasks={state: await _count(queen, state) for state in ("queued", "running")},
        pools=understood(PoolList, await queen.get("/v2/pools")).pools,
    )
    if options.json:
        emit(found.model_dump_json() + "\n")
        return
    emit(f"{_head(found)}\n\n{pools_text(found.pools)}\n")


def _head(found: Status) -> str:
    tasks = ", ".join(f"{count} {state}" for state, count in found.tasks.items())
    readiness = "ready" if found.ready.ready else f"not ready ({'; '.join(found.ready.reasons)})"
    return f"queen-rbee {found.version.version} at {found.url}: {readiness}, {tasks}"


async def _count(queen: QueenClient, state: str) -> int:
    bodies = await pages(queen, "/v2/tasks", PageRange(every=True), state=state)
    return sum(understood(TaskList, body).count for body in bodies)
