"""`engine-provisioner plan`: what it prints, its exit status, and that it changes nothing."""

import json
import os
import socket
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from engine_provisioner.__main__ import main
from tests.engines import toy_engine


@dataclass(frozen=True)
class Ended:
    """Exit status and output of the command."""

    returncode: int
    stdout: str
    stderr: str


class Site:
    """A directory with a model, in which the command runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = directory / "model.gguf"
        self.model.write_bytes(b"GGUF" + bytes(2 << 20))

    def pool(self, mode: str, *keys: str, pool_id: str = "default", model: str | None = None) -> str:
        """Return the entry of a pool; `mode` is the content of its table provisioning."""
        head = ["[[pools]]", f'id = "{pool_id}"', f'model = "{model or f"file:{self.model}"}"', *keys]
        return "\n".join([*head, f"provisioning = {{ {mode} }}", ""])

    def run(self, pools: str, *arguments: str, **env: str) -> Ended:
        """Run the command in this process, with a minimal environment."""
        (self.directory / "pools.toml").write_text(pools)
        base = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        base |= {"ENGINE_PROVISIONER_GPU_MASK": "cpu", "ENGINE_PROVISIONER_CACHE_DIR": str(self.directory / "cache")}
        with (
            patch.dict(os.environ, {**base, **env}, clear=True),
            patch.object(sys, "argv", ["engine-provisioner", "plan", *arguments]),
            chdir(self.directory),
            redirect_stdout(StringIO()) as stdout,
            redirect_stderr(StringIO()) as stderr,
        ):
            status = int(main())
        return Ended(status, stdout.getvalue(), stderr.getvalue())

    def plan(self, pools: str, status: int = 0, **env: str) -> dict[str, Any]:
        """Return the plan of the only pool. The command must end with `status`."""
        done = self.run(pools, "--json", **env)
        assert (done.returncode, done.stderr) == (status, "")
        [found] = json.loads(done.stdout)["pools"]
        assert found["can_start"] is (status == 0)
        return dict(found)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def binary(path: Path | str) -> str:
    return f'mode = "binary", url = "{path}", checksum = "sha256:{"0" * 64}", allow_binary_downloads = true'


def external() -> str:
    return 'mode = "external", url = "http://127.0.0.1:8081"'


def steps(plan: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in plan["steps"]}


def test_startable_pool_has_steps_port_and_expected_command(site: Site) -> None:
    (site.directory / "engine.tar.gz").touch()
    plan = site.plan(site.pool(binary(f"file:{site.directory}/engine.tar.gz"), "ports = [18555]"))
    assert steps(plan) == {"engine": "install", "model": "present"}
    assert plan["gates"] == ["allow_binary_downloads"]
    assert plan["command"][1:7] == ["-m", str(site.model), "--host", "127.0.0.1", "--port", "18555"]
    assert plan["command_is_expected"] is True
    assert not (site.directory / "cache").exists()


def test_pools_get_different_free_ports(site: Site) -> None:
    (site.directory / "e.tar").touch()
    entry = [site.pool(binary(f"file:{site.directory}/e.tar"), pool_id=name) for name in ("a", "b")]
    done = site.run("\n".join(entry), "--json")
    ports = [plan["port"] for plan in json.loads(done.stdout)["pools"]]
    assert (done.returncode, len(set(ports))) == (0, 2)


def test_missing_engine_model_and_port_are_all_reported(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pools = site.pool(binary("file:/absent.tar"), f"ports = [{port}]", model="file:/absent.gguf")
        plan = site.plan(pools, status=69)
    messages = "\n".join(problem["message"] for problem in plan["problems"])
    assert "cannot read the engine /absent.tar" in messages
    assert "the model /absent.gguf cannot be read" in messages
    assert f"port {port} on 127.0.0.1 is already in use" in messages


def test_contradiction_to_the_gpu_mask_needs_configuration(site: Site) -> None:
    (site.directory / "e.tar").touch()
    plan = site.plan(site.pool(binary(f"file:{site.directory}/e.tar"), "devices = [0]"), status=78)
    assert [problem["configured"] for problem in plan["problems"]] == [True]


def test_absent_gpu_needs_the_machine_to_change(site: Site) -> None:
    (site.directory / "e.tar").touch()
    pools = site.pool(binary(f"file:{site.directory}/e.tar"))
    plan = site.plan(pools, status=69, ENGINE_PROVISIONER_GPU_MASK="63")
    assert "GPU" in plan["problems"][0]["message"]


def test_source_lists_missing_tools_with_command(site: Site) -> None:
    done = site.run(site.pool('mode = "source", repo = "https://host.invalid/x"'), PATH="/nonexistent")
    assert done.returncode == 69
    assert "building the engine needs git, cmake, ninja, cc, c++, which are not installed" in done.stdout
    assert "Install them: " in done.stdout


def test_source_says_whether_it_is_for_cuda(site: Site) -> None:
    flags = 'build = { cmake_flags = ["-DGGML_CUDA=OFF"] }'
    plan = site.plan(site.pool(f'mode = "source", repo = "file:{site.directory}/x", {flags}'))
    assert steps(plan)["engine"] == "build"
    assert "without CUDA" in plan["steps"][0]["detail"]


def test_size_of_download_is_asked_for(site: Site) -> None:
    script = (
        "import http.server\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_HEAD(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', str(41 << 27)); self.end_headers()\n"
        "    def log_message(self, *a): pass\n"
        "s = http.server.HTTPServer(('127.0.0.1', 0), H)\n"
        "print(s.server_port, flush=True)\n"
        "s.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/m.gguf"
            (site.directory / "e.tar").touch()
            done = site.run(site.pool(binary(f"file:{site.directory}/e.tar"), model=url))
        finally:
            server.kill()
    assert done.returncode == 0
    assert f"{url}: would download 5.1 GiB" in done.stdout


def test_secrets_of_the_pool_are_not_printed(site: Site) -> None:
    (site.directory / "e.tar").touch()
    keys = ('env = { HF_TOKEN = "geheim" }', 'flags = ["--hf-token", "geheim"]')
    pools = site.pool(binary(f"file:{site.directory}/e.tar"), *keys, model="https://me:geheim@127.0.0.1:9/m?t=geheim")
    for arguments in ((), ("--json",)):
        done = site.run(pools, *arguments)
        assert "HF_TOKEN" in done.stdout
        assert "geheim" not in done.stdout + done.stderr


def test_gate_in_the_pools_file_forbids_the_plan(site: Site) -> None:
    done = site.run(site.pool('mode = "package", name = "llama.cpp"'))
    assert done.returncode == 78
    assert "allow it by allow_package_installs = true" in done.stderr


def test_only_named_pools_are_planned(site: Site) -> None:
    pools = site.pool(external(), pool_id="a") + site.pool(binary("file:/absent.tar"), pool_id="b")
    assert site.run(pools, "a").returncode == 0
    assert site.run(pools).returncode == 69
    done = site.run(pools, "c")
    assert done.returncode == 64
    assert "no pool c in pools.toml (there: a, b)" in done.stderr


def test_name_of_git_repository_has_no_credentials(site: Site) -> None:
    toy_engine.write_project(site.directory / "toy")
    done = site.run(site.pool('mode = "source", repo = "https://me:geheim@host.invalid/x", ref = "b1"'))
    assert "https://host.invalid/x at b1: would build" in done.stdout
    assert "geheim" not in done.stdout
