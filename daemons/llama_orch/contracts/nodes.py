"""GPU machines (nodes) in CLOUD_PROFILE: registration, heartbeats and listings.

A node reports its pools as `PoolSnapshot`. Its engines are reached only through the node's relay, so a snapshot has no
engine addresses.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, StringConstraints

from llama_orch.addresses import http_url, is_wildcard
from llama_orch.contracts.base import NODE_ID_PATTERN, NODE_ID_RESERVED, Outbound, PoolId
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.pools import MemoryBudget, PoolState, Residency
from llama_orch.contracts.reloads import PoolReload
from llama_orch.contracts.wake import Wake

RELAY_HEADER = "x-llama-orch-relay"
"""Response header of a node's relay on answers of its own, not of the engine: `refused` or `broken`."""
SESSION_HEADER = "x-llama-orch-session"
"""Request header for a node's relay: an opaque mark that is equal for all requests of a session."""
SESSION_MARK_PATTERN = r"[A-Za-z0-9_-]{1,64}"
MAX_POOLS = 256
MAX_GPUS = 64
MAX_MODELS = 1024

AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")
"""A host with an optional port. No IPv6 zone, since it has a meaning only on one machine."""

MachineId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
InstanceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""Identifies one run of a pool-managerd, generated at its start and not stored. Releases up to 0.1 send none."""
Text = Annotated[str, StringConstraints(max_length=256)]
Words = Annotated[str, StringConstraints(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]


def node_name(value: str) -> str:
    """Return `value` if it is not reserved. Raises ValueError."""
    if value == NODE_ID_RESERVED:
        raise ValueError(f"is reserved for the path /v2/nodes/{NODE_ID_RESERVED}")
    return value


def _digests(value: object) -> object:
    """Count the entries first: pydantic would describe the error of each before it counts them."""
    if isinstance(value, dict) and len(value) > MAX_MODELS:
        raise ValueError(f"has {len(value)} entries (at most {MAX_MODELS} are allowed)")
    return value


def node_address(value: str) -> str:
    """Return `value` as the base URL of a node, without a path. Raises ValueError."""
    url = http_url(value)
    if not AUTHORITY.fullmatch(url.partition("://")[2]):
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
    if is_wildcard(urlsplit(url).hostname or ""):
        raise ValueError("must name a machine, not the wildcard address")
    return url


NodeId = Annotated[
    str,
    Field(pattern=NODE_ID_PATTERN, json_schema_extra={"not": {"const": NODE_ID_RESERVED}}),
    AfterValidator(node_name),
]
Address = Annotated[str, StringConstraints(max_length=512), AfterValidator(node_address)]


class NodeGpu(Outbound):
    """One GPU of a node."""

    device_id: Annotated[int, Field(ge=0, le=4096)]
    name: Text
    vram_total_bytes: Count
    compute_capability: Text | None = None


class NodeCapabilities(Outbound):
    """The hardware of a node."""

    gpus: Annotated[list[NodeGpu], Field(max_length=MAX_GPUS)] = []
    cpu_cores: Count = 0
    ram_total_bytes: Count = 0


class NodeRegistration(Outbound):
    """The body of POST /v2/nodes/register.

    `machine_id` is derived from the machine id (sd_id128_get_machine_app_specific(3)). `address` is the URL at which
    the queen reaches the node's pool-managerd. `heartbeat_interval_ms` lets the queen warn of an interval that is too
    long for its timeout. While a node sends heartbeats, a registration with another `instance_id` is accepted only from
    the same address (a restart). `wake` is set if the machine can be woken over the network.
    """

    node_id: NodeId
    machine_id: MachineId
    instance_id: InstanceId | None = None
    address: Address
    pools: Annotated[list[PoolId], Field(max_length=MAX_POOLS)] = []
    capabilities: NodeCapabilities = NodeCapabilities()
    version: Text
    heartbeat_interval_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 10_000
    wake: Wake | None = None


class NodeRegistered(Outbound):
    """The answer to a registration. `warning` is for the logs of both sides."""

    success: bool
    message: str
    node_id: str
    warning: str | None = None


class PoolSnapshot(Outbound):
    """The current state of a pool of a node, with all its engines together. `ctx_max` is in tokens per slot."""

    pool_id: PoolId
    node_id: NodeId
    state: PoolState = PoolState.READY
    live: bool = True
    ready: bool
    draining: bool
    slots_free: Annotated[int, Field(ge=0, le=1 << 20)]
    slots_total: Annotated[int, Field(ge=0, le=1 << 20)]
    active_leases: Count = 0
    vram_free_bytes: Count = 0
    vram_total_bytes: Count = 0
    engine: Text
    engine_version: Text | None = None
    models_available: Annotated[list[Text], Field(max_length=MAX_MODELS), FailFast()] = []
    model_digests: Annotated[dict[Text, Text], Field(max_length=MAX_MODELS), BeforeValidator(_digests)] = {}
    device_mask: Text | None = None
    ctx_max: Count | None = None
    workloads: Annotated[list[Workload], Field(max_length=8)] | None = None
    last_error: Words | None = None
    detail: Words | None = None
    residency: Residency | None = None
    reload: PoolReload | None = None


class GpuSummary(Outbound):
    """The current state of a GPU of a node. None: the driver does not report it.

    `state` is `ok`, `fenced`, `throttled`, `lost` or `unknown`; `reason` says why it is not `ok`.
    """

    device_id: Annotated[int, Field(ge=0, le=4096)]
    uuid: Text
    state: Text
    reason: Words | None = None
    vram_total_bytes: Count = 0
    vram_free_bytes: Count = 0
    utilization: Annotated[int, Field(ge=0, le=100)] | None = None
    temperature_c: Annotated[int, Field(ge=-273, le=1000)] | None = None
    power_w: Annotated[float, Field(ge=0, le=1_000_000)] | None = None


class Heartbeat(Outbound):
    """The body of POST /v2/nodes/{id}/heartbeat.

    `timestamp` is the node's clock, used only to report its skew. `draining` is whether the whole node is draining.
    `instance_id` must be that of the registration. `sleeping`: the node wants to be suspended now.
    """

    timestamp: datetime
    machine_id: MachineId | None = None
    instance_id: InstanceId | None = None
    draining: bool = False
    sleeping: bool = False
    memory: Annotated[list[MemoryBudget], Field(max_length=MAX_GPUS + 1)] = []
    pools: Annotated[list[PoolSnapshot], Field(max_length=MAX_POOLS), FailFast()] = []
    gpus: Annotated[list[GpuSummary], Field(max_length=MAX_GPUS), FailFast()] = []


class HeartbeatAnswer(Outbound):
    """The answer to a heartbeat.

    `next_heartbeat_ms` is the time until the next heartbeat; the queen spreads those of many nodes. `warning` is for
    the node's log, for example that another pool-managerd tries to register with the same node id. `may_sleep`: the
    queen sends nothing more until the next heartbeat, and wakes the node when it needs it.
    """

    success: bool
    next_heartbeat_ms: Annotated[int, Field(ge=1, le=3_600_000)]
    warning: str | None = None
    may_sleep: bool = False


class NodeStatus(StrEnum):
    """The state of a node: `registering` until its first heartbeat, `offline` without heartbeats, `failed` if it sends
    heartbeats but all its pools have failed, `asleep` if it is suspended until the queen wakes it."""

    REGISTERING = "registering"
    ONLINE = "online"
    DRAINING = "draining"
    OFFLINE = "offline"
    FAILED = "failed"
    ASLEEP = "asleep"


class NodeView(Outbound):
    """One node.

    `age_ms` is the time since its last message. `clock_skew_ms` is how far its clock is ahead of the queen's, including
    the transfer time.
    """

    node_id: str
    machine_id: str
    address: str
    status: NodeStatus
    version: str
    capabilities: NodeCapabilities
    registered_at: datetime
    last_heartbeat_at: datetime | None = None
    age_ms: int
    clock_skew_ms: int | None = None
    heartbeat_interval_ms: int
    active_leases: int = 0
    pools: list[PoolSnapshot] = []
    gpus: list[GpuSummary] = []
    wake: Wake | None = None


class NodeList(Outbound):
    """GET /v2/nodes."""

    nodes: list[NodeView]
    count: int


class NodeReachability(Outbound):
    """GET /v2/nodes/{id}/reachability: whether the queen reaches the node's pool-managerd at its address.

    The queen requests the node's pools, with the token. `latency_ms` is the response time, `problem` why it failed.
    """

    node_id: str
    address: str
    reachable: bool
    latency_ms: float | None = None
    problem: str | None = None


class NodeStanding(Outbound):
    """GET /v2/node of pool-managerd: the node and its registration with the queen.

    In HOME_PROFILE, which has no registration, only profile and version. `registered` is whether the queen knows the
    node, `problem` why it refused the node's last message. `sleep` is set if the node is suspended when idle: when that
    happens, or what keeps it awake.
    """

    profile: Literal["home", "cloud"]
    version: str
    node_id: str | None = None
    machine_id: str | None = None
    queen_url: str | None = None
    registered: bool = False
    problem: str | None = None
    sleep: str | None = None
