"""Announcements, replicas and looks for the tests."""

from datetime import UTC, datetime
from typing import Any

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.spool import HandoffFile, Identity
from pool_managerd.pools.devices import Gpu, Gpus
from pool_managerd.pools.replica import Answer, Replica, Sighting, Slots, announced, seen

READY = Sighting(Answer.READY, slots=Slots(4, 3))
LOADING = Sighting(Answer.LOADING, "the engine answers 503: Loading model")
SILENT = Sighting(Answer.SILENT, "the engine is silent")
GONE = Sighting(Answer.GONE, "the engine is gone")


def handoff(pool_id: str = "default", replica_id: str = "r0", port: int = 18080, **fields: Any) -> Handoff:
    document = {"pool_id": pool_id, "replica_id": replica_id, "engine_version": "b1"}
    return Handoff.model_validate(document | {"url": f"http://127.0.0.1:{port}"} | fields)


def found(name: str = "default-r0.json", inode: int = 1, **fields: Any) -> HandoffFile:
    return HandoffFile(handoff(**fields), Identity(name, inode, 1_000, "00" * 32))


def replica(*sightings: Sighting, incarnation: int = 1, **fields: Any) -> Replica:
    """A replica after `sightings`, one a second."""
    known = announced(incarnation, handoff(**fields), Identity("x.json", 1, 1, ""))
    for second, sighting in enumerate(sightings):
        known = seen(known, sighting, float(second))
    return known


def report(state: PoolState, pool_id: str = "default", **fields: Any) -> ProvisioningReport:
    document = {"pool_id": pool_id, "state": state, "updated_at": datetime(2030, 1, 1, tzinfo=UTC)}
    return ProvisioningReport.model_validate(document | fields)


def gpu(index: int, total: int = 80, free: int = 60) -> Gpu:
    return Gpu(index, f"GPU-{index}", "H100", total, free, 50, "9.0")


TWO_GPUS = Gpus((gpu(0), gpu(1)))
