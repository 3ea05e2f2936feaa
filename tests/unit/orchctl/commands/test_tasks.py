"""orchctl tasks and cancel."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from orchctl.tables import age, duration
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import CANCEL, TASK_ID, error, reply, serve

OTHER = "11111111-2222-4333-8444-555555555555"
TIMES = {"submitted_at": "2020-01-01T00:00:00Z"}
QUEUED: dict[str, object] = {
    "task_id": str(TASK_ID),
    "job_id": "0d9d2b8e-2f0c-4c28-9d6b-1c5f2f1a7a55",
    "state": "queued",
    "workload": "completion",
    "priority": "interactive",
    "queue_position": 2,
    "usage": {"tokens_in": 0, "tokens_out": 0},
    "timings": TIMES,
}
FAILED: dict[str, object] = {
    **QUEUED,
    "task_id": OTHER,
    "state": "failed",
    "queue_position": None,
    "pool_id": "default",
    "usage": {"tokens_in": 3, "tokens_out": 17},
    "timings": {**TIMES, "queued_ms": 12.4, "first_token_ms": 80.6},
    "error": {"code": "WORKER_RESET", "message": "the engine\nbroke off", "retriable": True},
    "a_field_of_a_newer_queen": {"x": 1},
}


def page(*tasks: dict[str, object], following: str | None = None) -> bytes:
    return reply(200, {"tasks": tasks, "count": len(tasks), "next": following})


def test_a_line_a_task_says_state_times_tokens_pool_and_error() -> None:
    with serve({"GET /v2/tasks": [page(QUEUED, FAILED)]}) as queen:
        result = run("tasks", "--url", queen.url)
    header, queued, failed = (line.split() for line in result.out.splitlines())
    assert (result.status, result.err) == (0, "")
    assert header == ["TASK", "STATE", "AGE", "QUEUED", "FIRST", "TOKENS", "POOL", "ERROR"]
    assert queued[:2] + queued[4:] == [str(TASK_ID), "queued", "-", "-", "0", "-", "-"]
    assert failed[4:] == ["12", "81", "17", "default", *["WORKER_RESET:", "the", "engine", "broke", "off"]]
    assert failed[3] == "d"


def test_options_narrow_the_list_and_json_is_the_queens_own() -> None:
    line = f"GET /v2/tasks?limit=3&before={OTHER}&state=failed"
    with serve({line: [page(FAILED)]}) as queen:
        result = run("tasks", "--json", "--state", "failed", "--limit", "3", "--before", OTHER, "--url", queen.url)
    assert json.loads(result.out)["tasks"] == [FAILED]


def test_all_follows_the_pages_and_one_page_does_not_say_in_a_pipe_that_there_are_more() -> None:
    script = {
        "GET /v2/tasks": [page(QUEUED, following="a b")],
        "GET /v2/tasks?limit=500": [page(QUEUED, following="a b")],
        "GET /v2/tasks?limit=500&before=a+b": [page(FAILED)],
    }
    with serve(script) as queen:
        first, every = run("tasks", "--url", queen.url), run("tasks", "--all", "--url", queen.url)
        as_json = run("tasks", "--all", "--json", "--url", queen.url)
    assert (len(first.out.splitlines()), first.err) == (2, "")
    assert [line.split()[1] for line in every.out.splitlines()] == ["STATE", "queued", "failed"]
    pages = [json.loads(line) for line in as_json.out.splitlines()]
    assert [len(one["tasks"]) for one in pages] == [1, 1]


def test_pages_that_lead_in_a_circle_are_not_followed_for_ever() -> None:
    script = {
        "GET /v2/tasks?limit=2": [page(following="x")],
        "GET /v2/tasks?limit=2&before=x": [page(following="x")],
    }
    with serve(script) as queen:
        result = run("tasks", "--all", "--limit", "2", "--url", queen.url)
        assert len(queen.asked) == 2
    assert (result.status, result.out) == (69, "")
    assert "given before" in result.err


def test_one_task_is_shown_whole_without_what_is_not_known() -> None:
    with serve({f"GET /v2/tasks/{OTHER}": [reply(200, FAILED)]}) as queen:
        result = run("tasks", OTHER, "--url", queen.url)
        as_json = run("tasks", OTHER, "--json", "--url", queen.url)
    shown = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert shown["task_id"] == OTHER
    assert shown["usage.tokens_out"] == "17"
    assert shown["error.message"] == "the engine broke off"
    assert shown["error.retriable"] == "yes"
    assert not {"session_id", "queue_position", "timings.ended_at"} & set(shown)
    assert json.loads(as_json.out) == FAILED


def test_no_tasks_is_said_and_an_unknown_one_is_66() -> None:
    unknown = error(404, "NOT_FOUND", "there is no task x", hint="Ended tasks are kept for a while only.")
    with serve({"GET /v2/tasks": [page()], "GET /v2/tasks/x": [unknown]}) as queen:
        assert run("tasks", "--url", queen.url).out == "there are no such tasks\n"
        result = run("tasks", "x", "--url", queen.url)
    assert (result.status, result.out) == (66, "")
    assert "there is no task x" in result.err
    assert "kept for a while only" in result.err


def test_an_id_is_never_more_than_one_step_of_a_path() -> None:
    with serve({}) as queen:
        assert run("tasks", "../pools?x=1", "--url", queen.url).status == 66
        assert [request.line for request in queen.asked] == ["GET /v2/tasks/..%2Fpools%3Fx%3D1"]
    assert run("tasks", "").status == 64


def test_cancel_is_silent() -> None:
    with serve({f"POST {CANCEL}": [reply(204)]}) as queen:
        assert run("cancel", str(TASK_ID), "--url", queen.url) == run(
            "cancel", str(TASK_ID), "--json", "--url", queen.url
        )
        result = run("cancel", str(TASK_ID), "--url", queen.url)
    assert (result.status, result.out, result.err) == (0, "", "")


def test_a_task_that_cannot_be_cancelled_does_not_keep_the_others_from_it() -> None:
    gone = [error(404, "NOT_FOUND", f"there is no task {name}", hint="See GET /v2/tasks.") for name in "ab"]
    script = {
        "POST /v2/tasks/a/cancel": [gone[0]],
        "POST /v2/tasks/b/cancel": [gone[1]],
        f"POST {CANCEL}": [reply(204)],
    }
    with serve(script) as queen:
        result = run("cancel", "a", "b", str(TASK_ID), "--url", queen.url)
        assert queen.of(f"POST {CANCEL}")
    assert result.status == 66
    assert result.err.splitlines() == [
        "orchctl: NOT_FOUND: there is no task a",
        "orchctl: NOT_FOUND: there is no task b",
        "orchctl: See GET /v2/tasks.",
    ]


def test_cancel_wants_an_id() -> None:
    assert run("cancel").status == 64


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_how_long_reads_in_the_largest_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert duration(seconds) == age(now - timedelta(seconds=seconds), now) == text
