"""orchctl nodes and gpus."""

import json

import pytest

from llama_orch import VERSION
from llama_orch.contracts.gpus import GpuList
from llama_orch.contracts.nodes import NodeList
from orchctl.commands.gpus import format_gpus
from orchctl.commands.nodes import format_nodes, node_problems
from tests.unit.orchctl.cluster import NODE, OPERATION, SNAPSHOT, node
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve

LIST = {"nodes": [NODE, {**NODE, "node_id": "gpu-2", "status": "offline", "age_ms": 720_000}], "count": 2}
VERSIONED = {"GET /v2/meta/version": [reply(200, {"version": VERSION, "api_version": "2"})]}
TABLE = f"""\
NODE   STATUS   AGE     POOLS  SLOTS  GPUS  ADDRESS            VERSION
gpu-1  online   3 s     1/1    3/4    1     http://gpu-1:9200  {VERSION}
gpu-2  offline  12 min  1/1    3/4    1     http://gpu-1:9200  {VERSION}
gpu-2: offline, last heartbeat at 2026-11-25 09:00:00 UTC (12 min ago)
"""


def test_nodes_are_a_table_with_problems_below() -> None:
    with serve({**VERSIONED, "GET /v2/nodes": [reply(200, LIST)]}) as queen:
        result = run("nodes", "--url", queen.url)
        assert json.loads(run("nodes", "--json", "--url", queen.url).out) == LIST
    assert (result.status, result.out, result.err) == (0, TABLE, "")


@pytest.mark.parametrize(
    ("changed", "problems"),
    [
        ({}, []),
        ({"clock_skew_ms": 5000}, []),
        ({"clock_skew_ms": 12_000}, ["its clock is 12 s ahead of the queen's"]),
        ({"clock_skew_ms": -7_000}, ["its clock is 7 s behind the queen's"]),
        ({"version": "0.0.9"}, ["its version is 0.0.9, the queen's is 1"]),
        (
            {"status": "offline", "last_heartbeat_at": None, "age_ms": 40_000},
            ["offline, no heartbeat since it registered 40 s ago"],
        ),
        (
            {"status": "failed", "pools": [{**SNAPSHOT, "last_error": "no\n GPU"}]},
            ["all its pools have failed: default: no GPU"],
        ),
        ({"status": "failed", "pools": []}, ["all its pools have failed: no reason reported"]),
        ({"status": "draining"}, []),
        ({"clock_skew_ms": None}, []),
    ],
)
def test_node_problems_are_described(changed: dict[str, object], problems: list[str]) -> None:
    assert [*node_problems(node(**{"version": "1", **changed}), "1")] == problems


def test_no_nodes_mentions_home_profile() -> None:
    assert "HOME_PROFILE" in format_nodes(NodeList(nodes=[], count=0), "1")


def test_one_node_is_shown_with_gpus_and_pools() -> None:
    with serve({"GET /v2/nodes/gpu%2F1": [reply(200, NODE)]}) as queen:
        result = run("nodes", "gpu/1", "--url", queen.url)
    assert result.status == 0
    lines = dict(line.split("  ", 1) for line in result.out.splitlines() if "  " in line)
    assert lines["clock_skew_ms"].strip() == "12"
    assert lines["capabilities.gpus.0.name"].strip() == "H100"
    assert result.out.endswith(
        "POOL     STATE  SLOTS  ENGINE       DEVICES  MODELS\ndefault  ready  3/4    llamacpp b1  -        tiny\n"
    )


def test_node_is_removed() -> None:
    with serve({"DELETE /v2/nodes/gpu-1": [reply(204)]}) as queen:
        result = run("nodes", "remove", "gpu-1", "--url", queen.url)
        assert len(queen.requests) == 1
    assert (result.status, result.out, result.err) == (0, "", "")


def test_node_is_woken_and_waited_for() -> None:
    awake = {**OPERATION, "kind": "wake", "pool_id": None, "state": "done", "message": "it is awake after 12 s"}
    with serve({"POST /v2/nodes/gpu-1/wake": [reply(202, awake)]}) as queen:
        result = run("nodes", "wake", "gpu-1", "--url", queen.url)
    assert result.status == 0
    assert result.out.startswith("wake ")
    assert "it is awake after 12 s" in result.out


def test_unknown_node_exits_66() -> None:
    with serve({"DELETE /v2/nodes/x": [error(404, "NOT_FOUND", "there is no node x")]}) as queen:
        assert run("nodes", "remove", "x", "--url", queen.url).status == 66


@pytest.mark.parametrize("words", [["remove"], ["a", "b"], ["remove", "a", "b"]])
def test_other_than_one_node_is_usage_error(words: list[str]) -> None:
    with serve({}) as queen:
        result = run("nodes", *words, "--url", queen.url)
        assert not queen.requests
    assert result.status == 64
    assert "orchctl nodes [remove|wake] NODE" in result.err


GPU = {
    "node_id": "gpu-1",
    "index": 0,
    "uuid": "GPU-1",
    "name": "NVIDIA H100",
    "vram_total_bytes": 85899345920,
    "vram_free_bytes": 42949672960,
    "utilization": 0,
    "temperature_c": 61,
    "power_w": 301.6,
    "pools": [{"pool_id": "chat", "energy_joules": 10, "joules_per_1000_tokens": 812.4}, {"pool_id": "embed"}],
}
FENCED = {"state": "fenced", "state_reason": "GPU 1 is fenced:\nXid 79"}
BARE: dict[str, object] = {"node_id": None, "utilization": None, "temperature_c": None, "power_w": None, "pools": []}
GPUS = {
    "gpus": [GPU, {**GPU, **BARE, **FENCED, "index": 1}, {**GPU, **BARE, **FENCED, "index": 1, "mig_index": 0}],
    "count": 3,
    "problems": {"gpu-2": "NVML says:\nno", "http://127.0.0.1:9200": "it does not answer"},
}
GPU_TABLE = """\
NODE   GPU  NAME         USED/ALL GiB  BUSY  TEMP   POWER  STATE   POOLS        J/1K TOKENS  UUID
gpu-1  0    NVIDIA H100  40.0/80.0     0%    61 °C  302 W  ok      chat, embed  812, -       GPU-1
-      1    NVIDIA H100  40.0/80.0     -     -      -      fenced  -            -            GPU-1
-      1:0  NVIDIA H100  40.0/80.0     -     -      -      fenced  -            -            GPU-1
GPU 1: GPU 1 is fenced: Xid 79
gpu-2: NVML says: no
http://127.0.0.1:9200: it does not answer
"""


def test_gpus_are_a_table_with_problems_below() -> None:
    with serve({"GET /v2/gpus": [reply(200, GPUS)]}) as queen:
        result = run("gpus", "--url", queen.url)
        assert json.loads(run("gpus", "--json", "--url", queen.url).out) == GPUS
    assert (result.status, result.out, result.err) == (0, GPU_TABLE, "")


def test_no_gpus_shows_problems() -> None:
    assert format_gpus(GpuList(gpus=[], count=0, problems={"a": "b"})) == "no GPUs are known\na: b"


def test_fence_of_a_gpu_is_ended() -> None:
    path = "POST /v2/gpus/GPU-1/unfence"
    with serve({path: [reply(204)], f"{path}?node_id=gpu-1": [reply(204)]}) as queen:
        assert run("gpus", "unfence", "GPU-1", "--url", queen.url).status == 0
        assert run("gpus", "unfence", "GPU-1", "--node", "gpu-1", "--url", queen.url).status == 0
        assert len(queen.requests) == 2
