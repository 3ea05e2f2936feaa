"""A node of a cluster: pool-managerd as a process, a queen who comes, goes and forgets, a real llama-server."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

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
        manager.until(lambda: "neither registration nor heartbeat" in manager.log())
        queen.start()
        manager.until(lambda: queen.order()[-1:] == ["heartbeat"])
        queen.forgetful = True
        manager.until(lambda: queen.order().count("register") == 2)
        queen.stop()
        manager.until(lambda: manager.log().count("neither registration nor heartbeat") == 2)
        queen.start()
        manager.until(lambda: "is answered again" in manager.log())


def test_a_token_that_differs_is_told_once_by_its_fingerprint(tmp_path: Path, queen: NodeQueen) -> None:
    with node(tmp_path, queen, LLORCH_API_TOKEN="another-token-of-mine") as manager:
        manager.until(lambda: "registration of node gpu-1 refused" in manager.log())
        queen.token = "another-token-of-mine"
        manager.until(lambda: queen.order()[-1:] == ["heartbeat"])
        assert manager.log().count("registration of node gpu-1 refused") == 1
        assert "token_fp6=" in manager.log()
        assert "another-token-of-mine" not in manager.log()
