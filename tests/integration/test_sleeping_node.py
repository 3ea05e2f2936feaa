"""An idle node is suspended and woken by a real magic packet. The machine's sleep is imitated: pool-managerd is killed
when it asks for it, and started again by the packet."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from queen_rbee.waking.packets import magic_packet
from tests.engines.llama_server import Archive
from tests.integration.home import Home, node_environment, stop_if_running

NODE = "gpu-node-1"
MAC = "52:54:00:12:34:56"
WITHIN_S = 60.0
POOL = """
[[pools]]
id = "default"
model = "file:{model}"
ctx = 512
preload = false
keep_alive = "1s"
[pools.provisioning]
mode = "binary"
url = "file:{archive}"
checksum = "{checksum}"
allow_binary_downloads = true
"""


@dataclass
class SleepyMachine:
    """A cluster of one node, and the socket at which magic packets for it arrive."""

    home: Home
    packets: socket.socket

    @property
    def request(self) -> Path:
        return self.home.directory / ".runtime" / "suspend-request"

    def status(self) -> str:
        return str(self.home.ask("GET", f"/v2/nodes/{NODE}")[1].get("status"))

    def fall_asleep(self) -> None:
        """Wait until the node has asked for its suspension, and stop it."""
        self.home.until(lambda: self.request.exists() and self.status() == "asleep")
        node = self.home.processes.pop("pool-managerd")
        node.send_signal(signal.SIGKILL)
        node.wait()

    def wake_by_packet(self) -> None:
        """Start the node when a magic packet for it arrives."""
        self.packets.settimeout(WITHIN_S)
        while self.packets.recv(200) != magic_packet(MAC):
            pass
        self.home.start("pool-managerd")

    def chat(self) -> tuple[int, Any]:
        body = {"model": "default", "messages": [{"role": "user", "content": "the river"}], "max_tokens": 4}
        return self.home.ask("POST", "/v1/chat/completions", body)


@pytest.fixture
def machine(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> Iterator[SleepyMachine]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets, ExitStack() as cleanup:
        packets.bind(("127.0.0.1", 0))
        environ = node_environment(
            tmp_path,
            NODE,
            POOL_MANAGERD_SUSPEND_AFTER_SECS="1",
            POOL_MANAGERD_WAKE_MACS=MAC,
            ORCHESTRATORD_WAKE_ADDR=f"127.0.0.1:{packets.getsockname()[1]}",
        )
        fields = {"model": tiny_model, "archive": llama_server_tar.path, "checksum": llama_server_tar.checksum}
        (tmp_path / "pools.toml").write_text(POOL.format(**fields))
        queen, manager = (
            int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
        )
        home = Home(tmp_path, environ, queen, manager)
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            home.start(name)
            cleanup.callback(stop_if_running, home, name)
        home.until(lambda: home.pool().get("state") in ("unloaded", "asleep"))
        yield SleepyMachine(home, packets)


def test_idle_node_sleeps_and_a_task_wakes_it(machine: SleepyMachine) -> None:
    machine.fall_asleep()
    assert machine.home.pool()["state"] == "asleep"
    listed = machine.home.orchctl("nodes")
    assert " asleep " in listed.stdout
    assert machine.home.ask("GET", "/ready")[0] == 200
    with ThreadPoolExecutor(1) as clients:
        chat = clients.submit(machine.chat)
        machine.wake_by_packet()
        status, answer = chat.result(WITHIN_S)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 4), answer
    machine.fall_asleep()  # again, after keep_alive
    log = (machine.home.directory / "queen-rbee.log").read_text()
    assert log.count('"node_waking"') == 1
    assert log.count('"node_did_not_wake"') == 0


def test_node_that_does_not_wake_fails_the_task(machine: SleepyMachine) -> None:
    machine.fall_asleep()
    assert machine.home.stop("queen-rbee") == 0
    machine.home.start("queen-rbee", ORCHESTRATORD_WAKE_TIMEOUT_MS="2000")  # which must still know the node
    machine.home.until(lambda: machine.home.ask("GET", "/health")[0] == 200)
    assert machine.status() == "asleep"
    status, answer = machine.chat()
    assert status == 503
    assert f"node {NODE} did not wake within 2 s" in answer["error"]["message"]
    assert machine.status() == "offline"
    with ThreadPoolExecutor(1) as clients:
        woken = clients.submit(machine.home.orchctl, "nodes", "wake", NODE)
        assert woken.result(WITHIN_S).returncode != 0
