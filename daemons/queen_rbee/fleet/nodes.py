"""A node as the queen knows it, and what becomes of it with each thing it says, or does not say. Pure.

Times ending in `_at` are trio's clock in seconds. A node's own clock is only looked at, to tell how far it is off: a
jump of it changes nothing.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from llama_orch.contracts.nodes import Heartbeat, NodeRegistration, NodeStatus, NodeView, PoolSnapshot
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from queen_rbee.pools.candidates import public_pool

SUPERSEDED_MOST = 8


@dataclass(frozen=True)
class Node:
    """`peer` is the address it registered from. `heard_at` is when it was heard last, or when this queen started.
    `superseded` has the last instances that a restart replaced, newest last."""

    registration: NodeRegistration
    peer: str
    registered_wall: datetime
    heard_at: float
    heard_wall: datetime | None = None
    pools: tuple[PoolSnapshot, ...] = ()
    draining: bool = False
    offline: bool = False
    skew_ms: int | None = None
    superseded: tuple[str, ...] = ()

    @property
    def node_id(self) -> str:
        """What tells it from all others."""
        return self.registration.node_id

    @property
    def status(self) -> NodeStatus:
        """As clients see it."""
        if self.offline:
            return NodeStatus.OFFLINE
        if self.heard_wall is None:
            return NodeStatus.REGISTERING
        if self.draining:
            return NodeStatus.DRAINING
        failed = bool(self.pools) and all(pool.state is PoolState.FAILED for pool in self.pools)
        return NodeStatus.FAILED if failed else NodeStatus.ONLINE


def claimed(known: Node | None, registration: NodeRegistration, peer: str) -> str | None:
    """Why `registration` is refused because its node id is in use by another pool-managerd, or None.

    The id of a node that is offline can be taken over: its machine may have been replaced. On the same machine, another
    instance at the same address is a restart, unless it is one that a restart has replaced and that runs all the same.
    """
    if known is None or known.offline:
        return None
    told = known.registration
    if told.machine_id == registration.machine_id:
        restarted = told.address == registration.address and registration.instance_id not in known.superseded
        if told.instance_id == registration.instance_id or restarted:
            return None
        owner = "in use by another pool-managerd on the same machine"
    else:
        owner = "in use by another machine"
    return (
        f"the node id {known.node_id} is {owner}, at {told.address} "
        f"(registered from {known.peer}); {registration.address} (from {peer}) needs one of its own"
    )


def unregistered(node: Node, heartbeat: Heartbeat) -> str | None:
    """Why `heartbeat` is not of the pool-managerd that has registered as `node`, or None. Older releases do not say
    which machine it is from."""
    told = node.registration
    if heartbeat.machine_id not in (None, told.machine_id):
        return f"the node id {node.node_id} is in use by another machine, at {told.address}"
    if heartbeat.instance_id != told.instance_id:
        return f"the node id {node.node_id} is in use by another pool-managerd on the same machine, at {told.address}"
    return None


def registered(known: Node | None, registration: NodeRegistration, peer: str, now: float, wall: datetime) -> Node:
    """The node after it has registered; what it last said of its pools is forgotten, its heartbeat follows at once."""
    if known is None:
        return Node(registration, peer, wall, now)
    replaced = known.registration.instance_id
    superseded = known.superseded if replaced in (None, registration.instance_id) else (*known.superseded, replaced)
    kept = tuple(instance for instance in superseded if instance != registration.instance_id)[-SUPERSEDED_MOST:]
    return Node(registration, peer, known.registered_wall, now, superseded=kept)


def reported(node: Node, heartbeat: Heartbeat, now: float, wall: datetime) -> Node:
    """The node after a heartbeat."""
    ahead = heartbeat.timestamp if heartbeat.timestamp.tzinfo else heartbeat.timestamp.replace(tzinfo=UTC)
    return replace(
        node,
        heard_at=now,
        heard_wall=wall,
        pools=tuple(pool for pool in heartbeat.pools if pool.node_id == node.node_id),
        draining=heartbeat.draining,
        offline=False,
        skew_ms=round((ahead - wall).total_seconds() * 1000),
    )


def silent(node: Node, now: float, timeout_s: float) -> bool:
    """Whether it has to be given up: it was not heard for longer than the timeout."""
    return not node.offline and now - node.heard_at > timeout_s


def said(node: Node) -> tuple[object, ...]:
    """What others have to know of it: the registry, or, of a first heartbeat without pools, the store alone."""
    return node.pools, node.registration.address, node.draining, node.offline, node.heard_wall is None


def shape(node: Node) -> tuple[object, ...]:
    """What is worth storing when it changes: all but figures that change with each heartbeat."""
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
    return node.registration, node.peer, node.draining, node.offline, node.heard_wall is None, pools


def too_slow(registration: NodeRegistration, timeout_ms: int) -> str | None:
    """A warning where a node's heartbeats cannot be frequent enough for the queen's timeout, or None."""
    if registration.heartbeat_interval_ms < timeout_ms:
        return None
    interval_s = registration.heartbeat_interval_ms / 1000
    return (
        f"POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS of {interval_s:g} s is not below the queen's "
        f"ORCHESTRATORD_NODE_TIMEOUT_MS of {timeout_ms} ms: the node will seem offline between heartbeats"
    )


def view(node: Node, now: float, leases: int) -> NodeView:
    """What clients may know of it; the queen holds `leases` slots there."""
    told = node.registration
    return NodeView(
        node_id=told.node_id,
        machine_id=told.machine_id,
        address=told.address,
        status=node.status,
        version=told.version,
        capabilities=told.capabilities,
        registered_at=node.registered_wall,
        last_heartbeat_at=node.heard_wall,
        age_ms=max(0, round(1000 * (now - node.heard_at))),
        clock_skew_ms=node.skew_ms,
        heartbeat_interval_ms=told.heartbeat_interval_ms,
        active_leases=leases,
        pools=[public_pool(pool) for pool in node.pools],
    )


def pools_of(node: Node, before: "Node | None" = None, known: Sequence[PoolStatus] = ()) -> list[PoolStatus]:
    """The node's pools as placement sees them: those of a node that is offline or draining get nothing.

    `known` is what this gave for the node as it was `before`: most pools have not changed since the last heartbeat.
    """
    if before is None or said(before)[1:] != said(node)[1:] or len(known) != len(before.pools):
        return [_pool(node, pool) for pool in node.pools]
    same = {id(old): status for old, status in zip(before.pools, known, strict=True)}
    olds = {old.pool_id: old for old in before.pools}
    return [
        same[id(old)] if (old := olds.get(pool.pool_id)) == pool and old is not None else _pool(node, pool)
        for pool in node.pools
    ]


def _pool(node: Node, pool: PoolSnapshot) -> PoolStatus:
    ready = pool.ready and not node.offline
    url = f"{node.registration.address}/v2/pools/{pool.pool_id}/engine"
    replica = ReplicaStatus.model_construct(
        last_error=None,
        workloads=None,
        replica_id=node.node_id,
        url=url,
        ready=ready,
        slots_total=pool.slots_total,
        slots_free=pool.slots_free,
    )
    # without validation, which the heartbeat has passed: it would be most of a heartbeat's time
    return PoolStatus.model_construct(
        pool_id=pool.pool_id,
        node_id=pool.node_id,
        slots_total=pool.slots_total,
        slots_free=pool.slots_free,
        active_leases=pool.active_leases,
        vram_total_bytes=pool.vram_total_bytes,
        vram_free_bytes=pool.vram_free_bytes,
        engine=pool.engine,
        engine_version=pool.engine_version,
        device_mask=pool.device_mask,
        models_available=pool.models_available,
        model_digests=pool.model_digests,
        ctx_max=pool.ctx_max,
        workloads=pool.workloads,
        circuit="closed",
        state=PoolState.OFFLINE if node.offline else pool.state,
        live=pool.live and not node.offline,
        ready=ready,
        draining=pool.draining or node.draining,
        last_error="its node is offline" if node.offline else pool.last_error,
        replicas=[replica],
    )


MANY = 16
"""Fewer nodes than this are let alone."""
SHARE = 0.8
"""No heartbeat is put off beyond this part of the time after which the node would count as offline."""


def next_heartbeat_ms(node_id: str, interval_ms: int, timeout_ms: int, now_ms: int, nodes: int) -> int:
    """Milliseconds until the next heartbeat of a node that wants to send one every `interval_ms`."""
    if nodes < MANY:
        return interval_ms
    place = zlib.crc32(node_id.encode()) % interval_ms
    wait_ms = (place - now_ms) % interval_ms
    if wait_ms < interval_ms / 2:
        wait_ms += interval_ms
    if wait_ms > interval_ms and wait_ms > SHARE * timeout_ms:
        return max(1, min(interval_ms, wait_ms - interval_ms // 2))
    return wait_ms
