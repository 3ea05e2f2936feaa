"""orchctl check end to end: queries, output and exit status."""

import json
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch import VERSION
from llama_orch.addresses import Host
from llama_orch.service.machine_id import app_specific
from orchctl.check import local_node, queries
from orchctl.check.local_node import local_url
from orchctl.check.observations import clock_ahead, observe
from orchctl.client import QueenClient
from orchctl.errors import CommandError
from tests.unit.orchctl.cluster import NODE, POOL
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import HOLD, error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, terminal

TOKEN = "a-token-of-a-test"
REACHABILITY = "GET /v2/nodes/gpu-1/reachability"
REACHED = {"node_id": "gpu-1", "address": "http://gpu-1:9200", "reachable": True, "latency_ms": 2.2}


TOKEN_PROBE = "GET /v2/sessions?limit=1"
MACHINE_ID = "0123456789abcdef" * 2
OWN_MACHINE_ID = app_specific(bytes.fromhex(MACHINE_ID))
READY = reply(200, {"ready": True, "reasons": []})


@pytest.fixture(autouse=True)
def id_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Isolate the test from this machine's pool-managerd and machine id; return a file to write an id to."""
    monkeypatch.setattr(local_node, "DEFAULT_HOST", Host("127.0.0.1", 1))
    monkeypatch.setattr(local_node, "POOL_MANAGERD_SOCKET", tmp_path / "none")
    monkeypatch.setattr(local_node, "ID_FILES", (tmp_path / "none", tmp_path / "machine-id"))
    return tmp_path / "machine-id"


def cluster(**changed: bytes) -> dict[str, list[bytes]]:
    """Return the script of a healthy cluster."""
    date = f"Date: {formatdate(usegmt=True)}\r\n"
    answers = {
        "GET /v2/meta/version": reply(200, {"version": VERSION, "api_version": "2"}, date),
        "GET /ready": reply(200, {"ready": True, "reasons": []}),
        "GET /v2/pools": reply(200, {"pools": [POOL], "count": 1, "revision": 1}),
        "GET /v2/nodes": reply(200, {"nodes": [NODE], "count": 1}),
        REACHABILITY: reply(200, REACHED),
    }
    names = {"version": "GET /v2/meta/version", "pools": "GET /v2/pools", "nodes": "GET /v2/nodes"}
    answers |= {names.get(name, f"GET /{name}"): answer for name, answer in changed.items()}
    return {line: [answer] for line, answer in answers.items()}


def test_healthy_cluster_has_ok_lines_and_exits_0() -> None:
    with serve(cluster()) as queen:
        result = run("check", "--url", queen.url, LLORCH_API_TOKEN=TOKEN)
        authorizations = {request.headers["authorization"] for request in queen.requests if request.line != TOKEN_PROBE}
        assert authorizations == {f"Bearer {TOKEN}"}
        assert [request.headers.get("authorization") for request in queen.requests_for(TOKEN_PROBE)] == [None]
    assert (result.status, result.err) == (0, "")
    fingerprint = result.out.partition("token_fp6=")[2][:6]
    assert result.out == (
        f"ok       queen: queen-rbee {VERSION} at {queen.url} is ready\n"
        f"ok       token: token_fp6={fingerprint} from LLORCH_API_TOKEN is accepted\n"
        "ok       clock: the queen's clock and this machine's agree\n"
        "ok       nodes: CLOUD_PROFILE, 1 of 1 online\n"
        "ok       node gpu-1: online, last heartbeat 3 s ago, reached in 2 ms\n"
        "ok       pools: 1 of 1 ready\n"
    )
    assert TOKEN not in result.out


def test_unchecked_token_is_not_called_accepted() -> None:
    with serve({**cluster(), TOKEN_PROBE: [reply(200, {"sessions": [], "count": 0})]}) as queen:
        result = run("check", "--url", queen.url, LLORCH_API_TOKEN=TOKEN)
        assert "not required from here" in result.out
        assert "accepted" not in result.out
        asked = len(queen.requests_for(TOKEN_PROBE))
        assert run("check", "--url", queen.url).status == 0
        assert len(queen.requests_for(TOKEN_PROBE)) == asked


def test_advice_follows_a_single_full_stop() -> None:
    reasons = reply(503, {"ready": False, "reasons": ["the disk is full."]})
    with serve(cluster(ready=reasons)) as queen:
        assert "the disk is full. See" in run("check", "--url", queen.url).out


