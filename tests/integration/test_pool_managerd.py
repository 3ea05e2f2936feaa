"""pool-managerd as its neighbours meet it: real processes, a real llama-server."""

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
from tests.integration.pool_manager import PoolManager, UnixConnection, pool_manager

ROOT = Path(__file__).resolve().parents[2]
WAKE = ROOT / "daemons/llama_orch/service/wake.py"
TOKEN = "0123456789abcdef0123"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[PoolManager]:
    with pool_manager(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def engine(llama_server: Path, tiny_model: Path) -> Iterator[Engine]:
    with running_engine(llama_server, tiny_model, slots=3, ctx=256) as running:
        yield running


def changed(manager: PoolManager, after: int, wait_ms: int = 20_000) -> dict[str, Any]:
    status, answer = manager.ask("GET", f"/v2/pools?after={after}&wait_ms={wait_ms}")
    assert status == 200
    return answer  # type: ignore[no-any-return]


def test_an_announced_engine_is_ready_with_its_slots_and_its_model(manager: PoolManager, engine: Engine) -> None:
    manager.announce(engine.url)
    pool = manager.until(lambda: manager.pool() if manager.pool().get("ready") else None)
    assert (pool["state"], pool["live"], pool["last_error"]) == ("ready", True, None)
    assert (pool["slots_total"], pool["slots_free"], pool["ctx_max"]) == (3, 3, 256)
    assert len(pool["models_available"]) == 1
    assert pool["replicas"][0]["url"] == engine.url
    assert manager.ask("GET", "/pools/default/status") == (200, pool)
    manager.until(lambda: not list(manager.spool.glob("*.json")))
    assert 'pool_ready{pool_id="default"} 1.0' in manager.metrics()


def test_a_long_poll_learns_of_an_engine_that_becomes_ready(manager: PoolManager, engine: Engine) -> None:
    answer = changed(manager, 0, 0)
    manager.announce(engine.url)
    deadline = time.monotonic() + 20
    while not any(pool["ready"] for pool in answer["pools"]):
        assert time.monotonic() < deadline
        answer = changed(manager, answer["revision"])
    assert answer["count"] == 1


def test_a_long_poll_without_news_ends_with_the_same_revision(manager: PoolManager) -> None:
    first = changed(manager, 0, 0)
    assert changed(manager, first["revision"], 50) == first


def test_a_stop_ends_long_polls_and_leaves_with_0(manager: PoolManager) -> None:
    revision = changed(manager, 0, 0)["revision"]
    answers: list[tuple[int, Any]] = []
    path = f"/v2/pools?after={revision}&wait_ms=30000"
    waiting = threading.Thread(target=lambda: answers.append(manager.ask("GET", path)))
    waiting.start()
    manager.until(lambda: established(manager.port))
    assert manager.stop() == 0
    waiting.join(10)
    assert [status for status, _answer in answers] == [200]


def established(port: int) -> bool:
    """Whether a connection to `port` on loopback is established."""
    wanted = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1] == wanted and row[3] == "01" for row in rows)


def test_an_engine_that_dies_is_offline_and_ready_again_when_it_is_back(
    manager: PoolManager, llama_server: Path, tiny_model: Path
) -> None:
    with running_engine(llama_server, tiny_model) as engine:
        manager.announce(engine.url)
        manager.until(lambda: manager.pool().get("ready"))
        os.kill(engine.pid, signal.SIGKILL)
        pool = manager.until(lambda: manager.pool() if manager.pool()["state"] == "offline" else None)
        assert not pool["ready"]
        assert "refused" in pool["last_error"]
        port = engine.port
    with running_engine(llama_server, tiny_model, port=port):
        manager.until(lambda: manager.pool()["ready"])


def test_of_one_cache_that_slots_share_it_is_told_how_full_it_is(
    manager: PoolManager, llama_server: Path, tiny_model: Path
) -> None:
    flags = ("--kv-unified",)
    with running_engine(llama_server, tiny_model, slots=2, ctx=512, flags=flags) as engine, kept_busy(engine, 700, 300):
        manager.announce(engine.url, flags=flags)
        usage = manager.until(lambda: cache_in_use(manager))
    assert 700 / 1024 <= usage <= 1  # were there a cache for each slot, it would be half of it at most


def cache_in_use(manager: PoolManager) -> float | None:
    """What is exposed of the only engine; None while nothing is."""
    lines = [line for line in manager.metrics().splitlines() if line.startswith("kv_cache_usage_ratio{")]
    return next((float(line.rpartition(" ")[2]) for line in lines), None)


