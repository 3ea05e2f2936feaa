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