def test_problem_exits_69_and_rest_is_still_printed() -> None:
    failed = {**POOL, "state": "failed", "ready": False, "last_error": "no such\n model"}
    with serve(cluster(pools=reply(200, {"pools": [failed], "count": 1}))) as queen:
        result = run("check", "--url", queen.url)
        document = json.loads(run("check", "--json", "--url", queen.url).out)
    assert result.status == 69
    assert "problem  pool default on gpu-1: failed: no such model. On its machine: journalctl" in result.out
    assert "ok       node gpu-1" in result.out
    assert result.err == "orchctl: problems: 2, warnings: 0\n"
    assert (document["problems"], document["warnings"]) == (2, 0)
    assert {"level": "problem", "subject": "pools"}.items() <= document["findings"][-2].items()


def test_warning_alone_exits_0() -> None:
    old = reply(200, {"version": "0.0.1", "api_version": "2"})
    with serve(cluster(version=old, nodes=reply(200, {"nodes": [], "count": 0}))) as queen:
        result = run("check", "--url", queen.url)
    assert result.status == 0
    assert "warning  version: orchctl is " in result.out


def test_refused_token_shows_fingerprint_and_source(tmp_path: object) -> None:
    path = f"{tmp_path}/token"
    with open(path, "w", encoding="ascii") as file:
        file.write(TOKEN)
    no = error(401, "BAD_TOKEN", "the token is not the one this daemon has")
    with serve(cluster(pools=no, nodes=no)) as queen:
        result = run("check", "--url", queen.url, LLORCH_API_TOKEN_FILE=path)
    assert result.status == 69
    assert f"from LLORCH_API_TOKEN_FILE={path}" in result.out
    assert "token_fp6=" in result.out
    assert TOKEN not in result.out + result.err
    assert result.out.count("problem") == 1


def test_absent_queen_is_one_problem() -> None:
    with serve({}) as queen:
        pass
    result = run("check", "--url", queen.url)
    assert result.status == 69
    assert result.out.startswith(f"problem  queen: {queen.url}: no answer: cannot connect")
    assert result.out.count("\n") == 1


def test_foreign_server_is_reported() -> None:
    with serve({"*": [reply(200, {"hello": 1})]}) as queen:
        result = run("check", "--url", queen.url)
    assert result.status == 69
    assert "this is the address of queen-rbee" in result.out


async def test_slow_query_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "LIMIT_S", 0.3)
    script = {**cluster(), "GET /v2/pools": [HOLD], REACHABILITY: [HOLD]}
    with serve(script) as queen:
        found = await observe(QueenClient(queen.url))
    assert isinstance(found.pools, CommandError)
    assert "within 0.3 s" in found.pools.message
    assert isinstance(found.reachability["gpu-1"], CommandError)
    assert not isinstance(found.nodes, CommandError)
    assert not isinstance(found.ready, CommandError)


def test_ctrl_c_ends_check_quietly() -> None:
    with serve({**cluster(), "GET /v2/pools": [HOLD]}) as queen, terminal("check", "--url", queen.url) as tty:
        queen.wait_for("GET /v2/pools")
        tty.type(CTRL_C)
        assert tty.end() == 130
        assert "Traceback" not in tty.output.decode()


@pytest.mark.parametrize(
    ("ready", "level"),
    [(reply(200, {"ready": True, "reasons": []}), "ok"), (reply(503, {"ready": False, "reasons": ["x"]}), "warning")],
)
def test_node_in_environment_is_checked_with_queen(ready: bytes, level: str) -> None:
    with serve(cluster()) as queen, serve({"GET /ready": [ready]}) as manager:
        variables = {"POOL_MANAGERD_BIND_ADDR": manager.url.removeprefix("http://")}
        known = run("check", "--url", queen.url, POOL_MANAGERD_NODE_ID="gpu-1", **variables)
        unknown = run("check", "--url", queen.url, POOL_MANAGERD_NODE_ID="gpu-9", **variables)
    assert f"{level:7}  this node: pool-managerd at {manager.url} is " in known.out
    assert "ok       this node: registered with the queen as gpu-1" in known.out
    assert (known.status, unknown.status) == (0, 69)
    assert "problem  this node: gpu-9 is not registered" in unknown.out


def nodes_with_this_machine(**changed: object) -> bytes:
    """Return a list of nodes in which this machine is gpu-1."""
    other = {**NODE, "node_id": "gpu-2"}
    return reply(200, {"nodes": [{**NODE, "machine_id": OWN_MACHINE_ID, **changed}, other], "count": 2})


