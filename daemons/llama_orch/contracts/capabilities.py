"""What can be asked of the queen's engines and pools: GET /v2/meta/capabilities."""

from llama_orch.contracts.base import Outbound


class Offer(Outbound):
    """What there is. `ctx_max` and `max_tokens` in tokens, null where no engine has told them."""

    ctx_max: int | None
    max_tokens: int | None
    slots: int
    workloads: list[str]
    endpoints: list[str]
    features: list[str]


class EngineCapabilities(Offer):
    """One kind of engine that the queen speaks to."""

    engine: str
    versions: list[str]
    pools: list[str]


class PoolCapabilities(Offer):
    """One pool."""

    pool_id: str
    engine: str
    engine_version: str | None
    ready: bool
    models: list[str]


class Capabilities(Outbound):
    """What can be asked of each engine and of each pool now."""

    api_version: str
    version: str
    engines: list[EngineCapabilities]
    pools: list[PoolCapabilities]
