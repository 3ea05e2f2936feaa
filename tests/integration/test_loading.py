"""Pools are loaded and unloaded on request: engine-provisioner, pool-managerd and a real llama-server."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from llama_orch.contracts.pools import PoolState
from llama_orch.http.client.client import request
from tests.engines.llama_server import Archive
from tests.integration.home import free_port
from tests.integration.pool_manager import PoolManager, pool_manager
from tests.integration.provisioner import Provisioner, provisioner
from tests.integration.test_engine_provisioner import digest, is_gone, pool_entry

CYCLES = 20
ON_DEMAND = "preload = false"


@dataclass
class Machine:
    """Both daemons of a machine with the pool `default`."""

    provisioner: Provisioner
    manager: PoolManager

    def ask(self, verb: str) -> tuple[int, Any]:
        return self.manager.ask("POST", f"/v2/pools/default/{verb}")

    async def until(self, state: PoolState) -> dict[str, Any]:
        """Wait until pool-managerd reports the state; return the pool."""
        await self.provisioner.until(lambda: self.manager.pool().get("state") == state)
        return self.manager.pool()

    async def load(self) -> int:
        """Load the pool; return the pid of its engine."""
        status, pool = self.ask("preload")
        assert (status, pool["pool_id"]) == (202, "default")
        await self.until(PoolState.READY)
        await self.provisioner.until(lambda: self.provisioner.state("default") is PoolState.READY)
        report = self.provisioner.report("default")
        assert report is not None
        assert report.handoff is not None
        assert report.handoff.pid is not None
        return report.handoff.pid

    async def unload(self) -> None:
        assert self.ask("unload")[0] == 202
        await self.until(PoolState.UNLOADED)

    async def generate(self) -> int:
        """Generate five tokens by way of the relay; return how many there were."""
        url = f"http://127.0.0.1:{self.manager.port}/v2/pools/default/engine/completion"
        body = json.dumps({"prompt": "the river", "n_predict": 5, "stream": False}).encode()
        async with request("POST", url, headers={"content-type": "application/json"}, body=body) as answer:
            assert answer.status == 200
            return int(json.loads(await answer.read())["tokens_predicted"])

    def engines(self) -> list[int]:
        """Return the pids of engines, also of those that are not announced yet."""
        return [int(process.name) for process in Path("/proc").glob("[0-9]*") if self._is_engine(process)]

    def _is_engine(self, process: Path) -> bool:
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            return False
        return os.fsencode(self.provisioner.directory) in words and b"\0--port\0" in words


@asynccontextmanager
async def machine(directory: Path, pools: str) -> AsyncIterator[Machine]:
    environ = {"POOL_MANAGERD_RUNTIME_DIR": ".runtime/engines"}
    with pool_manager(directory, **environ) as manager:
        async with provisioner(directory, pools) as daemon:
            yield Machine(daemon, manager)


def gated_engine(directory: Path, llama_server: Path) -> tuple[Archive, Path]:
    """Return an engine that begins to load when a file exists, and the path of that file."""
    gate, script = directory / "gate", directory / "llama-server"
    wait = f'case "$*" in *--port*) while ! [ -e {gate} ]; do sleep 0.02; done;; esac'
    script.write_text(f'#!/bin/sh\n{wait}\nexec {llama_server} "$@"\n')
    script.chmod(0o755)
    return Archive(script, digest(script)), gate


async def test_unloaded_pool_lists_its_model_and_needs(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    size = (await trio.Path(tiny_model).stat()).st_size
    async with machine(tmp_path, pool_entry(llama_server_tar, tiny_model, ON_DEMAND)) as running:
        pool = await running.until(PoolState.UNLOADED)
        assert pool["models_available"] == [f"file:{tiny_model}"]
        assert (pool["ready"], pool["live"], pool["slots_total"], pool["slots_free"]) == (False, False, 2, 0)
        assert (pool["ctx_max"], pool["device_mask"], pool["workloads"]) == (256, "cpu", ["completion"])
        assert pool["last_error"] is None
        residency = pool["residency"]
        assert residency["need_bytes"]["cpu"] > size
        assert (residency["keep_alive_s"], residency["pinned"], residency["load_s"]) == (300, False, None)
        _status, listed = running.manager.ask("GET", "/v2/pools")
        cpu = next(budget for budget in listed["memory"] if budget["device"] == "cpu")
        assert 0 < cpu["free_bytes"] <= cpu["total_bytes"]
        assert await running.provisioner.ask("/ready") == (200, '{"ready":true,"reasons":[]}')
        assert running.engines() == []


async def test_pool_is_loaded_served_unloaded_and_loaded_again(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    async with machine(tmp_path, pool_entry(llama_server_tar, tiny_model, ON_DEMAND)) as running:
        await running.until(PoolState.UNLOADED)
        pid = await running.load()
        assert await running.generate() == 5
        await running.unload()
        assert is_gone(pid)
        assert running.provisioner.handoff("default") is None
        pool = running.manager.pool()
        assert pool["replicas"] == []
        assert pool["residency"]["load_s"] > 0
        assert await running.load() != pid
        assert await running.generate() == 5
        log = running.manager.log()
    assert "pool_unloaded" in log
    assert "pool_unready" not in log


async def test_load_is_interrupted_by_an_unload(tmp_path: Path, llama_server: Path, tiny_model: Path) -> None:
    engine, _gate = gated_engine(tmp_path, llama_server)
    async with machine(tmp_path, pool_entry(engine, tiny_model)) as running:
        await running.until(PoolState.STARTING)
        await running.provisioner.until(lambda: bool(running.engines()))
        await running.unload()
        assert running.engines() == []


async def test_engine_killed_while_it_loads_is_loaded_again(
    tmp_path: Path, llama_server: Path, tiny_model: Path
) -> None:
    engine, gate = gated_engine(tmp_path, llama_server)
    async with machine(tmp_path, pool_entry(engine, tiny_model, ON_DEMAND)) as running:
        await running.until(PoolState.UNLOADED)
        running.ask("preload")
        await running.provisioner.until(lambda: bool(running.engines()))
        os.kill(running.engines()[0], signal.SIGKILL)
        pool = await running.until(PoolState.FAILED)
        assert "killed by SIGKILL" in pool["last_error"]
        assert pool["models_available"] == [f"file:{tiny_model}"]
        await trio.Path(gate).touch()
        await running.until(PoolState.READY)
        assert await running.generate() == 5
    assert "killed by SIGKILL" in running.provisioner.log


async def test_failed_pool_is_tried_again_at_once_on_request(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    model = tmp_path / "model.gguf"
    async with machine(tmp_path, pool_entry(llama_server_tar, model, ON_DEMAND)) as running:
        await running.until(PoolState.FAILED)
        await trio.Path(model).symlink_to(tiny_model)
        running.ask("preload")
        await running.until(PoolState.READY)


async def test_restart_of_the_provisioner_decides_anew(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    """Engines that are children end with the daemon; units are kept, as tests/system shows."""
    both = [
        pool_entry(llama_server_tar, tiny_model, pool_id="kept"),
        pool_entry(llama_server_tar, tiny_model, ON_DEMAND),
    ]
    with pool_manager(tmp_path, POOL_MANAGERD_RUNTIME_DIR=".runtime/engines") as manager:
        async with provisioner(tmp_path, "\n".join(both)) as daemon:
            running = Machine(daemon, manager)
            await running.until(PoolState.UNLOADED)
            pid = await running.load()
            assert manager.ask("POST", "/v2/pools/kept/unload")[0] == 202
            await daemon.until(lambda: manager.pool("kept").get("state") == PoolState.UNLOADED)
        assert is_gone(pid)
        assert running.ask("preload")[0] == 503
        async with provisioner(tmp_path, "\n".join(both)) as daemon:
            await daemon.until(lambda: manager.pool("kept").get("state") == PoolState.READY)
            await Machine(daemon, manager).until(PoolState.UNLOADED)


async def test_cycles_leave_no_process_and_no_listener(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    port = free_port()
    async with machine(tmp_path, pool_entry(llama_server_tar, tiny_model, ON_DEMAND, f"ports = [{port}]")) as running:
        await running.until(PoolState.UNLOADED)
        for _cycle in range(CYCLES):
            pid = await running.load()
            await running.unload()
            assert is_gone(pid)
        assert running.engines() == []
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()
    assert running.provisioner.log.count("its engine was stopped, and its memory is free") == CYCLES
