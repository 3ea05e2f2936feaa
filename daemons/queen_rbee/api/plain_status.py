"""The state of the queen as HTML for browsers without JavaScript. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice

from llama_orch import VERSION
from llama_orch.contracts.pools import PoolStatus
from llama_orch.engines.wire.model_names import public_name

POOL_LIMIT = 200


def plain_status(pools: Sequence[PoolStatus], unready: Sequence[str], load: str | None) -> str:
    """Return a table of the first POOL_LIMIT pools. `unready` are the reasons why the queen is not ready.

    `load` is the queen's status line. Without it only what GET /ready and /v2/meta/capabilities show to everybody is
    told: the states of pools and their errors are not.
    """
    return "\n".join(_lines(pools, unready, load))


def _lines(pools: Sequence[PoolStatus], unready: Sequence[str], load: str | None) -> Iterator[str]:
    ready = f"not ready: {'; '.join(unready)}" if unready else "ready"
    yield f"<p>llama-orch {escape(VERSION)}, {escape(ready)}</p>"
    if load is not None:
        yield f"<p>{escape(load)}</p>"
    if not pools:
        yield "<p>No pools are known.</p>"
        return
    yield "<table><caption>Pools</caption>"
    yield _row("th", ("Pool", "Node", "State", "Engine", "Slots", "Models"))
    for pool in islice(pools, POOL_LIMIT):
        yield _row("td", _cells(pool, detailed=load is not None))
    yield "</table>"
    if len(pools) > POOL_LIMIT:
        yield f"<p>{len(pools) - POOL_LIMIT} more pools are not shown. orchctl pools lists them.</p>"


def _cells(pool: PoolStatus, *, detailed: bool) -> Iterable[str]:
    state = "ready" if pool.ready else "not ready"
    if detailed:
        state = f"{pool.state}: {pool.last_error}" if pool.last_error else str(pool.state)
    models = ", ".join(map(public_name, pool.models_available))
    return pool.pool_id, (detailed and pool.node_id) or "", state, pool.engine, str(pool.slots_total), models


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
