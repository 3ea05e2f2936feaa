"""Capabilities of pools and engines, derived from pool statuses and engine adapters. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from llama_orch import VERSION
from llama_orch.contracts.meta import Capabilities, EngineCapabilities, PoolCapabilities
from llama_orch.contracts.pools import PoolStatus
from llama_orch.engines.wire.adapter import EngineAdapter
from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import Endpoint, endpoints_for, workloads_of

API_VERSION = "2"

COMMON_FEATURES = ("cancel", "resume", "streaming")
"""Features that the queen provides for every engine."""
FEATURES_BY_ENDPOINT: dict[Endpoint, tuple[str, ...]] = {
    "completion": ("seed", "stop"),
    "chat": ("chat", "messages"),
    "completions": ("seed", "stop"),
}

Adapters = Mapping[str, EngineAdapter]


def capabilities(pools: Iterable[PoolStatus], adapters: Adapters) -> Capabilities:
    """Return pools sorted by id and engines sorted by name. A pool of an unsupported engine has no features."""
    known = [_pool(pool, adapters) for pool in sorted(pools, key=lambda pool: pool.pool_id)]
    engines = [
        _engine(name, adapters[name].endpoints, [pool for pool in known if pool.engine == name])
        for name in sorted(adapters)
    ]
    return Capabilities(api_version=API_VERSION, version=VERSION, engines=engines, pools=known)


def _pool(pool: PoolStatus, adapters: Adapters) -> PoolCapabilities:
    adapter = adapters.get(pool.engine)
    endpoints: frozenset[Endpoint] = endpoints_for(adapter.endpoints, pool.workloads) if adapter else frozenset()
    return PoolCapabilities(
        pool_id=pool.pool_id,
        engine=pool.engine,
        engine_version=pool.engine_version,
        ready=pool.ready,
        ctx_max=pool.ctx_max,
        max_tokens=pool.ctx_max,
        slots=pool.slots_total,
        workloads=list(workloads_of(endpoints)),
        endpoints=sorted(endpoints),
        features=_features(endpoints),
        models=[public_name(model) for model in pool.models_available],
    )


def _engine(name: str, endpoints: frozenset[Endpoint], pools: Sequence[PoolCapabilities]) -> EngineCapabilities:
    ctx_max = max((pool.ctx_max for pool in pools if pool.ctx_max), default=None)
    return EngineCapabilities(
        engine=name,
        versions=sorted({pool.engine_version for pool in pools if pool.engine_version}),
        ctx_max=ctx_max,
        max_tokens=ctx_max,
        slots=sum(pool.slots for pool in pools),
        workloads=list(workloads_of(endpoints)),
        endpoints=sorted(endpoints),
        features=_features(endpoints),
        pools=[pool.pool_id for pool in pools],
    )


@cache
def _features(endpoints: frozenset[Endpoint]) -> list[str]:
    if not endpoints:
        return []
    return sorted(
        {*COMMON_FEATURES, *(name for endpoint in endpoints for name in FEATURES_BY_ENDPOINT.get(endpoint, ()))}
    )
