"""What counts as work, and what keeps an idle machine awake."""

from datetime import UTC, datetime

import pytest

from llama_orch.contracts.node_operations import NodeOperation, NodeOperationState
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus, Residency
from pool_managerd.power.activity import hold, work


def pool(state: PoolState = PoolState.UNLOADED, **changes: object) -> PoolStatus:
    defaults = {"live": False, "ready": False, "draining": False, "engine": "llamacpp", "residency": Residency()}
    return PoolStatus.model_validate({"pool_id": "p", "state": state, **defaults, **changes})


def replica(free: int, *, ready: bool = True) -> ReplicaStatus:
    return ReplicaStatus(replica_id="r0", url="http://127.0.0.1:1", ready=ready, slots_total=2, slots_free=free)


def operation(state: NodeOperationState) -> NodeOperation:
    return NodeOperation(id="1", kind="pull", subject="hf:org/model", state=state, created_at=datetime.now(UTC))


def test_unloaded_pools_are_no_work() -> None:
    assert work([pool(), pool(PoolState.FAILED)], []) is None
    assert hold([pool(), pool(PoolState.FAILED)], node_drained=False) is None


def test_request_in_the_relay_is_work() -> None:
    assert work([pool(active_leases=1)], []) == "pool p has requests"


def test_busy_slot_is_work_without_the_relay() -> None:
    assert work([pool(PoolState.READY, replicas=[replica(1)])], []) == "pool p has requests"
    assert work([pool(PoolState.READY, replicas=[replica(2)])], []) is None
    assert work([pool(PoolState.READY, replicas=[replica(0, ready=False)])], []) is None


@pytest.mark.parametrize("state", [PoolState.PROVISIONING, PoolState.STARTING])
def test_load_download_and_build_are_work(state: PoolState) -> None:
    assert work([pool(state)], []) == "pool p is being loaded"


def test_reload_is_work_until_it_ends() -> None:
    running = {"reload_id": "r1", "state": "staging"}
    assert work([pool(reload=running)], []) == "pool p is being reloaded"
    assert work([pool(reload={**running, "state": "done"})], []) is None


def test_pull_is_work_until_it_ends() -> None:
    assert work([], [operation(NodeOperationState.RUNNING)]) == "pull of hf:org/model"
    assert work([], [operation(NodeOperationState.QUEUED)]) == "pull of hf:org/model"
    assert work([], [operation(NodeOperationState.DONE), operation(NodeOperationState.FAILED)]) is None


def test_loaded_model_keeps_the_machine_awake() -> None:
    assert hold([pool(PoolState.READY)], node_drained=False) == "pool p is loaded"


def test_engine_of_others_does_not_keep_the_machine_awake() -> None:
    assert hold([pool(PoolState.READY, residency=None)], node_drained=False) is None


def test_drain_keeps_the_machine_awake() -> None:
    assert hold([], node_drained=True) == "the node is drained"
    assert hold([pool(draining=True)], node_drained=False) == "pool p is drained"
