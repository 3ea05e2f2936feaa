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
from llama_orch.contracts.reloads import PoolReload, ReloadCancel, ReloadOrder, ReloadState, SwitchOrder
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapters import adapters
from llama_orch.telemetry import correlation
from queen_rbee.dispatch.placer import QueuePlacer
from queen_rbee.dispatch.promises import Promises
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.managers import PoolManager, PoolManagers
from queen_rbee.fleet.operations import Operations
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.prefixes.routing import PrefixRouting
from queen_rbee.residency.keeper import Keeper
from queen_rbee.residency.reloading import OperatorReloads
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

    async def post(self, manager: PoolManager, path: str, body: BaseModel | None = None, **_options: object) -> bytes:
        name, verb = path.split("/")[3], path.rpartition("/")[2]
        return await self.site.obey(name, verb, body)  # type: ignore[attr-defined, no-any-return]


@dataclass
class Site:
    """A machine with one GPU of `total` GiB. `history` has all that happened, as `load a`, `serve a`, `unload a`."""

    total: int = 12
    slots: int = 1
    registry: PoolRegistry = field(default_factory=lambda: PoolRegistry(Bell(), adapters()))
    pools: dict[str, PoolStatus] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    causes: list[str | None] = field(default_factory=list)
    """The correlation id that each order to load or unload carries."""
    refusing: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    failure: str | None = None
    changing: dict[str, trio.CancelScope] = field(default_factory=dict)
    nursery: trio.Nursery = field(init=False)

    def __post_init__(self) -> None:
        self.queue: AdmissionQueue[Task] = AdmissionQueue(1000, "reject-new")
        self.bell = Bell()
        self.registry._changed = self.bell
        sessions, prefixes = Sessions(MemoryStore()), PrefixRouting(self.registry, Metrics(), enabled=False)
        self.placer = QueuePlacer(self.queue, self.registry, sessions, "least-loaded", prefixes, self.bell)
        self.promises: Promises[Demand] = Promises()
        orders = Orders(self)
        self.keeper = Keeper(self.registry, self.queue, self.promises, orders, Metrics(), lambda: 0.0)
        self.operations = Operations(self.registry, orders, lambda _keys, _reason: 0)
        self.reloads = OperatorReloads(self.registry, self.keeper, self.operations)
        self.ended: dict[Task, trio.Event] = {}

    def add(
        self, name: str, need: int = 4, state: PoolState = PoolState.UNLOADED, model: str = "", **residency
    ) -> None:
        """Add a pool that needs so many GiB; its model has its name, or that of `model`."""
        plan = Residency(**{"need_bytes": {"0": need * GIB}, "keep_alive_s": 300.0, "load_s": LOAD_S, **residency})
        self.pools[name] = PoolStatus(
            pool_id=name,
            state=PoolState.UNLOADED,
            live=False,
            ready=False,
            draining=False,
            engine="llamacpp",
            models_available=[f"{model or name}.gguf"],
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

    async def obey(self, name: str, verb: str, body: BaseModel | None) -> bytes:
        await trio.lowlevel.checkpoint()
        if name in self.refusing:
            raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message="cannot connect"))
        if isinstance(body, ReloadOrder | SwitchOrder | ReloadCancel):
            self._reload(name, body)
            return b""
        self.history.append(f"{'load' if verb == 'preload' else verb} {name}")
        self.causes.append(correlation.current.get())
        if verb == "unload":
            assert not self.registry.count_leases(self.registry.replicas_of((name, ""))), f"{name} is busy"
        if verb == "purge":
            assert self.pools[name].state is PoolState.UNLOADED
            return b'{"pool_id": "a", "freed_bytes": 1073741824, "kept": ["the engine: used by b"]}'
        self.nursery.start_soon(self._change, name, verb)
        return b""

    def _reload(self, name: str, body: ReloadOrder | SwitchOrder | ReloadCancel) -> None:
        """Do what engine-provisioner does with a reload, which takes LOAD_S once the pool is drained."""
        if isinstance(body, ReloadOrder):
            self.history.append(f"reload {name}")
            self.reload(name, ReloadState.STAGED, body.reload_id or "")
        elif isinstance(body, ReloadCancel):
            self.history.append(f"cancel {name}")
            self.reload(name, ReloadState.CANCELLED, body.reload_id)
        elif body.drained:
            assert not self.registry.count_leases(self.registry.replicas_of((name, ""))), f"{name} is busy"
            self.history.append(f"switch {name}")
            self.nursery.start_soon(self._switch, name, body.reload_id)
        else:
            self.history.append(f"claim {name}")

    def reload(self, name: str, state: ReloadState, reload_id: str) -> None:
        """Let the machine report a reload in this state."""
        found = PoolReload(
            reload_id=reload_id, state=state, error=self.failure if state is ReloadState.FAILED else None
        )
        self.pools[name] = self.pools[name].model_copy(update={"reload": found})
        self.registry.update(URL, 0, self.pools.values(), [self._memory()])

    async def _switch(self, name: str, reload_id: str) -> None:
        self.reload(name, ReloadState.SWITCHING, reload_id)
        self.show(name, PoolState.UNLOADED)
        self.show(name, PoolState.STARTING)
        await trio.sleep(LOAD_S)
        self.show(name, PoolState.READY)
        self.reload(name, ReloadState.FAILED if self.failure else ReloadState.DONE, reload_id)

    async def _change(self, name: str, verb: str) -> None:
        """Do what was ordered, in place of what was ordered before."""
        self.changing.get(name, trio.CancelScope()).cancel()
        with trio.CancelScope() as self.changing[name]:
            if verb == "unload":
                await trio.sleep(UNLOAD_S)
                self.show(name, PoolState.UNLOADED)
                return
            self.show(name, PoolState.STARTING)
            await trio.sleep(LOAD_S)
            self.show(name, PoolState.FAILED if name in self.failing else PoolState.READY)

    async def request(self, name: str, service_s: float = 1.0, trace: TaskTrace | None = None, **fields) -> None:
        """Ask for the pool's model, and wait for the answer. A client that is cancelled leaves the queue."""
        task = Task(TaskRequest(prompt="x", model_ref=name, **fields), "c", trio.current_time())
        task.trace = trace
        self.ended[task] = trio.Event()
        task.service_s = service_s  # type: ignore[attr-defined]
        self.queue.admit(task, "interactive", task.demand)
        self.placer.admitted(task)
        self.registry.ring_residency()
        try:
            await self.ended[task].wait()
        finally:
            if self.queue.remove(task):
                self.registry.ring_residency()

    async def _dispatch(self) -> None:
        while True:
            blocked: set[Demand] = set()
            while placed := await self.placer.place_next(blocked):
                task, target = placed
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
        await nursery.start(site.operations.run)
        nursery.start_soon(site._dispatch)
        yield site
        nursery.cancel_scope.cancel()
