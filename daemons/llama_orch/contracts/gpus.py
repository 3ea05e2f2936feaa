"""The GPUs of all machines as clients see them: GET /v2/gpus of the queen."""

from llama_orch.contracts.base import Outbound


class GpuView(Outbound):
    """One GPU. Memory in bytes, `utilization` in per cent; None where the driver does not tell.

    `node_id` is None for a machine that is no node: HOME_PROFILE.
    """

    node_id: str | None = None
    index: int
    uuid: str
    name: str
    vram_total_bytes: int
    vram_free_bytes: int
    utilization: int | None = None
    compute_capability: str | None = None


class GpuList(Outbound):
    """GET /v2/gpus. `problems` says why a machine's GPUs are not among them, by its node id, or else its URL."""

    gpus: list[GpuView]
    count: int
    problems: dict[str, str] = {}
