"""pool-managerd as a process, with a real llama-server, through its interfaces."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.engines.running import Engine, running_engine
from tests.integration.home import free_port
from tests.integration.pool_manager import PoolManager, UnixConnection, pool_manager

ROOT = Path(__file__).resolve().parents[2]
WAKE = ROOT / "daemons/llama_orch/service/wake.py"
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolManager]:
    """One daemon for many tests: each announces a pool of its own, which takes the engine from the pool before it."""
    with pool_manager(tmp_path_factory.mktemp("manager")) as running:
        yield running


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolManager]:
    """A daemon without pools."""
    with pool_manager(tmp_path_factory.mktemp("empty")) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[PoolManager]:
    """A daemon of one test, which may stop it."""
    with pool_manager(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def engine(llama_server: Path, tiny_model: Path) -> Iterator[Engine]:
    with running_engine(llama_server, tiny_model, slots=3, ctx=256) as running:
        yield running


def poll_pools(manager: PoolManager, after: int, wait_ms: int = 20_000) -> dict[str, Any]:
    status, answer = manager.ask("GET", f"/v2/pools?after={after}&wait_ms={wait_ms}")
    assert status == 200
    return answer  # type: ignore[no-any-return]


def test_announced_engine_is_ready_with_slots_and_model(manager: PoolManager, engine: Engine) -> None:
    manager.announce(engine.url)
    pool = manager.until(lambda: manager.pool() if manager.pool().get("ready") else None)
    assert (pool["state"], pool["live"], pool["last_error"]) == ("ready", True, None)
    assert (pool["slots_total"], pool["slots_free"], pool["ctx_max"]) == (3, 3, 256)
    assert len(pool["models_available"]) == 1
    assert pool["replicas"][0]["url"] == engine.url
    assert manager.ask("GET", "/pools/default/status") == (200, pool)
    manager.until(lambda: not list(manager.spool.glob("*.json")))
    assert 'pool_ready{pool_id="default"} 1.0' in manager.metrics()


def test_long_poll_reports_engine_that_becomes_ready(manager: PoolManager, engine: Engine) -> None:
    answer = poll_pools(manager, 0, 0)
    manager.announce(engine.url, pool_id="polled")
    deadline = time.monotonic() + 20
    while not any(pool["ready"] for pool in answer["pools"] if pool["pool_id"] == "polled"):
        assert time.monotonic() < deadline
        answer = poll_pools(manager, answer["revision"])
    assert answer["count"] == len(answer["pools"])


def test_long_poll_without_news_returns_same_revision(empty: PoolManager) -> None:
    first = poll_pools(empty, 0, 0)
    assert poll_pools(empty, first["revision"], 50) == first


def test_stop_ends_long_polls_and_exits_with_0(own: PoolManager) -> None:
    revision = poll_pools(own, 0, 0)["revision"]
    answers: list[tuple[int, Any]] = []
    path = f"/v2/pools?after={revision}&wait_ms=30000"
    waiting = threading.Thread(target=lambda: answers.append(own.ask("GET", path)))
    waiting.start()
    own.until(lambda: established(own.port))
    assert own.stop() == 0
    waiting.join(10)
    assert [status for status, _answer in answers] == [200]


def established(port: int) -> bool:
    """Return whether a connection to `port` on loopback is established."""
    address = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1] == address and row[3] == "01" for row in rows)


def test_dead_engine_is_offline_and_ready_again_after_restart(
    manager: PoolManager, llama_server: Path, tiny_model: Path
) -> None:
    with running_engine(llama_server, tiny_model) as engine:
        manager.announce(engine.url, pool_id="mortal")
        manager.until(lambda: manager.pool("mortal").get("ready"))
        os.kill(engine.pid, signal.SIGKILL)
        pool = manager.until(lambda: manager.pool("mortal") if manager.pool("mortal")["state"] == "offline" else None)
        assert not pool["ready"]
        assert "refused" in pool["last_error"]
        port = engine.port
    with running_engine(llama_server, tiny_model, port=port):
        manager.until(lambda: manager.pool("mortal")["ready"])


def test_usage_of_kv_cache_shared_by_slots_is_exposed(
    manager: PoolManager, llama_server: Path, tiny_model: Path
) -> None:
    flags = ("--kv-unified",)
    with (
        running_engine(llama_server, tiny_model, slots=2, ctx=512, flags=flags) as engine,
        busy_engine(engine, 700, 300),
    ):
        manager.announce(engine.url, pool_id="unified", flags=flags)
        usage = manager.until(lambda: kv_cache_usage(manager, "unified"))
    assert 700 / 1024 <= usage <= 1  # with one cache per slot, it would be at most 1/2


def kv_cache_usage(manager: PoolManager, pool_id: str) -> float | None:
    """Return the exposed KV cache usage of the pool's only engine, or None if there is none yet."""
    lines = [line for line in manager.metrics().splitlines() if line.startswith("kv_cache_usage_ratio{")]
    return next((float(line.rpartition(" ")[2]) for line in lines if f'pool_id="{pool_id}"' in line), None)


