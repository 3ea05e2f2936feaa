"""Operations: what operators started and takes a while, and the tasks that watch it. Drains are run here.

The pool-managerds own the drained state and report it. The queen sends no new tasks to a drained pool, and interrupts
the running ones when the drain's deadline passes.
"""

import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import trio

from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.contracts.operations import DrainRequest, Operation, OperationState
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.fleet.fleet import InterruptTasks
from queen_rbee.fleet.managers import PoolManager, PoolManagers
from queen_rbee.pools.candidates import ReplicaKey
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey

HISTORY_LIMIT = 256
CONFIRM_TIMEOUT_S = 2.0
"""How long a request waits until the pools report the new state."""
INTERRUPT_TIMEOUT_S = 10.0
"""How long interrupted tasks may take to end."""


Outcome = tuple[OperationState, str]
"""How an operation ended, and a sentence about it."""


Follow = Callable[[Callable[[str], None]], Awaitable[Outcome]]
"""Returns when an operation has ended. It is given a function that shows the progress."""

CallOff = Callable[[], Awaitable[None]]
"""Calls an operation off where it is carried out. Raises ApiError."""


@dataclass(frozen=True)
class OperationTarget:
    """A pool on every node that has it, a pool on one node, or, without a pool id, a whole node."""

    pool_id: str | None = None
    node_id: str | None = None

    def __str__(self) -> str:
        names = [f"pool {self.pool_id}"] if self.pool_id else []
        return " of ".join([*names, f"node {self.node_id}"] if self.node_id else names)


@dataclass
class OperationRecord:
    """An operation, running or ended. Cancelling it, which for a drain is a resume, cancels `scope`.

    `call_off` is called before; it raises ApiError if the operation cannot be cancelled any more.

    `replicas` are all that its pools have had so far. Tasks may still run on replicas of a pool that is no longer
    reported, for example because its node has registered again.
    """

    kind: str
    target: OperationTarget
    keys: list[PoolKey]
    total: int
    deadline: datetime | None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: OperationState = OperationState.RUNNING
    left: int = 0
    ended: datetime | None = None
    message: str | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    replicas: set[ReplicaKey] = field(default_factory=set)
    call_off: CallOff | None = None

    def finish(self, state: OperationState, message: str) -> None:
        self.state, self.message, self.ended = state, message, datetime.now(UTC)

    def view(self) -> Operation:
        return Operation(
            operation_id=self.identifier,
            kind=self.kind,
            pool_id=self.target.pool_id,
            node_id=self.target.node_id,
            state=self.state,
            leases_total=self.total,
            leases_left=self.left,
            started_at=self.started,
            deadline_at=self.deadline,
            ended_at=self.ended,
            message=self.message,
        )


