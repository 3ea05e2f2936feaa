"""The one owner of pools and replicas. Everybody else reports to it, or asks it.

Each change of what is said about a pool raises `revision` and wakes those who wait for one. The first revision is
the time of the start, so that a number from before a restart is never met again.
"""

import time
from collections.abc import Iterable
from dataclasses import replace

import trio

from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.spool import HandoffFile
from llama_orch.telemetry.events.pools import HANDOFF_TAKEN, POOL_FORGOTTEN, POOL_READY, POOL_UNREADY
from llama_orch.telemetry.records import emit
from pool_managerd.pools.devices import NOT_LOOKED, Gpus, device_problem
from pool_managerd.pools.leases import Leases
from pool_managerd.pools.replica import Key, Replica, Sighting, announced, announced_again, seen
from pool_managerd.pools.summary import NOTHING_DRAINED, Drained, Reports, in_service, summarise

FORGET_AFTER_S = 600.0


class Registry:
    """The pools of this machine; to be used from one trio run only."""

    def __init__(self) -> None:
        self.revision = int(time.time() * 1000)
        self.pools: tuple[PoolStatus, ...] = ()
        self._summaries: tuple[PoolStatus, ...] = ()
        self.gpus = NOT_LOOKED
        self.gpus_looked = trio.Event()
        self.drained = NOTHING_DRAINED
        self.leases = Leases(self._publish)
        self._replicas: dict[Key, Replica] = {}
        self._reports: Reports = {}
        self._incarnations = 0
        self._changed = trio.Event()

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All replicas as they are now."""
        return tuple(self._replicas.values())

    def pool(self, pool_id: str) -> PoolStatus | None:
        """The status of one pool, if there is such a pool."""
        return next((pool for pool in self.pools if pool.pool_id == pool_id), None)

    def restore(self, saved: Iterable[HandoffFile]) -> None:
        """Know again what was known before a restart; each engine has yet to answer. Nothing speaks against its devices
        before they have been looked at."""
        for found in saved:
            replica = self._announce(found)
            self._replicas[replica.key] = replace(replica, device_problem=None)
        self._settle()

    def take(self, found: HandoffFile, sighting: Sighting | None = None) -> None:
        """Know an engine that was announced, in place of any earlier one of its pool and replica id.

        With a `sighting` of it, it is never said to be other than it was seen.
        """
        handoff = found.handoff
        replica = self._announce(found)
        emit(
            HANDOFF_TAKEN,
            **handoff.model_dump(include={"pool_id", "replica_id", "engine", "engine_version", "url", "unit"}),
        )
        if sighting:
            self._put(replica.key, seen(replica, sighting, trio.current_time()))
        self._settle()

    def saw(self, incarnation: int, sighting: Sighting) -> Replica | None:
        """Take note of a look at an engine; None where that engine has been replaced or forgotten meanwhile."""
        replica = next((known for known in self.replicas if known.incarnation == incarnation), None)
        if replica is None:
            return None
        self._put(replica.key, seen(replica, sighting, trio.current_time()))
        self._settle()
        return self._replicas[replica.key]

    def set_reports(self, reports: Reports) -> None:
        """Take note of all provisioning reports there are, by pool id."""
        self._reports = reports
        self._settle()

    def set_gpus(self, gpus: Gpus) -> None:
        """Take note of the GPUs as they are now."""
        self.gpus = gpus
        self.gpus_looked.set()
        for replica in self.replicas:
            self._put(replica.key, self._placed(replica))
        self._settle()

    def set_drained(self, drained: Drained) -> None:
        """Take note of what takes nothing new. Whoever waits for a change is woken, also where no pool has changed."""
        self.drained = drained
        self.revision += 1
        self._wake()
        self._publish()

    def forget_gone(self) -> bool:
        """Drop replicas that have been offline for FORGET_AFTER_S seconds and of which no report tells more."""
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
        """Return when the revision is another than `after`."""
        await trio.lowlevel.checkpoint()
        while self.revision == after:
            await self._changed.wait()

    async def engines_seen(self) -> None:
        """Return when every engine has been looked at once."""
        while any(not replica.live and not replica.misses for replica in self.replicas):
            await self.changed(self.revision)  # a first look always changes `live` or `last_error`

    def _announce(self, found: HandoffFile) -> Replica:
        self._incarnations += 1
        replica = self._placed(announced(self._incarnations, found.handoff, found.identity))
        for other in self.replicas:
            if other.handoff.url == found.handoff.url and other.key != replica.key:
                self._drop(other, f"{found.handoff.url} is now that of pool {found.handoff.pool_id}")
        before = self._replicas.pop(replica.key, None)  # what is announced last is saved last
        if before and before.handoff.url == found.handoff.url:
            replica = announced_again(before, replica)
        self._replicas[replica.key] = replica
        return replica

    def _placed(self, replica: Replica) -> Replica:
        return replace(replica, device_problem=device_problem(replica.handoff.device_mask, self.gpus))

    def _put(self, key: Key, after: Replica) -> None:
        """Store a replica's next state, and say so where it became ready, ceased to be, or was given up."""
        before, self._replicas[key] = self._replicas[key], after
        if before.state is after.state:
            return
        names = {"pool_id": key[0], "replica_id": key[1], "engine": after.handoff.engine, "unit": after.handoff.unit}
        if after.state is PoolState.READY:
            emit(POOL_READY, **names, url=after.handoff.url, slots_total=after.slots.total)
        elif before.state is PoolState.READY or (after.state is PoolState.OFFLINE and not after.was_ready):
            emit(POOL_UNREADY, **names, reason=after.error or "its engine is loading")

    def _drop(self, replica: Replica, reason: str) -> None:
        del self._replicas[replica.key]
        emit(POOL_FORGOTTEN, pool_id=replica.key[0], replica_id=replica.key[1], reason=reason)

    def _settle(self) -> None:
        self._summaries = summarise(self.replicas, self._reports, self.gpus)
        self._publish()

    def _publish(self) -> None:
        """What engines make of the pools, with what this daemon does to them. Each request through the relay comes by
        here twice; the summaries are not made anew for it."""
        leases, drained = self.leases.of_pool, self.drained
        pools = tuple(in_service(pool, drained, leases(pool.pool_id)) for pool in self._summaries)
        if pools == self.pools:
            return
        self.pools = pools
        self.revision += 1
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