@contextmanager
def kept_busy(engine: Engine, prompt_tokens: int, answer_tokens: int) -> Iterator[None]:
    """Requests to `engine`, one after the other, until the block is left."""
    body = json.dumps({"prompt": [5] * prompt_tokens, "n_predict": answer_tokens, "ignore_eos": True})
    done = threading.Event()

    def asking() -> None:
        while not done.is_set():
            connection = HTTPConnection("127.0.0.1", engine.port, timeout=60)
            connection.request("POST", "/completion", body, {"content-type": "application/json"})
            connection.getresponse().read()
            connection.close()

    thread = threading.Thread(target=asking)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_an_engine_that_is_stopped_is_noticed(manager: PoolManager, llama_server: Path, tiny_model: Path) -> None:
    with running_engine(llama_server, tiny_model) as engine:
        manager.announce(engine.url)
        manager.until(lambda: manager.pool().get("ready"))
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            pool = manager.until(lambda: manager.pool() if not manager.pool()["ready"] else None)
            assert "does not answer" in pool["last_error"]
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        manager.until(lambda: manager.pool()["ready"])


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_pools_are_ready_in_the_first_answer_after_a_restart(
    manager: PoolManager, engine: Engine, by: signal.Signals
) -> None:
    manager.announce(engine.url)
    manager.until(lambda: manager.pool().get("ready"))
    manager.until(lambda: not list(manager.spool.glob("*.json")))
    manager.stop(by)
    manager.start()
    assert manager.pool()["ready"]


def test_a_damaged_state_file_does_not_keep_it_from_starting(manager: PoolManager) -> None:
    manager.stop()
    state = manager.directory / "pool-managerd"
    state.mkdir(exist_ok=True)
    (state / "pools.json").write_text("{broken")
    manager.start()
    assert "the saved pools are unusable" in manager.log()


