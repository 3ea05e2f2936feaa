"""What can be asked of the queen's engines and pools: GET /v2/meta/capabilities."""

from llama_orch.contracts.base import Outbound


class EngineCapabilities(Outbound):
    """One kind of engine that the queen speaks to. Figures in tokens; null where no pool of it has told them."""

    engine: str
    versions: list[str]
    ctx_max: int | None
    max_tokens: int | None
    slots: int
    workloads: list[str]
    endpoints: list[str]
    features: list[str]
    pools: list[str]


class PoolCapabilities(Outbound):
    """One pool. `ctx_max` and `max_tokens` in tokens, null where the engine has not told them."""

    pool_id: str
    engine: str
    engine_version: str | None
    ready: bool
    ctx_max: int | None
    max_tokens: int | None
    slots: int
    workloads: list[str]
    endpoints: list[str]
    features: list[str]
    models: list[str]


class Capabilities(Outbound):
    """What can be asked of each engine and of each pool now."""

    api_version: str
    version: str
    engines: list[EngineCapabilities]
    pools: list[PoolCapabilities]
