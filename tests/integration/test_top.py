"""orchctl top on a terminal, against the three daemons, a real engine and two imitated GPUs."""

import re
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home
from tests.integration.page_home import TOKEN, page_home
from tests.unit.orchctl.terminal import Terminal, drawn, terminal

LONG = {"prompt": "hello", "max_tokens": 900}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    with page_home(tmp_path_factory.mktemp("top"), llama_server_tar, slow_model) as (running, _driver):
        running.until(lambda: pool(running, "main").get("ready"))
        yield running


def pool(running: Home, name: str) -> dict[str, Any]:
    answer = running.ask("GET", "/v2/pools")[1] or {}
    return next((each for each in answer.get("pools", ()) if each["pool_id"] == name), {})


def row(tty: Terminal, beginning: str) -> str:
    """Return the line that begins so on the screen now; empty if there is none."""
    tty.read_output(0.05)
    return next((line for line in drawn(tty.output) if line.startswith(beginning)), "")


def widest_line(tty: Terminal) -> int:
    """Return the length of the longest line since the screen was last cleared."""
    return max(map(len, drawn(tty.output.rpartition(b"\x1b[2J")[2])), default=999)


def tokens(tty: Terminal, task_id: str) -> int:
    """Return the tokens that the row of a running task shows; 0 if there is none."""
    found = re.search(r"running +- +\d+ \S+ +- +(\d+) ", row(tty, task_id[:8]))
    return int(found[1]) if found else 0


def test_view_shows_and_changes_a_running_machine(home: Home) -> None:
    task_id = str(home.ask("POST", "/v2/tasks", LONG)[1]["task_id"])
    with terminal("top", "--url", home.url, columns=110, rows=30, term="xterm", LLORCH_API_TOKEN=TOKEN) as tty:
        before = termios.tcgetattr(tty.master)
        home.until(lambda: tokens(tty, task_id) > 0)
        assert "ready" in row(tty, "main")
        assert "unloaded" in row(tty, "spare")
        home.until(lambda: "93%" in row(tty, "1    ["))
        tty.type(b"c")
        home.until(lambda: row(tty, f"cancel task {task_id}? y/n"))
        tty.type(b"y")
        home.until(lambda: home.ask("GET", f"/v2/tasks/{task_id}")[1]["state"] == "cancelled")
        tty.type(b"\td")
        home.until(lambda: row(tty, "drain pool main? y/n"))
        tty.type(b"y")
        home.until(lambda: pool(home, "main")["draining"])
        home.until(lambda: "draining" in row(tty, "main"))
        tty.type(b"d")
        home.until(lambda: row(tty, "resume pool main? y/n"))
        tty.type(b"y")
        home.until(lambda: not pool(home, "main")["draining"])
        assert home.stop("queen-rbee") == 0
        home.until(lambda: row(tty, "connection lost: "))
        assert row(tty, "main")
        home.start("queen-rbee")
        home.until(lambda: row(tty, "queen-rbee "))
        home.until(lambda: "ready" in row(tty, "main"))
        termios.tcsetwinsize(tty.master, (20, 40))
        home.until(lambda: row(tty, "main") and widest_line(tty) <= 40)
        tty.type(b"q")
        assert tty.end() == 0
        assert termios.tcgetattr(tty.master) == before
    assert b"Traceback" not in tty.output


def test_once_prints_pools_and_gpus(home: Home) -> None:
    home.environ["LLORCH_API_TOKEN"] = TOKEN
    text = home.orchctl("top", "--once").stdout
    (main,) = [line for line in text.splitlines() if line.startswith("main ")]
    assert "ready" in main
    assert any(line.startswith("1    [||||||||| ]") and "93%" in line for line in text.splitlines())
