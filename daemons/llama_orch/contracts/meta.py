"""Health, readiness, version and capabilities of a daemon."""

from typing import Literal

from llama_orch.contracts.base import Outbound


class Liveness(Outbound):
    """GET /health."""

    status: Literal["ok"]


class Readiness(Outbound):
    """GET /ready. `reasons` is why the daemon is not ready."""

    ready: bool
    reasons: list[str]


class Version(Outbound):
    """GET /v2/meta/version."""

    version: str
    api_version: str


class CapabilityLimits(Outbound):
    """Capabilities. `ctx_max` and `max_tokens` are in tokens, null if no engine has reported them."""

    ctx_max: int | None
    max_tokens: int | None
    slots: int
    workloads: list[str]
    endpoints: list[str]
    features: list[str]


class EngineCapabilities(CapabilityLimits):
    """The capabilities of one kind of engine."""

    engine: str
    versions: list[str]
    pools: list[str]


class PoolCapabilities(CapabilityLimits):
    """The capabilities of one pool."""

    pool_id: str
    engine: str
    engine_version: str | None
    ready: bool
    models: list[str]


class Capabilities(Outbound):
    """GET /v2/meta/capabilities: the current capabilities of each engine and each pool."""

    api_version: str
    version: str
    engines: list[EngineCapabilities]
    pools: list[PoolCapabilities]
