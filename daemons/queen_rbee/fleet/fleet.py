"""The nodes of CLOUD_PROFILE: owns what is known of each, and who is given up.

What a node says goes to the registry as a source of its own. Nodes survive a restart of the queen: she goes on with
what she knew of them and gives each at least GRACE_S to be heard before it counts as offline.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.contracts.nodes import (
    Heartbeat,
    HeartbeatAnswer,
    NodeRegistered,
    NodeRegistration,
    NodeStatus,
    NodeView,
)
from llama_orch.contracts.pools import PoolStatus
from llama_orch.service.watchdog import Pulse
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit
from queen_rbee.fleet.nodes import (
    Node,
    claimed,
    next_heartbeat_ms,
    pools_of,
    registered,
    reported,
    said,
    shape,
    silent,
    too_slow,
    unregistered,
    view,
)
from queen_rbee.fleet.records import read_node, written_node
from queen_rbee.metrics import Metrics, check_result
from queen_rbee.pools.candidates import Key
from queen_rbee.pools.registry import Registry
from queen_rbee.store.protocol import Store, StoreFailure

GRACE_S = 30.0
FORGET_AFTER_S = 86_400.0
RIVAL_S = 60.0
"""So long after a refused registration the node whose id was wanted is told of it."""
RANK = 0

TakePlace = Callable[[Iterable[Key], str], int]
"""How running tasks are told that their place is lost: replicas and the reason; how many there were."""


class Fleet:
    """All nodes by id; `timeout_ms` and `check_s` are the queen's settings."""

    def __init__(
        self, registry: Registry, store: Store, metrics: Metrics, take_place: TakePlace, timeout_ms: int, check_s: float
    ) -> None:
        self._registry = registry
        self._store = store
        self._metrics = metrics
        self._take_place = take_place
        self._timeout_ms = timeout_ms
        self._check_s = check_s
        self._nodes: dict[str, Node] = {}
        self._told: dict[str, list[PoolStatus]] = {}
        self._statuses: Counter[NodeStatus] = Counter()
        self._gone: set[str] = set()
        self._rivals: dict[str, tuple[float, str]] = {}
        self._refusals = LogLimit()

    async def load(self) -> None:
        """Know again the nodes of the last run. Raises StoreFailure."""
        late = max(0.0, GRACE_S - self._timeout_ms / 1000)
        for document in await self._store.listed("node"):
            if node := read_node(document, trio.current_time() + late):
                self._put(node, store=False)

    async def run(self, pulse: Pulse, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for nodes whose heartbeats have stopped, for ever; once GRACE_S have passed, a pool that no node has
        told of does not exist."""
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
        """Give up the nodes that are silent for too long; forget those that were for a day.

        All is decided before the disk is waited for: meanwhile nodes come, go and are heard.
        """
        gone = []
        for node in list(self._nodes.values()):
            if silent(node, now, self._timeout_ms / 1000):
                self._lose(node, now)
            elif node.offline and now - node.heard_at > FORGET_AFTER_S:
                self._forget(node)
                self._metrics.deregistrations.labels("error", "silent").inc()
                emit(events.NODE_DEREGISTERED, node_id=node.node_id, reason="it has been offline for a day")
                gone.append(node.node_id)
        self._forget_series()
        async with trio.open_nursery() as nursery:  # together: one after the other, many would hold up the next check
            for node_id in gone:
                nursery.start_soon(self._remove, node_id)

    async def _remove(self, node_id: str) -> None:
        if node_id in self._nodes:
            return  # it is back, and stored anew
        with suppress(StoreFailure):  # the journal has it, and the next queen does this again
            await self._store.remove("node", node_id)

    async def register(self, registration: NodeRegistration, peer: str) -> NodeRegistered:
        """A node makes itself known. Raises ApiError 409 where its id is in use by another one, StoreFailure."""
        known = self._nodes.get(registration.node_id)
        self._refuse_other(known, registration, peer)
        node = registered(known, registration, peer, trio.current_time(), datetime.now(UTC))
        self._put(node, store=False)  # first, so that of two machines with one id that come at once only one gets in
        try:
            await self._store.put("node", written_node(node))
        except StoreFailure:
            self._metrics.registrations.labels("error", "not_stored").inc()
            raise
        self._metrics.registrations.labels("success", "").inc()
        told = registration.model_dump(include={"node_id", "address", "version"})
        emit(events.NODE_REGISTERED, **told, peer=peer, pools=len(registration.pools))
        warning = too_slow(registration, self._timeout_ms)
        if warning:
            emit(events.NODE_WARNING, node_id=node.node_id, warning=warning)
        return NodeRegistered(success=True, message="registered", node_id=node.node_id, warning=warning)

    def _refuse_other(self, known: Node | None, registration: NodeRegistration, peer: str) -> None:
        if reason := claimed(known, registration, peer):
            self._metrics.registrations.labels("error", "refused").inc()
            told = registration.model_dump(include={"node_id", "address"})
            if self._refusals.due(f"{registration.node_id} {registration.address}"):
                emit(events.NODE_REFUSED, **told, peer=peer, reason=reason)
            warning = (
                f"another pool-managerd, at {registration.address} (from {peer}), tries to register under this node "
                "id and is refused; give it a POOL_MANAGERD_NODE_ID of its own, or stop it"
            )
            self._rivals[registration.node_id] = trio.current_time(), warning
            hint = (
                "Set another POOL_MANAGERD_NODE_ID, or stop the other pool-managerd. Where that one is gone, take the "
                f"old node out (orchctl nodes remove), or wait: after {self._timeout_ms / 1000:g} s without a "
                "heartbeat its id is free."
            )
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=reason, hint=hint))

    def heartbeat(self, node_id: str, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """A node says how it is. Raises ApiError 404 where it has to register first, 409 where another has."""
        node = self._nodes.get(node_id)
        if node is None:
            self._metrics.heartbeat_refused("", "unknown", trio.current_time())
            raise not_found("node", node_id, "Register it first: POST /v2/nodes/register.")
        if reason := unregistered(node, heartbeat):
            self._metrics.heartbeat_refused(node_id, "refused", trio.current_time())
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=reason))
        now = trio.current_time()
        if node.offline:
            emit(events.NODE_ONLINE, node_id=node_id, silent_s=round(now - node.heard_at))
        node = reported(node, heartbeat, now, datetime.now(UTC))
        self._put(node)
        self._metrics.heartbeat(node_id)
        for pool in node.pools:
            self._metrics.checked(pool.pool_id, check_result(pool))
        told = node.registration.heartbeat_interval_ms
        wait_ms = next_heartbeat_ms(node_id, told, self._timeout_ms, round(now * 1000), len(self._nodes))
        return HeartbeatAnswer(success=True, next_heartbeat_ms=wait_ms, warning=self._rival(node_id, now))

    def _rival(self, node_id: str, now: float) -> str | None:
        since, warning = self._rivals.get(node_id, (-RIVAL_S, ""))
        if now - since < RIVAL_S:
            return warning
        self._rivals.pop(node_id, None)
        return None

    async def deregister(self, node_id: str, reason: str, instance_id: str | None = None) -> None:
        """A node leaves; what runs there may end. `instance_id` restricts that to the pool-managerd that is registered
        now: the farewell of one that stopped may come after its successor's registration.

        Raises ApiError 404 and 409, StoreFailure, and then it is still known.
        """
        node = self._known(node_id)
        if instance_id not in (None, node.registration.instance_id):
            message = f"the node id {node_id} is in use by another pool-managerd, at {node.registration.address}"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message))
        self._forget(node)  # first: nothing that it says from now on may be stored behind its removal
        try:
            await self._store.remove("node", node_id)
        except StoreFailure:
            if node_id not in self._nodes:
                self._put(node, store=False)
            self._metrics.deregistrations.labels("error", "not_stored").inc()
            raise
        self._metrics.deregistrations.labels("success", "").inc()
        emit(events.NODE_DEREGISTERED, node_id=node_id, reason=reason)

    def _known(self, node_id: str) -> Node:
        if node := self._nodes.get(node_id):
            return node
        raise not_found("node", node_id, "See GET /v2/nodes.")

    def node(self, node_id: str) -> NodeView:
        """One node. Raises ApiError 404."""
        return self._view(self._known(node_id), self._leases())

    def views(self) -> list[NodeView]:
        """All nodes by id."""
        leases = self._leases()
        return [self._view(self._nodes[node_id], leases) for node_id in sorted(self._nodes)]

    def _view(self, node: Node, leases: Counter[str]) -> NodeView:
        return view(node, trio.current_time(), leases[node.node_id])

    def _leases(self) -> Counter[str]:
        """The slots that are held on each node, also those of pools that it does not tell of any more."""
        leases: Counter[str] = Counter()
        for (_pool_id, node_id), count in self._registry.held.items():
            leases[node_id] += count
        return leases

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self._nodes)

    @property
    def online(self) -> int:
        """How many nodes are heard."""
        return len(self._nodes) - self._statuses[NodeStatus.OFFLINE] - self._statuses[NodeStatus.REGISTERING]

    def _put(self, node: Node, *, store: bool = True) -> None:
        before = self._nodes.get(node.node_id)
        self._nodes[node.node_id] = node
        self._count(before, node)
        if before is None or said(before) != said(node):
            told = self._told[node.node_id] = pools_of(node, before, self._told.get(node.node_id, ()))
            self._registry.update(_source(node.node_id), RANK, told)
            if store and (before is None or shape(before) != shape(node)):
                self._store.put_later("node", written_node(node))

    def _count(self, before: Node | None, after: Node | None) -> None:
        """Statuses are counted as they change: to look at each node would take longer than what is done with it."""
        self._statuses.update([after.status] if after else ())
        self._statuses.subtract([before.status] if before else ())

    def _lose(self, node: Node, now: float) -> None:
        silent_s = round(now - node.heard_at, 1)
        self._put(replace(node, offline=True))
        keys = [key for key in self._registry.held if key[1] == node.node_id]
        tasks = self._take_place(keys, f"node {node.node_id} is offline: no heartbeat for {silent_s} s")
        address = node.registration.address
        emit(events.NODE_OFFLINE, node_id=node.node_id, address=address, silent_s=silent_s, tasks=tasks)

    def _forget(self, node: Node) -> None:
        del self._nodes[node.node_id]
        self._count(node, None)
        self._told.pop(node.node_id, None)
        self._rivals.pop(node.node_id, None)
        self._registry.forget(_source(node.node_id))
        self._gone.add(node.node_id)
        self._forget_series()

    def _forget_series(self) -> None:
        """The series of nodes that are gone go, too: of one where tasks still run, when the last of them has ended."""
        leases = self._leases() if self._gone else ()
        for node_id in [node_id for node_id in self._gone if node_id not in leases]:
            self._gone.discard(node_id)
            if node_id not in self._nodes:
                self._metrics.forget_node(node_id)


def _source(node_id: str) -> str:
    return f"node {node_id}"
