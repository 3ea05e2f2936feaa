"""CLOUD_PROFILE on one machine: the queen reaches the engine through the relay of its node, a pool-managerd."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.pool_manager import PoolManager, pool_manager

NODE = "gpu-node-1"
DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    with home(tmp_path_factory.mktemp("cloud"), llama_server_tar, slow_model, node_id=NODE) as running:
        yield running


@pytest.fixture
def cloud(cluster: Home) -> Home:
    """The cluster with its node online, whatever an earlier test has stopped or drained."""
    for name in DAEMONS:
        if name not in cluster.processes:
            cluster.start(name)
    cluster.until(lambda: cluster.ask("GET", "/health")[0] == 200)
    wait_until_online(cluster)
    return cluster


def node(cloud: Home) -> dict[str, object]:
    _status, found = cloud.ask("GET", "/v2/nodes")
    return next((each for each in (found or {}).get("nodes", ()) if each["node_id"] == NODE), {})


def wait_until_online(cloud: Home) -> None:
    cloud.until(lambda: node(cloud).get("status") == "online")
    cloud.until_ready()


class LogFrom:
    """What a daemon logs from now on."""

    def __init__(self, cloud: Home, name: str) -> None:
        self._file = cloud.directory / f"{name}.log"
        self._start = self._file.stat().st_size

    def text(self) -> str:
        return self._file.read_bytes()[self._start :].decode()


def submit_and_wait_for_token(cloud: Home, **request: object) -> str:
    """Submit a long task, wait for its first token and return its id."""
    task_id = str(uuid4())
    body = {"task_id": task_id, "prompt": "once", "max_tokens": 900, "seed": 1, **request}
    status, _answer = cloud.ask("POST", "/v2/tasks", body)
    assert status == 202
    with cloud.stream(f"/v2/tasks/{task_id}/events") as events:
        assert "token" in (event for _id, event, _data in events)
    return task_id


def task(cloud: Home, task_id: str) -> dict[str, object]:
    found: dict[str, object] = cloud.ask("GET", f"/v2/tasks/{task_id}")[1]
    return found


def busy_slots(cloud: Home) -> int:
    """Return the number of busy slots as pool-managerd reports them."""
    _status, pool = cloud.ask("GET", "/v2/pools/default/status", port=cloud.manager_port)
    return int(pool["slots_total"]) - int(pool["slots_free"])


def test_task_runs_on_node_through_relay(cloud: Home):
    status, answer = cloud.ask("POST", "/v2/tasks", {"prompt": "once", "max_tokens": 5, "seed": 1})
    assert status == 202
    with cloud.stream(answer["streams"]["sse"]) as events:
        names = [event for _id, event, _data in events]
    assert names[-1] == "end"
    view = task(cloud, answer["task_id"])
    assert (view["replica_id"], view["usage"]["tokens_out"]) == (NODE, 5)  # type: ignore[index]


def test_v1_chat_runs_on_node(cloud: Home):
    chat = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    status, answer = cloud.ask("POST", "/v1/chat/completions", chat)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 4)


def test_cancel_passes_both_hops_and_frees_engine_slot(cloud: Home):
    task_id = submit_and_wait_for_token(cloud)
    cloud.until(lambda: busy_slots(cloud))
    assert cloud.ask("POST", f"/v2/tasks/{task_id}/cancel")[0] == 204
    cloud.until(lambda: not busy_slots(cloud))
    assert node(cloud)["active_leases"] == 0


def test_drain_stops_admission_and_ends_tasks_at_deadline(cloud: Home):
    task_id = submit_and_wait_for_token(cloud)
    done = cloud.orchctl("drain", "default", "--deadline", "1s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert task(cloud, task_id)["error"]["code"] == "WORKER_RESET"  # type: ignore[index]
    waiting = cloud.ask("POST", "/v2/tasks", {"prompt": "once", "max_tokens": 2})[1]["task_id"]
    assert task(cloud, waiting)["state"] == "queued"
    assert cloud.orchctl("resume", "default").returncode == 0
    cloud.until(lambda: task(cloud, waiting)["state"] == "done")


def test_drained_node_reports_it_and_can_be_resumed(cloud: Home):
    assert cloud.orchctl("drain", "--node", NODE).returncode == 0
    assert node(cloud)["status"] == "draining"
    assert cloud.orchctl("resume", "--node", NODE).returncode == 0
    wait_until_online(cloud)


def test_restarted_queen_keeps_its_nodes(cloud: Home):
    assert cloud.stop("queen-rbee") == 0
    cloud.start("queen-rbee")
    cloud.until(lambda: cloud.ask("GET", "/health")[0] == 200)
    assert node(cloud)["status"] != "offline"
    status, answer = cloud.ask("POST", "/v2/tasks", {"prompt": "once", "max_tokens": 2})
    assert status == 202
    cloud.until(lambda: task(cloud, answer["task_id"])["state"] == "done")


def test_node_deregisters_at_stop_and_registers_at_start(cloud: Home):
    assert cloud.stop("pool-managerd") == 0
    assert node(cloud) == {}
    cloud.start("pool-managerd")
    wait_until_online(cloud)


def test_restart_of_pool_managerd_undoes_drain(cloud: Home):
    assert cloud.orchctl("drain", "default").returncode == 0
    assert cloud.stop("pool-managerd") == 0
    cloud.start("pool-managerd")
    wait_until_online(cloud)
    assert not cloud.pool()["draining"]


def test_killed_node_ends_streams_with_retriable_error(cloud: Home):
    task_id = submit_and_wait_for_token(cloud)
    killed = cloud.processes.pop("pool-managerd")
    killed.kill()
    killed.wait()
    cloud.until(lambda: task(cloud, task_id)["state"] == "failed")
    error = task(cloud, task_id)["error"]
    assert (error["code"], error["retriable"]) == ("WORKER_RESET", True)  # type: ignore[index]
    waiting = cloud.ask("POST", "/v2/tasks", {"prompt": "once", "max_tokens": 2})[1]["task_id"]
    cloud.until(lambda: node(cloud).get("status") == "offline", within_s=20)
    cloud.start("pool-managerd")
    cloud.until(lambda: task(cloud, waiting)["state"] == "done")


def test_orchctl_lists_node_and_finds_no_problem(cloud: Home):
    listed = cloud.orchctl("nodes", "--json")
    assert [each["node_id"] for each in json.loads(listed.stdout)["nodes"]] == [NODE]
    checked: subprocess.CompletedProcess[str] = cloud.orchctl("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "problem" not in checked.stdout


def test_duplicate_node_id_on_one_machine_is_refused(cloud: Home):
    first = f"http://127.0.0.1:{cloud.manager_port}"
    queen, manager = LogFrom(cloud, "queen-rbee"), LogFrom(cloud, "pool-managerd")
    with start_duplicate_node(cloud) as second:
        second.until(lambda: "registration of node gpu-node-1 refused" in second.log())
        assert node(cloud)["address"] == first
        cloud.until(lambda: "tries to register under this node id" in manager.text())
        for log in (queen.text(), second.log()):
            assert first in log
            assert f":{second.port}" in log
        assert second.stop(signal.SIGKILL) == -signal.SIGKILL
    for _each in range(12):
        chat = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert cloud.ask("POST", "/v1/chat/completions", chat)[0] == 200
    assert (node(cloud)["address"], node(cloud)["status"]) == (first, "online")


def test_killed_pool_managerd_registers_again_at_once(cloud: Home):
    queen = LogFrom(cloud, "queen-rbee")
    process = cloud.processes.pop("pool-managerd")
    process.kill()
    process.wait()
    cloud.start("pool-managerd")
    cloud.until(lambda: "node_registration of gpu-node-1" in queen.text())
    assert "refused" not in queen.text()
    wait_until_online(cloud)


def start_duplicate_node(cloud: Home) -> AbstractContextManager[PoolManager]:
    """Start another pool-managerd with the node id of the first."""
    names = ("ORCHESTRATORD_URL", "POOL_MANAGERD_NODE_ID", "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS", "LLORCH_API_TOKEN")
    directory = cloud.directory / "second"
    directory.mkdir()
    return pool_manager(directory, AUTH_OPTIONAL="true", **{name: cloud.environ[name] for name in names})
