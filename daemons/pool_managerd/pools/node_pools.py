"""The pools and replicas of this machine. The one owner of their state.

Each change of a pool's status increments `revision` and wakes waiters. The first revision is the time of the start in
milliseconds, so that revisions from before a restart do not recur.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.pools import MemoryBudget, PoolState, PoolStatus
from llama_orch.spool import HandoffFile
from llama_orch.telemetry.events.pools import HANDOFF_TAKEN, POOL_FORGOTTEN, POOL_READY, POOL_UNLOADED, POOL_UNREADY
from llama_orch.telemetry.records import emit
from pool_managerd.pools.devices import NOT_DISCOVERED, Gpus, device_problem
from pool_managerd.pools.leases import Leases
from pool_managerd.pools.memory import MachineMemory, budgets
from pool_managerd.pools.pool_status import (
    NOT_DRAINED,
    UNLOADING,
    DrainState,
    Reports,
    fenced_pools,
    pool_statuses,
    with_service_state,
)
from pool_managerd.pools.replica import Key, ProbeResult, Replica, after_probe, announced, announced_again

FORGET_AFTER_S = 600.0


class NodePools:
    """The pools of this machine. To be used from one trio run only."""

    def __init__(self) -> None:
        self.revision = int(time.time() * 1000)
        self._pools: tuple[PoolStatus, ...] = ()
        self._leases_newer = False
        """Whether leases have changed since `_pools` was computed."""
        self._summaries: tuple[PoolStatus, ...] = ()
        self.gpus = NOT_DISCOVERED
        self.gpus_discovered = trio.Event()
        self.loads_changed = Bell()
        """Rung when a pool has become loaded or unloaded, so that memory is read again."""
        self.memory_readings = 0
        """How often memory was read again because of that."""
        self._machine: MachineMemory | None = None
        self._loads: tuple[object, ...] = ()
        self.drained = NOT_DRAINED
        self.fenced: frozenset[str] = frozenset()
        self.fenced_changed = trio.Event()
        """Set, and replaced, when `fenced` changes: the pools whose engines all have a fenced GPU."""
        self.leases = Leases(self._publish_leases)
        self._replicas: dict[Key, Replica] = {}
        self._reports: Reports = {}
        self._incarnations = 0
        self._changed = trio.Event()
        self._settled = trio.Event()

    @property
    def pools(self) -> tuple[PoolStatus, ...]:
        """The status of each pool, with drains and leases applied."""
        if self._leases_newer:
            self._pools, self._leases_newer = self._with_service_states(), False
        return self._pools

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All replicas, oldest announcement first."""
        return tuple(self._replicas.values())

    @property
    def memory(self) -> list[MemoryBudget]:
        """The memory of each device as last read."""
        return budgets(self.gpus, self._machine)

    def pool(self, pool_id: str) -> PoolStatus | None:
        """Return the status of one pool, if it exists."""
        return next((pool for pool in self.pools if pool.pool_id == pool_id), None)

    def pool_without_leases(self, pool_id: str) -> PoolStatus | None:
        """Return the status of one pool, if it exists, without `active_leases`: not computed anew for each request."""
        summary = next((pool for pool in self._summaries if pool.pool_id == pool_id), None)
        return with_service_state(summary, self.drained, 0) if summary else None

    def restore(self, saved: Iterable[HandoffFile]) -> None:
        """Add the replicas saved before a restart. They are unready until probed.

        Device problems are cleared: GPU discovery has not run yet.
        """
        for found in saved:
            replica = self._announce(found)
            self._replicas[replica.key] = replace(replica, device_problem=None)
        self._settle()

    def take(self, found: HandoffFile, result: ProbeResult | None = None) -> None:
        """Add an announced engine, in place of any earlier one with its pool and replica id.

        With the `result` of a first probe, no status without it is ever published.
        """
        handoff = found.handoff
        replica = self._announce(found)
        emit(
            HANDOFF_TAKEN,
            **handoff.model_dump(include={"pool_id", "replica_id", "engine", "engine_version", "url", "unit"}),
        )
        if result:
            self._put(replica.key, after_probe(replica, result, trio.current_time()))
        self._settle()

    def apply_probe(self, incarnation: int, result: ProbeResult) -> Replica | None:
        """Apply the result of a probe. None if the engine has been replaced or dropped meanwhile."""
        replica = next((known for known in self.replicas if known.incarnation == incarnation), None)
        if replica is None:
            return None
        self._put(replica.key, after_probe(replica, result, trio.current_time()))
        self._settle()
        return self._replicas[replica.key]

    def set_reports(self, reports: Reports) -> bool:
        """Replace all provisioning reports, by pool id. Returns whether replicas of unloaded pools were dropped."""
        self._reports = {pool_id: report for pool_id, report in reports.items() if not report.removed}
        unloaded = {pool_id for pool_id, report in reports.items() if report.removed or report.state in UNLOADING}
        dropped = [key for key in self._replicas if key[0] in unloaded]
        for key in dropped:
            del self._replicas[key]
        for pool_id in sorted({pool_id for pool_id, _replica_id in dropped}):
            emit(POOL_UNLOADED, pool_id=pool_id)
        self._settle()
        return bool(dropped)

    def set_gpus(self, gpus: Gpus, machine: MachineMemory | None = None, *, changed: bool = False) -> None:
        """Replace the GPUs and the machine's memory by those of the last discovery.

        `changed`: it was made because a pool was loaded or unloaded. Then waiters wake even if no pool has changed.
        """
        self.gpus = gpus
        self._machine = machine or self._machine
        if changed:
            self.memory_readings += 1
            self.revision += 1
            self._wake()
        self.gpus_discovered.set()
        for replica in self.replicas:
            self._put(replica.key, self._placed(replica))
        self._settle()

    def set_fences(self, fences: Mapping[str, str]) -> None:
        """Replace the reasons why GPUs are fenced, by UUID."""
        gpus = replace(self.gpus, fences=dict(fences))
        if self.gpus_discovered.is_set():
            self.set_gpus(gpus)
        else:
            self.gpus = gpus

    def set_drained(self, drained: DrainState) -> None:
        """Set what is drained. Wakes waiters even if no pool has changed."""
        self.drained = drained
        self.revision += 1
        self._wake()
        self._publish()

    def forget_gone(self) -> bool:
        """Drop replicas that have been offline for FORGET_AFTER_S seconds and have no provisioning report."""
        now_s = trio.current_time()
        gone = [
            replica
            for replica in self.replicas
            if replica.offline_since_s is not None
            and now_s - replica.offline_since_s >= FORGET_AFTER_S
            and replica.handoff.pool_id not in self._reports
        ]
        for replica in gone:
            self._drop(replica, f"its engine has not answered for {FORGET_AFTER_S / 60:g} minutes")
        self._settle()
        return bool(gone)

    async def changed(self, after: int) -> None:
        """Return when the revision differs from `after`."""
        await trio.lowlevel.checkpoint()
        while self.revision == after:
            await self._changed.wait()

    async def settled(self) -> None:
        """Return after the next change that is not one of leases alone. Those come twice for each relayed request."""
        await self._settled.wait()

    async def engines_probed(self) -> None:
        """Return when every engine has been probed once."""
        while any(not replica.live and not replica.misses for replica in self.replicas):
            await self.changed(self.revision)  # a first probe always changes `live` or `last_error`

    def _announce(self, found: HandoffFile) -> Replica:
        self._incarnations += 1
        replica = self._placed(announced(self._incarnations, found.handoff, found.identity))
        for other in self.replicas:
            if other.handoff.url == found.handoff.url and other.key != replica.key:
                self._drop(other, f"{found.handoff.url} is now used by pool {found.handoff.pool_id}")
        before = self._replicas.pop(replica.key, None)  # keeps the order of announcements
        if before and before.handoff.url == found.handoff.url:
            replica = announced_again(before, replica)
        self._replicas[replica.key] = replica
        return replica

    def _placed(self, replica: Replica) -> Replica:
        return replace(replica, device_problem=device_problem(replica.handoff.device_mask, self.gpus))

    def _put(self, key: Key, after: Replica) -> None:
        """Store a replica's next state. Logs when it becomes ready or unready, or was never ready and goes offline."""
        before, self._replicas[key] = self._replicas[key], after
        if before.state is after.state:
            return
        fields = {"pool_id": key[0], "replica_id": key[1], "engine": after.handoff.engine, "unit": after.handoff.unit}
        if after.state is PoolState.READY:
            emit(POOL_READY, **fields, url=after.handoff.url, slots_total=after.slots.total)
        elif before.state is PoolState.READY or (after.state is PoolState.OFFLINE and not after.was_ready):
            emit(POOL_UNREADY, **fields, reason=after.error or "its engine is loading")

    def _drop(self, replica: Replica, reason: str) -> None:
        del self._replicas[replica.key]
        emit(POOL_FORGOTTEN, pool_id=replica.key[0], replica_id=replica.key[1], reason=reason)

    def _settle(self) -> None:
        self._summaries = pool_statuses(self.replicas, self._reports, self.gpus)
        before, self._loads = self._loads, tuple((pool.pool_id, *_load(pool)) for pool in self._summaries)
        if self._loads != before:
            self.loads_changed.ring()
        fenced = fenced_pools(self.replicas, self.gpus)
        if fenced != self.fenced:
            self.fenced = fenced
            changed, self.fenced_changed = self.fenced_changed, trio.Event()
            changed.set()
        self._publish()

    def _publish(self) -> None:
        """Publish the statuses with drains and leases applied."""
        pools = self._with_service_states()
        if pools == self._pools and not self._leases_newer:
            return
        self._pools, self._leases_newer = pools, False
        self.revision += 1
        self._wake()

    def _publish_leases(self, pool_id: str) -> None:
        """Publish that leases have changed. Runs twice per relayed request, so the statuses are computed on demand."""
        if all(pool.pool_id != pool_id for pool in self._summaries):
            return
        self._leases_newer = True
        self.revision += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _with_service_states(self) -> tuple[PoolStatus, ...]:
        leases, drained = self.leases.of_pool, self.drained
        return tuple(with_service_state(pool, drained, leases(pool.pool_id)) for pool in self._summaries)

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        settled, self._settled = self._settled, trio.Event()
        changed.set()
        settled.set()


def _load(pool: PoolStatus) -> tuple[bool, bool]:
    """Return values that change when the pool becomes loaded or unloaded."""
    return pool.live, pool.state is PoolState.UNLOADED
