"""Whatever a daemon loses while engines run, the engines are known again within seconds, and stay so."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home

WITHIN_S = 20.0
SPOOL, STATE, STORE = ".runtime/engines", ".runtime/pool-managerd", ".runtime/queen-rbee"


LOSSES = (
    ((STATE,), ("pool-managerd",)),
    ((SPOOL,), ()),
    ((SPOOL,), ("pool-managerd",)),
    ((SPOOL, STATE), ()),
    ((SPOOL, STATE), ("pool-managerd",)),
    ((SPOOL, STATE), ("pool-managerd", "queen-rbee")),
    ((STATE, STORE), ("pool-managerd", "queen-rbee")),
    ((STORE,), ("queen-rbee",)),
)
"""What is removed, and which daemons are killed before and started afterwards."""


@pytest.fixture
def running(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    with home(tmp_path, llama_server_tar, tiny_model) as found:
        yield found


@pytest.fixture
def cluster(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    with home(tmp_path, llama_server_tar, tiny_model, node_id="gpu-1") as found:
        yield found


def kill(running: Home, name: str) -> None:
    process = running.processes.pop(name)
    process.kill()
    process.wait(60)


def clear(directory: Path) -> None:
    """Remove everything in `directory`, if it is there yet; its files may come back meanwhile."""
    for path in directory.iterdir() if directory.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def serves(running: Home) -> None:
    """The pool is ready, for pool-managerd and for the queen, and answers."""
    running.until(lambda: running.ask("GET", "/v2/pools/default/status", port=running.manager_port)[0] == 200)
    running.until(
        lambda: running.ask("GET", "/v2/pools/default/status", port=running.manager_port)[1].get("ready"), WITHIN_S
    )
    running.until(lambda: running.pool().get("ready"), WITHIN_S)
    chat = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    assert running.ask("POST", "/v1/chat/completions", chat)[0] == 200


def lose(running: Home, lost: tuple[str, ...], killed: tuple[str, ...]) -> None:
    for name in killed:
        kill(running, name)
    for name in lost:
        clear(running.directory / name)
    for name in killed:
        running.start(name)


def test_running_engine_is_rediscovered_after_any_loss(running: Home):
    for lost, killed in LOSSES:
        lose(running, lost, killed)
        serves(running)


def test_restart_rediscovers_engine_after_spool_and_state_loss(running: Home):
    """The loss comes first, the restart later."""
    lose(running, (SPOOL, STATE), ())
    running.until((running.directory / SPOOL / "status/default.json").exists)
    lose(running, (), ("pool-managerd",))
    serves(running)


def test_cluster_is_rediscovered_after_any_loss(cluster: Home):
    for lost, killed in (
        ((STORE,), ("queen-rbee",)),
        ((SPOOL, STATE), ("pool-managerd",)),
        ((SPOOL, STATE, STORE), ("queen-rbee", "pool-managerd")),
    ):
        lose(cluster, lost, killed)
        serves(cluster)