@contextmanager
def busy_engine(engine: Engine, prompt_tokens: int, answer_tokens: int) -> Iterator[None]:
    """Send requests to `engine`, one after another, until the block ends."""
    body = json.dumps({"prompt": [5] * prompt_tokens, "n_predict": answer_tokens, "ignore_eos": True})
    done = threading.Event()

    def send_requests() -> None:
        while not done.is_set():
            connection = HTTPConnection("127.0.0.1", engine.port, timeout=60)
            connection.request("POST", "/completion", body, {"content-type": "application/json"})
            connection.getresponse().read()
            connection.close()

    thread = threading.Thread(target=send_requests)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_hung_engine_is_not_ready_until_it_continues(
    manager: PoolManager, llama_server: Path, tiny_model: Path
) -> None:
    with running_engine(llama_server, tiny_model) as engine:
        manager.announce(engine.url, pool_id="hung")
        manager.until(lambda: manager.pool("hung").get("ready"))
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            pool = manager.until(lambda: manager.pool("hung") if not manager.pool("hung")["ready"] else None)
            assert "does not answer" in pool["last_error"]
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        manager.until(lambda: manager.pool("hung")["ready"])


def test_pools_are_ready_in_first_answer_after_restart(own: PoolManager, engine: Engine) -> None:
    own.announce(engine.url)
    own.until(lambda: own.pool().get("ready"))
    own.until(lambda: not list(own.spool.glob("*.json")))
    for by in (signal.SIGTERM, signal.SIGKILL):
        own.stop(by)
        own.start()
        assert own.pool()["ready"], by.name


def test_damaged_state_file_does_not_prevent_start(own: PoolManager) -> None:
    own.stop()
    state = own.directory / "pool-managerd"
    state.mkdir(exist_ok=True)
    (state / "pools.json").write_text("{broken")
    own.start()
    assert "the saved pools are unusable" in own.log()


