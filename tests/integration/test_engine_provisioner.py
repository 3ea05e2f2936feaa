"""engine-provisioner with a real llama-server as its child process: normal operation and failures."""

import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.http.client.client import fetch_json, request
from tests.engines.fixtures import skip_or_fail
from tests.engines.llama_server import Archive
from tests.engines.running import serving_engine
from tests.integration.home import free_port
from tests.integration.provisioner import Provisioner, environment, provisioner, start


def pool_entry(archive: Archive, model: Path | str, *keys: str, pool_id: str = "default") -> str:
    """Return the pools.toml entry of a pool whose engine is `archive`, with `keys` as additional lines."""
    head = ["[[pools]]", f'id = "{pool_id}"', f'model = "file:{model}"', "ctx = 256", "slots = 2", *keys]
    mode = ['mode = "binary"', f'url = "file://{archive.path}"', f'checksum = "{archive.checksum}"']
    return "\n".join([*head, "[pools.provisioning]", *mode, "allow_binary_downloads = true", ""])


def truncated_copy(model: Path, copy: Path) -> Path:
    """Copy the first half of `model` to `copy`."""
    copy.write_bytes(model.read_bytes()[:400_000])
    return copy


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_gone(pid: int | None) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def complete(handoff: Handoff) -> int:
    """Ask the engine for five tokens and return how many it generated."""
    body = json.dumps({"prompt": "the river", "n_predict": 5, "stream": False}).encode()
    async with request("POST", f"{handoff.url}/completion", body=body) as response:
        return int(json.loads(await response.read())["tokens_predicted"])


async def test_engine_of_pool_is_announced_and_serves(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model)) as daemon:
        handoff = await daemon.ready("default")
        assert (handoff.provisioning_mode, handoff.slots_total, handoff.device_mask) == ("binary", 2, "cpu")
        assert handoff.model is not None
        assert (handoff.model.ctx_max, handoff.model.size_bytes) == (256, (await trio.Path(tiny_model).stat()).st_size)
        assert handoff.engine_version != "unknown"
        _status, slots = await fetch_json(f"{handoff.url}/slots", limit_s=10)
        assert [slot["n_ctx"] for slot in slots] == [256, 256]
        assert await complete(handoff) == 5
        assert await daemon.ask("/ready") == (200, '{"ready":true,"reasons":[]}')
        status, metrics = await daemon.ask("/metrics")
        assert status == 200
        assert 'provisioner_pool_state{pool_id="default",state="ready"} 1.0' in metrics
    assert is_gone(handoff.pid)
    assert daemon.handoff("default") is None
    assert daemon.state("default") is PoolState.OFFLINE


