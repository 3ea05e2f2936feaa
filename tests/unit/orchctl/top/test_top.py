"""orchctl top on a terminal: drawing, keys, resizing, lost connections, and a terminal that is given back."""

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchctl.top.screen import ENTER, LEAVE
from tests.unit.orchctl.running import LIMIT_S, run
from tests.unit.orchctl.scripted_queen import HOLD, TASK_ID, ScriptedQueen, error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, CTRL_Z, Terminal, drawn, terminal
from tests.unit.orchctl.top.states import NODE, SECTIONS, WAITING_ID, live

EVENTS = "GET /v2/events"
DRAIN = "POST /v2/nodes/gpu-1/drain"
CANCEL = f"POST /v2/tasks/{TASK_ID}/cancel"
FOOTER = "q quit"


@contextmanager
def top(
    *streams: bytes,
    columns: int = 100,
    rows: int = 30,
    term: str = "xterm",
    shell: str = "",
    variables: dict[str, str] | None = None,
    answers: dict[str, bytes] | None = None,
) -> Iterator[tuple[Terminal, ScriptedQueen]]:
    """Run orchctl top; check that it gives the terminal back."""
    script = {EVENTS: list(streams or [live() + HOLD]), **{line: [answer] for line, answer in (answers or {}).items()}}
    with (
        serve(script) as queen,
        terminal(
            "top", "--url", queen.url, columns=columns, rows=rows, term=term, shell=shell, **(variables or {})
        ) as tty,
    ):
        before = termios.tcgetattr(tty.master)
        tty.wait_for(FOOTER)
        tty.wait_for(WAITING_ID[:8])
        yield tty, queen
        tty.end()
        assert tty.output.count(LEAVE.encode()) == tty.output.count(ENTER.encode()) >= 1
        assert tty.output.rstrip().endswith(LEAVE.encode())
        assert termios.tcgetattr(tty.master) == before
        assert b"Traceback" not in tty.output


def test_q_ends_with_0_and_gives_terminal_back() -> None:
    with top() as (tty, _queen):
        assert any(line.startswith("gpu-1 ") for line in drawn(tty.output))
        tty.type(b"q")
        assert tty.end() == 0


def test_ctrl_c_ends_with_0() -> None:
    with top() as (tty, _queen):
        tty.type(CTRL_C)
        assert tty.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_it_after_giving_terminal_back(number: signal.Signals) -> None:
    with top() as (tty, _queen):
        os.kill(tty.process.pid, number)
        assert tty.end() == -number


def test_closed_terminal_ends_it_quietly(tmp_path: Path) -> None:
    """Under nohup(1), which ignores SIGHUP, nothing else would."""
    log = tmp_path / "log"
    with serve({EVENTS: [live() + HOLD]}) as queen:
        shell = f"trap '' HUP; \"$@\" 2>{log}; echo $? >>{log}"
        with terminal("top", "--url", queen.url, columns=100, term="xterm", shell=shell) as tty:
            tty.wait_for(WAITING_ID[:8])
            os.close(tty.master)
            tty.master = os.open(os.devnull, os.O_RDONLY)
            tty.process.wait(LIMIT_S)
    assert log.read_text() in ("0\n", "orchctl: cannot write to standard output: Input/output error\n74\n")


def test_refusal_later_ends_with_message_below() -> None:
    script = {EVENTS: [live(), error(401, "BAD_TOKEN", "no")]}
    with serve(script) as queen, terminal("top", "--url", queen.url, columns=100, term="xterm") as tty:
        assert tty.end() == 77
    assert tty.output.partition(LEAVE.encode())[2].startswith(b"orchctl: BAD_TOKEN: no")


def test_d_drains_selected_node_after_y() -> None:
    with top(answers={DRAIN: reply(202, {})}) as (tty, queen):
        tty.type(b"\td")
        tty.wait_for("drain node gpu-1? y/n")
        assert not queen.requests_for(DRAIN)
        tty.type(b"y")
        queen.wait_for(DRAIN)
        tty.wait_for("drain node gpu-1: accepted")
        tty.type(b"q")


