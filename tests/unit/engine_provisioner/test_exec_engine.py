"""The unit's program executes exactly the launch file's command, or exits with 78 and a message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine_provisioner import exec_engine
from engine_provisioner.engine import EngineCommand

PROGRAM = [sys.executable, "-I", str(Path(exec_engine.__file__))]


def launch(directory: Path, content: object, mode: int = 0o640) -> Path:
    path = directory / "default.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)
    return path


def run(directory: Path, pool: str = "default", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, pool, str(directory)], capture_output=True, text=True, env=env, check=False)


def test_engine_gets_exactly_its_arguments_and_environment(tmp_path: Path) -> None:
    command = EngineCommand(("/usr/bin/env",), {"CUDA_VISIBLE_DEVICES": "0,1"})
    launch(tmp_path, command.document())
    done = run(tmp_path, PATH="/bin", HOME="/home/x", LANG="C", SECRET="x", NOTIFY_SOCKET="/x")
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == ["CUDA_VISIBLE_DEVICES=0,1", "HOME=/home/x", "LANG=C", "PATH=/bin"]


def test_engine_replaces_the_process(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/bin/sh", "-c", "echo $$"], "env": {}})
    with subprocess.Popen([*PROGRAM, "default", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate()[0].strip() == str(process.pid)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b" " * (2 << 20), "is larger than"),
        ([], "keys argv and env"),
        ({"argv": ["/bin/true"]}, "keys argv and env"),
        ({"argv": [], "env": {}}, "non-empty"),
        ({"argv": ["true"], "env": {}}, "absolute path"),
        ({"argv": ["/bin/true", 1], "env": {}}, "list of strings"),
        ({"argv": ["/bin/true"], "env": {"A": 1}}, "object of strings"),
        ({"argv": ["/bin/true\0"], "env": {}}, "has a NUL character"),
        ({"argv": ["/bin/true"], "env": {"A=B": "1"}}, "has a NUL character"),
    ],
)
def test_malformed_launch_file_is_rejected(tmp_path: Path, content: object, words: str) -> None:
    path = launch(tmp_path, content)
    done = run(tmp_path)
    assert done.returncode == 78
    assert str(path) in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_launch_file_writable_by_others_is_rejected(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/bin/true"], "env": {}}, mode=0o660)
    done = run(tmp_path)
    assert (done.returncode, "writable by users other than its owner" in done.stderr) == (78, True)


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/bin/true"], "env": {}}).rename(tmp_path / "elsewhere")
    (tmp_path / "default.json").symlink_to(tmp_path / "elsewhere")
    assert run(tmp_path).returncode == 78


def test_fifo_is_rejected_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "default.json")
    assert "regular file" in run(tmp_path).stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the owner")
def test_launch_file_of_another_user_is_rejected(tmp_path: Path) -> None:
    os.chown(launch(tmp_path, {"argv": ["/bin/true"], "env": {}}), 65534, -1)
    assert "owned by user 65534" in run(tmp_path).stderr


@pytest.mark.parametrize("pool", ["../x", "", "A", "x.json"])
def test_invalid_pool_id_is_rejected(tmp_path: Path, pool: str) -> None:
    assert run(tmp_path, pool).returncode == 78


def test_missing_program_is_reported(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/nonexistent/llama-server"], "env": {}})
    done = run(tmp_path)
    assert (done.returncode, "cannot execute /nonexistent/llama-server" in done.stderr) == (71, True)
