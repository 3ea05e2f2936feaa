"""orchctl capabilities: what each pool and each kind of engine can be asked for."""

import argparse

from llama_orch.contracts.meta import Capabilities, EngineCapabilities, PoolCapabilities
from orchctl.client import QueenClient
from orchctl.command import Commands
from orchctl.output import show
from orchctl.tables import cell, one_line, table, yes

PATH = "/v2/meta/capabilities"
POOLS = ("POOL", "READY", "ENGINE", "SLOTS", "CONTEXT", "MAX TOKENS", "WORKLOADS", "FEATURES")
ENGINES = ("ENGINE", "POOLS", "SLOTS", "CONTEXT", "MAX TOKENS", "WORKLOADS", "FEATURES")


def add(commands: Commands) -> None:
    """Add the command `capabilities`."""
    commands.add("capabilities", capabilities, "what pools and engines can be asked for")


async def capabilities(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of pools and one of engines. Raises CommandError."""
    show(options.json, await queen.get(PATH), Capabilities, capabilities_text)


def capabilities_text(found: Capabilities) -> str:
    """One line a pool, then one line a kind of engine that the queen speaks to; lengths are in tokens."""
    engines = table([ENGINES, *map(_engine, found.engines)])
    return f"{table([POOLS, *map(_pool, found.pools)])}\n\n{engines}" if found.pools else engines


def _pool(pool: PoolCapabilities) -> tuple[str, ...]:
    return pool.pool_id, yes(pool.ready), one_line(f"{pool.engine} {pool.engine_version or ''}"), *_offer(pool)


def _engine(engine: EngineCapabilities) -> tuple[str, ...]:
    return engine.engine, one_line(", ".join(engine.pools)), *_offer(engine)


def _offer(found: PoolCapabilities | EngineCapabilities) -> tuple[str, ...]:
    lists = (one_line(", ".join(words)) for words in (found.workloads, found.features))
    return str(found.slots), cell(found.ctx_max), cell(found.max_tokens), *lists
