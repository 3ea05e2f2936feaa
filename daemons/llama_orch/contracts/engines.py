"""The kinds of engines, and how each of them says whether it is well."""

from collections.abc import Mapping
from typing import Literal

EngineKind = Literal["llamacpp", "vllm", "tgi", "triton", "openai-http"]
Workload = Literal["completion", "embedding", "rerank"]

HEALTH_PATHS: Mapping[str, str] = {"triton": "/v2/health/ready", "openai-http": "/v1/models"}
"""Where they differ from /health: servers of OpenAI's API need have nothing but that API."""

LOADING_STATUSES: Mapping[str, frozenset[int]] = {"triton": frozenset({400, 503})}
"""Where an engine that loads answers its health check with something else than 503."""


def health_path(engine: str) -> str:
    """The path at which an engine of that kind is asked whether it is well; 200 means that it is."""
    return HEALTH_PATHS.get(engine, "/health")


def is_loading(engine: str, status: int) -> bool:
    """Whether an engine of that kind says by `status` that it is there and cannot work yet."""
    return status in LOADING_STATUSES.get(engine, frozenset({503}))
