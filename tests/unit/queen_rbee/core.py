"""The queen's core without HTTP: queue, dispatcher, intake and books over a store in memory and scripted engines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapters import adapters
from llama_orch.service.watchdog import Pulse
from queen_rbee.dispatch.dispatcher import POOL_WAIT_S, Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue, Policy
from queen_rbee.dispatch.silence import Limits
from queen_rbee.intake.intake import Intake
from queen_rbee.metrics import Metrics
from queen_rbee.parts import books
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine, scripted_engine

SOON_S = 5.0
SHORT = Limits(connect_s=5.0, first_token_s=0.5, per_prompt_kb_s=0.0, idle_s=0.05)


@dataclass
class Queen:
    """Its parts, over one scripted engine."""

    dispatcher: Dispatcher
    intake: Intake
    engine: ScriptedEngine
    store: MemoryStore
    pulse: Pulse = field(default_factory=lambda: Pulse("dispatcher", 60.0))

    @property
    def sessions(self) -> Sessions:
        return self.dispatcher.accounting.sessions

    def submit(self, prompt: str | None = "hello", **request) -> Task:
        """A task that lives no longer than the queen."""
        return self.intake.admit(TaskRequest(prompt=prompt, **request), "c")

    async def accept(self, prompt: str | None = "hello", **request) -> Task:
        """A task that the store has."""
        task, _answer = await self.intake.submit(TaskRequest(prompt=prompt, **request), "c")
        return task

    def pool(self, **changes) -> PoolStatus:
        """Let the registry know one pool, `p` by default, with what `changes` says of it."""
        pool = self.status(**changes)
        self.dispatcher.registry.update(pool.pool_id, 0, [pool])
        return pool

    def status(self, **changes) -> PoolStatus:
        slots = changes.pop("slots", 2)
        url = changes.pop("url", self.engine.url)
        replica = ReplicaStatus(replica_id="r0", url=url, ready=True, slots_total=slots, slots_free=slots)
        plain = {"pool_id": "p", "state": PoolState.READY, "live": True, "ready": True, "draining": False}
        return PoolStatus(**{**plain, "engine": "llamacpp", "replicas": [replica], **changes})


def core(
    engine: ScriptedEngine,
    *,
    capacity: int = 100,
    policy: Policy = "reject-new",
    store: MemoryStore | None = None,
    hasty: bool = False,
    pool_wait_s: float = POOL_WAIT_S,
) -> Queen:
    """All parts, none of them running. `hasty`: an engine that says nothing is given up at once; not for tests of
    engines that do answer, since a busy machine lets them be silent, too."""
    bell, metrics, store = Bell(), Metrics(), store or MemoryStore()
    registry = PoolRegistry(bell, adapters())
    registry.synced = True
    limits = SHORT if hasty else Limits()
    queue: AdmissionQueue[Task] = AdmissionQueue(capacity, policy)
    accounting = books(store, registry, metrics)
    dispatcher = Dispatcher(
        queue, registry, accounting, adapters(), "round-robin", bell, limits, pool_wait_s=pool_wait_s
    )
    if hasty:
        dispatcher.circuits.first_rest_s = 0.001
    return Queen(dispatcher, Intake(dispatcher, store), engine, store)


@asynccontextmanager
async def running(**options) -> AsyncIterator[Queen]:
    """A queen that dispatches, with one pool of two slots."""
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = core(engine, **options)
        queen.pool()
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        nursery.cancel_scope.cancel()


def nobody_answers(queen: Queen) -> None:
    """Two replicas that are said to be well, and close each connection without an answer."""
    queen.engine.mood = "vanish"
    replicas = [
        ReplicaStatus(replica_id=name, url=queen.engine.url, ready=True, slots_total=2, slots_free=2)
        for name in ("r0", "r1")
    ]
    queen.pool(replicas=replicas)


async def ended(task: Task) -> list[str]:
    """The names of all events of `task`, once it has ended."""
    with trio.fail_after(SOON_S):
        while not task.log.closed:
            await task.log.wait_beyond(task.log.last_id)
    return [frame.event for frame in task.log.frames(0) if frame.event != "narration"]


async def first_token(task: Task) -> None:
    """Return when something of the answer can be seen."""
    with trio.fail_after(SOON_S):
        while not task.shown:
            await task.log.wait_beyond(task.log.last_id)


async def slots_are_free(queen: Queen) -> None:
    """Nothing holds a slot here, and nobody is connected to the engine."""
    with trio.fail_after(SOON_S):
        while queen.engine.connected:
            await queen.engine.left.wait()
        await queen.dispatcher.finish()
    assert queen.dispatcher.registry.leased == 0
