"""The real engine that other tests use: it runs from any directory, serves, and ends with its context manager."""

import hashlib
import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
import trio

from tests.engines.debian_packages import MIRROR
from tests.engines.llama_server import Archive, pack
from tests.engines.running import EngineDied, running_engine, serving_engine
from tests.engines.tiny_model import Shape, write_model


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_engine_serves_and_ends_with_block(llama_server: Path, tiny_model: Path) -> None:
    with running_engine(llama_server, tiny_model, slots=3, ctx=256) as engine:
        body = json.dumps({"prompt": "the river", "n_predict": 5}).encode()
        with urllib.request.urlopen(f"{engine.url}/completion", data=body, timeout=20) as answer:
            assert json.load(answer)["tokens_predicted"] == 5
        with urllib.request.urlopen(f"{engine.url}/slots", timeout=20) as answer:
            assert [slot["n_ctx"] for slot in json.load(answer)] == [256] * 3
    assert is_gone(engine.pid)


async def test_generating_engine_ends_with_block(llama_server: Path, slow_model: Path) -> None:
    async with serving_engine(llama_server, slow_model) as engine:
        body = json.dumps({"prompt": "the river", "n_predict": 100_000, "stream": True}).encode()
        client = await trio.open_tcp_stream("127.0.0.1", engine.port)
        head = f"POST /completion HTTP/1.1\r\nHost: engine\r\nContent-Length: {len(body)}\r\n\r\n"
        await client.send_all(head.encode() + body)
        assert b"200 OK" in bytes(await client.receive_some())
    await client.aclose()
    assert is_gone(engine.pid)


def test_failed_engine_start_reports_reason(llama_server: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.gguf"
    with (
        pytest.raises(EngineDied, match=r"exited with status 1(.|\n)*failed to load model"),
        running_engine(llama_server, absent),
    ):
        pass


def test_archive_runs_from_any_directory(llama_server_tar: Archive, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    assert llama_server_tar.checksum == f"sha256:{hashlib.sha256(llama_server_tar.path.read_bytes()).hexdigest()}"
    subprocess.run(["tar", "-xf", llama_server_tar.path, "-C", place], check=True)
    command = [str(place / "llama-server/bin/llama-server"), "--version"]
    answer = subprocess.run(command, cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert "version" in answer.stdout + answer.stderr


def test_packing_twice_gives_same_bytes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/server").write_text("#!/bin/sh\n")
    (tree / "bin/server").chmod(0o755)
    pack(tree, "top", tmp_path / "first")
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    os.utime(copy / "bin/server", (0, 0))
    pack(copy, "top", tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_model_depends_only_on_shape_and_seed(tmp_path: Path) -> None:
    shape = Shape(layers=1, embd=32, ctx=128)
    for name, model_shape in {"one": shape, "same": shape, "other": Shape(layers=1, embd=32, ctx=128, seed=2)}.items():
        write_model(model_shape, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "same").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        ("deb http://mirror.example/debian bookworm main\n", "http://mirror.example/debian"),
        ("deb [arch=amd64 signed-by=/k] https://m.example/pub/debian/ sid main\n", "https://m.example/pub/debian"),
        ("Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n", "http://mirror.example/debian"),
        ("deb http://mirror.example/debian-security bookworm-security main\n", None),
        ("# deb http://mirror.example/debian bookworm main\n", None),
    ],
)
def test_mirror_is_read_from_both_apt_source_formats(sources: str, mirror: str | None) -> None:
    found = MIRROR.search(sources)
    assert (found.group(1) if found else None) == mirror
