"""orchctl capabilities: limits, workloads and features of each pool and each engine kind."""

import argparse

from llama_orch.contracts.meta import Capabilities, EngineCapabilities, PoolCapabilities
from orchctl.client import QueenClient
from orchctl.command import CliCommand
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.tables import format_table, one_line, optional, yes_no

POOLS_HEADER = ("POOL", "READY", "ENGINE", "SLOTS", "CONTEXT", "MAX TOKENS", "WORKLOADS", "FEATURES")
ENGINES_HEADER = ("ENGINE", "POOLS", "SLOTS", "CONTEXT", "MAX TOKENS", "WORKLOADS", "FEATURES")


async def show_capabilities(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.get("/v2/meta/capabilities")
    print_one(options, body, Capabilities, format_capabilities, lambda listed: (pool.pool_id for pool in listed.pools))


def format_capabilities(capabilities: Capabilities) -> str:
    """Format a table of pools and one of the engine kinds that the queen supports; lengths are in tokens."""
    engines = format_table([ENGINES_HEADER, *map(_engine_row, capabilities.engines)])
    if not capabilities.pools:
        return engines
    return f"{format_table([POOLS_HEADER, *map(_pool_row, capabilities.pools)])}\n\n{engines}"


def _pool_row(pool: PoolCapabilities) -> tuple[str, ...]:
    engine = one_line(f"{pool.engine} {pool.engine_version or ''}")
    return pool.pool_id, yes_no(pool.ready), engine, *_common_cells(pool)


def _engine_row(engine: EngineCapabilities) -> tuple[str, ...]:
    return engine.engine, one_line(", ".join(engine.pools)), *_common_cells(engine)


def _common_cells(entry: PoolCapabilities | EngineCapabilities) -> tuple[str, ...]:
    lists = (one_line(", ".join(names)) for names in (entry.workloads, entry.features))
    return str(entry.slots), optional(entry.ctx_max), optional(entry.max_tokens), *lists


CAPABILITIES = CliCommand(
    "capabilities", "show the limits and features of pools and engines", show_capabilities, LIST_ARGUMENTS
)
