"""GPUs as pool-managerd and queen-rbee list them."""

from typing import Annotated

from pydantic import Field

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.nodes import MAX_POOLS


class GpuProcessView(Outbound):
    """A process with memory on a GPU, in bytes; null if the driver does not report it."""

    pid: int
    used_bytes: int | None = None


class GpuPool(Outbound):
    """A pool on a GPU, and its energy in J on all its GPUs since pool-managerd started.

    `joules_per_1000_tokens` is null before the pool has generated tokens, and if its engine does not count them.
    """

    pool_id: str
    energy_joules: float = 0.0
    joules_per_1000_tokens: float | None = None


class GpuView(Outbound):
    """One GPU or MIG instance. Values that the driver does not report are null.

    `node_id` is null in HOME_PROFILE. `utilization` is in percent, temperatures in °C, power in W. `energy_joules`
    counts since pool-managerd started. `state` is `ok`, `fenced`, `throttled`, `lost` or `unknown` (the driver does not
    answer), and `state_reason` says why; values of a GPU that is `lost` or `unknown` are the last ones. `faults` counts
    Xids by code. A MIG instance has the index of its GPU, its UUID as `parent_uuid`, and a `mig_index`. With
    `unified_memory`, the memory is the machine's. `processes` lists at most 32 of `process_count`.
    """

    node_id: str | None = None
    index: int
    uuid: str
    name: str
    vram_total_bytes: int
    vram_free_bytes: int
    vram_used_bytes: int | None = None
    utilization: int | None = None
    compute_capability: str | None = None
    vendor: str | None = None
    pci: str | None = None
    state: str = "ok"
    state_reason: str | None = None
    temperature_c: int | None = None
    slowdown_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_joules: float | None = None
    clock_mhz: int | None = None
    throttle: list[str] = []
    recovery: str | None = None
    processes: Annotated[list[GpuProcessView], Field(max_length=256)] = []
    process_count: int = 0
    unified_memory: bool = False
    parent_uuid: str | None = None
    mig_index: int | None = None
    faults: Annotated[dict[str, int], Field(max_length=256)] = {}
    pools: Annotated[list[GpuPool], Field(max_length=MAX_POOLS)] = []


class NodeGpuList(Outbound):
    """GET /v2/gpus of pool-managerd. `problem` says why GPUs cannot be read, if so."""

    gpus: Annotated[list[GpuView], Field(max_length=512)]
    count: int = 0
    problem: str | None = None


class GpuList(Outbound):
    """GET /v2/gpus. `problems` has the machines whose GPUs are missing, by node id or URL, and the reasons."""

    gpus: list[GpuView]
    count: int
    problems: dict[str, str] = {}
