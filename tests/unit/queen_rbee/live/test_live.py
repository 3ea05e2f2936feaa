"""The state is sampled for all viewers together, at most four times a second, and only while there are any."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.nodes import GpuSummary, Heartbeat, NodeCapabilities, NodeGpu, NodeRegistration
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.live.board import Seen
from queen_rbee.live.live import INTERVAL_S, VIEWER_LIMIT, Live, Sample
from queen_rbee.live.samples import WAITING_LIMIT
from tests.unit.queen_rbee.api_client import ApiClient, api_client


@pytest.fixture
def queen(tmp_path: Path) -> ApiClient:
    client = api_client(tmp_path)
    client.parts.registry.synced = True
    return client


def pool(pool_id: str = "p", **changes: Any) -> PoolStatus:
    fields = {"state": PoolState.READY, "live": True, "ready": True, "draining": False, "engine": "llamacpp"}
    return PoolStatus(pool_id=pool_id, **{**fields, **changes})


async def look(live: Live, seen: Seen) -> dict[str, dict[str, Any]]:
    await live.refresh()
    return {
        change.section: {key: json.loads(text) for key, text in change.documents.items()}
        for change in live.board.changes(seen)
    }


async def test_viewer_sees_pools_and_their_changes(queen: ApiClient, autojump_clock: object) -> None:
    live, registry, seen = queen.parts.live, queen.parts.registry, Seen()
    registry.update("a", 0, [pool("one"), pool("two", models_available=["/srv/models/m.gguf"])])
    first = await look(live, seen)
    assert first["pools"]["two"]["models_available"] == ["m"], "no file paths"
    assert (first["queen"]["queen"]["pools"], first["queen"]["queen"]["pools_ready"]) == (2, 2)
    await trio.sleep(INTERVAL_S)
    assert await look(live, seen) == {}
    registry.update("a", 0, [pool("one"), pool("two", state=PoolState.FAILED, ready=False)])
    await trio.sleep(INTERVAL_S)
    assert [*(await look(live, seen))["pools"]] == ["two"]


async def test_viewers_share_samples(queen: ApiClient, autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    live, samples = queen.parts.live, []
    original = live._sample

    def sample() -> Sample:
        samples.append(trio.current_time())
        return original()

    monkeypatch.setattr(live, "_sample", sample)
    for _time in range(8):
        for _viewer in range(5):
            await live.refresh()
        await trio.sleep(INTERVAL_S)
    assert len(samples) == 8
    async with trio.open_nursery() as nursery:
        for _viewer in range(5):
            nursery.start_soon(live.refresh)
    assert len(samples) == 9


async def test_waiting_tasks_are_shown_in_order_of_service(queen: ApiClient, autojump_clock: object) -> None:
    queen.parts.registry.update("a", 0, [pool(ready=False, state=PoolState.STARTING)])
    intake = queen.parts.intake
    batch = intake.admit(TaskRequest(prompt="secret", priority="batch"), "c")
    urgent = [intake.admit(TaskRequest(prompt="secret"), "c") for _ in range(3)]
    seen = await look(queen.parts.live, Seen())
    tasks = seen["tasks"]
    positions = [tasks[str(task.task_id)]["queue_position"] for task in (*urgent, batch)]
    assert positions == [0, 1, 2, 3]
    assert seen["queen"]["queen"]["queued_batch"] == 1
    assert "secret" not in json.dumps(tasks)


async def test_number_of_tasks_is_bounded(tmp_path: Path, autojump_clock: object) -> None:
    queen = api_client(tmp_path)
    queen.parts.queue.capacity = 1000
    queen.parts.registry.update("a", 0, [pool(ready=False, state=PoolState.STARTING)])
    for _task in range(WAITING_LIMIT + 10):
        queen.parts.intake.admit(TaskRequest(prompt="x"), "c")
    seen = await look(queen.parts.live, Seen())
    assert len(seen["tasks"]) == WAITING_LIMIT
    assert seen["queen"]["queen"]["queued_interactive"] == WAITING_LIMIT + 10


async def test_gpus_of_nodes_come_from_heartbeats(queen: ApiClient, autojump_clock: object) -> None:
    fleet = queen.parts.fleet
    capabilities = NodeCapabilities(gpus=[NodeGpu(device_id=0, name="H100", vram_total_bytes=80)])
    await fleet.register(
        NodeRegistration(
            node_id="n", machine_id="0" * 32, address="http://n:1", version="1", capabilities=capabilities
        ),
        "peer",
    )
    gpu = GpuSummary(device_id=0, uuid="GPU-1", state="fenced", reason="Xid 79", vram_total_bytes=80, power_w=9.5)
    fleet.heartbeat("n", Heartbeat.model_validate({"timestamp": "2026-01-01T00:00:00Z", "gpus": [gpu.model_dump()]}))
    seen = await look(queen.parts.live, Seen())
    shown = seen["gpus"]["n/GPU-1"]
    assert (shown["name"], shown["state"], shown["state_reason"], shown["power_w"]) == ("H100", "fenced", "Xid 79", 9.5)
    assert seen["nodes"]["n"]["status"] == "online"
    assert "pools" not in seen["nodes"]["n"]


def test_viewers_are_limited(queen: ApiClient) -> None:
    live = queen.parts.live
    live.viewers = VIEWER_LIMIT
    with pytest.raises(ApiError) as refused, live.viewer():
        pass
    assert refused.value.status == 503
    assert live.viewers == VIEWER_LIMIT
    live.viewers = 0
    with live.viewer():
        assert live.viewers == 1
    assert live.viewers == 0
