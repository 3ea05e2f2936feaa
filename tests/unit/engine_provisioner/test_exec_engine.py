"""The unit's program: becomes exactly what the launch file says, or says why not and exits with 78."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine_provisioner import exec_engine
from engine_provisioner.engine import Command

PROGRAM = [sys.executable, "-I", str(Path(exec_engine.__file__))]


def launch(directory: Path, content: object, mode: int = 0o640) -> Path:
    path = directory / "default.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)
    return path


def run(directory: Path, pool: str = "default", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, pool, str(directory)], capture_output=True, text=True, env=env, check=False)


def test_the_engine_gets_its_arguments_and_exactly_its_environment(tmp_path: Path) -> None:
    command = Command(("/usr/bin/env",), {"CUDA_VISIBLE_DEVICES": "0,1"})
    launch(tmp_path, command.document())
    done = run(tmp_path, PATH="/bin", HOME="/home/x", LANG="C", SECRET="x", NOTIFY_SOCKET="/x")
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == ["CUDA_VISIBLE_DEVICES=0,1", "HOME=/home/x", "LANG=C", "PATH=/bin"]


def test_it_becomes_the_engine_rather_than_its_parent(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/bin/sh", "-c", "echo $$"], "env": {}})
    with subprocess.Popen([*PROGRAM, "default", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate()[0].strip() == str(process.pid)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b" " * (2 << 20), "is longer than"),
        ([], "argv and env"),
        ({"argv": ["/bin/true"]}, "argv and env"),
        ({"argv": [], "env": {}}, "not empty"),
        ({"argv": ["true"], "env": {}}, "absolute path"),
        ({"argv": ["/bin/true", 1], "env": {}}, "list of texts"),
        ({"argv": ["/bin/true"], "env": {"A": 1}}, "object of texts"),
        ({"argv": ["/bin/true\0"], "env": {}}, "no program can be given"),
        ({"argv": ["/bin/true"], "env": {"A=B": "1"}}, "no program can be given"),
    ],
)
def test_a_malformed_launch_file_is_refused_in_words(tmp_path: Path, content: object, words: str) -> None:
    path = launch(tmp_path, content)
    done = run(tmp_path)
    assert done.returncode == 78
    assert str(path) in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_launch_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/bin/true"], "env": {}}, mode=0o660)
    done = run(tmp_path)
    assert (done.returncode, "written by others" in done.stderr) == (78, True)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/bin/true"], "env": {}}).rename(tmp_path / "elsewhere")
    (tmp_path / "default.json").symlink_to(tmp_path / "elsewhere")
    assert run(tmp_path).returncode == 78


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "default.json")
    assert "regular file" in run(tmp_path).stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_strangers_launch_file_is_refused(tmp_path: Path) -> None:
    os.chown(launch(tmp_path, {"argv": ["/bin/true"], "env": {}}), 65534, -1)
    assert "belongs to user 65534" in run(tmp_path).stderr


@pytest.mark.parametrize("pool", ["../x", "", "A", "x.json"])
def test_what_is_no_pool_id_opens_no_file(tmp_path: Path, pool: str) -> None:
    assert run(tmp_path, pool).returncode == 78


def test_a_program_that_is_gone_is_named(tmp_path: Path) -> None:
    launch(tmp_path, {"argv": ["/nonexistent/llama-server"], "env": {}})
    done = run(tmp_path)
    assert (done.returncode, "/nonexistent/llama-server cannot be executed" in done.stderr) == (71, True)
