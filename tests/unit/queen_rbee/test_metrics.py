"""The series say what alert rules and dashboards ask: outcomes, places of waiting tasks, and 0 rather than nothing."""

import pytest
import trio
import trio.testing
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.metrics import ERROR_SHOWN_S, Metrics, check_result, outcome
from queen_rbee.status import show_gauges
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen, end_events, running_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine


def series(metrics: Metrics, name: str) -> dict[str, float]:
    """The samples of that name, by their labels that are not empty."""
    text = generate_latest(metrics.registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        ",".join(f"{label}={value}" for label, value in sorted(sample.labels.items()) if value): sample.value
        for sample in samples
        if sample.name == name
    }


def shown(queen: QueenCore, name: str) -> dict[str, float]:
    show_gauges(queen.queue, queen.registry, queen.metrics)
    return series(queen.metrics, name)


async def test_available_pools_are_zero_rather_than_absent():
    queen = build_queen(ScriptedEngine())
    assert shown(queen, "orchd_pools_available") == {"": 0}
    queen.pool(ready=False)
    assert shown(queen, "orchd_pools_available") == {"pool_id=p": 0}
    queen.pool()
    assert shown(queen, "orchd_pools_available") == {"pool_id=p": 1}
    queen.registry.update("p", 0, [])
    assert shown(queen, "orchd_pools_available") == {"": 0}


@pytest.mark.parametrize(
    ("changes", "result", "verdict"),
    [
        ({}, "ready", "success"),
        ({"ready": False, "state": PoolState.STARTING}, "starting", "success"),
        ({"ready": False, "state": PoolState.PROVISIONING}, "provisioning", "success"),
        ({"ready": False, "draining": True}, "draining", "success"),
        ({"ready": False, "state": PoolState.FAILED}, "failed", "error"),
        ({"ready": False, "state": PoolState.OFFLINE}, "offline", "error"),
        ({"ready": False}, "unready", "error"),
    ],
)
def test_health_check_errs_only_where_something_is_wrong(changes, result, verdict):
    plain = {"pool_id": "p", "state": PoolState.READY, "live": True, "ready": True, "draining": False}
    pool = PoolStatus(**{**plain, "engine": "llamacpp", **changes})
    assert (check_result(pool), outcome(check_result(pool))) == (result, verdict)
    metrics = Metrics()
    metrics.checked("p", result)
    assert series(metrics, "orchd_pool_health_checks_total") == {f"outcome={verdict},pool_id=p,reason={result}": 1}


def test_refused_heartbeats_are_shown_for_a_while_only():
    metrics = Metrics()
    metrics.heartbeat("n1")
    metrics.heartbeat_refused("", "unknown", 0.0)
    metrics.heartbeat_refused("n1", "refused", 100.0)
    metrics.hide_old_errors(ERROR_SHOWN_S)
    assert series(metrics, "orchd_node_heartbeats_total") == {
        "node_id=n1,outcome=success": 1,
        "node_id=n1,outcome=error,reason=refused": 1,
    }
    metrics.hide_old_errors(100.0 + ERROR_SHOWN_S)
    assert series(metrics, "orchd_node_heartbeats_total") == {"node_id=n1,outcome=success": 1}


async def test_waiting_task_has_the_pool_and_engine_that_it_could_go_to():
    queen = build_queen(ScriptedEngine())
    pools = [
        queen.status(pool_id="a", slots=1, models_available=["one"]),
        queen.status(pool_id="b", slots=1, models_available=["two"]),
    ]
    queen.registry.update("both", 0, pools)
    tasks = [queen.submit(model_ref="one"), queen.submit(placement={"mode": "pin", "pin_pool_id": "b"}), queen.submit()]
    named = {f"engine=llamacpp,{pool}priority=interactive" for pool in ("pool_id=a,", "pool_id=b,", "")}
    enqueued = shown(queen, "tasks_enqueued_total")
    assert enqueued == dict.fromkeys(named, 1)
    assert shown(queen, "queue_depth") == {**enqueued, "priority=interactive": 0, "priority=batch": 0}
    for task in tasks:
        queen.dispatcher.cancel(task)
    assert set(shown(queen, "queue_depth").values()) == {0}, "what was shown is 0 now, not absent"
    queen.registry.update("both", 0, [])
    assert not [labels for labels in shown(queen, "queue_depth") if "pool_id" in labels]


async def test_unknown_names_of_clients_make_no_series():
    queen = build_queen(ScriptedEngine())
    queen.registry.synced = False
    queen.submit(placement={"mode": "pin", "pin_pool_id": "made-up"}, model_ref="made-up")
    assert shown(queen, "tasks_enqueued_total") == {"priority=interactive": 1}


async def test_task_that_finds_no_free_slot_is_counted_once():
    async with running_queen() as queen:
        queen.pool(ready=False)
        waiting = queen.submit()
        for _turn in range(3):
            queen.dispatcher.bell.ring()
            await trio.testing.wait_all_tasks_blocked()
        decisions = "placement_decisions_total"
        assert shown(queen, decisions) == {"fallback=false,outcome=no_capacity,pinned=false": 1}
        queen.pool()
        await end_events(waiting)
        assert shown(queen, decisions)["fallback=false,outcome=assigned,pinned=false"] == 1
        await end_events(queen.submit())
        assert shown(queen, decisions)["fallback=false,outcome=no_capacity,pinned=false"] == 1


async def test_gauges_drop_refused_heartbeats_in_time(autojump_clock):
    queen = build_queen(ScriptedEngine())
    queen.metrics.heartbeat_refused("", "unknown", trio.current_time())
    assert shown(queen, "orchd_node_heartbeats_total")
    await trio.sleep(ERROR_SHOWN_S)
    assert not shown(queen, "orchd_node_heartbeats_total")
