"""Metrics have the outcomes and labels that alert rules need, and 0 instead of absent series."""

import pytest
import trio
import trio.testing
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.metrics import Metrics
from queen_rbee.node_metrics import ERROR_SERIES_S
from queen_rbee.pools.health_results import check_outcome, check_result
from queen_rbee.status import show_gauges
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen, end_events, running_queen
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine


def series(metrics: Metrics, name: str) -> dict[str, float]:
    """Return the samples of a metric by their non-empty labels."""
    text = generate_latest(metrics.registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        ",".join(f"{label}={value}" for label, value in sorted(sample.labels.items()) if value): sample.value
        for sample in samples
        if sample.name == name
    }


def exported(queen: QueenCore, name: str) -> dict[str, float]:
    show_gauges(queen.queue, queen.registry, queen.metrics)
    return series(queen.metrics, name)


async def test_available_pools_metric_is_zero_instead_of_absent():
    queen = build_queen(ScriptedEngine())
    assert exported(queen, "orchd_pools_available") == {"": 0}
    queen.pool(ready=False)
    assert exported(queen, "orchd_pools_available") == {"pool_id=p": 0}
    queen.pool()
    assert exported(queen, "orchd_pools_available") == {"pool_id=p": 1}
    queen.registry.update("p", 0, [])
    assert exported(queen, "orchd_pools_available") == {"": 0}


@pytest.mark.parametrize(
    ("changes", "result", "expected_outcome"),
    [
        ({}, "ready", "success"),
        ({"ready": False, "state": PoolState.STARTING}, "starting", "success"),
        ({"ready": False, "state": PoolState.PROVISIONING}, "provisioning", "success"),
        ({"ready": False, "draining": True}, "draining", "success"),
        ({"ready": False, "state": PoolState.UNLOADED}, "unloaded", "success"),
        ({"ready": False, "state": PoolState.FAILED}, "failed", "error"),
        ({"ready": False, "state": PoolState.OFFLINE}, "offline", "error"),
        ({"ready": False}, "unready", "error"),
    ],
)
def test_health_check_outcome_of_pool_state(changes, result, expected_outcome):
    default = {"pool_id": "p", "state": PoolState.READY, "live": True, "ready": True, "draining": False}
    pool = PoolStatus(**{**default, "engine": "llamacpp", **changes})
    assert (check_result(pool), check_outcome(check_result(pool))) == (result, expected_outcome)
    metrics = Metrics()
    metrics.checked("p", result)
    assert series(metrics, "orchd_pool_health_checks_total") == {
        f"outcome={expected_outcome},pool_id=p,reason={result}": 1
    }


def test_refused_heartbeat_series_expires():
    metrics = Metrics()
    metrics.nodes.heartbeat("n1")
    metrics.nodes.heartbeat_refused("", "unknown", 0.0)
    metrics.nodes.heartbeat_refused("n1", "refused", 100.0)
    metrics.nodes.hide_old_errors(ERROR_SERIES_S)
    assert series(metrics, "orchd_node_heartbeats_total") == {
        "node_id=n1,outcome=success": 1,
        "node_id=n1,outcome=error,reason=refused": 1,
    }
    metrics.nodes.hide_old_errors(100.0 + ERROR_SERIES_S)
    assert series(metrics, "orchd_node_heartbeats_total") == {"node_id=n1,outcome=success": 1}


async def test_waiting_task_has_labels_of_its_only_pool():
    queen = build_queen(ScriptedEngine())
    pools = [
        queen.status(pool_id="a", slots=1, models_available=["one"]),
        queen.status(pool_id="b", slots=1, models_available=["two"]),
    ]
    queen.registry.update("both", 0, pools)
    tasks = [queen.submit(model_ref="one"), queen.submit(placement={"mode": "pin", "pin_pool_id": "b"}), queen.submit()]
    expected = {f"engine=llamacpp,{pool}priority=interactive" for pool in ("pool_id=a,", "pool_id=b,", "")}
    enqueued = exported(queen, "tasks_enqueued_total")
    assert enqueued == dict.fromkeys(expected, 1)
    assert exported(queen, "queue_depth") == {**enqueued, "priority=interactive": 0, "priority=batch": 0}
    for task in tasks:
        queen.dispatcher.cancel(task)
    assert set(exported(queen, "queue_depth").values()) == {0}, "existing series become 0"
    queen.registry.update("both", 0, [])
    assert not [labels for labels in exported(queen, "queue_depth") if "pool_id" in labels]


async def test_each_outcome_of_a_pool_is_zero_at_first():
    """rate() does not count an increase from absent to 1."""
    queen = build_queen(ScriptedEngine())
    queen.registry.update("both", 0, [queen.status(pool_id="a", slots=1)])
    outcomes = dict.fromkeys(("done", "failed", "cancelled"), 0)
    assert exported(queen, "orchd_tasks_dispatched_total") == {
        f"outcome={outcome},pool_id=a": count for outcome, count in outcomes.items()
    }
    queen.registry.update("both", 0, [])
    assert exported(queen, "orchd_tasks_dispatched_total") == {}


async def test_client_names_do_not_become_labels():
    queen = build_queen(ScriptedEngine())
    queen.registry.synced = False
    queen.submit(placement={"mode": "pin", "pin_pool_id": "made-up"}, model_ref="made-up")
    assert exported(queen, "tasks_enqueued_total") == {"priority=interactive": 1}


async def test_task_without_free_slot_is_counted_once():
    async with running_queen() as queen:
        queen.pool(ready=False)
        waiting = queen.submit()
        for _turn in range(3):
            queen.dispatcher.bell.ring()
            await trio.testing.wait_all_tasks_blocked()
        decisions = "placement_decisions_total"
        assert exported(queen, decisions) == {"fallback=false,outcome=no_capacity,pinned=false": 1}
        queen.pool()
        await end_events(waiting)
        assert exported(queen, decisions)["fallback=false,outcome=assigned,pinned=false"] == 1
        await end_events(queen.submit())
        assert exported(queen, decisions)["fallback=false,outcome=no_capacity,pinned=false"] == 1


async def test_gauge_update_expires_refused_heartbeats(autojump_clock):
    queen = build_queen(ScriptedEngine())
    queen.metrics.nodes.heartbeat_refused("", "unknown", trio.current_time())
    assert exported(queen, "orchd_node_heartbeats_total")
    await trio.sleep(ERROR_SERIES_S)
    assert not exported(queen, "orchd_node_heartbeats_total")
