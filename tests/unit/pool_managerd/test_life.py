"""A node's life in any order: engines that come, load, hang, vanish and return, drains and requests among them.

Invariants: each change is published and nothing else is, and no request outlives the deadline of a drain.
"""

import random
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolStatus
from llama_orch.service.watchdog import Pulse
from llama_orch.spool.handoffs import HandoffFile
from pool_managerd.draining import GRACE_S, Draining
from pool_managerd.engines.health import HealthLoop
from pool_managerd.metrics import Metrics
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.pool_status import DrainState
from pool_managerd.pools.replica import ProbeResult
from tests.unit.pool_managerd.values import GONE, LOADING, READY, SILENT, TWO_GPUS, found

HANGS = None
POOLS = ("a", "b", "c")
Published = tuple[int, tuple[PoolStatus, ...], DrainState]


@dataclass
class Life:
    """The pools with all loops that change them; `engines` has the answer of each by port."""

    dice: random.Random
    registry: NodePools = field(default_factory=NodePools)
    engines: dict[int, ProbeResult | None] = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)
    deadlines: dict[str | None, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metrics = Metrics(self.registry)
        self.health = HealthLoop(self.registry, metrics, self.ask)
        self.draining = Draining(self.registry, metrics, "gpu-1")

    async def ask(self, handoff: Handoff, *, describe: bool, extras_s: float) -> ProbeResult:
        """Return an engine's answer; a hanging one times out after two seconds."""
        answer = self.engines.get(int(handoff.url.rpartition(":")[2]), GONE)
        await trio.sleep(2.0 if answer is HANGS else self.dice.uniform(0, 0.05))
        return SILENT if answer is HANGS else answer

    async def listen(self) -> None:
        """Record each published status, as a long poll gets it."""
        while True:
            self.published.append((self.registry.revision, self.registry.pools, self.registry.drained))
            await self.registry.changed(self.registry.revision)

    async def request(self, pool_id: str) -> None:
        """A request through the relay, if the pool accepts one. It must not outlive a drain deadline."""
        pool = self.registry.pool(pool_id)
        keys = [replica.key for replica in self.registry.replicas if replica.key[0] == pool_id]
        if pool and pool.ready and not pool.draining:
            with self.registry.leases.held(self.dice.choice(keys), lambda: None):
                await trio.sleep(self.dice.uniform(0, 20))

    def overdue(self) -> list[str]:
        """Pools that have requests after their drain deadline."""
        drained, leases = self.registry.drained, self.registry.leases.of_pool
        now_s = trio.current_time() - GRACE_S - 0.01
        return [
            pool
            for pool in POOLS
            for key in (pool, None)
            if (drained.node if key is None else pool in drained.pools)
            and leases(pool)
            and self.deadlines.get(key, now_s) < now_s
        ]

    def drain(self, key: str | None) -> None:
        """Drain a pool, or without a name the node."""
        within_ms = self.dice.choice([None, 0, 2000, 9000])
        self.deadlines.pop(key, None)
        if within_ms is not None:
            self.deadlines[key] = trio.current_time() + within_ms / 1000
        self.draining.drain_node(within_ms) if key is None else self.draining.drain(key, within_ms)

    async def announce(self, port: int) -> None:
        """Announce an engine, with a first probe."""
        given = found(
            pool_id=self.dice.choice(POOLS),
            replica_id=self.dice.choice(["r0", "r1"]),
            port=port,
            device_mask=self.dice.choice([None, "0", "1"]),
        )
        self.registry.take(given, await self.health.first_probe(given.handoff))
        self.health.bell.ring()

    async def deed(self, nursery: trio.Nursery) -> None:
        """Run one random event."""
        dice, pool = self.dice, self.dice.choice(POOLS)
        port = dice.randrange(1, 5)
        match dice.randrange(9):
            case 0 | 1:
                self.engines[port] = dice.choice([READY, READY, LOADING, GONE, HANGS])
            case 2:
                await self.announce(port)
            case 3 | 4:
                nursery.start_soon(self.request, pool)
            case 5:
                self.drain(dice.choice([pool, None]))
            case 6:
                self.draining.resume(pool) if dice.random() < 0.6 else self.draining.resume_node()
            case 7:
                self.registry.set_gpus(dice.choice([TWO_GPUS, Gpus(TWO_GPUS.devices[:1]), Gpus(problem="none")]))
            case 8:
                self.registry.forget_gone()


@pytest.mark.parametrize("seed", range(12))
async def test_random_events_keep_the_invariants(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    life = Life(random.Random(seed))
    async with trio.open_nursery() as nursery:
        await nursery.start(life.health.run, Pulse("health", 5.0))
        await nursery.start(life.draining.run)
        nursery.start_soon(life.listen)
        for _deed in range(300):
            await life.deed(nursery)
            await trio.sleep(life.dice.expovariate(3))
            assert life.overdue() == []
        for pool in POOLS:
            life.drain(pool)
            life.draining.drain(pool, 0)
        await trio.sleep(GRACE_S + 0.1)
        assert [pool.active_leases for pool in life.registry.pools if pool.active_leases] == []
        await trio.testing.wait_all_tasks_blocked()
        assert life.published[-1] == (life.registry.revision, life.registry.pools, life.registry.drained)
        nursery.cancel_scope.cancel()
    for (before, *was), (after, *now) in zip(life.published, life.published[1:], strict=False):
        assert after > before
        assert was != now or after > before + 1  # a change, or several that have undone each other


@pytest.mark.parametrize("seed", range(12))
async def test_ready_pool_survives_announcements_and_restarts(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """The engine stays healthy, but misses a probe now and then."""
    life = Life(random.Random(seed))
    life.registry.set_gpus(TWO_GPUS)
    life.engines[1] = READY
    given = found(pool_id="a", port=1, device_mask="0")
    for _run in range(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(life.health.run, Pulse("health", 5.0))
            if not life.registry.replicas:
                life.registry.take(given, await life.health.first_probe(given.handoff))
            await life.registry.engines_probed()
            nursery.start_soon(life.listen)
            for _deed in range(20):
                life.engines[1] = HANGS if life.dice.random() < 0.2 else READY
                life.registry.take(given, await life.health.first_probe(given.handoff))
                life.engines[1] = READY
                await trio.sleep(life.dice.uniform(1, 4))
            nursery.cancel_scope.cancel()
        saved = [HandoffFile(replica.handoff, replica.identity) for replica in life.registry.replicas]
        life = Life(life.dice, engines={1: READY}, published=life.published)
        life.registry.restore(saved)
    assert all(pool.ready for _revision, pools, _drained in life.published for pool in pools)
    assert all(pools for _revision, pools, _drained in life.published)
