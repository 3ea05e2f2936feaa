"""orchctl events: each event once, in order, over broken connections too."""

import json
from pathlib import Path

import pytest

from orchctl.events import stream as live_stream
from tests.unit.orchctl.imitation_tools import Tools, journal_lines
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import HOLD, error, serve
from tests.unit.orchctl.terminal import CTRL_C, terminal

EVENTS = "GET /v2/events"
HEAD = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n"
HELLO = {"at": "2026-11-30T20:00:00Z", "version": "1", "profile": "home", "pool_actions": [], "node_actions": []}


def event(minute: int, name: str = "pool_ready", level: str = "info") -> dict[str, str]:
    at = f"2026-11-30T20:{minute:02}:00Z"
    return {"at": at, "level": level, "event": name, "text": f"text\n{minute}", "advice": "none"}


def frames(*numbered: tuple[int, dict[str, str]], ready: bool = True) -> bytes:
    """Return a stream with these entries of the journal, then one of another section."""
    change = {"set": {str(number): entry for number, entry in numbered}, "gone": []}
    parts = [("hello", HELLO), ("pools", {"set": {"p": {}}, "gone": []}), ("journal", change)]
    parts += [("ready", {})] if ready else []
    return HEAD + b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in parts)


def test_last_events_are_printed_in_order() -> None:
    answer = frames((10, event(3, level="warning")), (9, event(2)), (2, event(1)))
    with serve({EVENTS: [answer + HOLD]}) as queen:
        result = run("events", "--url", queen.url, TZ="UTC")
    assert result.status == 0
    assert [line.split(" ", 2)[2] for line in result.out.splitlines()] == [
        "pool_ready: text 1",
        "pool_ready: text 2",
        "warning: pool_ready: text 3",
    ]


def test_since_leaves_out_older_events_and_json_has_advice() -> None:
    with serve({EVENTS: [frames((1, event(1)), (2, event(2))) + HOLD]}) as queen:
        since = ("--since", "2026-11-30T20:02:00Z")
        (line,) = run("events", "--json", *since, "--url", queen.url).out.splitlines()
    assert json.loads(line).items() >= {"text": "text\n2", "advice": "none", "daemon": "queen-rbee"}.items()


def test_broken_stream_is_connected_again_without_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stream, "RECONNECT_S", (0.0,))
    first, second = frames((1, event(1)), (2, event(2))), frames((1, event(2)), (2, event(3)))
    gone = error(401, "BAD_TOKEN", "the token is not the one this daemon has")
    with serve({EVENTS: [first, error(503, "ADMISSION_REJECT", "full", retriable=True), second, gone]}) as queen:
        result = run("events", "--follow", "--url", queen.url)
    assert [line.rpartition(" ")[2] for line in result.out.splitlines()] == ["1", "2", "3"]
    assert result.status == 77
    assert "connecting again" in result.err


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_absent_queen_ends_the_command(follow: tuple[str, ...]) -> None:
    with serve({}) as queen:
        pass
    result = run("events", *follow, "--url", queen.url)
    assert result.status == 69
    assert "does not answer" in result.err


def test_stream_that_ends_early_is_an_error_without_follow() -> None:
    with serve({EVENTS: [frames((1, event(1)), ready=False)]}) as queen:
        assert run("events", "--url", queen.url).status == 69


def test_ctrl_c_ends_following_quietly() -> None:
    with serve({EVENTS: [frames((1, event(1))) + HOLD]}) as queen:
        with terminal("events", "--follow", "--url", queen.url) as tty:
            tty.wait_for("pool_ready")
            tty.type(CTRL_C)
            assert tty.end() == 130
        queen.wait_until_closed(EVENTS)


def test_events_of_all_daemons_come_from_the_journal(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    plain = {"LLORCH_EVENT": None, "MESSAGE": "not an event"}
    other = {"SYSLOG_IDENTIFIER": "engine-provisioner", "LLORCH_EVENT": "engine_started", "MESSAGE": "runs"}
    tools.add("journalctl", journal_lines({}, plain, other))
    result = run("events", "--journal", PATH=tools.path)
    assert [line.split(" ", 2)[2] for line in result.out.splitlines()] == [
        "queen-rbee: task_ended: task 1 done on pool default",
        "engine-provisioner: engine_started: runs",
    ]
    document = json.loads(run("events", "--journal", "--json", PATH=tools.path).out.splitlines()[1])
    assert (document["daemon"], document["event"], document["text"]) == ("engine-provisioner", "engine_started", "runs")