def test_the_wake_up_script_returns_when_the_engine_is_known(tmp_path: Path, engine: Engine) -> None:
    with pool_manager(tmp_path, POOL_MANAGERD_WATCH_INTERVAL_MS="10000") as manager:
        manager.announce(engine.url)
        done = subprocess.run([sys.executable, "-IS", WAKE, manager.local], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert manager.pool()["replicas"][0]["url"] == engine.url


def test_without_deletion_the_file_stays(tmp_path: Path, engine: Engine) -> None:
    with pool_manager(tmp_path, POOL_MANAGERD_AUTO_DELETE_HANDOFF="false") as manager:
        manager.announce(engine.url)
        manager.until(lambda: manager.pool().get("ready"))
        assert manager.ask("POST", "/v2/handoff/scan") == (204, None)
        assert (manager.spool / "default-r0.json").exists()


def test_bad_files_are_moved_aside_with_a_reason_and_the_good_one_is_taken(
    manager: PoolManager, engine: Engine
) -> None:
    (manager.spool / "large.json").write_bytes(b" " * 70_000)
    (manager.spool / "link.json").symlink_to("/etc/hostname")
    os.mkfifo(manager.spool / "fifo.json")
    manager.announce("http://192.0.2.1:80", "off-machine.json", pool_id="evil")
    manager.announce(engine.url)
    assert manager.ask("POST", "/v2/handoff/scan") == (204, None)
    assert [pool["pool_id"] for pool in changed(manager, 0, 0)["pools"]] == ["default"]
    reasons = sorted(path.read_text() for path in (manager.spool / "rejected").glob("*.reason"))
    assert [reason.partition(":")[0] for reason in reasons] == [
        *("fifo.json", "large.json", "link.json", "off-machine.json")
    ]
    assert 'pool_handoff_files_processed_total{outcome="rejected",pool_id=""} 4.0' in manager.metrics()


def test_a_half_written_file_is_taken_when_it_is_whole(manager: PoolManager, engine: Engine) -> None:
    document = json.dumps({"pool_id": "default", "engine_version": "b1", "url": engine.url})
    path = manager.spool / "slow.json"
    with path.open("w") as file:
        file.write(document[:20])
        file.flush()
        assert manager.ask("POST", "/v2/handoff/scan") == (204, None)
        assert path.exists()
        file.write(document[20:])
    manager.until(lambda: manager.pool().get("ready"))


def test_an_engine_on_a_gpu_that_is_not_there_is_failed_with_the_reason(manager: PoolManager, engine: Engine) -> None:
    manager.announce(engine.url, device_mask="99")
    pool = manager.until(lambda: manager.pool() if manager.pool().get("live") else None)
    assert (pool["state"], pool["ready"]) == ("failed", False)
    assert pool["last_error"].startswith("device_mask 99 names GPU 99")


def test_a_pool_that_never_came_up_is_listed_with_its_reason(manager: PoolManager) -> None:
    (manager.spool / "status").mkdir()
    report = {"pool_id": "cuda", "state": "failed", "last_error": "no such model", "updated_at": "2030-01-01T00:00:00Z"}
    (manager.spool / "status/cuda.json").write_text(json.dumps(report))
    pool = manager.until(lambda: manager.pool("cuda"))
    assert (pool["state"], pool["last_error"]) == ("failed", "no such model")


def test_a_directory_that_comes_later_is_watched(manager: PoolManager, engine: Engine) -> None:
    manager.spool.rmdir()
    manager.until(lambda: manager.ask("POST", "/v2/handoff/scan")[0] == 204)
    manager.spool.mkdir()
    manager.announce(engine.url)
    manager.until(lambda: manager.pool().get("ready"))


def test_the_token_is_wanted_everywhere_but_on_the_local_socket_and_for_health(tmp_path: Path) -> None:
    with pool_manager(tmp_path, LLORCH_API_TOKEN=TOKEN) as manager:
        assert manager.ask("GET", "/health")[0] == 200
        assert manager.ask("GET", "/v2/pools")[1]["code"] == "MISSING_TOKEN"
        assert manager.ask("GET", "/v2/gpus", headers={"Authorization": "Bearer wrong"})[1]["code"] == "BAD_TOKEN"
        assert manager.ask("GET", "/v2/pools", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert manager.ask("GET", "/v2/pools", connection=UnixConnection(manager.local))[0] == 200
        assert manager.local.stat().st_mode & 0o777 == 0o660
        assert "process_cpu_seconds_total" in manager.metrics()
        assert TOKEN not in manager.log()
        assert "token_fp6=" in manager.log()


def test_a_listener_that_others_can_reach_without_a_token_is_pointed_out(tmp_path: Path) -> None:
    with pool_manager(tmp_path) as manager:
        manager.stop()
        manager.environ["POOL_MANAGERD_BIND_ADDR"] = f"0.0.0.0:{manager.port}"
        manager.start()
        assert "without a token: peers from other machines get 403" in manager.log()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/pools?after=x&wait_ms=1", 400, "INVALID_PARAMS"),
        ("/v2/pools?after=1&wait_ms=30001", 400, "INVALID_PARAMS"),
        ("/v2/pools?after=-1", 400, "INVALID_PARAMS"),
        ("/v2/pools/none/status", 404, "NOT_FOUND"),
        ("/v2/pools/default/drain", 405, "INVALID_PARAMS"),
        ("/v2/pools/default/reload", 404, "NOT_FOUND"),
        ("/v2/pools/none/engine/health", 404, "NOT_FOUND"),
        ("/v2/handoff/scan", 405, "INVALID_PARAMS"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(manager: PoolManager, path: str, status: int, code: str) -> None:
    given, body = manager.ask("GET", path)
    assert (given, body["code"]) == (status, code)
    assert body["message"]
    assert body["correlation_id"]


def test_gpus_are_listed_or_it_is_said_why_there_are_none(manager: PoolManager) -> None:
    answer: dict[str, Any] = manager.until(lambda: _looked(manager.ask("GET", "/v2/gpus")[1]))
    assert answer["count"] == len(answer["gpus"])
    assert bool(answer["gpus"]) != bool(answer["problem"])


def test_in_home_profile_it_says_that_it_is_no_node(manager: PoolManager) -> None:
    told = manager.ask("GET", "/v2/node")[1]
    assert (told["profile"], told["node_id"], told["registered"]) == ("home", None, False)


def _looked(answer: dict[str, Any]) -> dict[str, Any] | None:
    return None if answer["problem"] == "GPU discovery has not finished yet" else answer


def test_the_service_manager_hears_of_readiness_of_each_state_and_of_the_stop(tmp_path: Path, engine: Engine) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager_socket:
        manager_socket.bind(os.fspath(tmp_path / "notify"))
        manager_socket.settimeout(20)
        with pool_manager(tmp_path, NOTIFY_SOCKET=os.fspath(tmp_path / "notify")) as manager:
            assert said(manager_socket, "READY=1") == "no pools yet; /etc/llama-orch/pools.toml configures them"
            manager.announce(engine.url)
            while said(manager_socket, "STATUS=") != "1 pool ready":
                pass
            manager.stop()
            assert said(manager_socket, "STOPPING=1") == "stopping"


def said(manager_socket: socket.socket, word: str) -> str:
    """The status in the next message that has `word` in it."""
    while True:
        message = manager_socket.recv(4096).decode()
        if word in message:
            return message.rpartition("STATUS=")[2]
