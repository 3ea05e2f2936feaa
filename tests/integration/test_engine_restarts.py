"""An engine is killed under load several times. Accepted tasks without tokens do not fail."""

import os
import signal
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home

FINAL = frozenset({"done", "failed", "cancelled"})
TASKS = 20
KILLS = 2
TASKS_BETWEEN_KILLS = 6
"""Tasks that end between two kills, so that the engine is busy whenever it is killed."""


@pytest.fixture(params=["home", "node"])
def under_load(
    request: pytest.FixtureRequest, tmp_path: Path, llama_server_tar: Archive, slow_model: Path
) -> Iterator[Home]:
    """A home, or a queen and its node, with one engine of two slots and a queue for all tasks."""
    node_id = "gpu-1" if request.param == "node" else None
    with home(
        tmp_path, llama_server_tar, slow_model, node_id=node_id, ORCHD_ADMISSION_CAPACITY=str(2 * TASKS)
    ) as running:
        yield running


def submit(running: Home) -> str:
    status, answer = running.ask("POST", "/v2/tasks", {"prompt": "hello world", "max_tokens": 6})
    assert status == 202, answer
    return str(answer["task_id"])


def list_tasks(running: Home) -> list[dict[str, Any]]:
    """Return all tasks of the queen, from all pages."""
    found: list[dict[str, Any]] = []
    query = "?limit=500"
    while query:
        _status, page = running.ask("GET", f"/v2/tasks{query}")
        found += page["tasks"]
        query = f"?limit=500&before={page['next']}" if page.get("next") else ""
    return found


def count_ended(running: Home) -> int:
    return sum(task["state"] in FINAL for task in list_tasks(running))


def engine_pid(running: Home) -> int | None:
    """Return the pid of the current engine, found by its port in the pools file, or None while it is restarted."""
    [port] = tomllib.loads((running.directory / "pools.toml").read_text())["pools"][0]["ports"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has exited meanwhile
        if f"\0--port\0{port}\0".encode() in words:
            return int(process.name)
    return None


def test_tasks_without_tokens_survive_engine_restarts(under_load: Home):
    tasks = {submit(under_load) for _ in range(TASKS)}
    for number in range(KILLS):
        goal = TASKS_BETWEEN_KILLS * (number + 1)
        under_load.until(lambda goal=goal: count_ended(under_load) >= goal)
        under_load.until_ready()
        os.kill(under_load.until(lambda: engine_pid(under_load)), signal.SIGKILL)
    under_load.until(lambda: count_ended(under_load) == TASKS, within_s=120)
    found = [task for task in list_tasks(under_load) if task["task_id"] in tasks]
    lost = [task for task in found if task["state"] != "done" and not task["usage"]["tokens_out"]]
    assert [task["error"] for task in lost] == []
    states = Counter(task["state"] for task in found)
    assert states["failed"] <= 2 * KILLS, "no more than ran when the engine was killed"
