"""Handoffs, replicas and probe results for tests."""

from datetime import UTC, datetime
from typing import Any

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.engines.kind import Slots
from llama_orch.spool import HandoffFile, Identity
from pool_managerd.pools.devices import Gpu, Gpus
from pool_managerd.pools.replica import HealthAnswer, ProbeResult, Replica, after_probe, announced

READY = ProbeResult(HealthAnswer.READY, slots=Slots(4, 3))
LOADING = ProbeResult(HealthAnswer.LOADING, "the engine answers 503: Loading model")
SILENT = ProbeResult(HealthAnswer.SILENT, "the engine is silent")
GONE = ProbeResult(HealthAnswer.GONE, "the engine is gone")


def handoff(pool_id: str = "default", replica_id: str = "r0", port: int = 18080, **fields: Any) -> Handoff:
    document = {"pool_id": pool_id, "replica_id": replica_id, "engine_version": "b1"}
    return Handoff.model_validate(document | {"url": f"http://127.0.0.1:{port}"} | fields)


def found(name: str = "default-r0.json", inode: int = 1, **fields: Any) -> HandoffFile:
    return HandoffFile(handoff(**fields), Identity(name, inode, 1_000, "00" * 32))


def replica(*results: ProbeResult, incarnation: int = 1, **fields: Any) -> Replica:
    """Return a replica after `results`, one per second."""
    known = announced(incarnation, handoff(**fields), Identity("x.json", 1, 1, ""))
    for second, result in enumerate(results):
        known = after_probe(known, result, float(second))
    return known


def report(state: PoolState, pool_id: str = "default", **fields: Any) -> ProvisioningReport:
    document = {"pool_id": pool_id, "state": state, "updated_at": datetime(2030, 1, 1, tzinfo=UTC)}
    return ProvisioningReport.model_validate(document | fields)


RESIDENCY: dict[str, Any] = {
    "model": {"id": "tiny", "path": "/m.gguf", "ctx_max": 512, "digest": "sha256:1"},
    "slots_total": 4,
    "device_mask": "0",
    "need_bytes": {"0": 50},
    "keep_alive_s": 300,
}
"""What loading a pool takes, in a report."""


def gpu(index: int, total: int = 80, free: int = 60) -> Gpu:
    return Gpu(index, f"GPU-{index}", "H100", total, free, 50, "9.0")


TWO_GPUS = Gpus((gpu(0), gpu(1)))
