"""Pools: reports of engine-provisioner during their start, and their status in pool-managerd."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import NODE_ID_PATTERN, Outbound, PoolId
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.handoff import Handoff, HandoffModel
from llama_orch.contracts.reloads import PoolReload

CircuitState = Literal["closed", "open", "half-open"]


POOLS_FILE = "/etc/llama-orch/pools.toml"
POOLS_EXAMPLE = "/usr/share/doc/llama-orch/examples/pools.toml"
"""Paths of the pools file and of the commented example in the packages, for hints."""


class PoolState(StrEnum):
    """The state of a pool. `unloaded`: engine and model are ready to be loaded, and no engine runs. `asleep`, in the
    queen's lists: the pool's node sleeps, and is woken when a task needs the pool."""

    UNINITIALIZED = "uninitialized"
    UNLOADED = "unloaded"
    PROVISIONING = "provisioning"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    OFFLINE = "offline"
    FAILED = "failed"
    ASLEEP = "asleep"


Device = Annotated[str, StringConstraints(pattern=r"^(cpu|[0-9]{1,4})$")]
"""A GPU by its NVML index, or `cpu` for the machine's own memory."""


class MemoryBudget(Outbound):
    """The memory of one device, which engines and other programs share.

    `free_bytes` is what the driver or the kernel reports as free. `unified`: the device uses the machine's memory.
    """

    device: Device
    total_bytes: Annotated[int, Field(ge=0, le=1 << 53)]
    free_bytes: Annotated[int, Field(ge=0, le=1 << 53)]
    unified: bool = False


class Residency(Outbound):
    """What loading a pool takes, and how long its model stays in memory. Only for pools that can be loaded on demand.

    `need_bytes` is what the loaded engine occupies on each device: an estimate, corrected by what the last load took.
    `keep_alive_s` is how long an idle pool stays loaded: 0 not at all, null for ever. A `pinned` pool is never unloaded
    to make room. `group`: pools of an `exclusive` group are never loaded at the same time, those of any other group are
    loaded and unloaded together. `load_s` is how long the last load took.
    """

    model: HandoffModel | None = None
    slots_total: Annotated[int, Field(ge=1, le=4096)] = 1
    device_mask: Annotated[str, StringConstraints(max_length=256)] | None = None
    need_bytes: Annotated[dict[Device, Annotated[int, Field(ge=0, le=1 << 53)]], Field(max_length=64)] = {}
    keep_alive_s: Annotated[float, Field(ge=0, le=31_536_000)] | None = None
    pinned: bool = False
    group: PoolId | None = None
    exclusive: bool = False
    load_s: Annotated[float, Field(ge=0, le=86_400)] | None = None


class PoolIntent(Outbound):
    """The answer of engine-provisioner to POST /v2/pools/{id}/load and /unload. Progress is in the pool's report."""

    pool_id: PoolId
    wanted: bool


class PoolsReload(Outbound):
    """The answer of engine-provisioner to POST /v2/pools/reload: the pools by what has become of them."""

    kept: list[PoolId] = []
    changed: list[PoolId] = []
    added: list[PoolId] = []
    removed: list[PoolId] = []


class ProvisioningReport(Outbound):
    """`status/<pool_id>.json` in the handoff directory: the progress of engine-provisioner with a pool.

    engine-provisioner writes it and pool-managerd reads it, so a pool that failed to start is listed with the reason.
    While the pool is ready, `handoff` repeats the handoff file, which is deleted when it is taken: a pool-managerd that
    has lost its state finds the engine here. `removed`: the pool is no longer configured, and the report goes soon.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    pool_id: PoolId
    state: PoolState
    engine: Annotated[str, StringConstraints(max_length=64)] = "llamacpp"
    detail: Annotated[str, StringConstraints(max_length=1024)] | None = None
    last_error: Annotated[str, StringConstraints(max_length=4096)] | None = None
    handoff: Handoff | None = None
    workloads: list[Workload] | None = None
    residency: Residency | None = None
    reload: PoolReload | None = None
    removed: bool = False
    updated_at: datetime


class ReplicaStatus(Outbound):
    """One engine of a pool, as of its last health check."""

    replica_id: Annotated[str, StringConstraints(pattern=NODE_ID_PATTERN)]
    url: str
    ready: bool
    slots_total: int
    slots_free: int
    last_error: str | None = None
    workloads: list[Workload] | None = None


class PoolStatus(Outbound):
    """The status of a pool. `ctx_max` is in tokens per slot.

    `model_digests` has the digests (`sha256:…`) that engine-provisioner has verified, by model name. `node_id` is set
    in CLOUD_PROFILE, where several nodes may have pools with the same id; there each pool has one replica, named after
    the node. `circuit` is set by the queen: `open` while it sends no tasks after failures, `half-open` while it checks
    whether the engine has recovered. `detail` is what engine-provisioner does with a pool that has no engine, such as
    the progress of a download. If `workloads` is null, all workloads of that kind of engine are assumed. While a
    pool is loaded and has no task, the queen sets `idle_s` and, if it is unloaded when it stays idle, `unload_in_s`.
    """

    pool_id: PoolId
    node_id: str | None = None
    state: PoolState
    live: bool
    ready: bool
    draining: bool
    slots_total: int = 0
    slots_free: int = 0
    active_leases: int = 0
    vram_total_bytes: int = 0
    vram_free_bytes: int = 0
    engine: str
    engine_version: str | None = None
    device_mask: str | None = None
    models_available: list[str] = []
    model_digests: dict[str, str] = {}
    ctx_max: int | None = None
    last_error: str | None = None
    detail: str | None = None
    workloads: list[Workload] | None = None
    circuit: CircuitState = "closed"
    residency: Residency | None = None
    reload: PoolReload | None = None
    idle_s: float | None = None
    unload_in_s: float | None = None
    replicas: list[ReplicaStatus] = []


class PoolList(Outbound):
    """The answer to GET /v2/pools. `revision` changes with every change of a pool, to a value not used before.

    `memory` has the devices of one machine; the queen's list, which may be of many machines, leaves it empty.
    """

    pools: list[PoolStatus]
    count: int
    revision: int = 0
    memory: list[MemoryBudget] = []


class PoolFigures(Outbound):
    """Slots, leases and GPU memory of a pool."""

    slots_total: int
    slots_free: int
    active_leases: int
    vram_total_bytes: int
    vram_free_bytes: int


class PoolHealth(Outbound):
    """The answer to GET /v2/pools/{id}/health."""

    live: bool
    ready: bool
    draining: bool
    metrics: PoolFigures
    last_error: str | None = None
