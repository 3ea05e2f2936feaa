"""Snapshots are valid for any value an engine reports; the placement view has what must be sent at once."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.nodes import MAX_POOLS, Heartbeat
from llama_orch.contracts.pools import PoolState, PoolStatus
from pool_managerd.cluster.snapshots import gpu_summaries, placement_view, snapshot, snapshots
from pool_managerd.pools.devices import Gpus, MissingGpu
from tests.unit.pool_managerd.values import RESIDENCY, gpu

WHOLE = st.integers(-(1 << 60), 1 << 60)
TEXT = st.text(max_size=20) | st.text("x", min_size=250, max_size=9000)
POOLS = st.builds(
    PoolStatus,
    pool_id=st.just("default"),
    state=st.sampled_from(PoolState),
    slots_total=WHOLE,
    slots_free=WHOLE,
    active_leases=WHOLE,
    vram_total_bytes=WHOLE,
    vram_free_bytes=WHOLE,
    engine=TEXT,
    engine_version=st.none() | TEXT,
    device_mask=st.none() | TEXT,
    models_available=st.lists(TEXT, max_size=5),
    model_digests=st.dictionaries(TEXT, TEXT, max_size=5),
    ctx_max=st.none() | WHOLE,
    last_error=st.none() | TEXT,
)


def pool(**fields: Any) -> PoolStatus:
    usual = {"pool_id": "default", "state": PoolState.READY, "live": True, "ready": True, "draining": False}
    return PoolStatus.model_validate(usual | {"engine": "llamacpp", "slots_total": 4, "slots_free": 3} | fields)


@given(POOLS)
def test_every_pool_makes_a_valid_snapshot(status: PoolStatus) -> None:
    beat = Heartbeat(timestamp=datetime.now(UTC), pools=[snapshot(status, "gpu-1")])
    (read,) = Heartbeat.model_validate_json(beat.model_dump_json()).pools
    assert (read.pool_id, read.node_id, read.state, read.ready) == ("default", "gpu-1", status.state, status.ready)


def test_values_within_bounds_are_unchanged() -> None:
    status = pool(
        models_available=["a", "b"], model_digests={"a": "sha256:1"}, ctx_max=4096, active_leases=2, residency=RESIDENCY
    )
    fields = snapshot(status, "gpu-1").model_dump()
    known = status.model_dump(exclude={"circuit", "replicas", "idle_s", "unload_in_s"}) | {"node_id": "gpu-1"}
    assert fields == known


def test_excess_pools_are_left_out() -> None:
    many = [pool(pool_id=f"p{number}") for number in range(MAX_POOLS + 5)]
    assert [each.pool_id for each in snapshots(many, "gpu-1")] == [one.pool_id for one in many[:MAX_POOLS]]


@pytest.mark.parametrize(
    "change",
    [
        {"ready": False},
        {"draining": True},
        {"state": PoolState.OFFLINE},
        {"models_available": ["new"]},
        {"model_digests": {"new": "sha256:1"}},
        {"slots_total": 5},
        {"ctx_max": 1},
        {"workloads": ["embedding"]},
        {"pool_id": "other"},
        {"residency": RESIDENCY},
    ],
)
def test_placement_view_changes_with_placement_values(change: dict[str, Any]) -> None:
    assert placement_view([pool()], False) != placement_view([pool(**change)], False)


def test_placement_view_changes_with_memory_read_again() -> None:
    assert placement_view([pool()], False, 1) != placement_view([pool()], False, 2)


def test_placement_view_changes_with_new_pools_and_drains() -> None:
    assert placement_view([], False) != placement_view([pool()], False)
    assert placement_view([pool()], False) != placement_view([pool()], True)


@pytest.mark.parametrize("name", ["slots_free", "vram_free_bytes", "vram_total_bytes", "active_leases"])
def test_placement_view_ignores_slots_and_memory(name: str) -> None:
    assert placement_view([pool()], False) == placement_view([pool(**{name: 1})], False)


def test_gpu_summaries_have_states_and_no_mig_instances() -> None:
    instance = replace(gpu(0), uuid="MIG-a", parent_uuid="GPU-0", mig_index=0)
    hot = replace(gpu(1), temperature_c=95, slowdown_c=90, power_w=-1.0)
    lost = MissingGpu(gpu(2), "gone", lost=True)
    summaries = gpu_summaries(Gpus((gpu(0), instance, hot), missing=(lost,), fences={"GPU-0": "Xid 79"}))
    assert [(each.device_id, each.state, each.reason) for each in summaries] == [
        (0, "fenced", "Xid 79"),
        (1, "throttled", "95 °C, at or above its slowdown temperature of 90 °C"),
        (2, "lost", "gone"),
    ]
    assert [each.power_w for each in summaries] == [None, None, None]


def test_gpu_summaries_are_bounded_by_the_contract() -> None:
    many = Gpus(tuple(replace(gpu(number), utilization=10**9, uuid="x" * 999 + str(number)) for number in range(200)))
    assert len(gpu_summaries(many)) == 64
