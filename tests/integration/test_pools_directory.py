"""Files in pools.d add, change and remove pools while engine-provisioner runs; other pools are not touched."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import ReloadState
from llama_orch.http.client.client import request
from tests.engines.llama_server import Archive
from tests.integration.home import Home, environment, stop_if_running
from tests.integration.pool_manager import UnixConnection
from tests.integration.provisioner import Provisioner
from tests.integration.test_engine_provisioner import complete, is_gone, pool_entry
from tests.integration.test_loading import Machine, machine


@asynccontextmanager
async def two_pools(directory: Path, engine: Archive, model: Path) -> AsyncIterator[Machine]:
    """Run both daemons with the pool `default` in pools.toml and `other` in pools.d."""
    (directory / "pools.d").mkdir()
    drop_in(directory, "other", pool_entry(engine, model, pool_id="other"))
    async with machine(directory, pool_entry(engine, model)) as running:
        await ready(running.provisioner, "default")
        await ready(running.provisioner, "other")
        yield running


def drop_in(directory: Path, name: str, text: str) -> None:
    (directory / f"pools.d/{name}.toml").write_text(text)


async def reload(daemon: Provisioner) -> tuple[int, Any]:
    def post() -> tuple[int, Any]:
        socket = daemon.directory / ".runtime/engine-provisioner.sock"
        with closing(UnixConnection(socket)) as connection:
            connection.request("POST", "/v2/pools/reload")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    return await trio.to_thread.run_sync(post)


async def ready(daemon: Provisioner, pool_id: str) -> Handoff:
    """Wait until the pool is ready; return its handoff, whose file pool-managerd takes away."""

    def found() -> Handoff | None:
        report = daemon.report(pool_id)
        return report.handoff if report and report.state is PoolState.READY else None

    await daemon.until(lambda: found() is not None)
    handoff = found()
    assert handoff is not None
    return handoff


def pid(daemon: Provisioner, pool_id: str) -> int | None:
    report = daemon.report(pool_id)
    return report.handoff.pid if report and report.handoff else None


async def drained(running: Machine, pool_id: str) -> None:
    """Say that the staged reload of a pool may go on, as the queen does."""

    def staged() -> str | None:
        report = running.provisioner.report(pool_id)
        reload = report.reload if report else None
        return reload.reload_id if reload and reload.state is ReloadState.STAGED else None

    await running.provisioner.until(lambda: staged() is not None)
    body = json.dumps({"reload_id": staged(), "drained": True}).encode()
    url = f"http://127.0.0.1:{running.manager.port}/v2/pools/{pool_id}/reload/switch"
    async with request("POST", url, headers={"content-type": "application/json"}, body=body) as answer:
        assert answer.status == 202


def listed(running: Machine) -> list[str]:
    """Return the pools that pool-managerd knows."""
    _status, body = running.manager.ask("GET", "/v2/pools")
    return sorted(pool["pool_id"] for pool in body["pools"])


async def test_pools_come_change_and_go(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> None:
    async with two_pools(tmp_path, llama_server_tar, tiny_model) as running:
        daemon = running.provisioner
        untouched, first = pid(daemon, "default"), pid(daemon, "other")

        drop_in(tmp_path, "added", pool_entry(llama_server_tar, tiny_model, pool_id="added"))
        changes = {"kept": ["default", "other"], "changed": [], "added": ["added"], "removed": []}
        assert await reload(daemon) == (200, changes)
        assert await complete(await ready(daemon, "added")) == 5

        other = pool_entry(llama_server_tar, tiny_model, pool_id="other").replace("slots = 2", "slots = 3")
        drop_in(tmp_path, "other", other)
        assert (await reload(daemon))[1]["changed"] == ["other"]
        await drained(running, "other")
        await daemon.until(lambda: is_gone(first))
        assert (await ready(daemon, "other")).slots_total == 3

        last = pid(daemon, "other")
        (tmp_path / "pools.d/other.toml").unlink()
        assert (await reload(daemon))[1]["removed"] == ["other"]
        await daemon.until(lambda: is_gone(last) and listed(running) == ["added", "default"])
        assert daemon.handoff("other") is None
        await daemon.until(lambda: daemon.report("other") is None)
        assert (await daemon.ask("/v2/pools/other"))[0] == 404
        assert 'pool_id="other"' not in (await daemon.ask("/metrics"))[1]

        drop_in(tmp_path, "other", other)
        assert (await reload(daemon))[1]["added"] == ["other"]
        await ready(daemon, "other")
        assert pid(daemon, "default") == untouched
        assert not is_gone(untouched)


async def test_invalid_drop_in_changes_nothing(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> None:
    async with two_pools(tmp_path, llama_server_tar, tiny_model) as running:
        daemon = running.provisioner
        before = pid(daemon, "default"), pid(daemon, "other")
        (tmp_path / "pools.d/other.toml").unlink()
        drop_in(tmp_path, "wrong", '[[pools]]\nid = "wrong"\ncolour = "blue"\n')
        status, error = await reload(daemon)
        assert status == 409
        assert "pools.d/wrong.toml:3: pools[0].colour" in " ".join(each["problem"] for each in error["fields"])
        logged = daemon.log.count("pools files refused, the former pools stay")
        assert logged >= 1
        assert (await reload(daemon))[0] == 409
        assert daemon.log.count("pools files refused, the former pools stay") == logged, "as by path unit and reload"
        assert (pid(daemon, "default"), pid(daemon, "other")) == before
        assert daemon.state("other") is PoolState.READY

        (tmp_path / "pools.d/wrong.toml").unlink()
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.until(lambda: "removed other" in daemon.log)
        await daemon.until(lambda: is_gone(before[1]))
        assert pid(daemon, "default") == before[0]


@pytest.fixture
def empty_home(tmp_path: Path, llama_server: Path) -> Iterator[Home]:
    """The three daemons without any pool, and llama-server on their PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "llama-server").symlink_to(llama_server)
    environ = environment(tmp_path, ENGINE_PROVISIONER_POOLS_CONFIG=str(tmp_path / "pools.toml"))
    environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    running = Home(tmp_path, environ, queen, manager)
    with ExitStack() as cleanup:
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            running.start(name)
            cleanup.callback(stop_if_running, running, name)
        running.until(lambda: running.ask("GET", "/v2/pools")[0] == 200)
        running.until((tmp_path / ".runtime/engine-provisioner.sock").exists)
        yield running


