"""Models pulled, listed and removed by orchctl, with a real engine-provisioner and a real model."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine_provisioner.gguf.reader import read_header
from orchctl.tables import size
from tests.engines.llama_server import Archive
from tests.integration.provisioner import Provisioner, environment, provisioner
from tests.integration.test_engine_provisioner import pool_entry
from tests.unit.engine_provisioner.file_server import FileServer, serving

LIMIT_S = 60.0


def socket_of(daemon: Provisioner) -> Path:
    return daemon.directory / ".runtime/engine-provisioner.sock"


def command(daemon: Provisioner, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchctl", *arguments, "--url", f"unix:{socket_of(daemon)}"]


@asynccontextmanager
async def listening(directory: Path, **env: str) -> AsyncIterator[Provisioner]:
    """Run the daemon without pools, until its socket accepts requests."""
    async with provisioner(directory, "", **env) as daemon:
        await daemon.until(socket_of(daemon).exists)
        yield daemon


async def orchctl(daemon: Provisioner, *arguments: str, status: int = 0) -> tuple[str, str]:
    """Run orchctl against the daemon; return what it printed on standard output and error."""
    with trio.fail_after(LIMIT_S):
        done = await trio.run_process(
            command(daemon, *arguments),
            env=environment(daemon.directory),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, out + err + daemon.log
    return out, err


async def on_disk(daemon: Provisioner) -> list[dict[str, Any]]:
    out, _err = await orchctl(daemon, "models", "--disk", "--json")
    found: list[dict[str, Any]] = json.loads(out)["models"]
    return found


async def test_model_is_pulled_listed_pinned_and_removed(tmp_path: Path, tiny_model: Path) -> None:
    content = await trio.Path(tiny_model).read_bytes()
    async with serving(FileServer(content)) as server, listening(tmp_path) as daemon:
        out, err = await orchctl(daemon, "pull", server.url)
        assert out.startswith(f"{server.url}: ")
        assert f"{tmp_path}/cache/models/" in out
        (model,) = await on_disk(daemon)
        header = read_header(tiny_model)
        assert (model["ref"], model["size_bytes"], model["pools"]) == (server.url, len(content), [])
        assert (model["quantization"], model["architecture"]) == (header.quantization, header.architecture)
        table, _err = await orchctl(daemon, "models", "--disk")
        assert "MODEL" in table
        assert f"{size(len(content))} downloaded" in table
        await orchctl(daemon, "pin", server.url)
        assert (await on_disk(daemon))[0]["pinned"] is True
        out, _err = await orchctl(daemon, "rm", server.url)
        assert out == f"{size(len(content))} freed\n"
        assert await on_disk(daemon) == []
        _out, err = await orchctl(daemon, "rm", server.url, status=66)
        assert "orchctl models --disk" in err
        assert not list((tmp_path / "cache").rglob("*.gguf"))


async def test_interrupted_pull_is_cancelled_and_resumed(tmp_path: Path, tiny_model: Path) -> None:
    content = await trio.Path(tiny_model).read_bytes()
    half = len(content) // 2
    async with serving(FileServer(content, silent_after=half)) as server, listening(tmp_path) as daemon:
        process = await trio.lowlevel.open_process(
            command(daemon, "pull", server.url),
            env=environment(tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await daemon.until(lambda: bool(server.requests))
            process.send_signal(signal.SIGINT)
            with trio.fail_after(LIMIT_S):
                assert await process.wait() == 130
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        await daemon.until(lambda: "cancelled" in daemon.log)
        server.silent_after = None
        await orchctl(daemon, "pull", server.url)
        assert (await on_disk(daemon))[0]["size_bytes"] == len(content)


async def test_failed_pull_says_what_to_do(tmp_path: Path) -> None:
    async with serving(FileServer(b"<html>not a model</html>")) as server, listening(tmp_path) as daemon:
        _out, err = await orchctl(daemon, "pull", server.url, status=70)
        assert "is a web page, not a GGUF file" in err
        assert await on_disk(daemon) == []


async def test_limit_evicts_least_recently_used(tmp_path: Path, tiny_model: Path) -> None:
    content = await trio.Path(tiny_model).read_bytes()
    limit = str(2 * len(content) + 1000)
    async with (
        serving(FileServer(content)) as server,
        listening(tmp_path, ENGINE_PROVISIONER_CACHE_LIMIT=limit) as daemon,
    ):
        urls = [server.url.replace("model.gguf", f"{name}.gguf") for name in "abc"]
        for url in urls:
            await orchctl(daemon, "pull", url)
        assert [model["ref"] for model in await on_disk(daemon)] == [urls[2], urls[1]]


async def test_model_of_running_pool_is_recorded_and_kept(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    content = await trio.Path(tiny_model).read_bytes()
    async with serving(FileServer(content)) as server:
        pools = pool_entry(llama_server_tar, tiny_model).replace(f"file:{tiny_model}", server.url)
        async with provisioner(tmp_path, pools) as daemon:
            await daemon.ready("default")
            (model,) = await on_disk(daemon)
            assert (model["ref"], model["pools"], model["recorded"]) == (server.url, ["default"], True)
            _out, err = await orchctl(daemon, "rm", server.url, status=65)
            assert "used by pool default" in err
