"""pool-managerd as a node: a stub queen that starts late, stops and loses its state, and a real llama-server."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from llama_orch.contracts.nodes import SESSION_HEADER
from tests.engines.running import Engine, running_engine
from tests.integration.pool_manager import PoolManager, pool_manager
from tests.integration.stub_queen import StubQueen, stub_queen


@pytest.fixture
def queen() -> Iterator[StubQueen]:
    with stub_queen() as running:
        yield running


@pytest.fixture(scope="module")
def engine(llama_server: Path, tiny_model: Path) -> Iterator[Engine]:
    with running_engine(llama_server, tiny_model, slots=2, ctx=2048) as running:
        yield running


def node(directory: Path, queen: StubQueen, **environ: str) -> AbstractContextManager[PoolManager]:
    cloud = {
        "POOL_MANAGERD_NODE_ID": "gpu-1",
        "ORCHESTRATORD_URL": queen.url,
        "LLORCH_API_TOKEN": queen.token,
        "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS": "1",
    }
    return pool_manager(directory, **cloud | environ)


def test_node_registers_reports_engine_and_deregisters(tmp_path: Path, queen: StubQueen, engine: Engine) -> None:
    with node(tmp_path, queen) as manager:
        manager.announce(engine.url)
        manager.until(lambda: any(pool["ready"] for pool in (queen.last_body("heartbeat") or {"pools": []})["pools"]))
        assert queen.kinds()[:2] == ["register", "heartbeat"]
        registration = queen.last_body("register")
        assert (registration["node_id"], registration["address"]) == ("gpu-1", f"http://127.0.0.1:{manager.port}")
        assert registration["capabilities"]["cpu_cores"] >= 1
        assert registration["machine_id"] not in ("", Path("/etc/machine-id").read_text().strip())
        (pool,) = queen.last_body("heartbeat")["pools"]
        assert (pool["node_id"], pool["slots_total"], pool["engine"]) == ("gpu-1", 2, "llamacpp")
        assert manager.stop() == 0
    assert queen.kinds()[-1] == "DELETE"
    log = manager.log()
    assert "registration of node gpu-1 with" in log
    assert queen.token not in log


def test_node_registers_with_late_restarted_or_reset_queen(tmp_path: Path, queen: StubQueen) -> None:
    queen.stop()
    with node(tmp_path, queen) as manager:
        manager.until(lambda: "to the registration or heartbeat" in manager.log())
        queen.start()
        manager.until(lambda: queen.kinds()[-1:] == ["heartbeat"])
        queen.forget_nodes = True
        manager.until(lambda: queen.kinds().count("register") == 2)
        queen.stop()
        manager.until(lambda: manager.log().count("to the registration or heartbeat") == 2)
        queen.start()
        manager.until(lambda: "answers the heartbeats of node" in manager.log())


def test_wrong_token_is_logged_once_by_fingerprint(tmp_path: Path, queen: StubQueen) -> None:
    with node(tmp_path, queen, LLORCH_API_TOKEN="another-token-of-mine") as manager:
        manager.until(lambda: "registration of node gpu-1 refused" in manager.log())
        queen.token = "another-token-of-mine"
        manager.until(lambda: queen.kinds()[-1:] == ["heartbeat"])
        assert manager.log().count("registration of node gpu-1 refused") == 1
        assert "token_fp6=" in manager.log()
        assert "another-token-of-mine" not in manager.log()


COMPLETION = "/v2/pools/default/engine/completion"
LONG = {"prompt": "Once", "n_predict": 1900, "ignore_eos": True, "stream": True}


@pytest.fixture
def serving(tmp_path: Path, queen: StubQueen, engine: Engine) -> Iterator[PoolManager]:
    """A node whose engine is ready."""
    with node(tmp_path, queen) as manager:
        manager.announce(engine.url)
        manager.until(lambda: reported_pool(manager, queen)["ready"])
        yield manager


def reported_pool(manager: PoolManager, queen: StubQueen) -> dict[str, Any]:
    """Return the pool as the last heartbeat reports it."""
    pools = manager.until(lambda: (queen.last_body("heartbeat") or {}).get("pools"))
    return pools[0]  # type: ignore[no-any-return]


def start_completion(
    manager: PoolManager, queen: StubQueen, body: object, **more: str
) -> tuple[HTTPConnection, HTTPResponse]:
    """Start a completion through the relay and return it with its response head. `more` are additional headers."""
    connection = HTTPConnection("127.0.0.1", manager.port, timeout=30)
    headers = {"authorization": f"Bearer {queen.token}", "content-type": "application/json", **more}
    connection.request("POST", COMPLETION, json.dumps(body), headers)
    return connection, connection.getresponse()


def busy_slots(engine: Engine) -> int:
    connection = HTTPConnection("127.0.0.1", engine.port, timeout=30)
    connection.request("GET", "/slots")
    slots = json.loads(connection.getresponse().read())
    connection.close()
    return sum(slot["is_processing"] for slot in slots)


def test_relay_streams_answer_token_by_token(serving: PoolManager, queen: StubQueen) -> None:
    connection, answer = start_completion(serving, queen, LONG | {"n_predict": 20})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    events = [line for line in answer if line.startswith(b"data: ")]
    connection.close()
    assert len(events) >= 20
    assert json.loads(events[-1][6:])["stop"]


def test_client_disconnect_frees_slot_and_lease(serving: PoolManager, queen: StubQueen, engine: Engine) -> None:
    connection, answer = start_completion(serving, queen, LONG)
    assert answer.readline()
    assert busy_slots(engine) == 1
    headers = {"authorization": f"Bearer {queen.token}"}
    assert serving.ask("GET", "/v2/pools/default/status", headers=headers)[1]["active_leases"] == 1
    answer.close()
    connection.close()
    serving.until(lambda: busy_slots(engine) == 0)
    serving.until(lambda: serving.ask("GET", "/v2/pools/default/status", headers=headers)[1]["active_leases"] == 0)


def cached_tokens(manager: PoolManager, queen: StubQueen, prompt: str, session: str) -> int:
    """Run one turn of a session and return how many prompt tokens were in the engine's cache."""
    body = {"prompt": prompt, "n_predict": 4, "cache_prompt": True}
    connection, answer = start_completion(manager, queen, body, **{SESSION_HEADER: session})
    result = json.loads(answer.read())
    connection.close()
    return int(result["timings"]["cache_n"])


