"""States of a queen as its stream of events tells them, and a scripted queen that does."""

import json
from datetime import UTC, datetime

from orchctl.top.board import Board, Situation
from tests.unit.orchctl.cluster import POOL
from tests.unit.orchctl.scripted_queen import TASK_ID, stream

AT = "2026-11-25T09:00:10Z"
NOW = datetime(2026, 11, 25, 9, 0, 10, tzinfo=UTC)
HELLO: dict[str, object] = {"at": AT, "version": "9.9", "profile": "cloud", "pool_actions": [], "node_actions": []}
SUMMARY: dict[str, object] = {
    "queued_interactive": 1,
    "queued_batch": 0,
    "capacity": 100,
    "policy": "reject-new",
    "running": 1,
    "pools": 2,
    "pools_ready": 1,
    "nodes": 2,
    "nodes_online": 1,
    "gpu_problems": {},
}
NODE: dict[str, object] = {"node_id": "gpu-1", "status": "online", "version": "9.9", "address": "http://gpu-1:9200"}
GPU: dict[str, object] = {
    "node_id": "gpu-1",
    "index": 0,
    "uuid": "GPU-a",
    "name": "H100",
    "vram_total_bytes": 80 << 30,
    "vram_free_bytes": 20 << 30,
    "utilization": 93,
    "temperature_c": 64,
    "power_w": 612.4,
}
TASK: dict[str, object] = {
    "task_id": str(TASK_ID),
    "job_id": str(TASK_ID),
    "state": "running",
    "workload": "completion",
    "priority": "interactive",
    "pool_id": "default",
    "model_ref": "tiny",
    "usage": {"tokens_in": 3, "tokens_out": 40},
    "timings": {
        "submitted_at": "2026-11-25T09:00:00Z",
        "started_at": "2026-11-25T09:00:01Z",
        "queued_ms": 1000,
        "first_token_ms": 2000,
    },
}
WAITING_ID = "aaaaaaaa-3b57-4bd4-9f5e-1f0e3a5d7c11"
WAITING: dict[str, object] = {
    **TASK,
    "task_id": WAITING_ID,
    "state": "queued",
    "pool_id": None,
    "queue_position": 0,
    "predicted_start_ms": 4000,
    "usage": {},
    "timings": {"submitted_at": "2026-11-25T09:00:03Z"},
}
SECTIONS: dict[str, dict[str, dict[str, object]]] = {
    "queen": {"queen": SUMMARY},
    "nodes": {"gpu-1": NODE, "gpu-2": {**NODE, "node_id": "gpu-2", "status": "draining"}},
    "gpus": {"gpu-1/GPU-a": GPU},
    "pools": {"default@gpu-1": POOL},
    "tasks": {str(TASK_ID): TASK, WAITING_ID: WAITING},
}
Sections = dict[str, dict[str, dict[str, object]]]


def events(sections: Sections | None = None) -> list[tuple[str, object]]:
    changes = [(name, {"set": documents, "gone": []}) for name, documents in (sections or SECTIONS).items()]
    return [("hello", HELLO), *changes, ("ready", {})]


def board(sections: Sections | None = None) -> Board:
    filled = Board("http://queen:8080")
    for name, data in events(sections):
        filled.apply(name, json.dumps(data), 100.0)
    return filled


def situation(sections: Sections | None = None) -> Situation:
    return board(sections).situation(100.0)


def live(sections: Sections | None = None) -> bytes:
    """Return a stream with the whole state."""
    return stream(*events(sections))
