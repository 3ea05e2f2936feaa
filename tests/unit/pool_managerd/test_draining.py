"""Drains: no new requests, running ones may end until the deadline, resume undoes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from llama_orch.contracts.pools import PoolState
from pool_managerd.draining import FENCE_S, GRACE_S, Draining
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from tests.unit.pool_managerd.test_metrics import exposed
from tests.unit.pool_managerd.values import LOADING, READY, TWO_GPUS, found

Clock = trio.testing.MockClock


@dataclass
class Scene:
    """Two ready pools, a and b, and requests to them."""

    registry: NodePools
    metrics: Metrics
    draining: Draining
    nursery: trio.Nursery
    ended: list[tuple[str, float, bool]] = field(default_factory=list)

    async def request(self, pool_id: str, lasts_s: float) -> None:
        """One that passes for so long; `ended` has its end, and whether it was cut off."""
        self.nursery.start_soon(self._pass, pool_id, lasts_s)
        await trio.testing.wait_all_tasks_blocked()

    async def _pass(self, pool_id: str, lasts_s: float) -> None:
        with self.registry.leases.held((pool_id, "r0"), lambda: None) as scope:
            await trio.sleep(lasts_s)
        self.ended.append((pool_id, trio.current_time(), scope.cancelled_caught))

    def states(self) -> dict[str, tuple[PoolState, bool]]:
        return {pool.pool_id: (pool.state, pool.draining) for pool in self.registry.pools}

    def drains(self, pool_id: str) -> list[float]:
        """How many drains of the pool are done, and what they took in all, in milliseconds."""
        shown = exposed(self.metrics)
        names = (f'drain_duration_ms_{what}{{pool_id="{pool_id}"}}' for what in ("count", "sum"))
        return [shown.get(name, 0.0) for name in names]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    registry = NodePools()
    for number, pool_id in enumerate(("a", "b")):
        registry.take(found(pool_id=pool_id, port=18080 + number))
    for replica in registry.replicas:
        registry.apply_probe(replica.incarnation, READY)
    metrics = Metrics(registry)
    draining = Draining(registry, metrics, "gpu-1")
    async with trio.open_nursery() as nursery:
        await nursery.start(draining.run)
        yield Scene(registry, metrics, draining, nursery)
        nursery.cancel_scope.cancel()


READY_STATE, DRAINING = (PoolState.READY, False), (PoolState.DRAINING, True)


async def test_only_the_drained_pool_is_draining(autojump_clock: Clock) -> None:
    async with scene() as play:
        revision = play.registry.revision
        play.draining.drain("a", None)
        assert play.states() == {"a": DRAINING, "b": READY_STATE}
        assert play.registry.revision > revision
        pool = play.registry.pool("a")
        assert pool
        assert pool.ready
        play.draining.resume("a")
        assert play.states() == {"a": READY_STATE, "b": READY_STATE}


async def test_unready_pool_keeps_its_state_while_draining(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.registry.apply_probe(play.registry.replicas[0].incarnation, LOADING)
        play.draining.drain("a", None)
        assert play.states()["a"] == (PoolState.STARTING, True)


async def test_running_requests_end_and_duration_is_measured(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.request("a", 2)
        await play.request("a", 3)
        play.draining.drain("a", None)
        await trio.sleep(2.5)
        assert play.drains("a") == [0, 0]
        await trio.sleep(100)
        assert [cut for _pool, _at, cut in play.ended] == [False, False]
        assert play.drains("a") == pytest.approx([1, 3000])


async def test_idle_pool_is_drained_immediately(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.draining.drain("a", 60_000)
        await trio.testing.wait_all_tasks_blocked()
        assert play.drains("a") == pytest.approx([1, 0])
        play.draining.drain("a", 30_000)
        await trio.sleep(100)
        assert play.drains("a")[0] == 1


async def test_deadline_ends_requests_of_the_pool_only(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.request("a", 100)
        await play.request("b", 100)
        began_s = trio.current_time()
        play.draining.drain("a", 5000)
        await trio.sleep(50)
        ((pool_id, ended_s, cut),) = play.ended
        assert (pool_id, cut) == ("a", True)
        assert ended_s - began_s == pytest.approx(5 + GRACE_S)
        assert play.drains("a") == pytest.approx([1, (5 + GRACE_S) * 1000])


async def test_resume_drops_the_deadline(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.request("a", 50)
        play.draining.drain("a", 5000)
        await trio.sleep(5.5)
        play.draining.resume("a")
        await trio.sleep(100)
        assert [cut for _pool, _at, cut in play.ended] == [False]
        assert play.drains("a") == [0, 0]


@pytest.mark.parametrize(("second_ms", "ends_s"), [(1000, 2 + 1 + GRACE_S), (20_000, 2 + 20 + GRACE_S), (None, 50)])
async def test_newer_deadline_replaces_the_older(autojump_clock: Clock, second_ms: int | None, ends_s: float) -> None:
    async with scene() as play:
        began_s = trio.current_time()
        await play.request("a", 50)
        play.draining.drain("a", 5000)
        await trio.sleep(2)
        play.draining.drain("a", second_ms)
        await trio.sleep(100)
        assert play.ended[0][1] - began_s == pytest.approx(ends_s)
        assert play.drains("a") == pytest.approx([1, ends_s * 1000])


async def test_drained_node_drains_all_pools_and_later_ones(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.request("b", 100)
        play.draining.drain_node(5000)
        play.registry.take(found(pool_id="c", port=18099))
        assert play.registry.drained.node
        assert [draining for _state, draining in play.states().values()] == [True, True, True]
        await trio.sleep(10)
        assert [(pool_id, cut) for pool_id, _at, cut in play.ended] == [("b", True)]
        play.draining.resume_node()
        assert not any(draining for _state, draining in play.states().values())


async def test_node_without_pools_drains_and_wakes_waiters(autojump_clock: Clock) -> None:
    registry = NodePools()
    draining = Draining(registry, Metrics(registry), None)
    async with trio.open_nursery() as nursery:
        await nursery.start(draining.run)
        nursery.start_soon(registry.changed, registry.revision)
        draining.drain_node(None)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert draining.status().draining
        nursery.cancel_scope.cancel()


async def test_pool_drained_by_itself_stays_drained_on_node_resume(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.draining.drain("a", None)
        play.draining.drain_node(None)
        play.draining.resume_node()
        assert play.states() == {"a": DRAINING, "b": READY_STATE}


async def test_pool_of_a_drained_node_cannot_be_resumed(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.draining.drain("a", None)
        play.draining.drain_node(None)
        play.draining.resume("a")
        assert play.draining.status("a").draining
        play.draining.resume_node()
        assert play.states() == {"a": READY_STATE, "b": READY_STATE}


async def test_deadline_of_an_undone_drain_is_void(
    autojump_clock: Clock,
) -> None:
    async with scene() as play:
        await play.request("a", 50)
        play.draining.drain("a", None)
        play.draining.drain_node(5000)
        await trio.sleep(2)
        play.draining.resume_node()
        await trio.sleep(100)
        assert [cut for _pool, _at, cut in play.ended] == [False]


@pytest.mark.parametrize("node_first", [True, False])
@pytest.mark.parametrize("undone", ["pool", "node", "neither"])
async def test_earlier_of_two_deadlines_counts(autojump_clock: Clock, node_first: bool, undone: str) -> None:
    """The pool's is in 5 seconds, the node's in 8."""
    async with scene() as play:
        began_s = trio.current_time()
        await play.request("a", 50)
        drains = [lambda: play.draining.drain_node(8000), lambda: play.draining.drain("a", 5000)]
        for drain in drains if node_first else reversed(drains):
            drain()
        await trio.sleep(1)
        if undone != "neither":
            play.draining.resume("a") if undone == "pool" else play.draining.resume_node()
        await trio.sleep(100)
        ((_pool, ended_s, cut),) = play.ended
        assert cut
        assert ended_s - began_s == pytest.approx((8 if undone == "pool" else 5) + GRACE_S)


async def test_status_counts_running_requests(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.request("a", 1)
        await play.request("b", 100)
        play.draining.drain("a", None)
        status = play.draining.status("a")
        assert (status.pools, status.draining, status.active_leases) == (["a"], True, 1)
        whole = play.draining.status()
        assert (whole.pools, whole.draining, whole.active_leases) == (["a", "b"], False, 2)


async def test_each_change_is_logged_once(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with scene() as play:
        caplog.clear()
        play.draining.drain("a", None)
        play.draining.drain("a", 1000)
        play.draining.drain_node(None)
        play.draining.resume("a")
        play.draining.resume_node()
        play.draining.resume_node()
    told = [text.partition(" ")[2][:20] for text in caplog.messages if text.startswith("pool ")]
    assert told == [
        f"{pool} {what}"[:20]
        for what, pools in [("is draining: it takes", "ab"), ("is resumed and takes", "ab")]
        for pool in pools
    ]


async def test_pool_of_a_fenced_gpu_drains_until_the_fence_ends(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.registry.take(found(pool_id="a", port=18080, device_mask="0"), READY)
        play.registry.set_gpus(TWO_GPUS)
        await play.request("a", 1000.0)
        await play.request("b", 100.0)
        play.registry.set_fences({"GPU-0": "GPU 0 is fenced: Xid 79"})
        await trio.testing.wait_all_tasks_blocked()
        assert play.states() == {"a": (PoolState.FAILED, True), "b": READY_STATE}
        await trio.sleep(FENCE_S + 1)
        assert play.ended == [("a", FENCE_S, True)]
        play.registry.set_fences({})
        await trio.testing.wait_all_tasks_blocked()
        assert play.states() == {"a": READY_STATE, "b": READY_STATE}


async def test_operators_drain_outlasts_a_fence(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.registry.take(found(pool_id="a", port=18080, device_mask="0"), READY)
        play.registry.set_gpus(TWO_GPUS)
        play.draining.drain("a", None)
        for fences in ({"GPU-0": "words"}, {}):
            play.registry.set_fences(fences)
            await trio.testing.wait_all_tasks_blocked()
            assert play.states()["a"][1]
        play.draining.resume("a")
        assert play.states()["a"] == READY_STATE


async def test_pool_with_an_engine_on_another_gpu_serves_on(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.registry.take(found(pool_id="a", port=18080, device_mask="0"), READY)
        play.registry.take(found(pool_id="a", replica_id="r1", port=18090, device_mask="1"), READY)
        play.registry.set_gpus(TWO_GPUS)
        play.registry.set_fences({"GPU-0": "words"})
        await trio.testing.wait_all_tasks_blocked()
        pool = play.registry.pool("a")
        assert pool
        assert (pool.ready, pool.draining, [each.ready for each in pool.replicas]) == (True, False, [False, True])
