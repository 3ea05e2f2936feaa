"""Names of metrics, and removal of series with their pool."""

from dataclasses import replace
from typing import Any

from prometheus_client import generate_latest

from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.metrics import Metrics
from pool_managerd.pools.devices import Gpus, MissingGpu
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import HealthAnswer
from tests.unit.pool_managerd.values import READY, SILENT, TWO_GPUS, found, gpu


def exposed(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.collectors).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def test_pool_metrics_have_the_contract_names() -> None:
    registry = NodePools()
    metrics = Metrics(registry)
    registry.set_gpus(TWO_GPUS)
    registry.take(found(device_mask="1"))
    registry.apply_probe(registry.replicas[0].incarnation, replace(READY, kv_usage=0.25))
    metrics.handoff_taken("default", 1.5)
    metrics.handoff_rejected()
    metrics.health_check("default", HealthAnswer.GONE)
    shown = exposed(metrics)
    engine = 'engine="llamacpp",engine_version="b1",pool_id="default",replica_id="r0"'
    device = f'device="1",{engine}'
    expected = {
        'pool_ready{pool_id="default"}': 1,
        'pool_slots_total{pool_id="default"}': 4,
        'pool_slots_free{pool_id="default"}': 3,
        'pool_vram_total_bytes{pool_id="default"}': 80,
        'pool_vram_free_bytes{pool_id="default"}': 60,
        'pool_handoff_files_processed_total{outcome="taken",pool_id="default"}': 1,
        'pool_handoff_files_processed_total{outcome="rejected",pool_id=""}': 1,
        'pool_handoff_processing_duration_ms_bucket{le="2.0",pool_id="default"}': 1,
        'pool_health_checks_total{outcome="error",pool_id="default",reason="unreachable"}': 1,
        f"vram_used_bytes{{{device}}}": 20,
        f"gpu_utilization{{{device}}}": 50,
        f"kv_cache_usage_ratio{{{engine}}}": 0.25,
    }
    assert {name: shown.get(name) for name in expected} == expected
    assert "process_resident_memory_bytes" in shown


async def test_kv_usage_is_a_gauge_and_no_status_change() -> None:
    registry = NodePools()
    metrics = Metrics(registry)
    registry.take(found(), replace(READY, kv_usage=0.25))
    revision, incarnation = registry.revision, registry.replicas[0].incarnation
    for result, shown in ((replace(READY, kv_usage=0.5), [0.5]), (READY, []), (SILENT, [])):
        registry.apply_probe(incarnation, result)
        assert [value for name, value in exposed(metrics).items() if "kv_cache" in name] == shown
    registry.apply_probe(incarnation, READY)
    assert registry.revision == revision + 2  # an error came, and went


def test_series_of_removed_pools_are_removed() -> None:
    metrics = Metrics(NodePools())
    for pool_id in ("gone", "stays"):
        metrics.handoff_taken(pool_id, 1.0)
        metrics.health_check(pool_id, HealthAnswer.READY)
        metrics.health_check(pool_id, HealthAnswer.GONE)
    metrics.handoff_rejected()
    metrics.keep_only({"stays"})
    shown = exposed(metrics)
    assert not [name for name in shown if 'pool_id="gone"' in name]
    assert shown['pool_health_checks_total{outcome="success",pool_id="stays",reason="ready"}'] == 1
    assert shown['pool_handoff_files_processed_total{outcome="rejected",pool_id=""}'] == 1


async def test_gpu_metrics_have_states_faults_and_energy() -> None:
    registry, totals = NodePools(), GpuTotals()
    metrics = Metrics(registry, totals)
    sensors: dict[str, Any] = {"temperature_c": 61, "power_w": 300.5, "slowdown_c": 60}
    registry.set_gpus(Gpus((replace(gpu(0), **sensors), gpu(1)), missing=(MissingGpu(gpu(2), "gone", lost=True),)))
    registry.set_fences({"GPU-1": "Xid 79"})
    for device, code in (("GPU-1", 79), ("GPU-1", 9998), ("GPU-1", 9999), ("unknown", 13)):
        totals.faults.add("nvml", device, code)
    totals.energy.gpus["GPU-0"] = totals.energy.pools["default"] = 12.5
    totals.energy.tokens["default"] = 7
    shown = exposed(metrics)
    first, second, third = (f'{{device="{number}",uuid="GPU-{number}"}}' for number in range(3))
    expected = {
        f"gpu_memory_total_bytes{first}": 80,
        f"gpu_memory_used_bytes{first}": 20,
        f"gpu_memory_free_bytes{first}": 60,
        f"gpu_utilization_percent{first}": 50,
        f"gpu_temperature_celsius{first}": 61,
        f"gpu_power_watts{first}": 300.5,
        f"gpu_power_watts{second}": None,
        f"gpu_throttled{first}": 1,
        f"gpu_fenced{first}": 0,
        f"gpu_fenced{second}": 1,
        f"gpu_lost{third}": 1,
        f"gpu_temperature_celsius{third}": None,
        f"gpu_energy_joules_total{first}": 12.5,
        'xid_errors_total{device="1",xid="79"}': 1,
        'xid_errors_total{device="1",xid="other"}': 2,
        'xid_errors_total{device="unknown",xid="13"}': 1,
        'pool_energy_joules_total{pool_id="default"}': 12.5,
        'pool_tokens_generated_total{pool_id="default"}': 7,
    }
    assert {name: shown.get(name) for name in expected} == expected
