"""What is said about a pool: by engine-provisioner while it comes up, by pool-managerd once it is known."""

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
"""Where the packages have the pools file, and the commented example that they install; named in advice."""


class PoolState(StrEnum):
    """Where a pool is in its life."""

    UNINITIALIZED = "uninitialized"
    PROVISIONING = "provisioning"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    OFFLINE = "offline"
    FAILED = "failed"


class ProvisioningReport(Outbound):
    """`status/<pool_id>.json` in the handoff directory: how engine-provisioner stands with a pool.

    Written by engine-provisioner alone and read by pool-managerd, so that a pool which never came up is
    visible with its reason. While the pool is ready, `handoff` repeats the handoff file, which is deleted once it was
    taken: a pool-managerd that has lost its state finds the engine here.
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
    """One engine of a pool, as pool-managerd last saw it."""

    replica_id: Annotated[str, StringConstraints(pattern=NODE_ID_PATTERN)]
    url: str
    ready: bool
    slots_total: int
    slots_free: int
    last_error: str | None = None
    workloads: list[Workload] | None = None


class PoolStatus(Outbound):
    """A pool's status as pool-managerd answers it; bytes are bytes, `ctx_max` is in tokens a slot.

    `model_digests` has the digests (`sha256:…`) that engine-provisioner has checked, by the model's name. `node_id` is
    set in CLOUD_PROFILE, where several nodes may have a pool of one id; there the one replica of a pool bears the name
    of its node. `circuit` is the queen's own: `open` while it sends nothing there after failures, `half-open` while
    it asks the engine whether it is well again. `workloads` is None where nobody knows them: then all that the kind of
    engine can do counts.
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
    """The answer to GET /v2/pools; `revision` changes with whatever is said about a pool, and never comes back."""

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
    """The answer to GET /v2/pools/{id}/health of the queen."""

    live: bool
    ready: bool
    draining: bool
    metrics: PoolFigures
    last_error: str | None = None
