"""Wakes nodes that sleep: when tasks wait for their pools, and by order of operators.

The one owner of attempts. An attempt sends magic packets until the node sends a heartbeat, or until the limit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from math import inf

import trio

from llama_orch.addresses import Host
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import NodeStatus, NodeView
from llama_orch.contracts.operations import Operation, OperationState
from llama_orch.telemetry.events.power import NODE_WAKING, WAKE_NOT_SENT
from llama_orch.telemetry.log_limit import LogLimit
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.operations import Operations, OperationTarget, Outcome
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey
from queen_rbee.tasks.task import Task
from queen_rbee.waking.need import Waiting, keeps_awake, nodes_to_wake, pause_s
from queen_rbee.waking.packets import send, targets

LOOK_S = 1.0
"""How often to look, while a node sleeps or is being woken, whether one is needed or has woken."""
LANES_MAX = 256
"""Of how many demands the first waiting task is looked at."""
RETRY_MS = 60_000
NO_MAC = "It says how it is woken when it registers, if its interface listens for magic packets; see pool-managerd(8)."

Drop = Callable[[Task, str, int], None]
"""Ends a task that waits, with a reason and the milliseconds until a retry makes sense."""


@dataclass
class Attempt:
    """Packets are sent to a node since `since`, next at `next_at`. `outcome` is set, with `ended`, at its end."""

    since: float
    next_at: float
    sent: int = 0
    outcome: Outcome = (OperationState.FAILED, "")
    ended: trio.Event = field(default_factory=trio.Event)


@dataclass
class Waker:
    """`run` is its loop. `wanted` are the pools that operators want to load. `limit_s`: how long a node may take."""

    fleet: Fleet
    registry: PoolRegistry
    queue: AdmissionQueue[Task]
    operations: Operations
    metrics: Metrics
    wanted: Callable[[], Iterable[PoolKey]]
    drop: Drop
    limit_s: float
    target: Host | None = None
    _attempts: dict[str, Attempt] = field(default_factory=dict)
    _troubles: LogLimit = field(default_factory=LogLimit)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake nodes until cancelled."""
        task_status.started()
        while True:
            now = trio.current_time()
            self._finish(now)
            self._begin_needed(now)
            await self._send_due(now)
            busy = self.fleet.asleep or self._attempts
            await self.fleet.sleep_changed.wait(LOOK_S if busy else inf)

    def may_sleep(self, node_id: str) -> bool:
        """Whether nothing that waits needs this node."""
        wanted = any(key[1] == node_id for key in self.wanted())
        return not wanted and not keeps_awake(self._waits(trio.current_time()), node_id)

    def wake(self, node_id: str) -> Operation:
        """Wake a node that sleeps or is offline. Raises ApiError 404, and 409 if it cannot be woken."""
        node = self.fleet.node(node_id)
        target = OperationTarget(node_id=node_id)
        if node.status not in (NodeStatus.ASLEEP, NodeStatus.OFFLINE):
            return self.operations.follow("wake", target, [], _already_awake)
        if node.wake is None:
            message = f"node {node_id} cannot be woken: its hardware address is not known"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=NO_MAC))
        attempt = self._begin(node_id, "requested by an operator")

        async def follow(show: Callable[[str], None]) -> Outcome:
            show(f"waiting for its heartbeat, at most {self.limit_s:g} s")
            await attempt.ended.wait()
            return attempt.outcome

        return self.operations.follow("wake", target, [], follow)

    def _begin(self, node_id: str, reason: str) -> Attempt:
        if attempt := self._attempts.get(node_id):
            return attempt
        now = trio.current_time()
        attempt = self._attempts[node_id] = Attempt(now, now)
        emit(NODE_WAKING, node_id=node_id, reason=reason)
        self.fleet.sleep_changed.ring()
        return attempt

    def _begin_needed(self, now: float) -> None:
        asleep = self.fleet.asleep
        if not asleep:
            return
        for node_id, pool_id in nodes_to_wake(self._waits(now), self._attempts.keys()).items():
            self._begin(node_id, f"tasks wait for pool {pool_id}")
        for pool_id, node_id in self.wanted():
            if node_id in asleep:
                self._begin(node_id, f"pool {pool_id} is to be loaded")

    def _waits(self, now: float) -> list[Waiting]:
        suitable = self.registry.replicas.suitable
        firsts = islice(self.queue.first_of_lanes(), LANES_MAX)
        return [Waiting(suitable(task.demand), now - task.measurements.submitted_at) for task in firsts]

    def _finish(self, now: float) -> None:
        """End the attempts whose node is awake, is gone, or has not woken within the limit."""
        nodes = {node_id: self._node(node_id) for node_id in self._attempts}
        for node_id, node in nodes.items():
            attempt = self._attempts[node_id]
            if node and node.status in (NodeStatus.ASLEEP, NodeStatus.OFFLINE):
                if now - attempt.since < self.limit_s:
                    continue
                self.fleet.give_up(node_id, now - attempt.since)
                self._drop_stranded(node_id)
                outcome = OperationState.FAILED, f"it did not wake within {self.limit_s:g} s"
            elif node:
                outcome = OperationState.DONE, f"it is awake after {now - attempt.since:.0f} s"
            else:
                outcome = OperationState.FAILED, "it is not registered any more"
            self._end(node_id, outcome)

    def _end(self, node_id: str, outcome: Outcome) -> None:
        attempt = self._attempts.pop(node_id)
        self.metrics.nodes.woken(node_id, success=outcome[0] is OperationState.DONE)
        attempt.outcome = outcome
        attempt.ended.set()

    def _node(self, node_id: str) -> NodeView | None:
        try:
            return self.fleet.node(node_id)
        except ApiError:
            return None

    def _drop_stranded(self, node_id: str) -> None:
        """End the tasks that waited for this node and that no other could serve."""
        for task in list(self.queue.order()):
            suitable = self.registry.replicas.suitable(task.demand)
            if any(each.node_id == node_id for each in suitable) and not any(each.available for each in suitable):
                self.drop(task, f"node {node_id} did not wake within {self.limit_s:g} s", RETRY_MS)

    async def _send_due(self, now: float) -> None:
        for node_id, attempt in list(self._attempts.items()):
            node = self._node(node_id)
            if attempt.next_at > now or node is None or node.wake is None:
                continue
            attempt.sent += 1
            attempt.next_at = now + pause_s(attempt.sent)
            for target in targets(node, self.target):
                await self._send(node_id, node.wake.macs, target)

    async def _send(self, node_id: str, macs: list[str], target: Host) -> None:
        try:
            with trio.fail_after(LOOK_S):
                await send(macs, target)
        except (OSError, trio.TooSlowError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "the name server does not answer"
            if self._troubles.due(f"{target} {reason}"):
                emit(WAKE_NOT_SENT, node_id=node_id, target=target, reason=reason)


async def _already_awake(_show: Callable[[str], None]) -> Outcome:
    await trio.lowlevel.checkpoint()
    return OperationState.DONE, "it is awake"
