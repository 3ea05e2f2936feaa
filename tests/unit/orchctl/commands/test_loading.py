"""orchctl load, unload and ps: operations are followed to their end, Ctrl-C cancels them, loaded models are shown."""

import pytest

from orchctl.commands import operations
from orchctl.commands.ps import format_loaded
from tests.unit.orchctl.cluster import OPERATION, pool
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, terminal

RUNNING = {**OPERATION, "kind": "load", "node_id": None, "message": "pool other is in use"}
DONE = {**RUNNING, "state": "done", "message": "it is loaded"}
LOAD, POLL, CANCEL = "POST /v2/pools/default/preload", "GET /v2/operations/op-1", "DELETE /v2/operations/op-1"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "POLL_S", 0.0)


def test_load_is_followed_to_its_end() -> None:
    with serve({LOAD: [reply(202, RUNNING)], POLL: [reply(200, RUNNING), reply(200, DONE)]}) as queen:
        result = run("load", "default", "--url", queen.url)
        assert len(queen.requests_for(POLL)) == 2
        assert not queen.requests_for(CANCEL)
    assert (result.status, result.out) == (0, "load default: done: it is loaded\n")


def test_failed_load_ends_with_its_reason() -> None:
    with serve({LOAD: [reply(202, {**DONE, "state": "failed", "message": "out of memory"})]}) as queen:
        result = run("load", "default", "--url", queen.url)
    assert (result.status, result.out) == (70, "load default: failed: out of memory\n")


def test_ctrl_c_cancels_the_load() -> None:
    answers = {LOAD: [reply(202, RUNNING)], POLL: [reply(200, RUNNING)], CANCEL: [reply(202, RUNNING)]}
    with serve(answers) as queen, terminal("load", "default", "--url", queen.url) as shell:
        queen.wait_for(POLL)
        shell.type(CTRL_C)
        queen.wait_for(CANCEL)
        shell.end()


def test_unload_waits_only_if_asked() -> None:
    line = "POST /v2/pools/default/unload?node_id=gpu-1"
    answer = {**RUNNING, "kind": "unload"}
    with serve({line: [reply(202, answer)], POLL: [reply(200, {**answer, "state": "done"})]}) as queen:
        first = run("unload", "default", "--node", "gpu-1", "--url", queen.url)
        assert not queen.requests_for(POLL)
        assert run("unload", "default", "--node", "gpu-1", "--wait", "--url", queen.url).status == 0
    assert (first.status, first.out) == (0, "op-1\n")


def test_refusal_is_printed() -> None:
    with serve({LOAD: [error(409, "INVALID_PARAMS", "pool default cannot be loaded or unloaded")]}) as queen:
        assert "cannot be loaded" in run("load", "default", "--url", queen.url).err


def test_ps_shows_what_is_in_memory() -> None:
    residency = {"need_bytes": {"0": 3 << 30}}
    lines = format_loaded(
        [
            pool(node_id=None, residency=residency, idle_s=90, unload_in_s=210, device_mask="0"),
            pool(node_id=None, pool_id="kept", residency=residency, idle_s=5),
            pool(node_id=None, pool_id="off", state="unloaded", ready=False),
        ]
    ).splitlines()
    assert lines[0].split() == ["POOL", "MODEL", "STATE", "DEVICES", "GIB", "BUSY", "IDLE", "UNLOADS", "IN"]
    assert lines[1].split() == ["default", "tiny", "ready", "0", "3.0", "1/4", "90", "s", "4", "min"]
    assert lines[2].split() == ["kept", "tiny", "ready", "-", "3.0", "1/4", "5", "s", "never"]
    assert len(lines) == 3
    assert "no model is loaded" in format_loaded([])
