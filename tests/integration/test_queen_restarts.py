"""Accepted tasks survive a kill or stop of the queen and its restart with the same state directory."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home

LONG = 900
FINAL = ("done", "failed", "cancelled")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    """A home with one slot and a model that needs seconds for an answer."""
    with home(tmp_path_factory.mktemp("slow"), llama_server_tar, slow_model, slots=1) as running:
        yield running


@pytest.fixture
def slow(shared: Home) -> Home:
    """The home with its queen running and no task in its queue or on its slot."""
    if "queen-rbee" not in shared.processes:
        restart(shared)
    shared.until_ready()
    for active in ("queued", "running"):
        for left in shared.ask("GET", f"/v2/tasks?state={active}")[1]["tasks"]:
            shared.ask("POST", f"/v2/tasks/{left['task_id']}/cancel")
    return shared


def submit(running: Home, **request: Any) -> str:
    status, answer = running.ask("POST", "/v2/tasks", {"prompt": "a secret hello", **request})
    assert status == 202, answer
    return str(answer["task_id"])


def task(running: Home, task_id: str) -> dict[str, Any]:
    status, view = running.ask("GET", f"/v2/tasks/{task_id}")
    assert status == 200, view
    found: dict[str, Any] = view
    return found


def state(running: Home, task_id: str) -> str:
    return str(task(running, task_id)["state"])


def kill(running: Home, by: signal.Signals = signal.SIGKILL) -> None:
    process = running.processes.pop("queen-rbee")
    process.send_signal(by)
    process.wait(60)  # by then the kernel has closed its files and sockets


def restart(running: Home) -> None:
    running.start("queen-rbee")
    running.until(lambda: running.ask("GET", "/health")[0] == 200)


def read_state_files(running: Home) -> bytes:
    """Return the content of all files of the queen's state."""
    files = [path for path in (running.directory / "run").parent.rglob("queen.*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


def test_killed_queen_keeps_tasks_and_repeats_no_answer(slow: Home):
    partly_read = submit(slow, max_tokens=LONG)
    slow.until(lambda: state(slow, partly_read) == "running")
    with slow.stream(f"/v2/tasks/{partly_read}/events") as stream:
        next(event for _, event, _ in stream if event == "token")
        waiting = [submit(slow, max_tokens=4) for _ in range(5)]
        expired = submit(slow, max_tokens=4, deadline_ms=1)
        kill(slow)
    restart(slow)
    assert task(slow, partly_read)["error"]["code"] == "WORKER_RESET"
    assert task(slow, partly_read)["error"]["retriable"]
    slow.until(lambda: all(state(slow, task_id) == "done" for task_id in waiting))
    assert [task(slow, task_id)["usage"]["tokens_out"] for task_id in waiting] == [4] * 5
    assert task(slow, expired)["error"]["code"] in ("DEADLINE_UNMET", "WORKER_RESET"), (
        "the task is known, in either state"
    )
    again = submit(slow, task_id=partly_read, max_tokens=4)
    slow.until(lambda: state(slow, again) == "done")


def test_running_task_without_readers_restarts_from_beginning(slow: Home):
    unread = submit(slow, max_tokens=100, seed=5)
    slow.until(lambda: task(slow, unread)["usage"]["tokens_out"] > 3)
    kill(slow)
    restart(slow)
    with slow.stream(f"/v2/tasks/{unread}/events", {"Last-Event-ID": "9"}) as stream:
        events = list(stream)
    tokens = [data["i"] for _, event, data in events if event == "token"]
    assert tokens == list(range(100)), "an event id of the first run skips nothing of the second"
    assert events[-1][1] == "end"


def test_task_keeps_ids_priority_and_session_over_restart(slow: Home):
    session_id = str(uuid.uuid4())
    first = submit(slow, max_tokens=LONG)
    queued = submit(slow, max_tokens=2, session_id=session_id, priority="batch")
    before = task(slow, queued)
    kill(slow)
    restart(slow)
    after = task(slow, queued)
    assert [after[name] for name in ("task_id", "job_id", "session_id", "priority", "correlation_id")] == [
        before[name] for name in ("task_id", "job_id", "session_id", "priority", "correlation_id")
    ]
    assert after["timings"]["submitted_at"] == before["timings"]["submitted_at"]
    slow.ask("POST", f"/v2/tasks/{first}/cancel")
    slow.until(lambda: state(slow, queued) == "done")
    assert slow.ask("GET", f"/v2/sessions/{session_id}")[0] == 200


def test_stopped_queen_keeps_queued_and_ended_tasks(slow: Home):
    done = submit(slow, max_tokens=2)
    slow.until(lambda: state(slow, done) == "done")
    runs, waits = submit(slow, max_tokens=100), submit(slow, max_tokens=2)
    slow.until(lambda: state(slow, runs) == "running")
    assert slow.stop("queen-rbee") == 0
    restart(slow)
    assert state(slow, done) == "done"
    assert state(slow, runs) == "done"
    slow.until(lambda: state(slow, waits) == "done")


def test_ended_tasks_leave_no_prompt_on_disk(slow: Home):
    tasks = [submit(slow, max_tokens=2) for _ in range(3)]
    slow.until(lambda: all(state(slow, task_id) in FINAL for task_id in tasks))
    assert slow.stop("queen-rbee") == 0
    assert b"a secret hello" not in read_state_files(slow)