async def test_pools_share_fetched_engine_but_not_port(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    pools = [pool_entry(llama_server_tar, tiny_model, pool_id=name) for name in ("a", "b")]
    async with provisioner(tmp_path, "\n".join(pools)) as daemon:
        urls = {(await daemon.ready(name)).url for name in ("a", "b")}
        assert len(urls) == 2
        assert len(list((tmp_path / "cache/engines").iterdir())) == 1


async def test_truncated_model_is_retried_with_back_off_until_replaced(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    model = truncated_copy(tiny_model, tmp_path / "model.gguf")
    async with provisioner(tmp_path, pool_entry(llama_server_tar, model)) as daemon:
        error = await daemon.failed("default")
        assert "not within the file bounds, model is corrupted or incomplete" in error
        assert "its last line: srv  llama_server: exiting due to model loading error" in error
        assert (await daemon.ask("/ready"))[0] == 503
        await daemon.until(lambda: daemon.log.count("exiting due to") >= 3)
        await daemon.until(lambda: re.search("tried again in [45] s", str(daemon.report("default"))) is not None)
        shutil.copy(tiny_model, model)
        await daemon.ready("default")


async def test_missing_model_is_named_and_served_once_present(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    model = tmp_path / "model.gguf"
    async with provisioner(tmp_path, pool_entry(llama_server_tar, model)) as daemon:
        assert f"the model {model} cannot be read (No such file or directory)" in await daemon.failed("default")
        shutil.copy(tiny_model, tmp_path / "draft")
        (tmp_path / "draft").rename(model)
        await daemon.ready("default")


async def test_model_with_wrong_checksum_is_not_loaded(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    pools = pool_entry(llama_server_tar, tiny_model).replace(
        f'model = "file:{tiny_model}"', f'model = {{ ref = "file:{tiny_model}", checksum = "sha256:{"0" * 64}" }}'
    )
    async with provisioner(tmp_path, pools) as daemon:
        error = await daemon.failed("default")
        assert digest(tiny_model) in error
    assert "load_model" not in daemon.log


async def test_engine_with_wrong_checksum_or_no_model_is_not_unpacked(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    wrong, nowhere = Archive(llama_server_tar.path, "0" * 64), Archive(tmp_path / "no-such-engine.tar.gz", "1" * 64)
    pools = [
        pool_entry(wrong, tiny_model, pool_id="wrong"),
        pool_entry(nowhere, tmp_path / "absent.gguf", pool_id="absent"),
    ]
    async with provisioner(tmp_path, "\n".join(pools)) as daemon:
        assert f"has the checksum {llama_server_tar.checksum}" in await daemon.failed("wrong")
        assert "absent.gguf" in await daemon.failed("absent"), "the model is looked for before the engine"
    assert not (tmp_path / "cache/engines").exists()


async def test_busy_port_is_reported_with_holder_and_used_once_free(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model, f"ports = [{port}]")) as daemon:
            error = await daemon.failed("default")
            assert f"port {port} on 127.0.0.1 is already in use" in error
            assert f"pid {os.getpid()}" in error
            server.close()
            assert (await daemon.ready("default")).url == f"http://127.0.0.1:{port}"


async def test_invalid_flag_fails_with_engine_error(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model, 'flags = ["--frob"]')) as daemon:
        assert "error: invalid argument: --frob" in await daemon.failed("default")


async def test_external_engine_is_announced_whenever_it_answers(
    tmp_path: Path, llama_server: Path, tiny_model: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pools = f'[[pools]]\nid = "theirs"\nprovisioning = {{ mode = "external", url = "http://127.0.0.1:{port}" }}\n'
    async with provisioner(tmp_path, pools) as daemon:
        assert "does not answer" in await daemon.failed("theirs")
        async with serving_engine(llama_server, tiny_model, slots=3, ctx=256, port=port):
            handoff = await daemon.ready("theirs")
            assert (handoff.provisioning_mode, handoff.slots_total, handoff.pid) == ("external", 3, None)
        await daemon.failed("theirs")
        assert daemon.handoff("theirs") is None
        async with serving_engine(llama_server, tiny_model, port=port):
            await daemon.ready("theirs")
            await stop_quietly(daemon)


async def stop_quietly(daemon: Provisioner) -> None:
    """Stop the daemon while an engine that it does not own is still running."""
    daemon.process.send_signal(signal.SIGTERM)
    with trio.fail_after(20):
        await daemon.process.wait()


async def test_generating_engine_ends_with_daemon(tmp_path: Path, llama_server_tar: Archive, slow_model: Path) -> None:
    async with provisioner(tmp_path, pool_entry(llama_server_tar, slow_model)) as daemon:
        handoff = await daemon.ready("default")
        body = json.dumps({"prompt": "the river", "n_predict": 100_000, "stream": True}).encode()
        async with request("POST", f"{handoff.url}/completion", body=body) as response:
            assert await anext(response.chunks())
            await stop_quietly(daemon)
    assert is_gone(handoff.pid)


async def test_killed_daemon_ends_its_engines_and_can_restart(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    (tmp_path / "pools.toml").write_text(pool_entry(llama_server_tar, tiny_model))
    first = Provisioner(tmp_path, await start(tmp_path))
    handoff = await first.ready("default")
    first.process.kill()
    await first.process.wait()
    await first.until(lambda: is_gone(handoff.pid))
    async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model)) as second:
        await second.until(lambda: (now := second.handoff("default")) is not None and now.pid != handoff.pid)


async def test_pool_removed_from_file_is_withdrawn_at_next_start(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model, pool_id="old")) as daemon:
        await daemon.ready("old")
    async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model, pool_id="new")) as daemon:
        await daemon.ready("new")
        assert daemon.report("old") is None