def test_wake_script_returns_when_engine_is_known(tmp_path: Path, engine: Engine) -> None:
    with pool_manager(tmp_path, POOL_MANAGERD_WATCH_INTERVAL_MS="10000") as manager:
        manager.announce(engine.url)
        done = subprocess.run(
            [sys.executable, "-IS", WAKE, manager.local_socket], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert manager.pool()["replicas"][0]["url"] == engine.url


def test_handoff_file_stays_without_auto_delete(tmp_path: Path, engine: Engine) -> None:
    with pool_manager(tmp_path, POOL_MANAGERD_AUTO_DELETE_HANDOFF="false") as manager:
        manager.announce(engine.url)
        manager.until(lambda: manager.pool().get("ready"))
        assert manager.ask("POST", "/v2/handoff/scan") == (204, None)
        assert (manager.spool / "default-r0.json").exists()


def test_invalid_handoffs_are_rejected_and_valid_one_is_taken(manager: PoolManager, engine: Engine) -> None:
    (manager.spool / "large.json").write_bytes(b" " * 70_000)
    (manager.spool / "link.json").symlink_to("/etc/hostname")
    os.mkfifo(manager.spool / "fifo.json")
    manager.announce("http://192.0.2.1:80", "off-machine.json", pool_id="evil")
    manager.announce(engine.url, pool_id="valid")
    assert manager.ask("POST", "/v2/handoff/scan") == (204, None)
    assert {pool["pool_id"] for pool in poll_pools(manager, 0, 0)["pools"]} & {"valid", "evil"} == {"valid"}
    reasons = sorted(path.read_text() for path in (manager.spool / "rejected").glob("*.reason"))
    assert [reason.partition(":")[0] for reason in reasons] == [
        *("fifo.json", "large.json", "link.json", "off-machine.json")
    ]
    assert 'pool_handoff_files_processed_total{outcome="rejected",pool_id=""} 4.0' in manager.metrics()


def test_half_written_handoff_is_taken_when_complete(manager: PoolManager, engine: Engine) -> None:
    document = json.dumps({"pool_id": "slow", "engine_version": "b1", "url": engine.url})
    path = manager.spool / "slow.json"
    with path.open("w") as file:
        file.write(document[:20])
        file.flush()
        assert manager.ask("POST", "/v2/handoff/scan") == (204, None)
        assert path.exists()
        file.write(document[20:])
    manager.until(lambda: manager.pool("slow").get("ready"))


def test_engine_on_absent_gpu_is_failed_with_reason(manager: PoolManager, engine: Engine) -> None:
    manager.announce(engine.url, pool_id="gpu", device_mask="99")
    pool = manager.until(lambda: manager.pool("gpu") if manager.pool("gpu").get("live") else None)
    assert (pool["state"], pool["ready"]) == ("failed", False)
    assert pool["last_error"].startswith("device_mask 99 names GPU 99")


def test_pool_that_never_started_is_listed_with_reason(manager: PoolManager) -> None:
    (manager.spool / "status").mkdir()
    report = {"pool_id": "cuda", "state": "failed", "last_error": "no such model", "updated_at": "2030-01-01T00:00:00Z"}
    (manager.spool / "status/cuda.json").write_text(json.dumps(report))
    pool = manager.until(lambda: manager.pool("cuda"))
    assert (pool["state"], pool["last_error"]) == ("failed", "no such model")


def test_handoff_directory_created_later_is_watched(own: PoolManager, engine: Engine) -> None:
    own.spool.rmdir()
    own.until(lambda: own.ask("POST", "/v2/handoff/scan")[0] == 204)
    own.spool.mkdir()
    own.announce(engine.url)
    own.until(lambda: own.pool().get("ready"))


def test_token_is_required_except_local_socket_and_health(tmp_path: Path) -> None:
    with pool_manager(tmp_path, LLORCH_API_TOKEN=TOKEN) as manager:
        assert manager.ask("GET", "/health")[0] == 200
        assert manager.ask("GET", "/v2/pools")[1]["code"] == "MISSING_TOKEN"
        assert manager.ask("GET", "/v2/gpus", headers={"Authorization": "Bearer wrong"})[1]["code"] == "BAD_TOKEN"
        assert manager.ask("GET", "/v2/pools", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert manager.ask("GET", "/v2/pools", connection=UnixConnection(manager.local_socket))[0] == 200
        assert manager.local_socket.stat().st_mode & 0o777 == 0o660
        assert "process_cpu_seconds_total" in manager.metrics()
        assert TOKEN not in manager.log()
        assert "token_fp6=" in manager.log()


def test_public_listener_without_token_is_warned_about(tmp_path: Path) -> None:
    with pool_manager(tmp_path, POOL_MANAGERD_BIND_ADDR=f"0.0.0.0:{free_port()}") as manager:
        assert "without a token: peers from other machines get 403" in manager.log()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/pools?after=x&wait_ms=1", 400, "INVALID_PARAMS"),
        ("/v2/pools?after=1&wait_ms=30001", 400, "INVALID_PARAMS"),
        ("/v2/pools?after=-1", 400, "INVALID_PARAMS"),
        ("/v2/pools/none/status", 404, "NOT_FOUND"),
        ("/v2/pools/default/drain", 405, "INVALID_PARAMS"),
        ("/v2/pools/default/restart", 404, "NOT_FOUND"),
        ("/v2/pools/none/engine/health", 404, "NOT_FOUND"),
        ("/v2/handoff/scan", 405, "INVALID_PARAMS"),
    ],
)
def test_refused_request_gets_code_and_message(empty: PoolManager, path: str, status: int, code: str) -> None:
    actual, body = empty.ask("GET", path)
    assert (actual, body["code"]) == (status, code)
    assert body["message"]
    assert body["correlation_id"]


def test_gpus_are_listed_or_problem_is_reported(empty: PoolManager) -> None:
    answer: dict[str, Any] = empty.until(lambda: _discovered(empty.ask("GET", "/v2/gpus")[1]))
    assert answer["count"] == len(answer["gpus"])
    assert bool(answer["gpus"]) != bool(answer["problem"])


def test_home_profile_reports_no_node(empty: PoolManager) -> None:
    node = empty.ask("GET", "/v2/node")[1]
    assert (node["profile"], node["node_id"], node["registered"]) == ("home", None, False)


def _discovered(answer: dict[str, Any]) -> dict[str, Any] | None:
    return None if answer["problem"] == "GPU discovery has not finished yet" else answer


def test_service_manager_gets_ready_status_and_stopping(tmp_path: Path, engine: Engine) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager_socket:
        manager_socket.bind(os.fspath(tmp_path / "notify"))
        manager_socket.settimeout(20)
        with pool_manager(tmp_path, NOTIFY_SOCKET=os.fspath(tmp_path / "notify")) as manager:
            assert next_status(manager_socket, "READY=1") == "no pools yet; /etc/llama-orch/pools.toml configures them"
            manager.announce(engine.url)
            while next_status(manager_socket, "STATUS=") != "1 pool ready":
                pass
            manager.stop()
            assert next_status(manager_socket, "STOPPING=1") == "stopping"


def next_status(manager_socket: socket.socket, word: str) -> str:
    """Wait for a message that contains `word` and return its STATUS."""
    while True:
        message = manager_socket.recv(4096).decode()
        if word in message:
            return message.rpartition("STATUS=")[2]
