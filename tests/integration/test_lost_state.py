"""Daemons lose files while engines run. The engines must be rediscovered within seconds and stay known."""

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
"""Directories to clear, and daemons to kill before and start afterwards."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home for all tests: each leaves it with all daemons running and its pool ready."""
    with home(tmp_path_factory.mktemp("home"), llama_server_tar, tiny_model) as started:
        yield started


@pytest.fixture
def cluster(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    with home(tmp_path, llama_server_tar, tiny_model, node_id="gpu-1") as started:
        yield started


def kill(running: Home, name: str) -> None:
    process = running.processes.pop(name)
    process.kill()
    process.wait(60)


def clear(directory: Path) -> None:
    """Remove the content of `directory`, if it exists. Daemons may recreate files meanwhile."""
    for path in directory.iterdir() if directory.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def assert_pool_serves(running: Home) -> None:
    """Wait until the pool is ready in pool-managerd and in the queen, and check that it answers."""
    running.until(lambda: running.ask("GET", "/v2/pools/default/status", port=running.manager_port)[0] == 200)
    running.until(
        lambda: running.ask("GET", "/v2/pools/default/status", port=running.manager_port)[1].get("ready"), WITHIN_S
    )
    running.until(lambda: running.pool().get("ready"), WITHIN_S)
    chat = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    assert running.ask("POST", "/v1/chat/completions", chat)[0] == 200


def clear_and_restart(running: Home, lost: tuple[str, ...], killed: tuple[str, ...]) -> None:
    for name in killed:
        kill(running, name)
    for name in lost:
        clear(running.directory / name)
    for name in killed:
        running.start(name)


def test_running_engine_is_rediscovered_after_any_loss(running: Home):
    for lost, killed in LOSSES:
        clear_and_restart(running, lost, killed)
        assert_pool_serves(running)


def test_restart_rediscovers_engine_after_spool_and_state_loss(running: Home):
    """The restart happens after engine-provisioner has written its report again."""
    clear_and_restart(running, (SPOOL, STATE), ())
    running.until((running.directory / SPOOL / "status/default.json").exists)
    clear_and_restart(running, (), ("pool-managerd",))
    assert_pool_serves(running)


def test_cluster_is_rediscovered_after_any_loss(cluster: Home):
    for lost, killed in (
        ((STORE,), ("queen-rbee",)),
        ((SPOOL, STATE), ("pool-managerd",)),
        ((SPOOL, STATE, STORE), ("queen-rbee", "pool-managerd")),
    ):
        clear_and_restart(cluster, lost, killed)
        assert_pool_serves(cluster)
