"""orchctl pools: the pools and their state."""

import argparse
from collections.abc import Iterator, Sequence

from llama_orch.contracts.pools import POOLS_EXAMPLE, POOLS_FILE, PoolList, PoolState, PoolStatus
from orchctl.client import QueenClient
from orchctl.command import CliCommand, ListedValues
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.tables import format_table, one_line

POOL_IDS = ListedValues("pools")
CONFIGURE_HINT = (
    f"On each machine with GPUs, run orchctl pool add, or configure pools in {POOLS_FILE} (example: {POOLS_EXAMPLE})"
)
HEADER = ("POOL", "NODE", "STATE", "SLOTS", "ENGINE", "DEVICES", "MODELS")


async def list_pools(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.get("/v2/pools")
    print_one(options, body, PoolList, lambda listed: format_pools(listed.pools), pool_ids)


def pool_ids(listed: PoolList) -> Iterator[str]:
    return (pool.pool_id for pool in listed.pools)


def format_pools(pools: Sequence[PoolStatus]) -> str:
    """Format a row for each pool, and below the table the last error of each pool that is not ready.

    The column NODE is omitted if no pool belongs to a node.
    """
    if not pools:
        return f"no pools are configured\n{CONFIGURE_HINT}"
    on_nodes = any(pool.node_id for pool in pools)
    rows = [row if on_nodes else (row[0], *row[2:]) for row in (HEADER, *map(_row, pools))]
    errors = (f"{full_name(pool)}: {one_line(pool.last_error)}" for pool in pools if pool.last_error and not pool.ready)
    return "\n".join([format_table(rows), *errors])


def full_name(pool: PoolStatus) -> str:
    """Return id and node of a pool: pools of several nodes may have the same id."""
    return f"{pool.pool_id} on {pool.node_id}" if pool.node_id else pool.pool_id


def _row(pool: PoolStatus) -> tuple[str, ...]:
    return (
        pool.pool_id,
        one_line(pool.node_id),
        _state(pool),
        f"{pool.slots_free}/{pool.slots_total}",
        " ".join(filter(None, (pool.engine, pool.engine_version))),
        one_line(pool.device_mask),
        one_line(", ".join(pool.models_available)),
    )


def _state(pool: PoolStatus) -> str:
    draining = "draining" if pool.draining and pool.state is not PoolState.DRAINING else ""
    circuit = "" if pool.circuit == "closed" else f"circuit {pool.circuit}"
    return ", ".join(filter(None, (pool.state, draining, circuit)))


POOLS = CliCommand("pools", "show the pools and their state", list_pools, LIST_ARGUMENTS)
