"""An imitation of a machine whose pools load on demand, under a real registry, queue, placer and keeper.

It does what pool-managerd and engine-provisioner do together: an order takes its time, then a report shows the result.
It checks each order: a pool with tasks must not be told to unload.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from pydantic import BaseModel

from llama_orch.bell import Bell
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.pools import MemoryBudget, PoolState, PoolStatus, ReplicaStatus, Residency
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapters import adapters
from queen_rbee.dispatch.placer import QueuePlacer
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.managers import PoolManager, PoolManagers
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.residency.keeper import Keeper
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.tasks.task import Task
from queen_rbee.tasks.task_trace import TaskTrace
from tests.unit.queen_rbee.memory_store import MemoryStore

URL = "http://127.0.0.1:9200"
GIB = 1 << 30
LOAD_S, UNLOAD_S = 2.0, 0.5


class Orders(PoolManagers):
    """Passes the orders of the keeper to the site."""

    def __init__(self, site: "Site") -> None:
        super().__init__(None, site.registry, (URL,))  # type: ignore[arg-type]
        object.__setattr__(self, "site", site)

    async def post(self, manager: PoolManager, path: str, body: BaseModel | None = None) -> None:
        await self.site.obey(path.split("/")[3], path.rpartition("/")[2])  # type: ignore[attr-defined]


@dataclass
class Site:
    """A machine with one GPU of `total` GiB. `history` has all that happened, as `load a`, `serve a`, `unload a`."""

    total: int = 12
    slots: int = 1
    registry: PoolRegistry = field(default_factory=lambda: PoolRegistry(Bell(), adapters()))
    pools: dict[str, PoolStatus] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    refusing: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    nursery: trio.Nursery = field(init=False)

    def __post_init__(self) -> None:
        self.queue: AdmissionQueue[Task] = AdmissionQueue(1000, "reject-new")
        self.bell = Bell()
        self.registry._changed = self.bell
        self.placer = QueuePlacer(self.queue, self.registry, Sessions(MemoryStore()), "least-loaded", self.bell)
        self.keeper = Keeper(self.registry, self.queue, Orders(self), Metrics())
        self.ended: dict[Task, trio.Event] = {}

    def add(self, name: str, need: int = 4, state: PoolState = PoolState.UNLOADED, **residency) -> None:
        """Add a pool that needs so many GiB."""
        plan = Residency(**{"need_bytes": {"0": need * GIB}, "keep_alive_s": 300.0, "load_s": LOAD_S, **residency})
        self.pools[name] = PoolStatus(
            pool_id=name,
            state=PoolState.UNLOADED,
            live=False,
            ready=False,
            draining=False,
            engine="llamacpp",
            models_available=[f"{name}.gguf"],
            residency=plan,
        )
        self.show(name, state)

    def show(self, name: str, state: PoolState) -> None:
        """Let the machine report the pool in this state."""
        ready = state is PoolState.READY
        replica = ReplicaStatus(
            replica_id="r0", url="http://127.0.0.1:1", ready=True, slots_total=self.slots, slots_free=self.slots
        )
        changes = {"state": state, "ready": ready, "live": ready, "replicas": [replica] if ready else []}
        self.pools[name] = self.pools[name].model_copy(update=changes)
        self.registry.update(URL, 0, self.pools.values(), [self._memory()])

    def _memory(self) -> MemoryBudget:
        loaded = (pool for pool in self.pools.values() if pool.state in (PoolState.READY, PoolState.STARTING))
        used = sum(pool.residency.need_bytes["0"] for pool in loaded if pool.residency)
        return MemoryBudget(device="0", total_bytes=self.total * GIB, free_bytes=max(0, self.total * GIB - used))

    async def obey(self, name: str, verb: str) -> None:
        await trio.lowlevel.checkpoint()
        if name in self.refusing:
            raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message="cannot connect"))
        self.history.append(f"{'load' if verb == 'preload' else verb} {name}")
        if verb == "unload":
            assert not self.registry.count_leases(self.registry.replicas_of((name, ""))), f"{name} is busy"
        self.nursery.start_soon(self._change, name, verb)

    async def _change(self, name: str, verb: str) -> None:
        if verb == "unload":
            await trio.sleep(UNLOAD_S)
            self.show(name, PoolState.UNLOADED)
            return
        self.show(name, PoolState.STARTING)
        await trio.sleep(LOAD_S)
        self.show(name, PoolState.FAILED if name in self.failing else PoolState.READY)

    async def request(self, name: str, service_s: float = 1.0, trace: TaskTrace | None = None, **fields) -> None:
        """Ask for the pool's model, and wait for the answer."""
        task = Task(TaskRequest(prompt="x", model_ref=name, **fields), "c", trio.current_time())
        task.trace = trace
        self.ended[task] = trio.Event()
        task.service_s = service_s  # type: ignore[attr-defined]
        self.queue.admit(task, "interactive", task.demand)
        self.placer.admitted(task)
        self.registry.ring_residency()
        await self.ended[task].wait()

    async def _dispatch(self) -> None:
        while True:
            for task, target in self.placer.place_waiting():
                self.queue.take(task)
                self.keeper.started(task, target)
                self.nursery.start_soon(self._serve, task, target)
            if list(self.placer.take_unplaced_arrivals()):
                self.registry.ring_residency()
            await self.bell.wait(3600)

    async def _serve(self, task: Task, target: Candidate) -> None:
        self.history.append(f"serve {target.pool_id}")
        await trio.sleep(task.service_s)  # type: ignore[attr-defined]
        self.registry.release(target.key)
        self.ended.pop(task).set()

    @property
    def loaded(self) -> set[str]:
        return {name for name, pool in self.pools.items() if pool.state is PoolState.READY}


@asynccontextmanager
async def running(**options) -> AsyncIterator[Site]:
    """A site whose keeper and dispatcher run."""
    site = Site(**options)
    async with trio.open_nursery() as nursery:
        site.nursery = nursery
        await nursery.start(site.keeper.run)
        nursery.start_soon(site._dispatch)
        yield site
        nursery.cancel_scope.cancel()
