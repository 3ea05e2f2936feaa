"""orchctl pools and status, the command line, and the table for people."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch import VERSION
from llama_orch.contracts.pools import POOLS_EXAMPLE, POOLS_FILE, PoolState, PoolStatus
from orchctl.commands.pools import pools_text
from orchctl.tables import ordinal, table
from tests.unit.orchctl.cluster import pool
from tests.unit.orchctl.running import LIMIT_S, command, environment, run
from tests.unit.orchctl.scripted_queen import error, reply, serve
from tests.unit.orchctl.terminal import terminal

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


def seen(**more: bytes) -> dict[str, list[bytes]]:
    """The script of a queen that is looked at."""
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


def test_pools_are_a_table_and_why_one_is_not_well() -> None:
    with serve(seen()) as queen:
        result = run("pools", "--url", queen.url + "/")
    assert (result.status, result.out, result.err) == (0, TABLE, "")


CLUSTER_TABLE = """\
POOL     NODE   STATE                                SLOTS  ENGINE       DEVICES  MODELS
default  gpu-1  ready                                3/4    llamacpp b1  -        tiny
default  gpu-2  ready, draining, circuit open        3/4    llamacpp b1  -        tiny
default  -      draining, circuit half-open          3/4    llamacpp b1  -        tiny
default  gpu-3  failed                               3/4    llamacpp b1  -        tiny
default on gpu-3: no GPU"""


def test_pools_of_nodes_are_told_apart_and_drains_and_circuits_are_seen() -> None:
    found = [
        pool(),
        pool(node_id="gpu-2", draining=True, circuit="open"),
        pool(node_id=None, state="draining", draining=True, circuit="half-open"),
        pool(node_id="gpu-3", state="failed", ready=False, last_error="no\nGPU"),
    ]
    squeezed, wanted = ([line.split() for line in text.splitlines()] for text in (pools_text(found), CLUSTER_TABLE))
    assert squeezed == wanted


def test_json_is_the_queens_own() -> None:
    with serve(seen()) as queen:
        assert json.loads(run("pools", "--json", "--url", queen.url).out) == LIST


def test_status_says_version_readiness_tasks_and_pools() -> None:
    with serve(seen(ready=reply(503, {"ready": False, "reasons": ["no pool is ready"]}))) as queen:
        result = run("status", "--url", queen.url)
        found = json.loads(run("status", "--json", "--url", queen.url).out)
    head = f"queen-rbee 0.1.0 at {queen.url}: not ready (no pool is ready), 507 queued, 2 running\n\n"
    assert (result.status, result.out) == (0, head + TABLE)
    assert found["tasks"] == {"queued": 507, "running": 2}
    assert found["ready"] == {"ready": False, "reasons": ["no pool is ready"]}


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
def test_a_refusal_has_its_status(what: str, answer: bytes, status: int) -> None:
    with serve(seen(pools=answer)) as queen:
        result = run(what, "--url", queen.url)
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("orchctl: ")


def test_a_queen_that_is_not_there_is_named_with_what_to_look_at() -> None:
    with serve({}) as queen:
        pass
    result = run("status", "--url", queen.url)
    assert result.status == 69
    assert f"queen-rbee at {queen.url} does not answer" in result.err
    assert "systemctl status queen-rbee" in result.err
    assert "ORCHESTRATORD_URL" in result.err


@pytest.mark.parametrize(
    "url",
    [
        "queen:8080",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://a b/",
        "http://ü/",
        "http://[::1",
        "http://h/?a=b",
        "http://h#f",
        "http://user:pass@h",
    ],
)
def test_what_is_no_url_is_a_usage_error(url: str) -> None:
    result = run("pools", "--url", url)
    assert result.status == 64
    assert url in result.err
    assert "http://127.0.0.1:8080" in result.err


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_that_cannot_be_one_is_no_traceback(host: str) -> None:
    assert run("pools", "--url", f"http://{host}:1").status == 69


def test_a_token_that_cannot_be_used_is_told_and_not_shown(tmp_path: Path) -> None:
    missing = run("pools", LLORCH_API_TOKEN_FILE=str(tmp_path / "none"))
    assert missing.status == 66
    assert "No such file" in missing.err
    (tmp_path / "empty").write_text("")
    assert run("pools", LLORCH_API_TOKEN_FILE=str(tmp_path / "empty")).status == 78
    odd = run("pools", LLORCH_API_TOKEN="sécret two lines")
    assert odd.status == 78
    assert "cret" not in odd.err


@pytest.mark.parametrize("arguments", [(), ("fly",), ("submit", "--engine", "gpt"), ("submit", "--max-tokens", "many")])
def test_a_wrong_command_line_is_64(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.status == 64
    assert result.err.startswith("usage: orchctl")


def test_version_and_help() -> None:
    assert run("--version").out == f"orchctl (llama-orch) {VERSION}\n"
    assert all(word in run("--help").out for word in ("status", "pools", "submit"))


def test_a_closed_pipe_is_quiet() -> None:
    """As in `orchctl pools | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    with serve(seen()) as queen:
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


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail() -> None:
    assert table([("A", "LONG", "C"), ("long", "b", "")]) == "A     LONG  C\nlong  b"


CELLS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=70)


@given(st.integers(1, 9).flatmap(lambda size: st.lists(st.lists(CELLS, min_size=size, max_size=size), min_size=2)))
def test_table_fits_60_columns(rows: list[list[str]]) -> None:
    assert max(map(len, table(rows, 60).splitlines())) <= 60


def test_wide_column_is_cut_and_the_first_never() -> None:
    name = "a" * 36
    shown = table([("POOL", "STATE", "MODELS"), (name, "ready", "file:/srv/models/a-long-name.gguf")], 60)
    assert shown.splitlines()[1] == f"{name}  ready  file:/srv/mode\u2026"


def test_table_too_wide_to_cut_is_stacked() -> None:
    header = [f"TITLE{number}" for number in range(9)]
    rows = [header, [f"{'x' * 50} {number}" for number in range(9)], ["y"] * 9]
    first, second = table(rows, 60).split("\n\n")
    assert first.splitlines()[:2] == ["TITLE0  " + "x" * 50 + " 0", "TITLE1  " + "x" * 50 + " 1"]
    assert second.splitlines()[-1] == "TITLE8  y"


def test_table_in_a_pipe_has_its_full_width() -> None:
    models = [f"file:/srv/models/{'m' * 100}.gguf"]
    with serve({"GET /v2/pools": [reply(200, {**LIST, "pools": [{**POOL, "models_available": models}]})]}) as queen:
        assert models[0] in run("pools", "--url", queen.url).out


def test_table_on_a_terminal_has_the_terminals_width() -> None:
    models = [f"file:/srv/models/{'m' * 100}.gguf"]
    script = {"GET /v2/pools": [reply(200, {**LIST, "pools": [{**POOL, "models_available": models}]})]}
    with serve(script) as queen, terminal("pools", "--url", queen.url, columns=60) as tty:
        assert tty.end() == 0
    assert max(map(len, tty.screen)) == 60


def test_no_pools_says_where_to_look() -> None:
    assert all(path in pools_text([]) for path in (POOLS_FILE, POOLS_EXAMPLE))


def test_what_is_not_known_is_a_dash() -> None:
    bare = PoolStatus(pool_id="p", state=PoolState.STARTING, live=False, ready=False, draining=False, engine="llamacpp")
    assert pools_text([bare]).splitlines()[1].split() == ["p", "starting", "0/0", "llamacpp", "-", "-"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (112, "112th")],
)
def test_places_in_the_queue_read_as_words(number: int, text: str) -> None:
    assert ordinal(number) == text