def test_node_is_found_by_machine_id_without_variables(
    id_file: Path,
) -> None:
    id_file.write_text(MACHINE_ID)
    standing = {
        "profile": "cloud",
        "version": VERSION,
        "node_id": "gpu-1",
        "machine_id": OWN_MACHINE_ID,
        "registered": True,
    }
    with serve({"GET /ready": [READY], "GET /v2/node": [reply(200, {**standing, "queen_url": "http://q"})]}) as manager:
        with serve(cluster(nodes=nodes_with_this_machine(address=manager.url))) as queen:
            out = run("check", "--url", queen.url, LLORCH_API_TOKEN=TOKEN).out
        assert manager.requests_for("GET /v2/node")[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert out.endswith(
        f"ok       this node: pool-managerd at {manager.url} is ready, CLOUD_PROFILE\n"
        "ok       this node: the queen at http://q answers it and accepts its token\n"
        f"ok       this node: registered with the queen as gpu-1: online, reachable at {manager.url}\n"
    )


def test_node_with_stopped_manager_is_still_found(id_file: Path) -> None:
    id_file.write_text(MACHINE_ID)
    with serve(cluster(nodes=nodes_with_this_machine(address="http://127.0.0.1:1"))) as queen:
        result = run("check", "--url", queen.url)
    assert result.status == 69
    assert "problem  this node: pool-managerd at http://127.0.0.1:1: no answer" in result.out
    assert "ok       this node: registered with the queen as gpu-1: online" in result.out


def test_machine_that_is_no_node_is_not_mentioned(id_file: Path) -> None:
    id_file.write_text(MACHINE_ID)
    with serve(cluster()) as queen:
        assert "this node" not in run("check", "--url", queen.url).out


def test_local_node_is_checked_without_queen(id_file: Path) -> None:
    id_file.write_text(MACHINE_ID)
    with serve({}) as queen:
        pass
    with serve({"GET /ready": [READY]}) as manager:
        variables = {"POOL_MANAGERD_BIND_ADDR": manager.url.removeprefix("http://")}
        assert (
            f"this node: pool-managerd at {manager.url} is ready" in run("check", "--url", queen.url, **variables).out
        )


def test_missing_pool_managerd_is_a_problem() -> None:
    with serve(cluster()) as queen:
        result = run("check", "--url", queen.url, POOL_MANAGERD_NODE_ID="gpu-1")
    assert result.status == 69
    assert "problem  this node: pool-managerd at http://127.0.0.1:1: no answer" in result.out


def test_pool_managerd_is_found_at_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(cluster()) as queen, serve({"GET /ready": [reply(200, {"ready": True, "reasons": []})]}) as manager:
        monkeypatch.setattr(local_node, "DEFAULT_HOST", Host("127.0.0.1", int(manager.url.rpartition(":")[2])))
        assert f"this node: pool-managerd at {manager.url} is ready" in run("check", "--url", queen.url).out


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        (None, "http://127.0.0.1:1"),
        ("0.0.0.0:9200", "http://127.0.0.1:9200"),
        ("[::]:9300", "http://[::1]:9300"),
        ("10.0.0.7:9200", "http://10.0.0.7:9200"),
        ("nonsense", "http://127.0.0.1:1"),
    ],
)
def test_wildcard_address_is_queried_on_loopback(bind: str | None, url: str) -> None:
    assert local_url(bind) == url


@given(st.integers(0, 2**32), st.floats(-1e6, 1e6))
def test_clock_difference_is_accurate_to_half_a_second(date: int, off: float) -> None:
    measured = clock_ahead(formatdate(date, usegmt=True), date - off)
    assert measured is not None
    assert abs(measured - off) <= 0.5001


@pytest.mark.parametrize(
    "date", [None, "", "yesterday", "Thu, 99 Nov 2026 09:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT"]
)
def test_invalid_date_is_ignored(date: str | None) -> None:
    assert clock_ahead(date, time.time()) is None


def test_pool_managerd_is_queried_over_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pool-managerd.sock"
    monkeypatch.setattr(local_node, "POOL_MANAGERD_SOCKET", path)
    with serve(cluster()) as queen, serve({"GET /ready": [READY]}, path):
        assert f"pool-managerd at unix:{path} is ready" in run("check", "--url", queen.url).out


def test_node_address_in_environment_wins_over_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pool-managerd.sock"
    monkeypatch.setattr(local_node, "POOL_MANAGERD_SOCKET", path)
    with serve(cluster()) as queen, serve({"GET /ready": [READY]}) as manager, serve({}, path):
        bind = manager.url.removeprefix("http://")
        out = run("check", "--url", queen.url, POOL_MANAGERD_BIND_ADDR=bind).out
    assert f"pool-managerd at {manager.url} is ready" in out
