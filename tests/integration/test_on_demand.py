"""Models are loaded by the requests for them: all three daemons, with a real llama-server."""

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, environment, stop_if_running

NAMES = ("red", "green", "blue")
GROUP = '[groups.one]\nmode = "exclusive"\n'
POOL = """
[[pools]]
id = "{name}"
model = "file:{model}"
ctx = 512
preload = false
group = "one"
[pools.provisioning]
mode = "binary"
url = "file:{archive}"
checksum = "{checksum}"
allow_binary_downloads = true
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home with three pools of which one is loaded at a time."""
    directory = tmp_path_factory.mktemp("on-demand")
    environ = environment(directory)
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    fields = {"model": tiny_model, "archive": llama_server_tar.path, "checksum": llama_server_tar.checksum}
    (directory / "pools.toml").write_text(GROUP + "".join(POOL.format(name=name, **fields) for name in NAMES))
    running = Home(directory, environ, queen, manager)
    with ExitStack() as cleanup:
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            running.start(name)
            cleanup.callback(stop_if_running, running, name)
        running.until(lambda: states(running) == dict.fromkeys(NAMES, "unloaded"))
        yield running


def pools(home: Home) -> list[dict[str, Any]]:
    _status, answer = home.ask("GET", "/v2/pools")
    return list((answer or {}).get("pools", ()))


def states(home: Home) -> dict[str, str]:
    return {pool["pool_id"]: pool["state"] for pool in pools(home)}


def chat(home: Home, model: str, **more: Any) -> int:
    """Ask for a short answer; return how many tokens it has."""
    body = {"model": model, "messages": [{"role": "user", "content": "the river"}], "max_tokens": 4, **more}
    status, answer = home.ask("POST", "/v1/chat/completions", body)
    assert status == 200, (answer, home.logs())
    return int(answer["usage"]["completion_tokens"])


def engines(home: Home) -> list[str]:
    """The command lines of the engines that run below the home's directory."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(home.directory) in words and b"\0--port\0" in words:
            lines.append(words.decode(errors="replace"))
    return lines


def test_unloaded_models_are_listed(machine):
    status, answer = machine.ask("GET", "/v1/models")
    assert status == 200
    assert set(NAMES) <= {entry["id"] for entry in answer["data"]}
    assert machine.ask("GET", "/ready")[0] == 200


def test_request_loads_its_model_and_unloads_the_other(machine):
    assert chat(machine, "red") == 4
    assert states(machine)["red"] == "ready"
    assert chat(machine, "green") == 4
    machine.until(lambda: states(machine)["red"] == "unloaded")
    assert len(engines(machine)) == 1


def test_task_tells_what_must_be_prepared(machine):
    chat(machine, "red")
    _status, accepted = machine.ask("POST", "/v2/tasks", {"model_ref": "blue", "prompt": "x", "max_tokens": 2})
    assert accepted["preparation"]["steps"] == ["load pool blue"]
    with machine.stream(accepted["streams"]["sse_verbose"]) as events:
        seen = [(event, data) for _id, event, data in events]
    assert seen[-1][0] == "end"


def test_request_without_keep_alive_leaves_no_engine(machine):
    assert chat(machine, "blue", keep_alive=0) == 4
    machine.until(lambda: states(machine)["blue"] == "unloaded")
    assert engines(machine) == []


def test_operator_loads_and_unloads_with_progress(machine):
    status, operation = machine.ask("POST", "/v2/pools/green/preload")
    assert (status, operation["kind"]) == (202, "load")
    path = f"/v2/operations/{operation['operation_id']}"
    machine.until(lambda: machine.ask("GET", path)[1]["state"] == "done")
    assert states(machine)["green"] == "ready"
    _status, operation = machine.ask("POST", "/v2/pools/green/unload")
    path = f"/v2/operations/{operation['operation_id']}"
    machine.until(lambda: machine.ask("GET", path)[1]["state"] == "done")
    assert engines(machine) == []


def test_no_request_is_lost_when_models_take_turns(machine):
    choose = random.Random(1)
    wanted = [choose.choice(NAMES) for _ in range(24)]
    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(lambda name: chat(machine, name), wanted)) == [4] * len(wanted)
    assert json.dumps(states(machine)).count("ready") <= 1


def unload_all(home: Home) -> None:
    for name, state in states(home).items():
        if state != "unloaded":
            home.ask("POST", f"/v2/pools/{name}/unload")
    home.until(lambda: states(home) == dict.fromkeys(NAMES, "unloaded"))


def test_client_that_does_not_wait_finds_the_model_at_its_retry(machine):
    chat(machine, "red")
    unload_all(machine)
    task = {"model_ref": "red", "prompt": "x", "max_tokens": 2, "wait_s": 0}
    status, refused = machine.ask("POST", "/v2/tasks", task)
    assert (status, refused["code"], refused["retriable"]) == (503, "POOL_UNREADY", True)
    load_s = next(pool["residency"]["load_s"] for pool in pools(machine) if pool["pool_id"] == "red")
    assert refused["retry_after_ms"] == pytest.approx(1000 * load_s, abs=2)
    machine.until(lambda: states(machine)["red"] == "ready")
    assert machine.ask("POST", "/v2/tasks", task)[0] == 202


def is_cancelled_in_time(machine) -> bool:
    """Begin a load, and cancel it; return whether it was still running."""
    unload_all(machine)
    _status, operation = machine.ask("POST", "/v2/pools/green/preload")
    machine.until(lambda: states(machine)["green"] != "unloaded")
    path = f"/v2/operations/{operation['operation_id']}"
    assert machine.ask("DELETE", path)[0] == 202
    machine.until(lambda: machine.ask("GET", path)[1]["state"] != "running")
    return bool(machine.ask("GET", path)[1]["state"] == "cancelled")


def test_cancelled_load_leaves_no_engine(machine):
    assert any(is_cancelled_in_time(machine) for _try in range(10)), "each load was faster than its cancel"
    machine.until(lambda: states(machine)["green"] == "unloaded")
    assert engines(machine) == []
