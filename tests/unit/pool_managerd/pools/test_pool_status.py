"""The status of a pool."""

from typing import Any

import pytest

from llama_orch.contracts.pools import PoolState, PoolStatus, ProvisioningReport
from pool_managerd.pools.devices import NOT_DISCOVERED
from pool_managerd.pools.pool_status import pool_statuses, status_line
from pool_managerd.pools.replica import ProbeResult, Replica
from tests.unit.pool_managerd.values import GONE, LOADING, READY, RESIDENCY, TWO_GPUS, replica, report

MODEL: dict[str, Any] = {"model": {"id": "tiny", "path": "/m.gguf", "ctx_max": 512}}


def status_of(*replicas: Replica, reports: tuple[ProvisioningReport, ...] = ()) -> PoolStatus:
    (status,) = pool_statuses(replicas, {each.pool_id: each for each in reports}, NOT_DISCOVERED)
    return status


def test_ready_pool_has_all_fields() -> None:
    (status,) = pool_statuses([replica(READY, device_mask="0", **MODEL)], {}, TWO_GPUS)
    assert status == PoolStatus(
        pool_id="default",
        state=PoolState.READY,
        live=True,
        ready=True,
        draining=False,
        slots_total=4,
        slots_free=3,
        vram_total_bytes=80,
        vram_free_bytes=60,
        engine="llamacpp",
        engine_version="b1",
        device_mask="0",
        models_available=["tiny"],
        ctx_max=512,
        replicas=status.replicas,
    )
    assert (status.replicas[0].url, status.replicas[0].ready) == ("http://127.0.0.1:18080", True)


def test_pool_with_one_ready_replica_is_ready() -> None:
    status = status_of(replica(READY), replica(GONE, GONE, GONE, replica_id="r1"))
    assert (status.state, status.ready, status.slots_total, status.slots_free) == (PoolState.READY, True, 5, 3)
    assert status.last_error is None
    assert [each.last_error for each in status.replicas] == [None, "the engine is gone"]


def test_memory_of_a_shared_gpu_counts_once() -> None:
    both = [replica(READY, device_mask="0"), replica(READY, replica_id="r1", device_mask="0")]
    (status,) = pool_statuses(both, {}, TWO_GPUS)
    assert status.vram_total_bytes == 80


def test_failed_report_gives_state_and_reason() -> None:
    status = status_of(reports=(report(PoolState.FAILED, last_error="no such model"),))
    assert (status.state, status.live, status.ready) == (PoolState.FAILED, False, False)
    assert status.last_error == "no such model"


def test_failure_without_error_uses_the_detail() -> None:
    assert status_of(reports=(report(PoolState.FAILED, detail="building"),)).last_error == "building"


@pytest.mark.parametrize("state", [PoolState.PROVISIONING, PoolState.STARTING, PoolState.FAILED])
def test_report_decides_if_no_engine_is_live(state: PoolState) -> None:
    status = status_of(replica(GONE, GONE, GONE), reports=(report(state, last_error="exit 1: out of memory"),))
    assert (status.state, status.last_error) == (state, "exit 1: out of memory")


@pytest.mark.parametrize("look", [READY, LOADING])
def test_live_engine_overrides_the_report(look: ProbeResult) -> None:
    alone = status_of(replica(look))
    assert status_of(replica(look), reports=(report(PoolState.FAILED, last_error="old"),)) == alone


def test_ready_report_does_not_make_a_pool_ready() -> None:
    assert status_of(reports=(report(PoolState.READY),)).state is PoolState.STARTING
    assert status_of(replica(GONE, GONE, GONE), reports=(report(PoolState.READY),)).state is PoolState.OFFLINE


def test_pools_are_sorted_by_id() -> None:
    pools = pool_statuses([replica(pool_id="b")], {"a": report(PoolState.FAILED, "a")}, NOT_DISCOVERED)
    assert [pool.pool_id for pool in pools] == ["a", "b"]


def test_status_line_counts_and_names_the_first_failure() -> None:
    failed = {"cuda": report(PoolState.FAILED, "cuda", last_error="GPU 1 is not there")}
    pools = pool_statuses([replica(READY), replica(READY, pool_id="b"), replica(pool_id="c")], failed, NOT_DISCOVERED)
    assert status_line(pools) == "2 pools ready, 1 starting, 1 failed: cuda: GPU 1 is not there"
    assert status_line(pools[:1]) == "1 pool ready"
    assert status_line(()) == "no pools yet; /etc/llama-orch/pools.toml configures them"


def test_workloads_of_engines_are_united() -> None:
    embeds, chats = replica(READY, flags=["--embeddings"]), replica(READY, replica_id="r1", workloads=["completion"])
    status = status_of(embeds, chats)
    assert status.workloads == ["completion", "embedding"]
    assert [each.workloads for each in status.replicas] == [["embedding"], ["completion"]]
    assert status_of(embeds, replica(READY, replica_id="r1")).workloads is None


def test_starting_pool_has_the_workloads_of_its_report() -> None:
    coming = report(PoolState.STARTING, workloads=["rerank"])
    assert status_of(reports=(coming,)).workloads == ["rerank"]


@pytest.mark.parametrize(
    "state", [PoolState.UNLOADED, PoolState.DRAINING, PoolState.PROVISIONING, PoolState.STARTING, PoolState.FAILED]
)
def test_pool_without_engine_has_the_fields_of_its_residency(state: PoolState) -> None:
    known = report(state, detail="as wanted", residency=RESIDENCY, workloads=["completion"])
    (status,) = pool_statuses([], {"default": known}, TWO_GPUS)
    assert status == PoolStatus(
        pool_id="default",
        state=state,
        live=False,
        ready=False,
        draining=False,
        slots_total=4,
        slots_free=0,
        vram_total_bytes=80,
        vram_free_bytes=60,
        engine="llamacpp",
        device_mask="0",
        models_available=["tiny"],
        model_digests={"tiny": "sha256:1"},
        ctx_max=512,
        workloads=["completion"],
        last_error="as wanted" if state is PoolState.FAILED else None,
        detail="as wanted",
        residency=known.residency,
    )


def test_ready_pool_has_its_residency() -> None:
    known = report(PoolState.READY, residency=RESIDENCY)
    status = status_of(replica(READY), reports=(known,))
    assert (status.state, status.residency) == (PoolState.READY, known.residency)


def test_status_line_counts_unloaded_pools() -> None:
    reports = {name: report(PoolState.UNLOADED, name) for name in "bc"}
    assert status_line(pool_statuses([replica(READY)], reports, NOT_DISCOVERED)) == "1 pool ready, 2 unloaded"