class Operations:
    """Owns the latest operations, oldest first. `run` must be running while there are drains to watch."""

    def __init__(self, registry: PoolRegistry, managers: PoolManagers, interrupt_tasks: InterruptTasks) -> None:
        self._registry = registry
        self.managers = managers
        self._interrupt_tasks = interrupt_tasks
        self._operations: dict[str, OperationRecord] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch drains forever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def views(self) -> list[Operation]:
        """Return the known operations, newest first."""
        return [drain.view() for drain in reversed(self._operations.values())]

    def view(self, identifier: str) -> Operation:
        """Return one operation. Raises ApiError 404."""
        if found := self._operations.get(identifier):
            return found.view()
        raise not_found("operation", identifier, f"See GET /v2/operations for the last {HISTORY_LIMIT} operations.")

    async def drain(self, target: OperationTarget, request: DrainRequest) -> Operation:
        """Send no new tasks to `target`, and interrupt the running ones at the deadline. Raises ApiError."""
        keys = self.keys_of(target)
        await self._send(target, keys, "drain", request)
        await self._confirm(keys, draining=True)
        after = timedelta(milliseconds=request.deadline_ms) if request.deadline_ms is not None else None
        replicas = self._replicas(target, keys)
        leases = self._registry.count_leases(replicas)
        deadline = datetime.now(UTC) + after if after else None
        drain = self._add(OperationRecord("drain", target, keys, leases, deadline, left=leases, replicas=replicas))
        emit(events.DRAIN_STARTED, target=target, leases=leases, pool_id=target.pool_id, node_id=target.node_id)
        limit_s = request.deadline_ms / 1000 if request.deadline_ms is not None else float("inf")
        if self._nursery:
            self._nursery.start_soon(self._watch, drain, limit_s)
        return drain.view()

    def follow(
        self,
        kind: str,
        target: OperationTarget,
        keys: list[PoolKey],
        outcome: Follow,
        call_off: CallOff | None = None,
    ) -> Operation:
        """Record an operation that somebody else runs; `outcome` watches it, and is cancelled with it."""
        record = self._add(OperationRecord(kind, target, keys, 0, None, call_off=call_off))
        if self._nursery:
            self._nursery.start_soon(self._follow, record, outcome)
        return record.view()

    async def _follow(self, record: OperationRecord, outcome: Follow) -> None:
        with record.scope:
            try:
                record.finish(*await outcome(partial(setattr, record, "message")))
            except ApiError as error:
                record.finish(OperationState.FAILED, error.body.message)
        if record.scope.cancelled_caught:
            record.finish(OperationState.CANCELLED, "cancelled")

    async def cancel(self, identifier: str) -> Operation:
        """End an operation; a drain is ended by a resume. No effect if it has ended. Raises ApiError."""
        self.view(identifier)
        record = self._operations[identifier]
        if record.state is OperationState.RUNNING and record.kind == "drain":
            await self.resume(record.target)
        if record.state is OperationState.RUNNING and record.call_off:
            await record.call_off()
        record.scope.cancel()
        return record.view()

    async def resume(self, target: OperationTarget) -> Operation:
        """Undo a drain of `target`. Raises ApiError."""
        keys = self.keys_of(target)
        await self._send(target, keys, "resume", None)
        for drain in self._operations.values():
            if drain.state is OperationState.RUNNING and set(drain.keys) & set(keys):
                drain.scope.cancel()
        await self._confirm(keys, draining=False)
        done = self._add(OperationRecord("resume", target, keys, 0, None))
        done.finish(OperationState.DONE, self._resumed(target, keys))
        return done.view()

    def _resumed(self, target: OperationTarget, keys: list[PoolKey]) -> str:
        """Describe the result of a resume.

        A pool stays drained while its node is. Resuming a node does not resume pools that were drained individually.
        """
        draining = [pool for pool in self._registry.find_pools(keys) if pool.draining]
        if not draining:
            return "it accepts tasks again"
        if target.pool_id is None:
            pool_ids = ", ".join(sorted(pool.pool_id for pool in draining))
            return f"pools that were drained individually stay drained: {pool_ids}"
        nodes = ", ".join(sorted(pool.node_id or "this machine" for pool in draining))
        return f"the pool stays drained until its whole node is resumed: {nodes}"

    def keys_of(self, target: OperationTarget) -> list[PoolKey]:
        """Return the pools of `target`. Raises ApiError 404 if there are none."""
        if target.pool_id is None:
            node = self.managers.fleet.node(target.node_id or "")
            return [(pool.pool_id, node.node_id) for pool in node.pools]
        found = self._registry.pools_named(target.pool_id)
        keys = [(pool.pool_id, pool.node_id or "") for pool in found if target.node_id in (None, pool.node_id)]
        if not keys:
            raise not_found("pool", str(target).removeprefix("pool "), "See GET /v2/pools.")
        return keys

    async def _send(self, target: OperationTarget, keys: list[PoolKey], verb: str, body: DrainRequest | None) -> None:
        """Send the request to the pool-managerds of the pools. Raises the first ApiError after all have answered."""
        if target.pool_id is None:
            node = self.managers.fleet.node(target.node_id or "")
            await self.managers.post(PoolManager(node.address, node.node_id), f"/v2/{verb}", body)
            return
        failures: list[ApiError] = []
        succeeded: list[str] = []

        async def send(key: PoolKey) -> None:
            try:
                manager = self.managers.for_pool(key)
                await self.managers.post(manager, f"/v2/pools/{key[0]}/{verb}", body)
                succeeded.append(manager.name)
            except ApiError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(send, key)
        if failures:
            raise _partial_failure(failures[0], verb, sorted(succeeded))

    async def _confirm(self, keys: list[PoolKey], *, draining: bool) -> None:
        """Wait until the pools report the new state, for at most CONFIRM_TIMEOUT_S."""
        with trio.move_on_after(CONFIRM_TIMEOUT_S):
            while any(pool.draining is not draining for pool in self._registry.find_pools(keys)):
                await self._registry.wait_for_change()

    def _replicas(self, target: OperationTarget, keys: Iterable[PoolKey]) -> set[ReplicaKey]:
        """Return the replicas of the pools. For a node, include leased replicas of pools that it no longer reports."""
        replicas = {replica for key in keys for replica in self._registry.replicas_of(key)}
        node_id = target.node_id if target.pool_id is None else None
        return replicas.union(key for key in self._registry.leases_by_replica() if key[1] == node_id)

    def _add(self, drain: OperationRecord) -> OperationRecord:
        while len(self._operations) >= HISTORY_LIMIT:
            del self._operations[next(iter(self._operations))]
        self._operations[drain.identifier] = drain
        return drain

    async def _watch(self, drain: OperationRecord, limit_s: float) -> None:
        """Wait until the target is empty or resumed; interrupt its tasks after `limit_s`."""
        interrupted = 0
        with drain.scope:
            with trio.move_on_after(limit_s) as deadline:
                await self._until_empty(drain)
            if deadline.cancelled_caught:
                reason = f"the drain deadline of {drain.target} has passed"
                interrupted = self._interrupt_tasks(drain.replicas, reason)
                with trio.move_on_after(INTERRUPT_TIMEOUT_S):
                    await self._until_empty(drain)
        drain.finish(*_outcome(drain, interrupted))
        fields = {"pool_id": drain.target.pool_id, "node_id": drain.target.node_id}
        emit(events.DRAIN_ENDED, target=drain.target, state=drain.state, detail=drain.message, **fields)

    async def _until_empty(self, drain: OperationRecord) -> None:
        while left := self._leases_left(drain):
            drain.left = left
            await self._registry.wait_for_change()
        drain.left = 0

    def _leases_left(self, drain: OperationRecord) -> int:
        drain.replicas |= self._replicas(drain.target, drain.keys)
        return self._registry.count_leases(drain.replicas)


def _partial_failure(failure: ApiError, verb: str, succeeded: list[str]) -> ApiError:
    """Return `failure` with a hint that names those that succeeded, because nothing is rolled back."""
    if not succeeded:
        return failure
    hint = f"The {verb} is in force on {', '.join(succeeded)}. {failure.body.hint or ''}".strip()
    return ApiError(failure.status, failure.body.model_copy(update={"hint": hint}), failure.headers)


def _outcome(drain: OperationRecord, interrupted: int) -> Outcome:
    if drain.scope.cancelled_caught:
        return OperationState.CANCELLED, "cancelled by a resume"
    if drain.left:
        return OperationState.FAILED, f"{drain.left} tasks are still running"
    suffix = f"; {interrupted} tasks were interrupted" if interrupted else ""
    return OperationState.DONE, f"no tasks are running{suffix}"
