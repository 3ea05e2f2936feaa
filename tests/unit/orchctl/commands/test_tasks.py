"""orchctl tasks and cancel."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from orchctl.tables import age, duration
from tests.unit.orchctl.running import here
from tests.unit.orchctl.scripted_queen import CANCEL, TASK_ID, error, queen, reply

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
    with queen({"GET /v2/tasks": [page(QUEUED, FAILED)]}) as her:
        ended = here("tasks", "--url", her.url)
    header, queued, failed = (line.split() for line in ended.out.splitlines())
    assert (ended.status, ended.err) == (0, "")
    assert header == ["TASK", "STATE", "AGE", "QUEUED", "FIRST", "TOKENS", "POOL", "ERROR"]
    assert queued[:2] + queued[4:] == [str(TASK_ID), "queued", "-", "-", "0", "-", "-"]
    assert failed[4:] == ["12", "81", "17", "default", *["WORKER_RESET:", "the", "engine", "broke", "off"]]
    assert failed[3] == "d"


def test_options_narrow_the_list_and_json_is_the_queens_own() -> None:
    line = f"GET /v2/tasks?limit=3&before={OTHER}&state=failed"
    with queen({line: [page(FAILED)]}) as her:
        ended = here("tasks", "--json", "--state", "failed", "--limit", "3", "--before", OTHER, "--url", her.url)
    assert json.loads(ended.out)["tasks"] == [FAILED]


def test_all_follows_the_pages_and_one_page_does_not_say_in_a_pipe_that_there_are_more() -> None:
    script = {
        "GET /v2/tasks": [page(QUEUED, following="a b")],
        "GET /v2/tasks?limit=500": [page(QUEUED, following="a b")],
        "GET /v2/tasks?limit=500&before=a+b": [page(FAILED)],
    }
    with queen(script) as her:
        first, every = here("tasks", "--url", her.url), here("tasks", "--all", "--url", her.url)
        as_json = here("tasks", "--all", "--json", "--url", her.url)
    assert (len(first.out.splitlines()), first.err) == (2, "")
    assert [line.split()[1] for line in every.out.splitlines()] == ["STATE", "queued", "failed"]
    pages = [json.loads(line) for line in as_json.out.splitlines()]
    assert [len(one["tasks"]) for one in pages] == [1, 1]


def test_pages_that_lead_in_a_circle_are_not_followed_for_ever() -> None:
    script = {
        "GET /v2/tasks?limit=2": [page(following="x")],
        "GET /v2/tasks?limit=2&before=x": [page(following="x")],
    }
    with queen(script) as her:
        ended = here("tasks", "--all", "--limit", "2", "--url", her.url)
        assert len(her.asked) == 2
    assert (ended.status, ended.out) == (69, "")
    assert "given before" in ended.err


def test_one_task_is_shown_whole_without_what_is_not_known() -> None:
    with queen({f"GET /v2/tasks/{OTHER}": [reply(200, FAILED)]}) as her:
        ended = here("tasks", OTHER, "--url", her.url)
        as_json = here("tasks", OTHER, "--json", "--url", her.url)
    shown = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert shown["task_id"] == OTHER
    assert shown["usage.tokens_out"] == "17"
    assert shown["error.message"] == "the engine broke off"
    assert shown["error.retriable"] == "yes"
    assert not {"session_id", "queue_position", "timings.ended_at"} & set(shown)
    assert json.loads(as_json.out) == FAILED


def test_no_tasks_is_said_and_an_unknown_one_is_66() -> None:
    unknown = error(404, "NOT_FOUND", "there is no task x", hint="Ended tasks are kept for a while only.")
    with queen({"GET /v2/tasks": [page()], "GET /v2/tasks/x": [unknown]}) as her:
        assert here("tasks", "--url", her.url).out == "there are no such tasks\n"
        ended = here("tasks", "x", "--url", her.url)
    assert (ended.status, ended.out) == (66, "")
    assert "there is no task x" in ended.err
    assert "kept for a while only" in ended.err


def test_an_id_is_never_more_than_one_step_of_a_path() -> None:
    with queen({}) as her:
        assert here("tasks", "../pools?x=1", "--url", her.url).status == 66
        assert [request.line for request in her.asked] == ["GET /v2/tasks/..%2Fpools%3Fx%3D1"]
    assert here("tasks", "").status == 64


def test_cancel_is_silent() -> None:
    with queen({f"POST {CANCEL}": [reply(204)]}) as her:
        assert here("cancel", str(TASK_ID), "--url", her.url) == here(
            "cancel", str(TASK_ID), "--json", "--url", her.url
        )
        ended = here("cancel", str(TASK_ID), "--url", her.url)
    assert (ended.status, ended.out, ended.err) == (0, "", "")


def test_a_task_that_cannot_be_cancelled_does_not_keep_the_others_from_it() -> None:
    gone = [error(404, "NOT_FOUND", f"there is no task {name}", hint="See GET /v2/tasks.") for name in "ab"]
    script = {
        "POST /v2/tasks/a/cancel": [gone[0]],
        "POST /v2/tasks/b/cancel": [gone[1]],
        f"POST {CANCEL}": [reply(204)],
    }
    with queen(script) as her:
        ended = here("cancel", "a", "b", str(TASK_ID), "--url", her.url)
        assert her.of(f"POST {CANCEL}")
    assert ended.status == 66
    assert ended.err.splitlines() == [
        "orchctl: NOT_FOUND: there is no task a",
        "orchctl: NOT_FOUND: there is no task b",
        "orchctl: See GET /v2/tasks.",
    ]


def test_cancel_wants_an_id() -> None:
    assert here("cancel").status == 64


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_how_long_reads_in_the_largest_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert duration(seconds) == age(now - timedelta(seconds=seconds), now) == text