def orchctl(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchctl", "--url", home.url, *arguments]
    environ = {**home.environ, "ENGINE_PROVISIONER_HANDOFF_DIR": str(home.directory / ".runtime/engines")}
    return subprocess.run(
        command,
        cwd=home.directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_model_file_is_run_by_one_command(empty_home: Home, tiny_model: Path) -> None:
    words = ("run", f"file:{tiny_model}", "the river", "--max-tokens", "5", "--ctx", "256")
    first = orchctl(empty_home, *words)
    assert (first.returncode, first.stdout.strip() != "") == (0, True), first.stderr + str(empty_home.logs())
    [drop_in] = (empty_home.directory / "pools.d").iterdir()
    again = orchctl(empty_home, *words)
    assert (again.returncode, [*(empty_home.directory / "pools.d").iterdir()]) == (0, [drop_in]), again.stderr

    loaded = orchctl(empty_home, "ps")
    assert loaded.stdout.splitlines()[1].split()[0] == drop_in.stem, loaded.stdout
    served = orchctl(empty_home, "serve", str(tiny_model))
    assert f"is served at {empty_home.url}/v1 by pool {drop_in.stem}" in served.stdout, served.stderr

    assert orchctl(empty_home, "unload", drop_in.stem, "--wait").returncode == 0
    assert "no model is loaded" in orchctl(empty_home, "ps").stdout
    assert orchctl(empty_home, "load", drop_in.stem).returncode == 0
    assert orchctl(empty_home, "run", drop_in.stem, "the river", "--max-tokens", "3").returncode == 0

    refused = orchctl(empty_home, "pool", "add", "two", "--model", str(tiny_model), "--slots", "0")
    assert refused.returncode == 65
    assert "pools.d/two.toml:5: pools[0].slots: 0 is out of range" in refused.stderr
    removed = orchctl(empty_home, "pool", "rm", drop_in.stem)
    assert removed.returncode == 0, removed.stderr
    empty_home.until(lambda: empty_home.ask("GET", "/v2/pools")[1]["pools"] == [])
    assert orchctl(empty_home, "run", "unknown").returncode == 66
