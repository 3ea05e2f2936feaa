"""orchctl tasks and cancel."""

import json

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


def test_row_has_state_times_tokens_pool_and_error() -> None:
    with serve({"GET /v2/tasks": [page(QUEUED, FAILED)]}) as queen:
        result = run("tasks", "--url", queen.url)
    header, queued, failed = (line.split() for line in result.out.splitlines())
    assert (result.status, result.err) == (0, "")
    assert header == ["TASK", "STATE", "AGE", "QUEUED", "FIRST", "TOKENS", "POOL", "ERROR"]
    assert queued[:2] + queued[4:] == [str(TASK_ID), "queued", "-", "-", "0", "-", "-"]
    assert failed[4:] == ["12", "81", "17", "default", *["WORKER_RESET:", "the", "engine", "broke", "off"]]
    assert failed[3] == "d"


def test_options_filter_list_and_json_is_queens() -> None:
    line = f"GET /v2/tasks?limit=3&before={OTHER}&state=failed"
    with serve({line: [page(FAILED)]}) as queen:
        result = run("tasks", "--json", "--state", "failed", "--limit", "3", "--before", OTHER, "--url", queen.url)
    assert json.loads(result.out)["tasks"] == [FAILED]


def test_all_follows_pages_and_pipe_gets_no_note() -> None:
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


def test_circular_pages_are_an_error() -> None:
    script = {
        "GET /v2/tasks?limit=2": [page(following="x")],
        "GET /v2/tasks?limit=2&before=x": [page(following="x")],
    }
    with serve(script) as queen:
        result = run("tasks", "--all", "--limit", "2", "--url", queen.url)
        assert len(queen.requests) == 2
    assert (result.status, result.out) == (69, "")
    assert "sent twice" in result.err


def test_one_task_is_shown_without_unknown_fields() -> None:
    with serve({f"GET /v2/tasks/{OTHER}": [reply(200, FAILED)]}) as queen:
        result = run("tasks", OTHER, "--url", queen.url)
        as_json = run("tasks", OTHER, "--json", "--url", queen.url)
    fields = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert fields["task_id"] == OTHER
    assert fields["usage.tokens_out"] == "17"
    assert fields["error.message"] == "the engine broke off"
    assert fields["error.retriable"] == "yes"
    assert not {"session_id", "queue_position", "timings.ended_at"} & set(fields)
    assert json.loads(as_json.out) == FAILED


def test_empty_list_is_said_and_unknown_task_exits_66() -> None:
    unknown = error(404, "NOT_FOUND", "there is no task x", hint="Ended tasks are kept for a while only.")
    with serve({"GET /v2/tasks": [page()], "GET /v2/tasks/x": [unknown]}) as queen:
        assert run("tasks", "--url", queen.url).out == "there are no matching tasks\n"
        result = run("tasks", "x", "--url", queen.url)
    assert (result.status, result.out) == (66, "")
    assert "there is no task x" in result.err
    assert "kept for a while only" in result.err


def test_id_is_a_single_path_segment() -> None:
    with serve({}) as queen:
        assert run("tasks", "../pools?x=1", "--url", queen.url).status == 66
        assert [request.line for request in queen.requests] == ["GET /v2/tasks/..%2Fpools%3Fx%3D1"]
    assert run("tasks", "").status == 64


def test_cancel_prints_nothing() -> None:
    with serve({f"POST {CANCEL}": [reply(204)]}) as queen:
        assert run("cancel", str(TASK_ID), "--url", queen.url) == run(
            "cancel", str(TASK_ID), "--json", "--url", queen.url
        )
        result = run("cancel", str(TASK_ID), "--url", queen.url)
    assert (result.status, result.out, result.err) == (0, "", "")


def test_failed_cancel_does_not_stop_the_others() -> None:
    not_found = [error(404, "NOT_FOUND", f"there is no task {name}", hint="See GET /v2/tasks.") for name in "ab"]
    script = {
        "POST /v2/tasks/a/cancel": [not_found[0]],
        "POST /v2/tasks/b/cancel": [not_found[1]],
        f"POST {CANCEL}": [reply(204)],
    }
    with serve(script) as queen:
        result = run("cancel", "a", "b", str(TASK_ID), "--url", queen.url)
        assert queen.requests_for(f"POST {CANCEL}")
    assert result.status == 66
    assert result.err.splitlines() == [
        "orchctl: NOT_FOUND: there is no task a",
        "orchctl: NOT_FOUND: there is no task b",
        "orchctl: See GET /v2/tasks.",
    ]


def test_cancel_requires_an_id() -> None:
    assert run("cancel").status == 64
