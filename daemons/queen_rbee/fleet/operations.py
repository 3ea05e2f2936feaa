"""What takes its time: drains of pools and nodes. Owns the operations and the tasks that watch over them.

That something is drained, its pool-managerd knows, and tells all who ask; the queen sends nothing there from then on,
and when the deadline passes she takes their places from the tasks that still run.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import trio

from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.contracts.operations import DrainRequest, Operation, OperationState
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.fleet.managers import Manager, Managers
from queen_rbee.pools.candidates import Key
from queen_rbee.pools.claims import PoolKey
from queen_rbee.pools.registry import Registry

KEPT = 256
SHOWN_S = 2.0
"""How long an answer waits for what is drained to be known here as drained."""
CUT_S = 10.0
"""How long tasks may take to end once their places are taken."""

TakePlace = Callable[[Iterable[Key], str], int]


@dataclass(frozen=True)
class Target:
    """A pool on every node that has it, or on one; or, with no pool, a node as a whole."""

    pool_id: str | None = None
    node_id: str | None = None

    def __str__(self) -> str:
        names = [f"pool {self.pool_id}"] if self.pool_id else []
        return " of ".join([*names, f"node {self.node_id}"] if self.node_id else names)


@dataclass
class Drain:
    """One that is under way, or was. A resume cancels `scope`. `replicas` are all that its pools have had: tasks still
    run on those of a pool that is told of no more, as when its node registers anew."""

    kind: str
    target: Target
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
    replicas: set[Key] = field(default_factory=set)

    def finish(self, state: OperationState, message: str) -> None:
        """It has ended so."""
        self.state, self.message, self.ended = state, message, datetime.now(UTC)

    def view(self) -> Operation:
        """As clients see it."""
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
    """All of them, the newest last; `run` is the parent of those that go on."""

    def __init__(self, registry: Registry, managers: Managers, take_place: TakePlace) -> None:
        self._registry = registry
        self.managers = managers
        self._take_place = take_place
        self._known: dict[str, Drain] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch over drains for ever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def views(self) -> list[Operation]:
        """All that are known, newest first."""
        return [drain.view() for drain in reversed(self._known.values())]

    def view(self, identifier: str) -> Operation:
        """One. Raises ApiError 404."""
        if found := self._known.get(identifier):
            return found.view()
        raise not_found("operation", identifier, "See GET /v2/operations; only the last ones are kept.")

    async def drain(self, target: Target, wish: DrainRequest) -> Operation:
        """Let nothing new run on `target`, and when the deadline has passed, nothing at all. Raises ApiError."""
        keys = self._keys(target)
        await self._bid(target, keys, "drain", wish)
        await self._shown(keys, draining=True)
        after = timedelta(milliseconds=wish.deadline_ms) if wish.deadline_ms is not None else None
        replicas = self._replicas(target, keys)
        leases = self._registry.leases(replicas)
        deadline = datetime.now(UTC) + after if after else None
        drain = self._keep(Drain("drain", target, keys, leases, deadline, left=leases, replicas=replicas))
        emit(events.DRAIN_STARTED, target=target, leases=leases, pool_id=target.pool_id, node_id=target.node_id)
        limit_s = wish.deadline_ms / 1000 if wish.deadline_ms is not None else float("inf")
        if self._nursery:
            self._nursery.start_soon(self._watch, drain, limit_s)
        return drain.view()

    async def resume(self, target: Target) -> Operation:
        """Undo a drain of `target`. Raises ApiError."""
        keys = self._keys(target)
        await self._bid(target, keys, "resume", None)
        for drain in self._known.values():
            if drain.state is OperationState.RUNNING and set(drain.keys) & set(keys):
                drain.scope.cancel()
        await self._shown(keys, draining=False)
        done = self._keep(Drain("resume", target, keys, 0, None))
        done.finish(OperationState.DONE, self._resumed(target, keys))
        return done.view()

    def _resumed(self, target: Target, keys: list[PoolKey]) -> str:
        """What a resume has come to: a pool stays drained with its node, and within one what was drained by itself."""
        still = [pool for pool in self._registry.known(keys) if pool.draining]
        if not still:
            return "it gets tasks again"
        if target.pool_id is None:
            return f"pools that were drained by themselves stay so: {', '.join(sorted(pool.pool_id for pool in still))}"
        nodes = ", ".join(sorted(pool.node_id or "this machine" for pool in still))
        return f"it stays drained with the whole of its node until that is resumed, too: {nodes}"

    def _keys(self, target: Target) -> list[PoolKey]:
        """The pools of `target`. Raises ApiError 404 where it has none by that name."""
        if target.pool_id is None:
            node = self.managers.fleet.node(target.node_id or "")
            return [(pool.pool_id, node.node_id) for pool in node.pools]
        found = self._registry.pools_named(target.pool_id)
        keys = [(pool.pool_id, pool.node_id or "") for pool in found if target.node_id in (None, pool.node_id)]
        if not keys:
            raise not_found("pool", str(target).removeprefix("pool "), "See GET /v2/pools.")
        return keys

    async def _bid(self, target: Target, keys: list[PoolKey], verb: str, wish: DrainRequest | None) -> None:
        """Have it done by whoever answers for the pools. Raises ApiError with the first that could not."""
        if target.pool_id is None:
            node = self.managers.fleet.node(target.node_id or "")
            await self.managers.bid(Manager(node.address, node.node_id), f"/v2/{verb}", wish)
            return
        failures: list[ApiError] = []
        heard: list[str] = []

        async def one(key: PoolKey) -> None:
            try:
                manager = self.managers.of_pool(key)
                await self.managers.bid(manager, f"/v2/pools/{key[0]}/{verb}", wish)
                heard.append(manager.name)
            except ApiError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(one, key)
        if failures:
            raise _beside(failures[0], verb, sorted(heard))

    async def _shown(self, keys: list[PoolKey], *, draining: bool) -> None:
        with trio.move_on_after(SHOWN_S):
            while any(pool.draining is not draining for pool in self._registry.known(keys)):
                await self._registry.altered()

    def _replicas(self, target: Target, keys: Iterable[PoolKey]) -> set[Key]:
        """Those of the pools, and of a node also those of its tasks whose pool it does not tell of any more."""
        members = {member for key in keys for member in self._registry.members(key)}
        whole = target.node_id if target.pool_id is None else None
        return members.union(key for key in self._registry.held if key[1] == whole)

    def _keep(self, drain: Drain) -> Drain:
        while len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[drain.identifier] = drain
        return drain

    async def _watch(self, drain: Drain, limit_s: float) -> None:
        """Until nothing runs there any more, or the drain is undone."""
        cut = 0
        with drain.scope:
            with trio.move_on_after(limit_s) as late:
                await self._until_empty(drain)
            if late.cancelled_caught:
                cut = self._take_place(drain.replicas, f"{drain.target} is drained, and its time is up")
                with trio.move_on_after(CUT_S):
                    await self._until_empty(drain)
        drain.finish(*_outcome(drain, cut))
        told = {"pool_id": drain.target.pool_id, "node_id": drain.target.node_id}
        emit(events.DRAIN_ENDED, target=drain.target, state=drain.state, detail=drain.message, **told)

    async def _until_empty(self, drain: Drain) -> None:
        while left := self._left(drain):
            drain.left = left
            await self._registry.altered()
        drain.left = 0

    def _left(self, drain: Drain) -> int:
        drain.replicas |= self._replicas(drain.target, drain.keys)
        return self._registry.leases(drain.replicas)


def _beside(failure: ApiError, verb: str, heard: list[str]) -> ApiError:
    """`failure`, with those that have done it all the same: nobody undoes that."""
    if not heard:
        return failure
    told = f"The {verb} is in force on {', '.join(heard)}. {failure.body.hint or ''}".strip()
    return ApiError(failure.status, failure.body.model_copy(update={"hint": told}), failure.headers)


def _outcome(drain: Drain, cut: int) -> tuple[OperationState, str]:
    if drain.scope.cancelled_caught:
        return OperationState.CANCELLED, "undone by resume"
    if drain.left:
        return OperationState.FAILED, f"{drain.left} tasks still run there"
    ended = f"; {cut} tasks were cut off" if cut else ""
    return OperationState.DONE, f"nothing runs there any more{ended}"