def slots_free(manager: PoolManager, queen: StubQueen) -> int:
    """Return the free slots of the pool at the last probe of its engines."""
    headers = {"authorization": f"Bearer {queen.token}"}
    return int(manager.ask("GET", "/v2/pools/default/status", headers=headers)[1]["slots_free"])


def test_session_returns_to_engine_with_its_cache(
    serving: PoolManager, queen: StubQueen, llama_server: Path, tiny_model: Path
) -> None:
    prompt = "A session that comes back wants its cache. " * 5
    with running_engine(llama_server, tiny_model, slots=2, ctx=2048) as other:
        serving.announce(other.url, "default-r1.json", replica_id="r1")
        serving.until(lambda: slots_free(serving, queen) == 4)
        busy, stream = start_completion(serving, queen, LONG)
        serving.until(lambda: slots_free(serving, queen) == 3)
        assert cached_tokens(serving, queen, prompt, "mine") == 0
        stream.close()
        busy.close()
        serving.until(lambda: slots_free(serving, queen) == 4)
        assert cached_tokens(serving, queen, prompt + "Again.", "mine") > 0
        assert cached_tokens(serving, queen, prompt + "Again.", "another") == 0, (
            "another session gets the engine that was busy before"
        )


def test_drain_is_reported_at_once_and_undone_by_restart(serving: PoolManager, queen: StubQueen) -> None:
    headers = {"authorization": f"Bearer {queen.token}"}
    assert serving.ask("POST", "/v2/pools/default/drain", headers=headers)[0] == 202
    serving.until(lambda: reported_pool(serving, queen)["state"] == "draining")
    assert serving.ask("POST", "/v2/drain", headers=headers)[0] == 202
    serving.until(lambda: queen.last_body("heartbeat")["draining"])
    serving.stop()
    serving.start()
    serving.until(
        lambda: reported_pool(serving, queen)["state"] == "ready" and not queen.last_body("heartbeat")["draining"]
    )


def test_stop_deregisters_first_and_finishes_answers(queen: StubQueen, serving: PoolManager) -> None:
    connection, answer = start_completion(serving, queen, LONG | {"n_predict": 600})
    assert answer.readline()
    process = serving.processes.pop()
    process.terminate()
    serving.until(lambda: queen.kinds()[-1] == "DELETE")
    events = [line for line in answer if line.startswith(b"data: ")]
    connection.close()
    assert json.loads(events[-1][6:])["stop"]
    assert process.wait(20) == 0
