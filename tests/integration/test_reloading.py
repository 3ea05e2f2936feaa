"""Pools are reloaded under load, and purged: all three daemons with a real llama-server, shared by the tests here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.engines import tiny_model as tiny
from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.test_on_demand import engines

CLIENTS = 4
OTHER = tiny.Shape(seed=4321)


@pytest.fixture(scope="module")
def machine(tmp_path_factory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    directory = tmp_path_factory.mktemp("reloading")
    (directory / "models").mkdir()
    for name, source in (("first", tiny_model), ("other", tiny.tiny_model(OTHER))):
        (directory / f"models/{name}.gguf").write_bytes(source.read_bytes())
    good = (directory / "models/first.gguf").read_bytes()
    (directory / "models/broken.gguf").write_bytes(good[: len(good) - 200_000])  # a header, and not all tensors
    with home(directory, llama_server_tar, directory / "models/first.gguf", slots=2) as running:
        yield running


@dataclass
class Load:
    """Clients that ask without pause until `stopping` is set; `statuses` has the answers."""

    home: Home
    stopping: Event = field(default_factory=Event)
    statuses: list[int] = field(default_factory=list)

    def ask(self) -> None:
        while not self.stopping.is_set():
            body = {"model": "default", "messages": [{"role": "user", "content": "the river"}], "max_tokens": 20}
            status, answer = self.home.ask("POST", "/v1/chat/completions", body)
            assert status == 200, answer
            assert answer["usage"]["completion_tokens"] == 20
            self.statuses.append(status)

    def answered(self, more: int) -> None:
        """Wait until so many more requests were answered."""
        goal = len(self.statuses) + more
        self.home.until(lambda: len(self.statuses) >= goal)


@contextmanager
def under_load(running: Home) -> Iterator[Load]:
    """Have CLIENTS clients ask; none of their requests may fail."""
    load = Load(running)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients: list[Future[None]] = [pool.submit(load.ask) for _ in range(CLIENTS)]
        try:
            load.answered(CLIENTS)
            yield load
        finally:
            load.stopping.set()
        for client in clients:
            client.result()


def model(home: Home, name: str) -> str:
    """Return the reference of a model, which is on the list of those on the disk."""
    ref = f"file:{home.directory}/models/{name}.gguf"
    pulled = orchctl(home, "pull", ref)
    assert pulled.returncode == 0, pulled.stderr
    return ref


def orchctl(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """Run orchctl against the daemons of `home`."""
    handoffs = str(home.directory / ".runtime/engines")
    environ = {**home.environ, "ENGINE_PROVISIONER_HANDOFF_DIR": handoffs, "ORCHESTRATORD_URL": home.url}
    command = [sys.executable, "-m", "orchctl", *words]
    return subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def reload(home: Home, body: object = None) -> str:
    """Start a reload and return the path of its operation."""
    status, operation = home.ask("POST", "/v2/pools/default/reload", body)
    assert (status, operation.get("kind")) == (202, "reload"), operation
    return f"/v2/operations/{operation['operation_id']}"


def ended(home: Home, path: str) -> dict[str, Any]:
    found: dict[str, Any] = home.until(
        lambda: found if (found := home.ask("GET", path)[1])["state"] != "running" else None
    )
    return found


def served(home: Home) -> str:
    """Return the model that the pool's engine has loaded."""
    [line] = engines(home)
    return next(Path(word).stem for word in line.split("\0") if word.endswith(".gguf"))


def test_reload_to_another_model_fails_no_request(machine: Home) -> None:
    other = model(machine, "other")
    with under_load(machine) as load:
        operation = ended(machine, reload(machine, {"new_model_ref": other}))
        assert (operation["state"], operation["message"]) == ("done", "its model is other"), machine.logs()
        load.answered(CLIENTS)
    assert machine.pool()["models_available"] == ["other"]
    assert served(machine) == "other"


def test_broken_model_leaves_the_old_one_serving(machine: Home) -> None:
    before, broken = served(machine), model(machine, "broken")
    with under_load(machine) as load:
        operation = ended(machine, reload(machine, {"new_model_ref": broken}))
        load.answered(CLIENTS)
    assert operation["state"] == "failed"
    assert "the former engine serves again" in operation["message"]
    assert "tensor" in operation["message"], operation
    assert served(machine) == before


def test_model_that_is_not_on_the_disk_is_refused(machine: Home) -> None:
    status, error = machine.ask(
        "POST", "/v2/pools/default/reload", {"new_model_ref": "https://example.org/models/new.gguf"}
    )
    assert (status, error["code"]) == (409, "INVALID_PARAMS")
    assert "https://example.org/models/new.gguf is not on the disk" in error["message"]
    assert "orchctl pull" in error["hint"]


def test_replaced_model_survives_a_restart(machine: Home) -> None:
    ended(machine, reload(machine, {"new_model_ref": model(machine, "other")}))
    machine.stop("engine-provisioner")
    machine.start("engine-provisioner")
    machine.until(lambda: machine.pool().get("ready") and len(engines(machine)) == 1)
    assert served(machine) == "other"
    shown = json.loads(orchctl(machine, "pool", "--json").stdout)["pools"][0]
    assert shown["model"].endswith("other.gguf")
    assert shown["file_model"].endswith("first.gguf")


def test_kill_during_a_reload_leaves_one_engine(machine: Home) -> None:
    wanted = "first" if served(machine) == "other" else "other"
    path = reload(machine, {"new_model_ref": model(machine, wanted)})
    report = machine.directory / ".runtime/engines/status/default.json"
    machine.until(lambda: json.loads(report.read_bytes()).get("reload", {}).get("state") == "switching")
    process = machine.processes.pop("engine-provisioner")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    machine.start("engine-provisioner")
    operation = ended(machine, path)
    assert operation["state"] in ("failed", "done")
    machine.until(lambda: machine.pool().get("ready") and len(engines(machine)) == 1)
    assert served(machine) in ("first", "other")
    with under_load(machine):
        pass


def test_reload_and_purge_by_orchctl(machine: Home) -> None:
    reloaded = orchctl(machine, "reload", "default", "--model", f"{machine.directory}/models/first.gguf")
    assert (reloaded.returncode, reloaded.stdout) == (0, "reload default: done: its model is first\n"), reloaded.stderr
    unconfirmed = orchctl(machine, "purge", "default")
    assert (unconfirmed.returncode, "--yes" in unconfirmed.stderr) == (64, True)
    purged = orchctl(machine, "purge", "default", "--yes")
    assert purged.returncode == 0, purged.stderr
    assert "first.gguf: it was not downloaded" in purged.stdout
    assert (machine.directory / "models/first.gguf").exists()
    machine.until(lambda: machine.pool()["state"] == "unloaded")
    with under_load(machine):
        pass
