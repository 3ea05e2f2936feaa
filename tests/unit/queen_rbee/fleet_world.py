"""A queen and its fleet in which the test triggers every event: of nodes, engines, disk and clock, and restarts."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.failure import Failure
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.intake.restoring import restore
from queen_rbee.pools.candidates import Candidate, ReplicaKey
from queen_rbee.store.protocol import Document, Kind
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import Queen, core
from tests.unit.queen_rbee.fleet_model import Model
from tests.unit.queen_rbee.fleets import CHECK_S, TIMEOUT_MS, heartbeat, registration
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine

FAILURES = {
    "away": Failure(ErrorCode.WORKER_RESET, "away", retriable=True, blame="replica", elsewhere=True),
    "broken": Failure(ErrorCode.WORKER_RESET, "broken", retriable=True, lost=True),
    "stalled": Failure(ErrorCode.DECODE_TIMEOUT, "stalled", retriable=True),
    "refused": Failure(ErrorCode.INVALID_PARAMS, "refused", retriable=False, blame="nobody"),
    "busy": Failure(ErrorCode.WORKER_RESET, "busy", retriable=True, blame="replica", elsewhere=True),
}
"""The failures of an engine or of the connection to it."""


@dataclass
class SlowStore(MemoryStore):
    """Nothing is durable until `moves` is set. Operations still take effect in the order of their calls."""

    moves: trio.Event = field(default_factory=trio.Event)

    async def put(self, kind: Kind, document: Document) -> None:
        await super().put(kind, document)
        await self.moves.wait()

    async def remove(self, kind: Kind, key: str) -> bool:
        found = await super().remove(kind, key)
        await self.moves.wait()
        return found

    async def ping(self) -> None:
        await super().ping()
        await self.moves.wait()


class World:
    """The current queen, and the model of its expected state. `lines` are channels to the engine of each task."""

    nursery: trio.Nursery

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.model = Model()
        self.lines: dict[Task, trio.MemorySendChannel[str]] = {}
        self.accepted: set[UUID] = set()
        self.wrong: list[str] = []

    async def start(self, store: SlowStore) -> None:
        """Start a queen with the content of `store`."""
        store.moves.set()
        self.store = store
        self.queen: Queen = core(ScriptedEngine(), store=store)
        dispatcher = self.queen.dispatcher
        dispatcher.circuits.well = self.well
        dispatcher.registry.synced = False  # so that a task for a pool that is not there yet waits for it
        parts = dispatcher.registry, store, dispatcher.metrics, dispatcher.runs.take_place
        self.fleet = Fleet(*parts, TIMEOUT_MS, CHECK_S)
        await self.fleet.load()
        await restore(store, self.queen.intake, dispatcher.accounting)
        self.scope = trio.CancelScope()
        self._lease, dispatcher.registry.lease = dispatcher.registry.lease, self.lease  # type: ignore[method-assign]
        await self.nursery.start(self._live, self.scope)

    async def _live(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            async with trio.open_nursery() as self.events:
                await self.queen.dispatcher.run(self.queen.pulse, task_status=task_status)

    async def well(self, _target: Candidate) -> bool:
        """Replaces the health check: engines and connections recover at once."""
        await trio.lowlevel.checkpoint()
        return True

    def do(self, event: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start an event; its duration depends on the disk."""
        self.events.start_soon(event, *arguments)

    async def relay(self, task: Task, target: Candidate, *_: object) -> None:
        """Replaces `relay.run`: the engine obeys the words on the task's line."""
        self._begins(task, target)
        send, receive = trio.open_memory_channel[str](1000)
        self.lines[task] = send
        try:
            async for word in receive:
                now = trio.current_time()
                if word in FAILURES:
                    raise FAILURES[word]
                if word == "end":
                    task.end(1, None, now)
                    return
                task.token(word, now)
                if word == "read":
                    task.deliver()
        finally:
            del self.lines[task]

    def lease(self, key: ReplicaKey) -> None:
        """Replaces `PoolRegistry.lease`: checks that the replica accepts tasks and has a free slot."""
        found, place = self.queen.dispatcher.registry.replicas.get(key), self.model.places.get(key)
        if (
            not found
            or not found.ready
            or found.draining
            or found.circuit != "closed"
            or found.leased >= found.slots_total
        ):
            self.wrong.append(f"a task is placed on {key}, which has no free slot: {found}")
        if not place or not place[2]:
            self.wrong.append(f"a task is placed on {key}, which accepts none: {place}")
        self._lease(key)

    def _begins(self, task: Task, target: Candidate) -> None:
        """Check that the replica meets the task's demand, and that no token has been delivered yet."""
        demand = task.demand
        ended = task.state.final and not task.scope.cancel_called  # otherwise it was cancelled on the way
        if task.shown or task.delivered or ended:
            self.wrong.append("a task that has delivered tokens or ended runs again")
        if (demand.model_ref and demand.model_ref not in target.models) or demand.pin not in (None, target.pool_id):
            self.wrong.append(f"{target.key} does not meet the task's demand")

    @property
    def tasks(self) -> list[Task]:
        """All tasks that the queen knows."""
        return list(self.queen.dispatcher.book.newest_first())

    async def restart(self) -> None:
        """Kill the queen, and start another one with the stored state."""
        await wait_all_tasks_blocked()
        store = self.store.after_restart()
        self.scope.cancel()
        await wait_all_tasks_blocked()
        self.accepted = set(store.tasks)
        self.model.restarted(trio.current_time())
        await self.start(SlowStore(store.tasks, store.documents))

    async def submit(self, request: TaskRequest, durable: bool) -> None:
        """Submit a task, which may be refused."""
        with suppress(ApiError):
            if durable:
                task, _answer = await self.queen.intake.submit(request, "c")
                self.accepted.add(task.task_id)
            else:
                self.queen.intake.admit(request, "c")

    async def register(self, node_id: str, machine: str, instance: str | None, address: str) -> None:
        request = registration(node_id, machine_id=machine, instance_id=instance, address=address)
        expected = self.model.registers(node_id, machine, instance, address, trio.current_time())
        await self._expect_status(expected, partial(self.fleet.register, request, "192.0.2.1"))

    async def leave(self, node_id: str, instance: str | None) -> None:
        expected = self.model.leaves(node_id, instance)
        await self._expect_status(expected, partial(self.fleet.deregister, node_id, "stopped", instance))

    async def beat(
        self, node_id: str, machine: str, instance: str | None, pools: tuple[PoolSnapshot, ...], draining: bool
    ) -> None:
        now = trio.current_time()
        message = heartbeat(node_id, machine_id=machine, instance_id=instance, pools=list(pools), draining=draining)

        async def send() -> None:
            self.fleet.heartbeat(node_id, message)

        await self._expect_status(self.model.beats(node_id, machine, instance, pools, draining, now), send)

    async def check(self) -> None:
        now = trio.current_time()
        self.model.checked(now)
        await self.fleet.check(now)

    async def _expect_status(self, expected: int, request: Callable[[], Awaitable[object]]) -> None:
        try:
            await request()
            status = 200
        except ApiError as error:
            status = error.status
        if status != (200 if expected == 204 else expected):
            self.wrong.append(f"the status is {status}, expected {expected}")
