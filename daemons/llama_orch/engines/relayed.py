"""The requests that a node's relay passes on to an engine: exactly those that queen-rbee sends.

Everything else that an engine offers stays on loopback: /slots and /lora-adapters change what other clients get,
/models/load and /props change the server, /metrics and /v1/models tell paths. pool-managerd asks its engines directly.

Matching is exact, on the target as it is sent on: nothing is decoded, no query is allowed, case counts.
"""

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

from llama_orch.contracts.engines import Workload, health_path

Purpose = Workload | Literal["health"]
OPENAI: Mapping[str, Workload] = {"/v1/chat/completions": "completion", "/v1/completions": "completion"}
EMBEDDINGS: Mapping[str, Workload] = {"/v1/embeddings": "embedding"}
RERANK: Mapping[str, Workload] = {"/v1/rerank": "rerank"}
PATHS: Mapping[str, Mapping[str, Workload]] = {
    "llamacpp": {"/completion": "completion", **OPENAI, **EMBEDDINGS, **RERANK},
    "vllm": {**OPENAI, **EMBEDDINGS, **RERANK},
    "tgi": {"/generate_stream": "completion", **OPENAI},
    "triton": {"/v2/models/{model}/generate_stream": "completion"},
    "openai-http": {**OPENAI, **EMBEDDINGS},
}
"""By the kind of engine; `{model}` stands for one segment, percent-encoded."""
SEGMENT = r"([A-Za-z0-9._~%:@!$&'()*+,=-]{1,1024})"


def relayed(engine: str, method: str, target: str) -> Purpose | None:
    """Return what a request for `target` at an engine of that kind is for, or None if it is not passed on."""
    paths = PATHS.get(engine, {})
    if paths and (method, target) == ("GET", health_path(engine)):
        return "health"
    if method != "POST":
        return None
    if target in paths:
        return paths[target]
    patterns = ((path, workload) for path, workload in paths.items() if "{model}" in path)
    return next((workload for path, workload in patterns if _matches(path, target)), None)


def _matches(path: str, target: str) -> bool:
    found = re.fullmatch(re.escape(path).replace(re.escape("{model}"), SEGMENT), target)
    return found is not None and _names_one_model(found[1])


def _names_one_model(segment: str) -> bool:
    """Whether `segment` stays one segment however often it is decoded."""
    name = unquote(segment, errors="replace")
    return name not in (".", "..") and not re.search(r"[/\\%\x00-\x1f\x7f\ufffd]", name)
