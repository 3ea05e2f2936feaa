"""What is expected follows what was measured, per pool, and what is ready now."""

import pytest

from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.forecast import KEPT
from queen_rbee.pools.candidates import Demand
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import Queen, core
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine

ANY = Demand()


def two_pools() -> Queen:
    queen = core(ScriptedEngine())
    pools = [queen.status(pool_id=name, slots=2, ctx_max=ctx) for name, ctx in (("large", 8192), ("small", 512))]
    queen.dispatcher.registry.update("both", 0, pools)
    return queen


def ran(queen: Queen, pool_id: str, held_s: float, *, cancelled: bool = False) -> None:
    task = Task(TaskRequest(prompt="x"), "c", 0.0)
    task.start(pool_id, "r0", 0.0)
    task.token("x", held_s / 2)
    if cancelled:
        task.cancel(held_s)
    else:
        task.end(1, 1, held_s)
    queen.dispatcher.forecast.ended(task)


def test_a_pool_is_judged_by_its_own_tasks_and_one_without_any_by_all():
    queen = two_pools()
    ran(queen, "large", 8.0)
    forecast = queen.dispatcher.forecast
    assert forecast.times("large").mean_s == forecast.times("small").mean_s == 8.0
    ran(queen, "small", 2.0)
    assert forecast.times("small").mean_s == 2.0
    assert forecast.capacity(ANY).rate == pytest.approx(2 / 8 + 2 / 2)


def test_only_what_could_serve_the_demand_counts():
    forecast = two_pools().dispatcher.forecast
    assert forecast.capacity(ANY).slots_total == 4
    assert forecast.capacity(Demand(ctx=4096)).slots_total == 2
    assert forecast.capacity(Demand(pin="nowhere")).slots_total == 0


def test_a_lease_a_drain_and_a_finished_task_change_what_is_expected_at_once():
    queen = two_pools()
    forecast, registry = queen.dispatcher.forecast, queen.dispatcher.registry
    assert forecast.capacity(ANY).slots_free == 4
    registry.lease(("large", "r0"))
    assert forecast.capacity(ANY).slots_free == 3
    registry.release(("large", "r0"))
    before = forecast.capacity(ANY).rate
    ran(queen, "large", 100.0)
    assert forecast.capacity(ANY).rate < before
    registry.update("both", 0, [queen.status(pool_id="large", draining=True, state=PoolState.DRAINING)])
    assert forecast.capacity(ANY).slots_total == 0


def test_a_cancelled_task_says_nothing_about_others():
    queen = two_pools()
    ran(queen, "large", 50.0, cancelled=True)
    assert queen.dispatcher.forecast.times("large").count == 0


def test_many_different_demands_do_not_fill_the_memory():
    forecast = two_pools().dispatcher.forecast
    for ctx in range(1, 3 * KEPT):
        assert forecast.capacity(Demand(ctx=ctx)).slots_total == (4 if ctx <= 512 else 2)
    assert len(forecast._capacities) <= KEPT + 1


def test_positions_behind_free_slots_wait_and_those_before_do_not():
    queen = two_pools()
    ran(queen, "large", 4.0)
    starts = [queen.dispatcher.forecast.start_ms(ANY, position) for position in range(8)]
    assert starts[:4] == [0] * 4
    assert starts[4:] == [1000, 2000, 3000, 4000]
