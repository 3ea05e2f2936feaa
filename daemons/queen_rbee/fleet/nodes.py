"""A node of CLOUD_PROFILE and its state transitions. Pure functions.

Times ending in `_at` are seconds on trio's clock. A node's own clock is used only to report its skew, so that a jump of
that clock has no effect.
"""

import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from llama_orch.contracts.nodes import GpuSummary, Heartbeat, NodeRegistration, NodeStatus, NodeView, PoolSnapshot
from llama_orch.contracts.pools import MemoryBudget, PoolState
from queen_rbee.pools.candidates import public_pool

SUPERSEDED_LIMIT = 8
SPREAD_MIN_NODES = 16
"""With fewer nodes, heartbeats are not spread over the interval."""
MAX_DELAY_SHARE = 0.8
"""A heartbeat is never delayed beyond this share of the timeout after which its node counts as offline."""


@dataclass(frozen=True)
class Node:
    """A registered node.

    `peer` is the address it registered from. `heard_at` is the time of its last message, or of this queen's start.
    `superseded` are the latest instance ids that a restart of its pool-managerd replaced, newest last. `asleep`: it has
    said that it is suspended. `missed_at` is when it was given up after it had not woken.
    """

    registration: NodeRegistration
    peer: str
    registered_wall: datetime
    heard_at: float
    heard_wall: datetime | None = None
    pools: tuple[PoolSnapshot, ...] = ()
    memory: tuple[MemoryBudget, ...] = ()
    gpus: tuple[GpuSummary, ...] = ()
    draining: bool = False
    offline: bool = False
    asleep: bool = False
    missed_at: float | None = None
    skew_ms: int | None = None
    superseded: tuple[str, ...] = ()

    @property
    def node_id(self) -> str:
        return self.registration.node_id

    @property
    def status(self) -> NodeStatus:
        """The status that clients see."""
        if self.offline:
            return NodeStatus.OFFLINE
        if self.asleep:
            return NodeStatus.ASLEEP
        if self.heard_wall is None:
            return NodeStatus.REGISTERING
        if self.draining:
            return NodeStatus.DRAINING
        failed = bool(self.pools) and all(pool.state is PoolState.FAILED for pool in self.pools)
        return NodeStatus.FAILED if failed else NodeStatus.ONLINE


def registration_conflict(known: Node | None, registration: NodeRegistration, peer: str) -> str | None:
    """Return why another pool-managerd owns the node id of `registration`, None if it may register.

    The id of an offline node can be taken over, because its machine may have been replaced. A different instance on the
    same machine at the same address is a restart, unless it is an instance that an earlier restart superseded. The
    machine of a sleeping node may have been started anew, with another address.
    """
    if known is None or known.offline:
        return None
    current = known.registration
    if known.asleep and current.machine_id == registration.machine_id:
        return None
    if current.machine_id == registration.machine_id:
        restarted = current.address == registration.address and registration.instance_id not in known.superseded
        if current.instance_id == registration.instance_id or restarted:
            return None
        owner = "another pool-managerd on the same machine"
    else:
        owner = "another machine"
    return (
        f"node id {known.node_id} is in use by {owner}, at {current.address} (registered from {known.peer}); "
        f"{registration.address} (from {peer}) must use a different node id"
    )


def heartbeat_conflict(node: Node, heartbeat: Heartbeat) -> str | None:
    """Return why `heartbeat` is not from the pool-managerd that registered `node`, None if it is.

    Older releases do not send a machine id.
    """
    current = node.registration
    if heartbeat.machine_id not in (None, current.machine_id):
        return f"node id {node.node_id} is in use by another machine, at {current.address}"
    if heartbeat.instance_id != current.instance_id:
        return f"node id {node.node_id} is in use by another pool-managerd on the same machine, at {current.address}"
    return None


def after_registration(
    known: Node | None, registration: NodeRegistration, peer: str, now: float, wall: datetime
) -> Node:
    """Return the node without pools: its first heartbeat, which follows at once, reports them."""
    if known is None:
        return Node(registration, peer, wall, now)
    replaced = known.registration.instance_id
    superseded = known.superseded if replaced in (None, registration.instance_id) else (*known.superseded, replaced)
    others = [instance for instance in superseded if instance != registration.instance_id]
    return Node(registration, peer, known.registered_wall, now, superseded=tuple(others[-SUPERSEDED_LIMIT:]))


