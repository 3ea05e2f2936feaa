"""A node of a cluster: pool-managerd as a process, a queen who comes, goes and forgets, a real llama-server."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from llama_orch.contracts.nodes import SESSION_HEADER
from tests.engines.running import Engine, running_engine
from tests.integration.node_queen import NodeQueen, node_queen
from tests.integration.pool_manager import PoolManager, pool_manager


@pytest.fixture
def queen() -> Iterator[NodeQueen]:
    with node_queen() as running:
        yield running


@pytest.fixture(scope="module")
def engine(llama_server: Path, tiny_model: Path) -> Iterator[Engine]:
    with running_engine(llama_server, tiny_model, slots=2, ctx=2048) as running:
        yield running


def node(directory: Path, queen: NodeQueen, **environ: str) -> AbstractContextManager[PoolManager]:
    cloud = {
        "POOL_MANAGERD_NODE_ID": "gpu-1",
        "ORCHESTRATORD_URL": queen.url,
        "LLORCH_API_TOKEN": queen.token,
        "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS": "1",
    }
    return pool_manager(directory, **cloud | environ)


def test_a_node_registers_tells_of_its_engine_and_takes_leave(tmp_path: Path, queen: NodeQueen, engine: Engine) -> None:
    with node(tmp_path, queen) as manager:
        manager.announce(engine.url)
        manager.until(lambda: any(pool["ready"] for pool in (queen.last("heartbeat") or {"pools": []})["pools"]))
        assert queen.order()[:2] == ["register", "heartbeat"]
        registration = queen.last("register")
        assert (registration["node_id"], registration["address"]) == ("gpu-1", f"http://127.0.0.1:{manager.port}")
        assert registration["capabilities"]["cpu_cores"] >= 1
        assert registration["machine_id"] not in ("", Path("/etc/machine-id").read_text().strip())
        (pool,) = queen.last("heartbeat")["pools"]
        assert (pool["node_id"], pool["slots_total"], pool["engine"]) == ("gpu-1", 2, "llamacpp")
        assert manager.stop() == 0
    assert queen.order()[-1] == "DELETE"
    log = manager.log()
    assert "registration of node gpu-1 with" in log
    assert queen.token not in log


def test_a_queen_that_starts_later_stops_and_forgets_gets_it_all_again(tmp_path: Path, queen: NodeQueen) -> None:
    queen.stop()
    with node(tmp_path, queen) as manager:
        manager.until(lambda: "to the registration or heartbeat" in manager.log())
        queen.start()
        manager.until(lambda: queen.order()[-1:] == ["heartbeat"])
        queen.forgetful = True
        manager.until(lambda: queen.order().count("register") == 2)
        queen.stop()
        manager.until(lambda: manager.log().count("to the registration or heartbeat") == 2)
        queen.start()
        manager.until(lambda: "answers the heartbeats of node" in manager.log())


def test_a_token_that_differs_is_told_once_by_its_fingerprint(tmp_path: Path, queen: NodeQueen) -> None:
    with node(tmp_path, queen, LLORCH_API_TOKEN="another-token-of-mine") as manager:
        manager.until(lambda: "registration of node gpu-1 refused" in manager.log())
        queen.token = "another-token-of-mine"
        manager.until(lambda: queen.order()[-1:] == ["heartbeat"])
        assert manager.log().count("registration of node gpu-1 refused") == 1
        assert "token_fp6=" in manager.log()
        assert "another-token-of-mine" not in manager.log()


COMPLETION = "/v2/pools/default/engine/completion"
LONG = {"prompt": "Once", "n_predict": 1900, "ignore_eos": True, "stream": True}


@pytest.fixture
def serving(tmp_path: Path, queen: NodeQueen, engine: Engine) -> Iterator[PoolManager]:
    """A node whose engine is ready."""
    with node(tmp_path, queen) as manager:
        manager.announce(engine.url)
        manager.until(lambda: told(manager, queen)["ready"])
        yield manager


def told(manager: PoolManager, queen: NodeQueen) -> dict[str, Any]:
    """The pool as the last heartbeat has it."""
    pools = manager.until(lambda: (queen.last("heartbeat") or {}).get("pools"))
    return pools[0]  # type: ignore[no-any-return]


def asked(manager: PoolManager, queen: NodeQueen, body: object, **more: str) -> tuple[HTTPConnection, HTTPResponse]:
    """A completion through the relay, its head already here; `more` are further headers."""
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


def test_an_answer_streams_through_the_relay_token_by_token(serving: PoolManager, queen: NodeQueen) -> None:
    connection, answer = asked(serving, queen, LONG | {"n_predict": 20})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    events = [line for line in answer if line.startswith(b"data: ")]
    connection.close()
    assert len(events) >= 20
    assert json.loads(events[-1][6:])["stop"]


def test_a_client_that_leaves_frees_the_slot_and_the_lease(
    serving: PoolManager, queen: NodeQueen, engine: Engine
) -> None:
    connection, answer = asked(serving, queen, LONG)
    assert answer.readline()
    assert busy_slots(engine) == 1
    headers = {"authorization": f"Bearer {queen.token}"}
    assert serving.ask("GET", "/v2/pools/default/status", headers=headers)[1]["active_leases"] == 1
    answer.close()
    connection.close()
    serving.until(lambda: busy_slots(engine) == 0)
    serving.until(lambda: serving.ask("GET", "/v2/pools/default/status", headers=headers)[1]["active_leases"] == 0)


def cached(manager: PoolManager, queen: NodeQueen, prompt: str, session: str) -> int:
    """How many tokens of the prompt of a session's turn its engine had in its cache."""
    body = {"prompt": prompt, "n_predict": 4, "cache_prompt": True}
    connection, answer = asked(manager, queen, body, **{SESSION_HEADER: session})
    told = json.loads(answer.read())
    connection.close()
    return int(told["timings"]["cache_n"])


