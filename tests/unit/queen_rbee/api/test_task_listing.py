"""Listings of tasks over HTTP, and single tasks."""

from pathlib import Path
from uuid import UUID

import pytest

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.store.protocol import Document
from tests.unit.queen_rbee.api_client import FULL, ApiClient, api_client

NONE = str(UUID(int=0))


def queue_tasks(served: ApiClient, count: int) -> list[str]:
    """Queue `count` tasks and return their ids."""
    tasks = [served.parts.intake.admit(TaskRequest(prompt="x"), "c") for _ in range(count)]
    return [str(task.task_id) for task in tasks]


async def test_pages_go_from_newest_to_oldest(tmp_path: Path):
    served = api_client(tmp_path)
    ids = queue_tasks(served, 5)
    found, query = [], "limit=2"
    while True:
        page = (await served.ask("GET", f"/v2/tasks?{query}")).json
        assert page["count"] == len(page["tasks"]) <= 2
        found += [task["task_id"] for task in page["tasks"]]
        if page["next"] is None:
            break
        query = f"limit=2&before={page['next']}"
    assert found == ids[::-1]


async def test_listing_filters_by_state(tmp_path: Path):
    served = api_client(tmp_path)
    first, second = queue_tasks(served, 2)
    task = served.parts.book.get(UUID(first))
    assert task is not None
    served.parts.dispatcher.drop(task, ErrorCode.DEADLINE_UNMET, "late", retriable=False)

    async def list_tasks(state: str) -> list[str]:
        return [each["task_id"] for each in (await served.ask("GET", f"/v2/tasks?state={state}")).json["tasks"]]

    assert await list_tasks("queued") == [second]
    assert await list_tasks("failed") == [first]
    assert await list_tasks("done") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=waiting", "state"),
        ("limit=0", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=000000001999999", "limit"),
        ("before=x", "before"),
    ],
)
async def test_wrong_parameter_is_named(query: str, field: str, tmp_path: Path):
    assert (await api_client(tmp_path).ask("GET", f"/v2/tasks?{query}")).fields == [field]


async def test_queued_task_has_its_position(tmp_path: Path):
    served = api_client(tmp_path)
    queue_tasks(served, 1)
    [task_id] = queue_tasks(served, 1)
    answer = await served.ask("GET", f"/v2/tasks/{task_id}")
    assert (answer.status, answer.json["state"], answer.json["queue_position"]) == (200, "queued", 1)


@pytest.mark.parametrize("task_id", ["x", NONE])
async def test_unknown_task_is_404(task_id: str, tmp_path: Path):
    answer = await api_client(tmp_path).ask("GET", f"/v2/tasks/{task_id}")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_store_failure_is_503(tmp_path: Path):
    served = api_client(tmp_path)
    served.store.failure = FULL
    answer = await served.ask("GET", f"/v2/tasks/{NONE}")
    assert (answer.status, answer.json["hint"]) == (503, "Make room.")


async def test_unknown_pool_is_404(tmp_path: Path):
    answer = await api_client(tmp_path).ask("GET", "/v2/pools/none/health")
    assert (answer.status, answer.json["hint"]) == (404, "GET /v2/pools lists the pools.")


async def after_restart(served: ApiClient, tmp_path: Path, *, ended: int) -> tuple[ApiClient, list[str]]:
    """Restart after `ended` tasks and queue one more; return the new API and all ids, oldest first."""
    ids = queue_durable_tasks(served, ended)
    for task_id in ids:
        task = served.parts.book.get(UUID(task_id))
        assert task is not None
        served.parts.dispatcher.drop(task, ErrorCode.DEADLINE_UNMET, "late", retriable=False)
    restarted = api_client(tmp_path, store=served.store.after_restart())
    return restarted, [*ids, *queue_tasks(restarted, 1)]


def queue_durable_tasks(served: ApiClient, count: int) -> list[str]:
    tasks = [served.parts.intake.admit(TaskRequest(prompt="x"), "c", durable=True) for _ in range(count)]
    return [str(task.task_id) for task in tasks]


async def test_recorded_tasks_follow_those_in_memory(tmp_path: Path):
    restarted, ids = await after_restart(api_client(tmp_path), tmp_path, ended=4)
    found, query = [], "limit=2"
    for _page in range(3):
        page = (await restarted.ask("GET", f"/v2/tasks?{query}")).json
        found += [(task["task_id"], task["state"]) for task in page["tasks"]]
        query = f"limit=2&before={page['next']}"
    assert page["next"] is None
    assert found == [(ids[4], "queued"), *[(task_id, "failed") for task_id in reversed(ids[:4])]]


async def test_records_are_filtered_by_state_and_found_by_id(tmp_path: Path):
    restarted, ids = await after_restart(api_client(tmp_path), tmp_path, ended=2)
    for state, expected in (("failed", ids[1::-1]), ("queued", ids[2:]), ("done", [])):
        page = (await restarted.ask("GET", f"/v2/tasks?state={state}")).json
        assert [task["task_id"] for task in page["tasks"]] == expected
    answer = await restarted.ask("GET", f"/v2/tasks/{ids[0]}")
    assert (answer.status, answer.json["error"]["code"]) == (200, "DEADLINE_UNMET")


async def test_task_in_memory_and_store_is_listed_once(tmp_path: Path):
    served = api_client(tmp_path)
    await after_restart(served, tmp_path, ended=3)
    page = (await served.ask("GET", "/v2/tasks")).json
    assert page["count"] == len({task["task_id"] for task in page["tasks"]}) == 3


async def test_record_of_another_release_is_skipped(tmp_path: Path):
    served = api_client(tmp_path)
    served.store.put_later("record", Document(NONE, '{"unknown": "format"}', tag="done"))
    assert (await served.ask("GET", "/v2/tasks")).json["tasks"] == []
