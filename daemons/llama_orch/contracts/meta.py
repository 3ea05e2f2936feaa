"""What a daemon says of itself: whether it lives, whether it is ready, which release it is."""

from typing import Literal

from llama_orch.contracts.base import Outbound


class Liveness(Outbound):
    """GET /health."""

    status: Literal["ok"]


class Readiness(Outbound):
    """GET /ready, with what stands against it."""

    ready: bool
    reasons: list[str]


class Version(Outbound):
    """GET /v2/meta/version."""

    version: str
    api_version: str


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