def slots_free(manager: PoolManager, queen: NodeQueen) -> int:
    """As the last look at the pool's engines had it."""
    headers = {"authorization": f"Bearer {queen.token}"}
    return int(manager.ask("GET", "/v2/pools/default/status", headers=headers)[1]["slots_free"])


def test_a_session_finds_its_cache_again_among_two_engines(
    serving: PoolManager, queen: NodeQueen, llama_server: Path, tiny_model: Path
) -> None:
    prompt = "A session that comes back wants its cache. " * 5
    with running_engine(llama_server, tiny_model, slots=2, ctx=2048) as other:
        serving.announce(other.url, "default-r1.json", replica_id="r1")
        serving.until(lambda: slots_free(serving, queen) == 4)
        busy, stream = asked(serving, queen, LONG)
        serving.until(lambda: slots_free(serving, queen) == 3)
        assert cached(serving, queen, prompt, "mine") == 0
        stream.close()
        busy.close()
        serving.until(lambda: slots_free(serving, queen) == 4)
        assert cached(serving, queen, prompt + "Again.", "mine") > 0
        assert cached(serving, queen, prompt + "Again.", "another") == 0, "it goes where the first was busy"


def test_a_drain_is_told_at_once_and_a_restart_undoes_it(serving: PoolManager, queen: NodeQueen) -> None:
    headers = {"authorization": f"Bearer {queen.token}"}
    assert serving.ask("POST", "/v2/pools/default/drain", headers=headers)[0] == 202
    serving.until(lambda: told(serving, queen)["state"] == "draining")
    assert serving.ask("POST", "/v2/drain", headers=headers)[0] == 202
    serving.until(lambda: queen.last("heartbeat")["draining"])
    serving.stop()
    serving.start()
    serving.until(lambda: told(serving, queen)["state"] == "ready" and not queen.last("heartbeat")["draining"])


def test_a_stop_takes_leave_first_and_lets_an_answer_end(queen: NodeQueen, serving: PoolManager) -> None:
    connection, answer = asked(serving, queen, LONG | {"n_predict": 600})
    assert answer.readline()
    process = serving.processes.pop()
    process.terminate()
    serving.until(lambda: queen.order()[-1] == "DELETE")
    events = [line for line in answer if line.startswith(b"data: ")]
    connection.close()
    assert json.loads(events[-1][6:])["stop"]
    assert process.wait(20) == 0
