"""The requests that a node's relay passes on to an engine: exactly those that queen-rbee sends.

Everything else that an engine offers stays on loopback: /slots and /lora-adapters change what other clients get,
/models/load and /props change the server, /metrics and /v1/models reveal paths. pool-managerd asks its engines
directly.

Matching is exact, on the target as it is sent on: nothing is decoded, no query is allowed, case matters.
"""

import re
from typing import Literal
from urllib.parse import unquote

from llama_orch.contracts.engines import Workload
from llama_orch.engines import KINDS

Purpose = Workload | Literal["health"]
SEGMENT = r"([A-Za-z0-9._~%:@!$&'()*+,=-]{1,1024})"


def relay_purpose(engine: str, method: str, target: str) -> Purpose | None:
    """Return what a request for `target` at an engine of that kind is for, or None if it is not passed on."""
    kind = KINDS.get(engine)
    if kind is None:
        return None
    if (method, target) == ("GET", kind.health_path):
        return "health"
    if method != "POST":
        return None
    if target in kind.relay_paths:
        return kind.relay_paths[target]
    patterns = ((path, workload) for path, workload in kind.relay_paths.items() if "{model}" in path)
    return next((workload for path, workload in patterns if _matches(path, target)), None)


def _matches(path: str, target: str) -> bool:
    found = re.fullmatch(re.escape(path).replace(re.escape("{model}"), SEGMENT), target)
    return found is not None and _is_one_segment(found[1])


def _is_one_segment(segment: str) -> bool:
    """Whether `segment` stays one segment however often it is decoded."""
    name = unquote(segment, errors="replace")
    return name not in (".", "..") and not re.search(r"[/\\%\x00-\x1f\x7f\ufffd]", name)
