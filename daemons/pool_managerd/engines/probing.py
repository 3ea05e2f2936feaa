"""Probe one engine: its health, then its load, and once what it serves if its handoff does not tell.

Each request is bounded in time and size, and answers of any shape are tolerated: what listens on a port may be no
engine at all.
"""

import math

import trio
from pydantic import BaseModel, TypeAdapter

from llama_orch.contracts.handoff import Handoff
from llama_orch.engines import KINDS
from llama_orch.engines.engine_client import EngineClient, parse
from llama_orch.engines.kind import Description, Kind, Load
from llama_orch.http.client.client import UpstreamError, UpstreamTimeout, fetch
from pool_managerd.pools.replica import HealthAnswer, ProbeResult

LIMIT_S = 2.0
SIZE_LIMIT = 1 << 20
MESSAGE_LIMIT = 300


class _Error(BaseModel):
    message: str


class _ErrorBody(BaseModel):
    error: _Error


ERROR_BODY = TypeAdapter(_ErrorBody)


async def probe(handoff: Handoff, *, describe: bool, extras_s: float = math.inf) -> ProbeResult:
    """Probe the engine of `handoff`; with `describe` also for what it serves. Takes at most 4 times LIMIT_S.

    Load and description are waited for until `extras_s` seconds from now: a busy engine may be late with them.
    """
    kind = KINDS[handoff.engine]
    extras_until_s = trio.current_time() + extras_s
    client = EngineClient(handoff.url, LIMIT_S, SIZE_LIMIT)
    try:
        status, body = await fetch(handoff.url + kind.health_path, limit_s=LIMIT_S, size=SIZE_LIMIT)
    except UpstreamTimeout as error:
        return ProbeResult(HealthAnswer.SILENT, f"the engine at {handoff.url} does not answer: {error}")
    except UpstreamError as error:
        return ProbeResult(HealthAnswer.GONE, f"the engine at {handoff.url} is unreachable: {error}")
    if _is_unready(kind, status):
        return ProbeResult(HealthAnswer.LOADING, error_text(status, body))
    if kind.describe_by_health:
        return ProbeResult(HealthAnswer.READY, details=kind.describe_by_health(body))
    details, load = None, Load()
    with trio.move_on_at(extras_until_s):
        details = await _description(kind, client) if describe else None
        load = await _load(kind, client, handoff)
    return ProbeResult(HealthAnswer.READY, slots=load.slots, details=details, kv_usage=load.kv_usage)


def _is_unready(kind: Kind, status: int) -> bool:
    """An engine that rejects the health check itself (404, say) counts as ready, unless that answer is all there is."""
    return status >= 500 or status in kind.loading_statuses or (kind.describe_by_health is not None and status != 200)


def error_text(status: int, body: bytes) -> str:
    """Describe the answer of an engine that is not ready, with its own message."""
    error = parse(ERROR_BODY, body)
    message = error.error.message if error else body.decode("utf-8", "replace").strip()
    return f"the engine answers {status}: {message[:MESSAGE_LIMIT] or 'no reason given'}"


async def _load(kind: Kind, client: EngineClient, handoff: Handoff) -> Load:
    with trio.move_on_after(math.inf if kind.load_limit_s is None else kind.load_limit_s):
        return await kind.load(client, handoff.flags)
    return Load()


async def _description(kind: Kind, client: EngineClient) -> Description | None:
    with trio.move_on_after(2 * client.limit_s):
        return await kind.describe(client)
    return None
