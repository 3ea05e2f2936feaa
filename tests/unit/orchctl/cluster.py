"""Responses of a healthy queen in CLOUD_PROFILE: nodes, pools, operations."""

from llama_orch import VERSION
from llama_orch.contracts.nodes import NodeView
from llama_orch.contracts.pools import PoolStatus

SNAPSHOT = {
    "pool_id": "default",
    "node_id": "gpu-1",
    "state": "ready",
    "ready": True,
    "draining": False,
    "slots_free": 3,
    "slots_total": 4,
    "engine": "llamacpp",
    "engine_version": "b1",
    "models_available": ["tiny"],
}
NODE: dict[str, object] = {
    "node_id": "gpu-1",
    "machine_id": "0" * 32,
    "address": "http://gpu-1:9200",
    "status": "online",
    "version": VERSION,
    "capabilities": {
        "gpus": [{"device_id": 0, "name": "H100", "vram_total_bytes": 85899345920}],
        "cpu_cores": 16,
        "ram_total_bytes": 137438953472,
    },
    "registered_at": "2026-11-25T08:00:00Z",
    "last_heartbeat_at": "2026-11-25T09:00:00Z",
    "age_ms": 3000,
    "clock_skew_ms": 12,
    "heartbeat_interval_ms": 10000,
    "pools": [SNAPSHOT],
    "a_field_of_a_newer_queen": 1,
}
POOL: dict[str, object] = {**SNAPSHOT, "live": True}
OPERATION: dict[str, object] = {
    "operation_id": "op-1",
    "kind": "drain",
    "pool_id": "default",
    "node_id": "gpu-1",
    "state": "running",
    "leases_total": 5,
    "leases_left": 3,
    "started_at": "2026-11-25T09:00:00Z",
}


def node(**changed: object) -> NodeView:
    return NodeView.model_validate({**NODE, **changed})


def pool(**changed: object) -> PoolStatus:
    return PoolStatus.model_validate({**POOL, **changed})
