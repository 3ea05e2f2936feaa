"""queen-rbee's task handling without HTTP: real components over a store in memory and a scripted engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.service.watchdog import Pulse
from queen_rbee.dispatch.queue import Policy
from queen_rbee.dispatch.stalls import DEFAULT_LIMITS, StallLimits
from queen_rbee.parts import POOL_WAIT_S, TaskParts, build_task_parts
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine, scripted_engine

TIMEOUT_S = 5.0
SHORT_LIMITS = StallLimits(connect_s=5.0, first_token_s=0.5, per_prompt_kb_s=0.0, idle_s=0.05)


@dataclass
class QueenCore:
    parts: TaskParts
    engine: ScriptedEngine
    store: MemoryStore
    pulse: Pulse = field(default_factory=lambda: Pulse("dispatcher", 60.0))

    def __post_init__(self) -> None:
        self.registry, self.metrics = self.parts.registry, self.parts.metrics
        self.catalog, self.sessions, self.artifacts = self.parts.catalog, self.parts.sessions, self.parts.artifacts
        self.book, self.forecast, self.accounting = self.parts.book, self.parts.forecast, self.parts.accounting
        self.queue, self.circuits, self.runs = self.parts.queue, self.parts.circuits, self.parts.runs
        self.dispatcher, self.intake = self.parts.dispatcher, self.parts.intake

    def submit(self, prompt: str | None = "hello", **request) -> Task:
        """Admit a task that is not stored."""
        return self.intake.admit(TaskRequest(prompt=prompt, **request), "c")

    async def accept(self, prompt: str | None = "hello", **request) -> Task:
        """Admit a task that is stored."""
        accepted = await self.intake.submit(TaskRequest(prompt=prompt, **request), "c")
        return accepted.task

    def pool(self, **changes) -> PoolStatus:
        """Add or replace one pool, `p` by default."""
        pool = self.status(**changes)
        self.registry.update(pool.pool_id, 0, [pool])
        return pool

    def status(self, **changes) -> PoolStatus:
        slots = changes.pop("slots", 2)
        url = changes.pop("url", self.engine.url)
        replica = ReplicaStatus(replica_id="r0", url=url, ready=True, slots_total=slots, slots_free=slots)
        defaults = {"pool_id": "p", "state": PoolState.READY, "live": True, "ready": True, "draining": False}
        return PoolStatus(**{**defaults, "engine": "llamacpp", "replicas": [replica], **changes})


def build_queen(
    engine: ScriptedEngine,
    *,
    capacity: int = 100,
    policy: Policy = "reject-new",
    store: MemoryStore | None = None,
    short_limits: bool = False,
    pool_wait_s: float = POOL_WAIT_S,
    prefix_routing: bool = True,
) -> QueenCore:
    """Build a queen that does not run yet.

    `short_limits`: give up silent engines at once. Only for tests whose engine never answers: a busy machine delays
    those that do.
    """
    store = store or MemoryStore()
    limits = SHORT_LIMITS if short_limits else DEFAULT_LIMITS
    parts = build_task_parts(
        store,
        capacity=capacity,
        policy=policy,
        strategy="round-robin",
        prefix_routing=prefix_routing,
        limits=limits,
        pool_wait_s=pool_wait_s,
    )
    parts.registry.synced = True
    if short_limits:
        parts.circuits.first_rest_s = 0.001
    return QueenCore(parts, engine, store)


@asynccontextmanager
async def running_queen(**options) -> AsyncIterator[QueenCore]:
    """A queen that dispatches, with one pool of two slots."""
    async with scripted_engine() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine, **options)
        queen.pool()
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        nursery.cancel_scope.cancel()


def add_vanishing_replicas(queen: QueenCore) -> None:
    """Add two replicas that pass health checks and close each connection without an answer."""
    queen.engine.outage = "vanish"
    replicas = [
        ReplicaStatus(replica_id=name, url=queen.engine.url, ready=True, slots_total=2, slots_free=2)
        for name in ("r0", "r1")
    ]
    queen.pool(replicas=replicas)


async def end_events(task: Task) -> list[str]:
    """Wait for the task's end; return the names of its events except narration."""
    with trio.fail_after(TIMEOUT_S):
        while not task.log.closed:
            await task.log.wait_beyond(task.log.last_id)
    return [frame.event for frame in task.log.frames(0) if frame.event != "narration"]


async def wait_for_first_token(task: Task) -> None:
    """Wait until the answer has started."""
    with trio.fail_after(TIMEOUT_S):
        while not task.answer_started:
            await task.log.wait_beyond(task.log.last_id)


async def wait_for_free_slots(queen: QueenCore) -> None:
    """Wait until the engine has no connection and no task runs; assert that no slot is leased."""
    with trio.fail_after(TIMEOUT_S):
        while queen.engine.connected:
            await queen.engine.disconnected.wait()
        await queen.dispatcher.finish()
    assert queen.registry.leased == 0
