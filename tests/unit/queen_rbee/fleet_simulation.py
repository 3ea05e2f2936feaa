"""A simulation of queen-rbee and its fleet: nodes, engines, disk, clock and restarts act on demand."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.failures import FailureKind, RelayFailure
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.intake.recovery import restore
from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.shared.in_process import StoredNodes
from queen_rbee.store.protocol import Document, Kind
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.fleet_model import FleetModel
from tests.unit.queen_rbee.fleet_rig import CHECK_S, TIMEOUT_MS, heartbeat, registration
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.queen_core import build_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine

FAILURES = {
    "away": RelayFailure(FailureKind.UNAVAILABLE, "away"),
    "broken": RelayFailure(FailureKind.CONNECTION_LOST, "broken"),
    "stalled": RelayFailure(FailureKind.STALLED, "stalled"),
    "refused": RelayFailure(FailureKind.BAD_REQUEST, "refused"),
    "busy": RelayFailure(FailureKind.UNAVAILABLE, "busy"),
}
"""The failures of an engine or the connection to it."""


@dataclass
class SlowStore(MemoryStore):
    """Operations take effect at once, but do not return before `writable` is set."""

    writable: trio.Event = field(default_factory=trio.Event)

    async def put(self, kind: Kind, document: Document) -> None:
        await super().put(kind, document)
        await self.writable.wait()

    async def remove(self, kind: Kind, key: str) -> bool:
        existed = await super().remove(kind, key)
        await self.writable.wait()
        return existed

    async def ping(self) -> None:
        await super().ping()
        await self.writable.wait()


class FleetSimulation:
    """The current queen, and the model of what it must know. `channels` lead to the engines that run tasks."""

    nursery: trio.Nursery

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.model = FleetModel()
        self.channels: dict[Task, trio.MemorySendChannel[str]] = {}
        self.accepted: set[UUID] = set()
        self.violations: list[str] = []

    async def start(self, store: SlowStore) -> None:
        """Start a queen with `store`."""
        store.writable.set()
        self.store = store
        self.queen = queen = build_queen(ScriptedEngine(), store=store)
        queen.circuits.is_healthy = self.is_healthy
        queen.registry.synced = False  # tasks for a pool that is still unknown wait for it
        parts = queen.registry, StoredNodes(store), queen.metrics, queen.runs.displace
        self.fleet = Fleet(*parts, TIMEOUT_MS, CHECK_S)
        await self.fleet.load()
        await restore(store, queen.intake, queen.book, queen.accounting)
        self.scope = trio.CancelScope()
        self._lease, queen.registry.lease = queen.registry.lease, self.lease  # type: ignore[method-assign]
        await self.nursery.start(self._run, self.scope)

    async def _run(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            async with trio.open_nursery() as self.actions:
                await self.queen.dispatcher.run(self.queen.pulse, task_status=task_status)

    async def is_healthy(self, _target: Candidate) -> bool:
        """Replaces the health check: engines and connections fail for a moment only."""
        await trio.lowlevel.checkpoint()
        return True

    def do(self, action: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start `action`; the disk decides how long it takes."""
        self.actions.start_soon(action, *arguments)

    async def relay(self, task: Task, target: Candidate, *_: object) -> None:
        """Replaces `relay.run`: the engine follows the commands in the task's channel."""
        self._check_start(task, target)
        send, receive = trio.open_memory_channel[str](1000)
        self.channels[task] = send
        try:
            async for command in receive:
                now = trio.current_time()
                if command in FAILURES:
                    raise FAILURES[command]
                if command == "end":
                    task.end(1, None, now)
                    return
                task.token(command, now)
                if command == "read":
                    task.deliver()
        finally:
            del self.channels[task]

    async def lease(self, key: ReplicaKey) -> bool:
        """Replaces the registry's: check that the replica takes tasks and has a free slot."""
        replica, place = self.queen.registry.replicas.get(key), self.model.places.get(key)
        if (
            not replica
            or not replica.ready
            or replica.draining
            or replica.circuit != "closed"
            or replica.leased >= replica.slots_total
        ):
            self.violations.append(f"a task is placed on {key}, which has no free slot: {replica}")
        if not place or not place[2]:
            self.violations.append(f"a task is placed on {key}, which takes no tasks: {place}")
        return await self._lease(key)

    def _check_start(self, task: Task, target: Candidate) -> None:
        """Check that the engine suits the task, and that the task's answer has not started."""
        demand = task.demand
        ended = task.state.final and not task.scope.cancel_called  # a task cancelled meanwhile sends no request
        if task.answer_started or task.delivered or ended:
            self.violations.append("a task runs again after its answer started or it ended")
        if (demand.model_ref and demand.model_ref not in target.models) or demand.pin not in (None, target.pool_id):
            self.violations.append(f"{target.key} does not suit the task")

    @property
    def tasks(self) -> list[Task]:
        return list(self.queen.book.newest_first())

    async def restart(self) -> None:
        """Kill the queen and start another one with what is stored."""
        await wait_all_tasks_blocked()
        stored = self.store.after_restart()
        self.scope.cancel()
        await wait_all_tasks_blocked()
        self.accepted = set(stored.tasks)
        self.model.restarted(trio.current_time())
        await self.start(SlowStore(stored.tasks, stored.documents))

    async def submit(self, request: TaskRequest, durable: bool) -> None:
        """Submit a task, which may be refused."""
        with suppress(ApiError):
            if durable:
                accepted = await self.queen.intake.submit(request, "c")
                self.accepted.add(accepted.task.task_id)
            else:
                self.queen.intake.admit(request, "c")

    async def register(self, node_id: str, machine: str, instance: str | None, address: str) -> None:
        body = registration(node_id, machine_id=machine, instance_id=instance, address=address)
        expected = self.model.registers(node_id, machine, instance, address, trio.current_time())
        await self._expect(expected, partial(self.fleet.register, body, "192.0.2.1"))

    async def leave(self, node_id: str, instance: str | None) -> None:
        expected = self.model.leaves(node_id, instance)
        await self._expect(expected, partial(self.fleet.deregister, node_id, "it was stopped", instance))

    async def beat(
        self, node_id: str, machine: str, instance: str | None, pools: tuple[PoolSnapshot, ...], draining: bool
    ) -> None:
        now = trio.current_time()
        body = heartbeat(node_id, machine_id=machine, instance_id=instance, pools=list(pools), draining=draining)

        async def send() -> None:
            self.fleet.heartbeat(node_id, body)

        await self._expect(self.model.beats(node_id, machine, instance, pools, draining, now), send)

    async def check(self) -> None:
        now = trio.current_time()
        self.model.checked(now)
        await self.fleet.check(now)

    async def _expect(self, expected: int, action: Callable[[], Awaitable[object]]) -> None:
        try:
            await action()
            status = 200
        except ApiError as error:
            status = error.status
        if status != (200 if expected == 204 else expected):
            self.violations.append(f"status {status}, expected {expected}")
