"""orchctl ps: the models that are in memory."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.pools import PoolList, PoolState, PoolStatus
from orchctl.client import QueenClient
from orchctl.command import CliCommand
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.tables import UNKNOWN, duration, format_table, gib, one_line

IN_MEMORY = (PoolState.STARTING, PoolState.READY, PoolState.DRAINING)
HEADER = ("POOL", "NODE", "MODEL", "STATE", "DEVICES", "GIB", "BUSY", "IDLE", "UNLOADS IN")


async def list_loaded(options: argparse.Namespace, queen: QueenClient) -> None:
    """JSON and YAML have all pools, as the queen sends them."""
    body = await queen.get("/v2/pools")
    print_one(
        options,
        body,
        PoolList,
        lambda listed: format_loaded(listed.pools),
        lambda listed: (pool.pool_id for pool in loaded_pools(listed.pools)),
    )


def loaded_pools(pools: Sequence[PoolStatus]) -> list[PoolStatus]:
    return [pool for pool in pools if pool.state in IN_MEMORY]


def format_loaded(pools: Sequence[PoolStatus]) -> str:
    """Format a row for each pool with an engine; GIB is the memory that it needs on all devices."""
    loaded = loaded_pools(pools)
    if not loaded:
        return "no model is loaded; orchctl pools shows all pools, orchctl load loads one"
    on_nodes = any(pool.node_id for pool in loaded)
    rows = [row if on_nodes else (row[0], *row[2:]) for row in (HEADER, *map(_row, loaded))]
    return format_table(rows)


def _row(pool: PoolStatus) -> tuple[str, ...]:
    need = sum(pool.residency.need_bytes.values()) if pool.residency else 0
    return (
        pool.pool_id,
        one_line(pool.node_id),
        one_line(", ".join(pool.models_available)),
        pool.state,
        one_line(pool.device_mask),
        gib(need) if need else UNKNOWN,
        f"{pool.slots_total - pool.slots_free}/{pool.slots_total}" if pool.ready else UNKNOWN,
        UNKNOWN if pool.idle_s is None else duration(pool.idle_s),
        _unloads_in(pool),
    )


def _unloads_in(pool: PoolStatus) -> str:
    if pool.residency is None or not pool.ready:
        return UNKNOWN
    if pool.unload_in_s is not None:
        return duration(pool.unload_in_s)
    return UNKNOWN if pool.idle_s is None else "never"


PS = CliCommand("ps", "show the models that are in memory, and when they are unloaded", list_loaded, LIST_ARGUMENTS)
