"""GPU machines as they register with the queen, report to it, and are listed: CLOUD_PROFILE.

What a node says of a pool is a `PoolSnapshot`; its engines are reached through the node's relay only, so that a
snapshot has no address of an engine.
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
from llama_orch.contracts.pools import PoolState

RELAY_HEADER = "x-llama-orch-relay"
"""With an answer of a node's relay that is its own and not the engine's: `refused` or `broken`."""
SESSION_HEADER = "x-llama-orch-session"
"""With a request for a node's relay: the mark of its session, which says what belongs together and nothing else."""
SESSION_MARK_PATTERN = r"[A-Za-z0-9_-]{1,64}"
POOLS_MOST = 256
GPUS_MOST = 64
MODELS_MOST = 1024

AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")
"""A host and perhaps a port; no zone of an IPv6 address, which means something on one machine only."""

MachineId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
InstanceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""Identifies one run of a pool-managerd. Made at start, never stored by it. Releases up to 0.1 send none."""
Text = Annotated[str, StringConstraints(max_length=256)]
Words = Annotated[str, StringConstraints(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]


def node_name(value: str) -> str:
    """`value`, unless a node of that name could not be asked after. Raises ValueError."""
    if value == NODE_ID_RESERVED:
        raise ValueError(f"is reserved: nodes register at /v2/nodes/{NODE_ID_RESERVED}")
    return value


def _digests(value: object) -> object:
    """pydantic counts the entries of an object when it has described what is wrong with each."""
    if isinstance(value, dict) and len(value) > MODELS_MOST:
        raise ValueError(f"has {len(value)} entries, and at most {MODELS_MOST} are allowed")
    return value


def node_address(value: str) -> str:
    """`value` as the base URL of a node: http:// or https://, a host, nothing behind the port. Raises ValueError."""
    url = http_url(value)
    if not AUTHORITY.fullmatch(url.partition("://")[2]):
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
    if is_wildcard(urlsplit(url).hostname or ""):
        raise ValueError("names no machine: its host stands for all addresses of whoever asks")
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
    """What a node is made of."""

    gpus: Annotated[list[NodeGpu], Field(max_length=GPUS_MOST)] = []
    cpu_cores: Count = 0
    ram_total_bytes: Count = 0


class NodeRegistration(Outbound):
    """The body of POST /v2/nodes/register.

    `machine_id` is the machine's own, made application-specific (sd_id128_get_machine_app_specific(3)). `address` is
    the URL at which the queen reaches the node's pool-managerd. `heartbeat_interval_ms` lets the queen warn of an
    interval that her timeout does not bear. While a node is heard, a registration with another `instance_id` is
    accepted only at the same address (a restart).
    """

    node_id: NodeId
    machine_id: MachineId
    instance_id: InstanceId | None = None
    address: Address
    pools: Annotated[list[PoolId], Field(max_length=POOLS_MOST)] = []
    capabilities: NodeCapabilities = NodeCapabilities()
    version: Text
    heartbeat_interval_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 10_000


class NodeRegistered(Outbound):
    """The answer to a registration. `warning` is for the logs of both sides."""

    success: bool
    message: str
    node_id: str
    warning: str | None = None


class PoolSnapshot(Outbound):
    """A pool of a node as it is now; all engines of it together, `ctx_max` in tokens a slot."""

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
    models_available: Annotated[list[Text], Field(max_length=MODELS_MOST), FailFast()] = []
    model_digests: Annotated[dict[Text, Text], Field(max_length=MODELS_MOST), BeforeValidator(_digests)] = {}
    device_mask: Text | None = None
    ctx_max: Count | None = None
    workloads: Annotated[list[Workload], Field(max_length=8)] | None = None
    last_error: Words | None = None


class Heartbeat(Outbound):
    """The body of POST /v2/nodes/{id}/heartbeat. `timestamp` is the node's own clock and only compared, never counted
    on. `draining` is whether the node as a whole is drained. `instance_id` must be the one that has registered."""

    timestamp: datetime
    machine_id: MachineId | None = None
    instance_id: InstanceId | None = None
    draining: bool = False
    pools: Annotated[list[PoolSnapshot], Field(max_length=POOLS_MOST), FailFast()] = []


class HeartbeatAnswer(Outbound):
    """When the next heartbeat is due, in milliseconds from now: the queen spreads those of many nodes. `warning` is
    for the node's log, such as that another pool-managerd tries to register under the same node id."""

    success: bool
    next_heartbeat_ms: Annotated[int, Field(ge=1, le=3_600_000)]
    warning: str | None = None


class NodeStatus(StrEnum):
    """How a node is: `registering` until its first heartbeat, `offline` when they have stopped, `failed` while it
    reports and all of its pools have failed."""

    REGISTERING = "registering"
    ONLINE = "online"
    DRAINING = "draining"
    OFFLINE = "offline"
    FAILED = "failed"


class NodeView(Outbound):
    """One node as clients see it. `age_ms` is the time since it was heard last, `clock_skew_ms` how far its clock is
    ahead of the queen's (transfer included)."""

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


class NodeList(Outbound):
    """GET /v2/nodes."""

    nodes: list[NodeView]
    count: int


class NodeReachability(Outbound):
    """GET /v2/nodes/{id}/reachability: whether the queen reaches the node's pool-managerd at the address that it gave.

    She asks it for its pools, with the token, when she is asked this; `latency_ms` is how long the answer took,
    `problem` why none came.
    """

    node_id: str
    address: str
    reachable: bool
    latency_ms: float | None = None
    problem: str | None = None


class NodeStanding(Outbound):
    """GET /v2/node of pool-managerd: which node it is, and how it stands with its queen.

    In HOME_PROFILE, where it knows of no queen, only profile and version. `registered` is whether she knows the node,
    `problem` why she did not take what it sent her last.
    """

    profile: Literal["home", "cloud"]
    version: str
    node_id: str | None = None
    machine_id: str | None = None
    queen_url: str | None = None
    registered: bool = False
    problem: str | None = None


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
