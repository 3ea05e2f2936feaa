"""orchctl pools."""

import json
import os
import signal
import subprocess

import pytest

from llama_orch.contracts.pools import POOLS_EXAMPLE, POOLS_FILE, PoolState, PoolStatus
from orchctl.commands.pools import format_pools
from tests.unit.orchctl.cluster import pool
from tests.unit.orchctl.running import LIMIT_S, command, environment, run
from tests.unit.orchctl.scripted_queen import error, reply, serve

POOL = {
    "pool_id": "default",
    "state": "ready",
    "live": True,
    "ready": True,
    "draining": False,
    "slots_total": 4,
    "slots_free": 3,
    "engine": "llamacpp",
    "engine_version": "b1",
    "device_mask": "0,1",
    "models_available": ["tiny"],
}
BROKEN = {
    **POOL,
    "pool_id": "b",
    "state": "failed",
    "ready": False,
    "last_error": "model:\n  missing",
    "engine_version": None,
}
LIST = {"pools": [POOL, BROKEN], "count": 2, "revision": 9, "newer": True}


def status_script(**more: bytes) -> dict[str, list[bytes]]:
    """Return the responses for orchctl pools and status."""
    return {
        "GET /v2/pools": [more.get("pools", reply(200, LIST))],
        "GET /v2/meta/version": [reply(200, {"version": "0.1.0", "api_version": "2"})],
        "GET /ready": [more.get("ready", reply(200, {"ready": True, "reasons": []}))],
        "GET /v2/tasks?limit=500&state=queued": [reply(200, {"tasks": [], "count": 500, "next": "t"})],
        "GET /v2/tasks?limit=500&before=t&state=queued": [reply(200, {"tasks": [], "count": 7})],
        "GET /v2/tasks?limit=500&state=running": [reply(200, {"tasks": [], "count": 2})],
    }


TABLE = """\
POOL     STATE   SLOTS  ENGINE       DEVICES  MODELS
default  ready   3/4    llamacpp b1  0,1      tiny
b        failed  3/4    llamacpp     0,1      tiny
b: model: missing
"""


def test_pools_are_a_table_with_errors_below() -> None:
    with serve(status_script()) as queen:
        result = run("pools", "--url", queen.url + "/")
    assert (result.status, result.out, result.err) == (0, TABLE, "")


CLUSTER_TABLE = """\
POOL     NODE   STATE                                SLOTS  ENGINE       DEVICES  MODELS
default  gpu-1  ready                                3/4    llamacpp b1  -        tiny
default  gpu-2  ready, draining, circuit open        3/4    llamacpp b1  -        tiny
default  -      draining, circuit half-open          3/4    llamacpp b1  -        tiny
default  gpu-3  failed                               3/4    llamacpp b1  -        tiny
default on gpu-3: no GPU"""


def test_pools_table_shows_nodes_drains_and_circuits() -> None:
    statuses = [
        pool(),
        pool(node_id="gpu-2", draining=True, circuit="open"),
        pool(node_id=None, state="draining", draining=True, circuit="half-open"),
        pool(node_id="gpu-3", state="failed", ready=False, last_error="no\nGPU"),
    ]
    cells, expected = ([line.split() for line in text.splitlines()] for text in (format_pools(statuses), CLUSTER_TABLE))
    assert cells == expected


def test_json_is_the_queens_document() -> None:
    with serve(status_script()) as queen:
        assert json.loads(run("pools", "--json", "--url", queen.url).out) == LIST


@pytest.mark.parametrize("what", ["pools", "status"])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (error(401, "BAD_TOKEN", "no"), 77),
        (reply(200, {"x": 1}), 69),
        (b"nonsense\r\n\r\n", 69),
        (error(404, "NOT_FOUND", "n"), 66),
    ],
)
def test_refusal_has_exit_status(what: str, answer: bytes, status: int) -> None:
    with serve(status_script(pools=answer)) as queen:
        result = run(what, "--url", queen.url)
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("orchctl: ")


def test_absent_queen_is_named_with_what_to_check() -> None:
    with serve({}) as queen:
        pass
    result = run("status", "--url", queen.url)
    assert result.status == 69
    assert f"queen-rbee at {queen.url} does not answer" in result.err
    assert "systemctl status queen-rbee" in result.err
    assert "ORCHESTRATORD_URL" in result.err


def test_closed_pipe_is_quiet() -> None:
    """As in `orchctl pools | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    with serve(status_script()) as queen:
        process = subprocess.run(
            command("pools", "--url", queen.url),
            env=environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
    os.close(writer)
    assert (process.returncode, process.stderr) == (128 + signal.SIGPIPE, b"")


def test_no_pools_says_what_to_configure() -> None:
    assert all(path in format_pools([]) for path in (POOLS_FILE, POOLS_EXAMPLE))


def test_unknown_values_are_dashes() -> None:
    minimal = PoolStatus(
        pool_id="p", state=PoolState.STARTING, live=False, ready=False, draining=False, engine="llamacpp"
    )
    assert format_pools([minimal]).splitlines()[1].split() == ["p", "starting", "0/0", "llamacpp", "-", "-"]
