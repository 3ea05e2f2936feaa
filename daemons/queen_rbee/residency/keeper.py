"""Loads and unloads models: for tasks that wait, when they have been idle for long enough, and by order of operators.

The one owner of what was ordered and has not happened yet. The decisions are those of `plan`. A pool is held, so that
it gets no new tasks, from the decision to unload it until its pool-managerd reports that it is unloaded; it is told to
unload only once it has no task. What an order waits for is reported by pool-managerd, never assumed.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Set
from dataclasses import replace
from math import inf

import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.keep_alive import keep_alive_s
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch.estimates import Arrival
from queen_rbee.dispatch.promises import Promises
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.fleet.managers import PoolManagers
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Candidate, Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.source_reports import PoolKey, pool_key
from queen_rbee.residency import switches
from queen_rbee.residency.actions import Load, Plan, Unload
from queen_rbee.residency.arrivals import arrival_of
from queen_rbee.residency.load_times import LoadTimes
from queen_rbee.residency.operator_intents import IntentKind, OperatorIntents
from queen_rbee.residency.orders import TIMEOUT_S, Order, cause_of, needless_unloads
from queen_rbee.residency.plan import make_plan
from queen_rbee.residency.situation import Phase, Resident, Situation, Wait
from queen_rbee.residency.switches import Switches
from queen_rbee.residency.views import Usage, after_report, budgets, idle_times, merged, phase_of, pools_of, resident
from queen_rbee.tasks.task import Task

RETRY_S = 5.0
"""How long a pool is left alone after an order to it failed."""
DUTY_CYCLE = 20
"""A plan that took much CPU time is followed by a pause this many times as long."""

log = logging.getLogger(__name__)


class Keeper:
    """`run` is its loop. `load` and `unload` are for operators."""

    def __init__(
        self,
        registry: PoolRegistry,
        queue: AdmissionQueue[Task],
        promises: Promises[Demand],
        managers: PoolManagers,
        metrics: Metrics,
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._registry = registry
        self._queue = queue
        self._promises = promises
        self._managers = managers
        self._metrics = metrics
        self._cpu_s = cpu_s
        self._usage: dict[PoolKey, Usage] = {}
        self._orders: dict[PoolKey, Order] = {}
        self._intents = OperatorIntents()
        self._left_alone: dict[PoolKey, float] = {}
        self._switches = Switches(registry, managers)
        self._settled_at: dict[str, float] = {}
        self._load_times = LoadTimes()
        self._situation: Situation | None = None
        self.plan = Plan()
        """The last plan; `plan.blocked` says why waiting tasks have no pool."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Plan and give orders until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                began = self._cpu_s()
                self._step(nursery, trio.current_time())
                await trio.sleep(DUTY_CYCLE * (self._cpu_s() - began))
                await self._registry.residency.wait(max(0.0, self._due_at() - trio.current_time()))

    def started(self, task: Task, target: Candidate) -> None:
        """Call when a task gets a slot: its `keep_alive`, if it has one, is in force for the pool from now on."""
        self._load_times.note(task, target)
        if (keep_alive := task.request.keep_alive) is not None:
            self.keep((target.pool_id, target.node_id or ""), keep_alive)

    def keep(self, key: PoolKey, keep_alive: str | float) -> None:
        """Let `keep_alive` be in force for a loaded pool until it is unloaded or a task has another one."""
        usage = self._usage.get(key, Usage())
        self._usage[key] = replace(usage, overridden=True, keep_alive_s=keep_alive_s(keep_alive))
        self._registry.residency.ring()

    @property
    def wanted(self) -> Collection[PoolKey]:
        """The pools that operators want to be loaded and that are not yet."""
        return self._intents.wanted

    def load(self, key: PoolKey) -> None:
        """Load the pool as soon as there is room; no effect while it is loaded."""
        self._intents.load(key)
        self._left_alone.pop(key, None)
        self._registry.residency.ring()

    def unload(self, key: PoolKey, reason: str = "requested by an operator") -> None:
        """Send the pool no new tasks, and unload it once it has none; no effect while it is not loaded."""
        self._intents.unload(key, reason)
        self._registry.residency.ring()

    def close(self, key: PoolKey, *, closed: bool) -> None:
        """Do not load the pool while it is closed, whatever waits for it."""
        self._intents.close(key, closed=closed)
        self._registry.residency.ring()

    def stop_load(self, key: PoolKey) -> None:
        """Call off what an operator asked for: unload the pool if it is being loaded and nothing waits for it."""
        self.forget(key)
        order = self._orders.get(key)
        if order and order.phase is Phase.LOADING and not any(key in wait.pools for wait in self._waits({key})):
            self.unload(key, "its load was cancelled")

    def arrival(self, demand: Demand) -> Arrival | None:
        """Return when the first pool that could serve `demand` will be loaded; None if no time can be told."""
        situation, now = self._situation, trio.current_time()
        suitable = pools_of(self._registry.replicas.suitable(demand))
        keys = {each.key for each in situation.residents} if situation else set()
        if situation is None or not suitable & keys:
            return None
        waits = self._waits(keys)
        since = next((wait.since for wait in waits if wait.pools == suitable), now)
        found = arrival_of(Wait(suitable, since), replace(situation, waits=waits, now=now))
        return Arrival(found[0].key[0], found[1], found[0].slots) if found else None

    def blocker(self, key: PoolKey) -> str | None:
        """Return why a pool that is to be loaded is not being loaded yet, if it is not."""
        return next((reason for wait, reason in self.plan.blocked.items() if key in wait.pools), None)

    def with_idle_times(self, pool: PoolStatus) -> PoolStatus:
        """Return `pool` with `idle_s` and `unload_in_s`, if it is loaded, has no task and can be unloaded."""
        key = pool_key(pool)
        usage, replicas = self._usage.get(key), self._registry.replicas_of(key)
        if pool.residency is None or not pool.ready or usage is None or usage.loaded_at == -inf:
            return pool
        if self._registry.count_leases(replicas):
            return pool
        released = self._registry.last_release(replicas)
        idle_s, unload_in_s = idle_times(usage, pool.residency.keep_alive_s, released, trio.current_time())
        return pool.model_copy(
            update={"idle_s": round(idle_s, 1), "unload_in_s": unload_in_s and round(unload_in_s, 1)}
        )

    def forget(self, key: PoolKey, what: IntentKind | None = None) -> None:
        """Drop what an operator asked for and has not been ordered yet: a load or an unload; without `what`, either."""
        self._intents.forget(key, what)
        order = self._orders.get(key)
        phase = {"load": Phase.LOADING, "unload": Phase.UNLOADING}.get(what or "")
        if order and not order.given and phase in (None, order.phase):
            del self._orders[key]
        self._registry.residency.ring()

    def _due_at(self) -> float:
        """Return when to look again if nothing is reported before."""
        now = trio.current_time()
        timeouts = (order.sent_at + TIMEOUT_S for order in self._orders.values() if order.sent_at is not None)
        late = (at if at > now else now + RETRY_S for at in timeouts)
        return min((self.plan.due_at, self._promises.next_end, *self._left_alone.values(), *late))

    def _step(self, nursery: trio.Nursery, now: float) -> None:
        found = self._registry.find_pools(self._registry.residents)
        pools = {pool_key(pool): pool for pool in found}
        self._settle(pools, now)
        residents = list(self._residents(pools, now))
        if not residents:
            self.plan, self._situation = Plan(), None
            self._registry.hold(())
            self._registry.watch_releases = False
            return
        self._intents.discard_done(residents)
        situation = self._describe(residents, now)
        if needless := needless_unloads(self._orders, situation):
            for key in needless:
                del self._orders[key]
            residents = list(self._residents(pools, now))
            situation = self._describe(residents, now)
        self._situation = situation
        self.plan = make_plan(situation)
        for action in (*self.plan.actions, *self._intents.unloads(residents)):
            self._decide(action)
        held = {key for key, order in self._orders.items() if order.phase is Phase.UNLOADING} | switches.held(pools)
        self._registry.hold(held)
        self._registry.watch_releases = bool(held or self.plan.blocked)
        self._send_due(pools, nursery)
        self._switches.step(pools, nursery)

    def _describe(self, residents: list[Resident], now: float) -> Situation:
        waits = self._waits({each.key for each in residents})
        return Situation(residents, budgets(self._registry.memory()), waits, now, dict(self._settled_at))

    def _settle(self, pools: dict[PoolKey, PoolStatus], now: float) -> None:
        """Drop the orders that are done, that failed, or whose pool is gone or does not follow them."""
        for key, order in list(self._orders.items()):
            pool = pools.get(key)
            done, late = pool is None or order.followed(pool.state), order.late(pool, now)
            if not done and not late:
                continue
            del self._orders[key]
            order.scope.cancel()
            if pool:
                self._count(order, pool)
                self._load_times.done(key)
            if machine := self._registry.source_of(key):
                self._settled_at[machine] = now
            if late:
                self._left_alone[key] = now + RETRY_S
                log.warning("pool %s did not follow the order to be %s", key[0], order.phase.value)
        for key in [key for key, until in self._left_alone.items() if until <= now or key not in pools]:
            del self._left_alone[key]
        for key in [key for key in self._usage if key not in pools]:
            del self._usage[key]
            self._load_times.forget(key)

    def _count(self, order: Order, pool: PoolStatus) -> None:
        if order.phase is Phase.LOADING:
            self._metrics.loaded(pool.pool_id, success=pool.ready)
        elif pool.state is PoolState.UNLOADED:
            self._metrics.unloaded(pool.pool_id, order.cause)

    def _residents(self, pools: dict[PoolKey, PoolStatus], now: float) -> Iterator[Resident]:
        for key, pool in pools.items():
            order = self._orders.get(key)
            phase = phase_of(pool, order.phase if order else None)
            plan, machine = pool.residency, self._registry.source_of(key)
            if phase is None or plan is None or machine is None:
                continue
            if (key in self._left_alone or key in self._intents.closed) and phase is Phase.UNLOADED:
                phase = Phase.FAILED
            replicas = self._registry.replicas_of(key)
            leases = self._registry.count_leases(replicas)
            released = self._registry.last_release(replicas)
            usage = after_report(self._usage.get(key, Usage()), phase, leases, released, now)
            self._usage[key] = usage
            yield resident(pool, plan, machine, phase, usage, leases, key in self._intents.wanted)

    def _waits(self, keys: Set[PoolKey]) -> list[Wait]:
        """Return what the tasks in the queue wait for, and what clients were promised, as far as loads can help."""
        first = [(task.demand, task.measurements.submitted_at, False) for task in self._queue.first_of_lanes()]
        promised = [(demand, since, True) for demand, since in self._promises.current(trio.current_time())]
        replicas = self._registry.replicas
        found = (Wait(pools_of(replicas.suitable(lane)), since, kind) for lane, since, kind in (*first, *promised))
        return merged(wait for wait in found if wait.pools & keys)

    def _decide(self, action: Load | Unload) -> None:
        known = self._orders.get(action.key)
        if isinstance(action, Load):
            if known is None:
                cause = cause_of(action.key, self._queue.first_of_lanes(), self._registry.replicas.suitable)
                self._orders[action.key] = Order(Phase.LOADING, action.reason, correlation_id=cause)
        elif known is None or known.phase is Phase.LOADING:
            if known:
                known.scope.cancel()
            self._orders[action.key] = Order(Phase.UNLOADING, action.reason, action.cause, action.room_for)

    def _send_due(self, pools: dict[PoolKey, PoolStatus], nursery: trio.Nursery) -> None:
        for key, order in self._orders.items():
            if order.given:
                continue
            if order.phase is Phase.LOADING or not self._registry.count_leases(self._registry.replicas_of(key)):
                order.sending = True
                nursery.start_soon(self._send, key, order)

    async def _send(self, key: PoolKey, order: Order) -> None:
        correlation.current.set(order.correlation_id)
        verb, event = _VERBS[order.phase]
        fields = {"pool_id": key[0], "node_id": key[1] or None}
        try:
            with order.scope:
                await self._managers.post(self._managers.for_pool(key), f"/v2/pools/{key[0]}/{verb}")
                order.sent_at = trio.current_time()
                if order.phase is Phase.LOADING:
                    self._load_times.ordered(key)
                emit(event, **fields, reason=order.reason)
        except ApiError as error:
            emit(events.RESIDENCY_FAILED, **fields, verb=verb, reason=error.body.message)
            if self._orders.get(key) is order:
                del self._orders[key]
            self._left_alone[key] = trio.current_time() + RETRY_S
            self._intents.unwanted.pop(key, None)
        finally:
            order.sending = False
            self._registry.residency.ring()


_VERBS = {Phase.LOADING: ("preload", events.LOAD_ORDERED), Phase.UNLOADING: ("unload", events.UNLOAD_ORDERED)}
