"""The nodes of CLOUD_PROFILE: their registrations, heartbeats and timeouts.

Each node is a source of the pool registry. Nodes survive a restart of the queen: it loads them from the store, and each
has at least GRACE_S to send a heartbeat before it counts as offline.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.contracts.nodes import (
    Heartbeat,
    HeartbeatAnswer,
    NodeRegistered,
    NodeRegistration,
    NodeStatus,
    NodeView,
)
from llama_orch.service.watchdog import Pulse
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.events.power import NODE_DID_NOT_WAKE
from llama_orch.telemetry.records import emit
from queen_rbee.fleet.conflicts import Conflicts
from queen_rbee.fleet.nodes import (
    Node,
    after_heartbeat,
    after_missed_wake,
    after_registration,
    heartbeat_conflict,
    interval_warning,
    next_heartbeat_ms,
    offline_since,
    published_state,
    registration_conflict,
    stored_state,
    timed_out,
    view,
)
from queen_rbee.fleet.pool_statuses import PoolStatuses
from queen_rbee.fleet.presence import report_presence
from queen_rbee.fleet.records import node_document, read_node
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import ReplicaKey
from queen_rbee.pools.health_results import check_result
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.shared.protocol import NodeRecords
from queen_rbee.store.protocol import StoreFailure

GRACE_S = 30.0
FORGET_AFTER_S = 86_400.0
RANK = 0

InterruptTasks = Callable[[Iterable[ReplicaKey], str], int]
"""Interrupt the tasks that run on these replicas, for the given reason. Returns their number."""


class Fleet:
    """Owns all nodes. `timeout_ms` and `check_s` are the settings of the heartbeat timeout and of its check."""

    def __init__(
        self,
        registry: PoolRegistry,
        records: NodeRecords,
        metrics: Metrics,
        interrupt_tasks: InterruptTasks,
        timeout_ms: int,
        check_s: float,
    ) -> None:
        self._registry = registry
        self._records = records
        self._metrics = metrics
        self._interrupt_tasks = interrupt_tasks
        self._timeout_ms = timeout_ms
        self._check_s = check_s
        self._nodes: dict[str, Node] = {}
        self._pools: dict[str, PoolStatuses] = {}
        self._status_counts: Counter[NodeStatus] = Counter()
        self._removed: set[str] = set()
        """Removed nodes whose metric series remain until their last task has ended."""
        self._conflicts = Conflicts(timeout_ms)
        self.may_sleep: Callable[[str], bool] = lambda _node_id: True
        """Whether nothing needs the node with this id, so that it may be suspended."""
        self.asleep: set[str] = set()
        """The ids of the nodes that sleep; read-only for others."""
        self.sleep_changed = Bell()
        """Rung when `asleep` changes."""

    async def load(self) -> None:
        """Load the nodes from the store. Raises StoreFailure."""
        extra_s = max(0.0, GRACE_S - self._timeout_ms / 1000)
        for document in await self._records.all():
            if node := read_node(document, trio.current_time() + extra_s):
                self._put(node, store=False)

    async def run(self, pulse: Pulse, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check for nodes without heartbeats, forever. After GRACE_S the registry counts as complete: a pool that no
        node has reported does not exist."""
        started, due = trio.current_time(), trio.current_time() + self._check_s
        task_status.started()
        while True:
            pulse.beat()
            await trio.sleep(max(0.0, min(due - trio.current_time(), pulse.interval_s)))
            if trio.current_time() >= due:
                due = trio.current_time() + self._check_s
                await self.check(trio.current_time())
            self._registry.synced |= trio.current_time() - started >= GRACE_S

    async def check(self, now: float) -> None:
        """Mark silent nodes as offline and remove nodes that have been offline for a day.

        Decides everything before it waits for the disk, because nodes register and send heartbeats meanwhile.
        """
        removed = []
        for node in list(self._nodes.values()):
            if timed_out(node, now, self._timeout_ms / 1000):
                self._mark_offline(node, now)
            elif node.offline and now - offline_since(node) > FORGET_AFTER_S:
                self._remove(node)
                self._metrics.nodes.deregistrations.labels("error", "silent").inc()
                emit(events.NODE_DEREGISTERED, node_id=node.node_id, reason="it has been offline for a day")
                removed.append(node.node_id)
        self._remove_series()
        async with trio.open_nursery() as nursery:  # concurrently: in sequence, many would delay the next check
            for node_id in removed:
                nursery.start_soon(self._remove_document, node_id)

    async def _remove_document(self, node_id: str) -> None:
        if node_id in self._nodes:
            return  # it has registered again, which stored it again
        with suppress(StoreFailure):  # the store reports failures itself, and the removal is repeated after a restart
            await self._records.remove(node_id)

    async def register(self, registration: NodeRegistration, peer: str) -> NodeRegistered:
        """Register a node. Raises ApiError 409 if another pool-managerd uses its id, StoreFailure."""
        known = self._nodes.get(registration.node_id)
        if reason := registration_conflict(known, registration, peer):
            self._metrics.nodes.registrations.labels("error", "refused").inc()
            raise self._conflicts.refusal(registration, peer, reason)
        node = after_registration(known, registration, peer, trio.current_time(), datetime.now(UTC))
        self._put(node, store=False)  # before the store, so that two machines cannot register one id at the same time
        try:
            await self._records.upsert(node_document(node))
        except StoreFailure:
            self._metrics.nodes.registrations.labels("error", "not_stored").inc()
            raise
        self._metrics.nodes.registrations.labels("success", "").inc()
        fields = registration.model_dump(include={"node_id", "address", "version"})
        emit(events.NODE_REGISTERED, **fields, peer=peer, pools=len(registration.pools))
        warning = interval_warning(registration, self._timeout_ms)
        if warning:
            emit(events.NODE_WARNING, node_id=node.node_id, warning=warning)
        return NodeRegistered(success=True, message="registered", node_id=node.node_id, warning=warning)

    def heartbeat(self, node_id: str, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Record a heartbeat. Raises ApiError 404 if the node has to register first, 409 if another one owns the id."""
        node = self._nodes.get(node_id)
        if node is None:
            self._metrics.nodes.heartbeat_refused("", "unknown", trio.current_time())
            raise not_found("node", node_id, "Register it first: POST /v2/nodes/register.")
        if reason := heartbeat_conflict(node, heartbeat):
            self._metrics.nodes.heartbeat_refused(node_id, "refused", trio.current_time())
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=reason))
        now = trio.current_time()
        sleeps = heartbeat.sleeping and self._lets_sleep(node)
        report_presence(node, now, sleeps=sleeps)
        node = after_heartbeat(node, heartbeat, now, datetime.now(UTC), asleep=sleeps)
        self._put(node)
        if sleeps:
            self._metrics.nodes.sleeps(node_id)
        else:
            self._metrics.nodes.heartbeat(node_id)
        for pool in node.pools:
            self._metrics.checked(pool.pool_id, check_result(pool))
        interval_ms = node.registration.heartbeat_interval_ms
        wait_ms = next_heartbeat_ms(node_id, interval_ms, self._timeout_ms, round(now * 1000), len(self._nodes))
        warning = self._conflicts.warning(node_id, now)
        return HeartbeatAnswer(success=True, next_heartbeat_ms=wait_ms, warning=warning, may_sleep=sleeps)

    def _lets_sleep(self, node: Node) -> bool:
        """Whether the node may be suspended: it can be woken, and nothing runs there or needs it."""
        leases = (count for key, count in self._registry.leases_by_replica().items() if key[1] == node.node_id)
        return node.registration.wake is not None and not any(leases) and self.may_sleep(node.node_id)

    def give_up(self, node_id: str, waited_s: float) -> None:
        """Mark a node as offline that has not woken."""
        if node := self._nodes.get(node_id):
            self._put(after_missed_wake(node, trio.current_time()))
            emit(NODE_DID_NOT_WAKE, node_id=node_id, waited_s=round(waited_s))

    async def deregister(self, node_id: str, reason: str, instance_id: str | None = None) -> None:
        """Remove a node; tasks that run there may finish.

        With `instance_id`, only the pool-managerd that is registered now can be removed: the deregistration of one that
        stopped may arrive after its successor's registration. Raises ApiError 404 and 409; StoreFailure, and then the
        node stays registered.
        """
        node = self._known(node_id)
        if instance_id not in (None, node.registration.instance_id):
            message = f"node id {node_id} is in use by another pool-managerd, at {node.registration.address}"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message))
        self._remove(node)  # first: no later heartbeat may be stored after the removal
        try:
            await self._records.remove(node_id)
        except StoreFailure:
            if node_id not in self._nodes:
                self._put(node, store=False)
            self._metrics.nodes.deregistrations.labels("error", "not_stored").inc()
            raise
        self._metrics.nodes.deregistrations.labels("success", "").inc()
        emit(events.NODE_DEREGISTERED, node_id=node_id, reason=reason)

    def _known(self, node_id: str) -> Node:
        if node := self._nodes.get(node_id):
            return node
        raise not_found("node", node_id, "See GET /v2/nodes.")

    def node(self, node_id: str) -> NodeView:
        """Raise ApiError 404 for an unknown node."""
        return self._view(self._known(node_id), self._leases())

    def views(self) -> list[NodeView]:
        """Return all nodes, sorted by id."""
        leases = self._leases()
        return [self._view(self._nodes[node_id], leases) for node_id in sorted(self._nodes)]

    def _view(self, node: Node, leases: Counter[str]) -> NodeView:
        return view(node, trio.current_time(), leases[node.node_id])

    def _leases(self) -> Counter[str]:
        """Count the leased slots per node, including those of pools that it no longer reports."""
        leases: Counter[str] = Counter()
        for (_pool_id, node_id), count in self._registry.leases_by_replica().items():
            leases[node_id] += count
        return leases

    @property
    def size(self) -> int:
        return len(self._nodes)

    @property
    def online(self) -> int:
        """The number of nodes that send heartbeats."""
        silent = NodeStatus.OFFLINE, NodeStatus.REGISTERING, NodeStatus.ASLEEP
        return len(self._nodes) - sum(self._status_counts[status] for status in silent)

    def _put(self, node: Node, *, store: bool = True) -> None:
        before = self._nodes.get(node.node_id)
        self._nodes[node.node_id] = node
        self._count(node.node_id, before, node)
        if before is None or published_state(before) != published_state(node):
            pools = self._pools.setdefault(node.node_id, PoolStatuses())
            self._registry.update(_source(node.node_id), RANK, pools.update(node), node.memory)
            if store and (before is None or stored_state(before) != stored_state(node)):
                self._records.upsert_later(node_document(node))

    def _count(self, node_id: str, before: Node | None, after: Node | None) -> None:
        """Count statuses as they change: visiting every node would take longer than the heartbeat itself."""
        self._status_counts.update([after.status] if after else ())
        self._status_counts.subtract([before.status] if before else ())
        if bool(before and before.asleep) is not bool(after and after.asleep):
            self.asleep ^= {node_id}
            self.sleep_changed.ring()

    def _mark_offline(self, node: Node, now: float) -> None:
        silent_s = round(now - node.heard_at, 1)
        self._put(replace(node, offline=True))
        keys = [key for key in self._registry.leases_by_replica() if key[1] == node.node_id]
        tasks = self._interrupt_tasks(keys, f"node {node.node_id} is offline: no heartbeat for {silent_s} s")
        address = node.registration.address
        emit(events.NODE_OFFLINE, node_id=node.node_id, address=address, silent_s=silent_s, tasks=tasks)

    def _remove(self, node: Node) -> None:
        del self._nodes[node.node_id]
        self._count(node.node_id, node, None)
        self._pools.pop(node.node_id, None)
        self._conflicts.forget(node.node_id)
        self._registry.forget(_source(node.node_id))
        self._removed.add(node.node_id)
        self._remove_series()

    def _remove_series(self) -> None:
        """Remove the metric series of removed nodes on which no task runs any more."""
        leases = self._leases() if self._removed else ()
        for node_id in [node_id for node_id in self._removed if node_id not in leases]:
            self._removed.discard(node_id)
            if node_id not in self._nodes:
                self._metrics.forget_node(node_id)


def _source(node_id: str) -> str:
    return f"node {node_id}"