def after_heartbeat(node: Node, heartbeat: Heartbeat, now: float, wall: datetime, *, asleep: bool = False) -> Node:
    """Return the node with the state that the heartbeat reports. Pools of other nodes in it are ignored."""
    timestamp = heartbeat.timestamp if heartbeat.timestamp.tzinfo else heartbeat.timestamp.replace(tzinfo=UTC)
    return replace(
        node,
        heard_at=now,
        heard_wall=wall,
        pools=tuple(pool for pool in heartbeat.pools if pool.node_id == node.node_id),
        memory=tuple(heartbeat.memory),
        gpus=tuple(heartbeat.gpus),
        draining=heartbeat.draining,
        offline=False,
        asleep=asleep,
        missed_at=None,
        skew_ms=round((timestamp - wall).total_seconds() * 1000),
    )


def after_missed_wake(node: Node, now: float) -> Node:
    """Return the node as offline, after it was not woken by any packet."""
    return replace(node, offline=True, asleep=False, missed_at=now)


def timed_out(node: Node, now: float, timeout_s: float) -> bool:
    """Return whether an online node has been silent for longer than the timeout. A node that sleeps is silent."""
    return not (node.offline or node.asleep) and now - node.heard_at > timeout_s


def offline_since(node: Node) -> float:
    """Return when an offline node was last heard or given up."""
    return node.heard_at if node.missed_at is None else node.missed_at


def published_state(node: Node) -> tuple[object, ...]:
    """Return the state that the pool registry or the store must learn of when it changes.

    Whether the node has sent a heartbeat is of interest to the store only.
    """
    flags = node.draining, node.offline, node.asleep, node.heard_wall is None
    return node.pools, node.memory, node.registration.address, flags


def stored_state(node: Node) -> tuple[object, ...]:
    """Return the state that is stored when it changes, without figures that change with every heartbeat."""
    pools = tuple(
        (
            pool.pool_id,
            pool.state,
            pool.ready,
            pool.draining,
            pool.slots_total,
            tuple(pool.models_available),
            pool.ctx_max,
            pool.workloads,
        )
        for pool in node.pools
    )
    flags = node.draining, node.offline, node.asleep, node.heard_wall is None
    return node.registration, node.peer, flags, pools


def interval_warning(registration: NodeRegistration, timeout_ms: int) -> str | None:
    """Return a warning if the node's heartbeat interval is not below the queen's timeout."""
    if registration.heartbeat_interval_ms < timeout_ms:
        return None
    interval_s = registration.heartbeat_interval_ms / 1000
    return (
        f"POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS={interval_s:g} is not below the queen's "
        f"ORCHESTRATORD_NODE_TIMEOUT_MS={timeout_ms}: the node will appear offline between heartbeats"
    )


def view(node: Node, now: float, leases: int) -> NodeView:
    """Return the node as clients see it; `leases` is the number of slots that the queen holds there."""
    registration = node.registration
    return NodeView(
        node_id=registration.node_id,
        machine_id=registration.machine_id,
        address=registration.address,
        status=node.status,
        version=registration.version,
        capabilities=registration.capabilities,
        registered_at=node.registered_wall,
        last_heartbeat_at=node.heard_wall,
        age_ms=max(0, round(1000 * (now - node.heard_at))),
        clock_skew_ms=node.skew_ms,
        heartbeat_interval_ms=registration.heartbeat_interval_ms,
        active_leases=leases,
        pools=[public_pool(pool) for pool in node.pools],
        gpus=list(node.gpus),
        wake=registration.wake,
    )


def next_heartbeat_ms(node_id: str, interval_ms: int, timeout_ms: int, now_ms: int, nodes: int) -> int:
    """Return the delay until the next heartbeat of a node that wants to send one every `interval_ms`.

    Many nodes are spread over the interval: each has a fixed offset in it, derived from its id.
    """
    if nodes < SPREAD_MIN_NODES:
        return interval_ms
    offset_ms = zlib.crc32(node_id.encode()) % interval_ms
    wait_ms = (offset_ms - now_ms) % interval_ms
    if wait_ms < interval_ms / 2:
        wait_ms += interval_ms
    if wait_ms > interval_ms and wait_ms > MAX_DELAY_SHARE * timeout_ms:
        return max(1, min(interval_ms, wait_ms - interval_ms // 2))
    return wait_ms
