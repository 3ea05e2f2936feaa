"""orchctl logs: from an id to the entries of the journal, and to the machine that has the others."""

import json
from pathlib import Path

import pytest

from orchctl.journal import subjects
from tests.unit.orchctl.cluster import NODE, POOL
from tests.unit.orchctl.imitation_tools import Tools, journal_lines
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import TASK_ID, error, reply, serve

TASK = {
    "task_id": str(TASK_ID),
    "job_id": "0d9d2b8e-2f0c-4c28-9d6b-1c5f2f1a7a55",
    "state": "done",
    "workload": "completion",
    "priority": "interactive",
    "replica_id": "gpu-1",
    "usage": {"tokens_in": 1, "tokens_out": 2},
    "timings": {"submitted_at": "2026-11-25T09:00:00Z"},
    "correlation_id": "corr-1",
}
NO_TASK = error(404, "NOT_FOUND", "no such task")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine is not one of the nodes."""
    monkeypatch.setattr(subjects, "ID_FILES", (tmp_path / "none",))


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """A journalctl that prints two entries."""
    tools = Tools(tmp_path)
    warning = {"MESSAGE": "slow\nengine", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "pool-managerd"}
    tools.add("journalctl", journal_lines({}, warning))
    return tools


def queen(**changed: bytes) -> dict[str, list[bytes]]:
    answers = {
        f"GET /v2/tasks/{TASK_ID}": changed.get("task", reply(200, TASK)),
        "GET /v2/pools": changed.get("pools", reply(200, {"pools": [{**POOL, "node_id": None}], "count": 1})),
        "GET /v2/nodes": changed.get("nodes", reply(200, {"nodes": [], "count": 0})),
        "*": NO_TASK,
    }
    return {line: [answer] for line, answer in answers.items()}


def matches(tools: Tools) -> list[str]:
    """Return what the last call of journalctl searched for."""
    words = tools.calls("journalctl")[-1]
    return words[words.index("--") + 1 :]


def test_task_is_followed_by_job_and_correlation_id(tools: Tools) -> None:
    with serve(queen()) as served:
        result = run("logs", str(TASK_ID), "--url", served.url, PATH=tools.path, TZ="UTC")
    assert matches(tools) == [f"JOB_ID={TASK['job_id']}", "+", "CORRELATION_ID=corr-1"]
    assert result.status == 0
    first, second = result.out.splitlines()
    assert first.endswith(".123 queen-rbee: task 1 done on pool default")
    assert second.endswith(" pool-managerd: warning: slow engine")


def test_json_has_fields_of_daemons(tools: Tools) -> None:
    with serve(queen()) as served:
        result = run("logs", str(TASK_ID), "--json", "--url", served.url, PATH=tools.path)
    first = json.loads(result.out.splitlines()[0])
    assert first.items() >= {"event": "task_ended", "correlation_id": "corr-1", "daemon": "queen-rbee"}.items()


def test_pool_is_searched_with_its_engine_units(tools: Tools) -> None:
    with serve(queen()) as served:
        run("logs", "default", "--since", "1h", "--url", served.url, PATH=tools.path)
    assert matches(tools)[:4] == ["POOL_ID=default", "+", "UNIT=llama-engine@default.service", "_PID=1"]
    assert any(word.startswith("--since=@") for word in tools.calls("journalctl")[-1])


def test_journal_of_other_machine_is_named_with_command(tools: Tools) -> None:
    nodes = reply(200, {"nodes": [NODE], "count": 1})
    pools = reply(200, {"pools": [POOL], "count": 1})
    with serve(queen(nodes=nodes, pools=pools)) as served:
        results = [
            run("logs", name, "--url", served.url, PATH=tools.path) for name in (str(TASK_ID), "default", "gpu-1")
        ]
    assert [result.status for result in results] == [0, 0, 0]
    assert "there: ssh gpu-1 'orchctl logs corr-1'" in results[0].err
    assert "there: ssh gpu-1 'orchctl logs default'" in results[1].err
    assert "there: ssh gpu-1 'journalctl -u pool-managerd" in results[2].err
    assert matches(tools) == ["NODE_ID=gpu-1"]


def test_node_that_is_this_machine_has_its_daemons(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "known_id", lambda *_files: NODE["machine_id"])
    with serve(queen(nodes=reply(200, {"nodes": [NODE], "count": 1}))) as served:
        result = run("logs", "gpu-1", "--url", served.url, PATH=tools.path)
    assert "_SYSTEMD_UNIT=engine-provisioner.service" in matches(tools)
    assert "ssh" not in result.err


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_unknown_id_says_where_ids_are(tools: Tools, follow: tuple[str, ...]) -> None:
    tools.add("journalctl")
    with serve(queen()) as served:
        result = run("logs", "nobody", *follow, "--url", served.url, PATH=tools.path)
    assert result.status == 66
    assert "nothing here knows nobody" in result.err
    assert "orchctl pools" in result.err


def test_correlation_id_is_found_without_the_queen(tools: Tools) -> None:
    with serve({}) as served:
        pass
    result = run("logs", "corr-1", "--url", served.url, PATH=tools.path)
    assert result.status == 0
    assert result.out.count("\n") == 2
    assert matches(tools)[0] == "CORRELATION_ID=corr-1"


def test_known_pool_without_entries_is_no_error(tools: Tools) -> None:
    tools.add("journalctl")
    with serve(queen()) as served:
        result = run("logs", "default", "--url", served.url, PATH=tools.path)
    assert (result.status, result.out) == (0, "")
    assert "no entries of pool default" in result.err


def test_user_outside_the_groups_is_told_how_to_join(tools: Tools) -> None:
    tools.add("journalctl", err="Hint: You are currently not seeing messages from other users and the system.\n")
    result = run("logs", "default", "--url", "http://127.0.0.1:1", PATH=tools.path)
    assert result.status == 77
    assert "usermod -aG systemd-journal" in result.err


def test_machine_without_journalctl_is_reported(tmp_path: Path) -> None:
    result = run("logs", "default", "--url", "http://127.0.0.1:1", PATH=str(tmp_path))
    assert result.status == 69
    assert "journalctl is not installed" in result.err


def test_failure_of_journalctl_is_its_first_line(tools: Tools) -> None:
    tools.add("journalctl", err="Failed to add match: no\n", more='[ "$2" = --lines=1 ] && exit 0', status=1)
    with serve(queen()) as served:
        result = run("logs", "default", "--url", served.url, PATH=tools.path)
    assert result.status == 65
    assert result.err == "orchctl: Failed to add match: no\n"


@pytest.mark.parametrize("name", ["", "a\nb", "ä", "x" * 300, "\x1b[31m"])
def test_id_that_no_field_can_have_is_refused(tools: Tools, name: str) -> None:
    result = run("logs", "--", name, PATH=tools.path)
    assert result.status == 64
    assert tools.calls("journalctl") == []