def test_c_cancels_selected_task_after_y_and_shows_refusal() -> None:
    with top(answers={CANCEL: error(409, "GONE", "it has ended")}) as (tty, queen):
        tty.type(b"c")
        tty.wait_for("y/n")
        tty.type(b"n")
        tty.wait_for(FOOTER)
        tty.type(b"cy")
        queen.wait_for(CANCEL)
        tty.wait_for("GONE: it has ended")
        tty.type(b"q")
        assert len(queen.requests_for(CANCEL)) == 1


def test_lost_connection_is_shown_and_retried() -> None:
    other = {**SECTIONS, "nodes": {"new": {**NODE, "node_id": "new"}}}
    with top(live(), error(503, "AWAY", "away", retriable=True), live(other) + HOLD) as (tty, queen):
        tty.wait_for("connection lost: AWAY: away")
        queen.wait_for(EVENTS, 3)
        tty.wait_for("new ")
        assert "connection lost" not in "".join(drawn(tty.output))
        tty.type(b"q")


def test_resized_terminal_is_drawn_anew() -> None:
    with top() as (tty, _queen):
        termios.tcsetwinsize(tty.master, (12, 40))
        tty.wait_for("\x1b[12;1H")
        tty.wait_until_it_waits()
        tty.type(b"q")
        tty.end()
        after = tty.output.rpartition(b"\x1b[2J")[2]
        assert max(map(len, drawn(after))) <= 40


def test_stopped_process_leaves_terminal_to_the_shell() -> None:
    with top(shell='"$@"; echo "stopped $?"; stty -a; fg') as (tty, _queen):
        tty.type(CTRL_Z)
        tty.wait_for(LEAVE)
        tty.wait_for(f"stopped {128 + signal.SIGTSTP}")
        tty.wait_for(" icanon")
        tty.wait_for(ENTER)
        tty.wait_for(FOOTER)
        tty.type(b"q")
        assert tty.end() == 0


def test_continued_process_draws_everything_anew() -> None:
    with top() as (tty, _queen):
        os.kill(tty.process.pid, signal.SIGCONT)
        tty.wait_for("\x1b[2J")
        tty.wait_for(FOOTER)
        tty.type(b"q")


def test_no_color_has_no_colours() -> None:
    with top(variables={"NO_COLOR": "1"}) as (tty, _queen):
        tty.type(b"q")
        tty.end()
    assert not [code for code in (b"\x1b[31m", b"\x1b[32m", b"\x1b[33m") if code in tty.output]
    assert b"\x1b[7m" in tty.output


def test_narrow_terminal_with_wide_names_is_not_overflowed() -> None:
    wide = {**SECTIONS, "nodes": {"n": {**NODE, "node_id": "界" * 40}}}
    with top(live(wide) + HOLD, columns=40) as (tty, _queen):
        tty.type(b"q")
        tty.end()
        assert any("界" in line for line in drawn(tty.output))


def test_pipe_and_dumb_terminal_are_refused_with_advice() -> None:
    with serve({}) as queen:
        result = run("top", "--url", queen.url)
        assert (result.status, result.out) == (64, "")
        assert "orchctl top --once" in result.err
        with terminal("top", "--url", queen.url) as tty:
            assert tty.end() == 64
    assert b"\x1b" not in tty.output


def test_once_prints_one_view_without_escapes() -> None:
    with serve({EVENTS: [live() + HOLD]}) as queen:
        result = run("top", "--once", "--url", queen.url)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("queen-rbee 9.9 at http://127.0.0.1:")
    assert "6f1c2a52  running" in result.out
    assert "\x1b" not in result.out


def test_once_asks_for_gpus_that_no_node_reports() -> None:
    gpu = {**SECTIONS["gpus"]["gpu-1/GPU-a"], "node_id": None}
    home = {name: documents for name, documents in SECTIONS.items() if name not in ("nodes", "gpus")}
    script = {EVENTS: [live(home) + HOLD], "GET /v2/gpus": [reply(200, {"gpus": [gpu], "count": 1})]}
    with serve(script) as queen:
        assert "H100" in run("top", "--once", "--url", queen.url).out


def test_queen_that_is_away_is_an_error_at_first() -> None:
    assert run("top", "--once", "--url", "http://127.0.0.1:9").status == 69
