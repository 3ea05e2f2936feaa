"""Forecasts follow the service times of each pool and the replicas that are ready."""

import pytest

from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.forecast import MAX_CACHED_DEMANDS
from queen_rbee.pools.candidates import Demand
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine

ANY = Demand()


def two_pools() -> QueenCore:
    queen = build_queen(ScriptedEngine())
    pools = [queen.status(pool_id=name, slots=2, ctx_max=ctx) for name, ctx in (("large", 8192), ("small", 512))]
    queen.registry.update("both", 0, pools)
    return queen


def ran(queen: QueenCore, pool_id: str, held_s: float, *, cancelled: bool = False) -> None:
    task = Task(TaskRequest(prompt="x"), "c", 0.0)
    task.start(pool_id, "r0", 0.0)
    task.token("x", held_s / 2)
    if cancelled:
        task.cancel(held_s)
    else:
        task.end(1, 1, held_s)
    queen.forecast.record_end(task)


def test_pool_without_tasks_uses_the_times_of_all_pools():
    queen = two_pools()
    ran(queen, "large", 8.0)
    forecast = queen.forecast
    assert forecast.times("large").mean_s == forecast.times("small").mean_s == 8.0
    ran(queen, "small", 2.0)
    assert forecast.times("small").mean_s == 2.0
    assert forecast.capacity(ANY).rate == pytest.approx(2 / 8 + 2 / 2)


def test_capacity_counts_suitable_replicas_only():
    forecast = two_pools().dispatcher.forecast
    assert forecast.capacity(ANY).slots_total == 4
    assert forecast.capacity(Demand(ctx=4096)).slots_total == 2
    assert forecast.capacity(Demand(pin="nowhere")).slots_total == 0


async def test_capacity_follows_lease_drain_and_ended_task_at_once():
    queen = two_pools()
    forecast, registry = queen.forecast, queen.registry
    assert forecast.capacity(ANY).slots_free == 4
    await registry.lease(("large", "r0"))
    assert forecast.capacity(ANY).slots_free == 3
    registry.release(("large", "r0"))
    before = forecast.capacity(ANY).rate
    ran(queen, "large", 100.0)
    assert forecast.capacity(ANY).rate < before
    registry.update("both", 0, [queen.status(pool_id="large", draining=True, state=PoolState.DRAINING)])
    assert forecast.capacity(ANY).slots_total == 0


def test_cancelled_task_is_not_measured():
    queen = two_pools()
    ran(queen, "large", 50.0, cancelled=True)
    assert queen.forecast.times("large").count == 0


def test_cached_demands_are_bounded():
    forecast = two_pools().dispatcher.forecast
    for ctx in range(1, 3 * MAX_CACHED_DEMANDS):
        assert forecast.capacity(Demand(ctx=ctx)).slots_total == (4 if ctx <= 512 else 2)
    assert len(forecast._capacities) <= MAX_CACHED_DEMANDS + 1


def test_tasks_beyond_the_free_slots_wait():
    queen = two_pools()
    ran(queen, "large", 4.0)
    starts = [queen.forecast.start_ms(ANY, position) for position in range(8)]
    assert starts[:4] == [0] * 4
    assert starts[4:] == [1000, 2000, 3000, 4000]
