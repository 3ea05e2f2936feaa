"""Engine kinds. A kind is declared in a module of this package and registered here, and nowhere else.

The names that handoff files, pools files and tasks allow, the schema of the pools file, health checks, the relay's
allow-list and the adapters of queen-rbee follow from this table.
"""

from llama_orch.engines import llamacpp, openai_http, tgi, triton, vllm
from llama_orch.engines.kind import HEALTH_PATH, LOADING_STATUSES, Kind

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (llamacpp.KIND, vllm.KIND, tgi.KIND, triton.KIND, openai_http.KIND)
}
"""By name; the order is that of error messages and documentation."""


def health_path(engine: str) -> str:
    """Return the path of the engine's health check; an unknown kind, as of a newer release, has the usual one."""
    kind = KINDS.get(engine)
    return kind.health_path if kind else HEALTH_PATH


def is_loading(engine: str, status: int) -> bool:
    """Whether `status` of the health check means that the engine is up but not ready yet."""
    kind = KINDS.get(engine)
    return status in (kind.loading_statuses if kind else LOADING_STATUSES)