async def test_pool_without_preload_is_fetched_but_not_loaded(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    async with provisioner(tmp_path, pool_entry(llama_server_tar, tiny_model, "preload = false")) as daemon:
        await daemon.until(lambda: daemon.state("default") is PoolState.UNLOADED)
        assert (await daemon.ask("/ready"))[0] == 200
    assert "load_model" not in daemon.log


async def test_absent_gpu_is_refused_without_cpu_fallback(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    pools = pool_entry(llama_server_tar, tiny_model, "devices = [31]")
    async with provisioner(tmp_path, pools, ENGINE_PROVISIONER_GPU_MASK="31") as daemon:
        error = await daemon.failed("default")
        assert "ENGINE_PROVISIONER_GPU_MASK=cpu" in error
    assert "load_model" not in daemon.log


async def test_daemon_runs_without_pools_file_and_logs_it(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.toml")
    async with provisioner(tmp_path, "", ENGINE_PROVISIONER_POOLS_CONFIG=absent) as daemon:
        await daemon.until(lambda: "engine-provisioner 0." in daemon.log)
        assert (await daemon.ask("/health"))[0] == 200
    assert daemon.log.count(f"no pools file at {absent}") == 1


@pytest.mark.parametrize("arguments", [[], ["--check-config"]])
def test_invalid_pools_file_prevents_start_and_lists_problems(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "pools.toml").write_text('[[pools]]\nid = "A"\nslots = 0\n')
    done = subprocess.run(
        [sys.executable, "-m", "engine_provisioner", *arguments],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert lines[0] == "engine-provisioner: 3 problems in the pools file:"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["pools.toml:1", "pools.toml:2", "pools.toml:3"]
    assert "Traceback" not in done.stderr


async def test_xllamacpp_is_installed_privately_and_serves(tmp_path: Path, tiny_model: Path) -> None:
    try:
        version = importlib.import_module("xllamacpp").__version__
    except ImportError as error:
        skip_or_fail(f"xllamacpp cannot be loaded ({error}); its library is in the package libgomp1")
    pools = "\n".join([
        "[[pools]]", 'id = "pip"', f'model = "file:{tiny_model}"', "ctx = 256", "slots = 2",
        "[pools.provisioning]", 'mode = "package"', 'name = "pip:xllamacpp"', f'version = "{version}"',
        "allow_package_installs = true",
    ])  # fmt: skip
    async with provisioner(tmp_path, pools) as daemon:
        await daemon.until(lambda: daemon.state("pip") in (PoolState.READY, PoolState.FAILED))
        if daemon.state("pip") is PoolState.FAILED and "pip cannot install" in await daemon.failed("pip"):
            skip_or_fail("the package index cannot be reached")
        handoff = await daemon.ready("pip")
        assert handoff.engine_version == f"xllamacpp {version}"
        assert await complete(handoff) == 5
    assert is_gone(handoff.pid)


async def test_killed_engine_is_announced_again_and_counted(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    pools = pool_entry(llama_server_tar, tiny_model)
    async with provisioner(tmp_path, pools, ENGINE_PROVISIONER_METRICS_ADDR=address) as daemon:
        handoff = await daemon.ready("default")
        assert handoff.pid is not None
        os.kill(handoff.pid, signal.SIGKILL)
        await daemon.until(lambda: (other := daemon.handoff("default")) is not None and other.pid != handoff.pid)
        assert await complete(await daemon.ready("default")) == 5
        async with request("GET", f"http://{address}/metrics") as response:
            text = (await response.read()).decode()
        async with request("GET", f"http://{address}/ready") as response:
            assert response.status == 404, "only metrics are served on the separate address"
    assert "killed by SIGKILL" in daemon.log
    expected = (
        'provisioner_pools{state="ready"} 1.0',
        'provisioner_engine_exits_total{cause="killed",pool_id="default"} 1.0',
        'provisioner_engine_starts_total{pool_id="default"} 2.0',
        'provisioner_provisioning_duration_seconds_count{pool_id="default"} 2.0',
        'provisioner_downloaded_bytes_total{pool_id="default"} 0.0',
    )
    assert [line for line in expected if line not in text] == [], text
