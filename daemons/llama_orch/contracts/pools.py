"""Pools: reports of engine-provisioner during their start, and their status in pool-managerd."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import NODE_ID_PATTERN, Outbound, PoolId
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.handoff import Handoff

CircuitState = Literal["closed", "open", "half-open"]


POOLS_FILE = "/etc/llama-orch/pools.toml"
POOLS_EXAMPLE = "/usr/share/doc/llama-orch/examples/pools.toml"
"""Paths of the pools file and of the commented example in the packages, for hints."""


class PoolState(StrEnum):
    """The state of a pool."""

    UNINITIALIZED = "uninitialized"
    PROVISIONING = "provisioning"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    OFFLINE = "offline"
    FAILED = "failed"


class ProvisioningReport(Outbound):
    """`status/<pool_id>.json` in the handoff directory: the progress of engine-provisioner with a pool.

    engine-provisioner writes it and pool-managerd reads it, so a pool that failed to start is listed with the reason.
    While the pool is ready, `handoff` repeats the handoff file, which is deleted when it is taken: a pool-managerd that
    has lost its state finds the engine here.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    pool_id: PoolId
    state: PoolState
    engine: Annotated[str, StringConstraints(max_length=64)] = "llamacpp"
    detail: Annotated[str, StringConstraints(max_length=1024)] | None = None
    last_error: Annotated[str, StringConstraints(max_length=4096)] | None = None
    handoff: Handoff | None = None
    workloads: list[Workload] | None = None
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
    whether the engine has recovered. If `workloads` is null, all workloads of that kind of engine are assumed.
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
    workloads: list[Workload] | None = None
    circuit: CircuitState = "closed"
    replicas: list[ReplicaStatus] = []


class PoolList(Outbound):
    """The answer to GET /v2/pools. `revision` changes with every change of a pool, to a value not used before."""

    pools: list[PoolStatus]
    count: int
    revision: int = 0


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
