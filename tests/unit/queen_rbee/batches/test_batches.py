"""Batches run each request once, whenever the daemon is killed, and say truly what they have done."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from llama_orch.contracts.batches import BatchLine, NewBatch, Url
from llama_orch.contracts.errors import ApiError
from queen_rbee.batches.batches import Batches
from queen_rbee.batches.share import Load
from queen_rbee.batches.work import LineAnswer

CHATS: Url = "/v1/chat/completions"
DAY_S = 86_400
Answer = Callable[[BatchLine], LineAnswer]


def ok(line: BatchLine) -> LineAnswer:
    return LineAnswer(200, b'{"ok":true}', f"r-{line.custom_id}")


def free(ours: int) -> Load:
    return Load(slots=8, free=8 - ours, waiting=0, ours=ours, most=25)


class Client:
    """Answers requests as a fleet would; counts how often each was asked."""

    def __init__(self, answer: Answer = ok) -> None:
        self.asked: Counter[str] = Counter()
        self._answer = answer

    async def __call__(self, url: Url, line: BatchLine) -> LineAnswer:
        await trio.sleep(0.01)
        self.asked[line.custom_id] += 1
        return self._answer(line)


async def opened(directory: Path, quota: int = 1 << 20) -> Batches:
    """Return the batches as after a start of the daemon."""
    batches = Batches(directory, quota, 30 * DAY_S)
    await batches.load()
    return batches


def upload(batches: Batches, count: int, first: int = 0) -> str:
    draft = batches.files.draft()
    for number in range(first, first + count):
        request = {"custom_id": f"c{number}", "method": "POST", "url": CHATS, "body": {"model": "m"}}
        batches.files.append(draft, json.dumps(request).encode() + b"\n")
    return batches.files.keep(draft, "requests.jsonl", "batch").id


async def started(batches: Batches, count: int) -> str:
    return (await batches.create(NewBatch(input_file_id=upload(batches, count), endpoint=CHATS))).id


async def run_until(batches: Batches, batch_id: str, client: Client, state: str, step_s: float = 0.01) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(batches.run, client, free)
        await until(lambda: batches.get(batch_id).status == state, step_s)
        nursery.cancel_scope.cancel()


def cut_last_write(files: Path) -> None:
    """Leave what a kill in the middle of a write leaves."""
    for part in files.glob("file-*"):
        if part.suffix != ".json" and b'"response"' in part.read_bytes()[:200]:
            part.write_bytes(part.read_bytes() + b'{"id":"batch_req_1","custom_id":"c')


async def until(condition: Callable[[], object], step_s: float = 0.01) -> None:
    while not condition():  # noqa: ASYNC110 -- on the mock clock
        await trio.sleep(step_s)


def results(batches: Batches, file_id: str | None) -> list[str]:
    """Return the custom_ids in a result file."""
    if file_id is None:
        return []
    return [json.loads(line)["custom_id"] for line in batches.files.path(file_id).read_text().splitlines()]


async def test_each_request_is_answered_in_the_output(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    batches = await opened(tmp_path)
    batch_id, client = await started(batches, 20), Client()
    await run_until(batches, batch_id, client, "completed")
    batch = batches.get(batch_id)
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
    assert sorted(results(batches, batch.output_file_id)) == sorted(f"c{number}" for number in range(20))
    assert batch.error_file_id is None
    assert set(client.asked.values()) == {1}


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.011, 0.02, 0.05])
async def test_killed_daemon_repeats_no_finished_request(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, after_s: float
):
    batch_id, client = "", Client()
    for kill in range(4):
        batches = await opened(tmp_path)
        batch_id = batch_id or await started(batches, 40)
        with trio.move_on_after(after_s + kill / 100):
            await batches.run(client, free)
        cut_last_write(tmp_path / "files")
    batches = await opened(tmp_path)
    await run_until(batches, batch_id, client, "completed")
    batch = batches.get(batch_id)
    assert sorted(results(batches, batch.output_file_id)) == sorted(f"c{number}" for number in range(40))
    assert batch.request_counts.completed == 40


async def test_failures_go_to_the_error_file(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    def half(line: BatchLine) -> LineAnswer:
        return ok(line) if int(line.custom_id[1:]) % 2 else LineAnswer(404, b'{"error":{}}', "r")

    batches = await opened(tmp_path)
    batch_id = await started(batches, 10)
    await run_until(batches, batch_id, Client(half), "completed")
    batch = batches.get(batch_id)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (5, 5)
    assert len(results(batches, batch.output_file_id)) == len(results(batches, batch.error_file_id)) == 5


async def test_refused_request_is_tried_until_it_is_taken(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    client = Client(lambda line: ok(line) if client.asked[line.custom_id] > 20 else LineAnswer(429, b"{}", "r", 1.0))
    batches = await opened(tmp_path)
    batch_id = await started(batches, 1)
    await run_until(batches, batch_id, client, "completed")
    assert batches.get(batch_id).request_counts.completed == 1


async def test_failing_engine_is_given_up(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    client = Client(lambda _line: LineAnswer(502, b"{}", "r", 1.0))
    batches = await opened(tmp_path)
    batch_id = await started(batches, 1)
    await run_until(batches, batch_id, client, "completed")
    assert (batches.get(batch_id).request_counts.failed, client.asked["c0"]) == (1, 5)


async def test_cancel_keeps_what_is_done(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    batches, client = await opened(tmp_path), Client()
    batch_id = await started(batches, 500)
    async with trio.open_nursery() as nursery:
        await nursery.start(batches.run, client, free)
        await until(lambda: batches.get(batch_id).request_counts.completed >= 10)
        assert (await batches.cancel(batch_id)).status in ("cancelling", "cancelled")
        await until(lambda: batches.get(batch_id).status == "cancelled")
        nursery.cancel_scope.cancel()
    batch = batches.get(batch_id)
    assert 10 <= batch.request_counts.completed < 500
    assert len(results(batches, batch.output_file_id)) == batch.request_counts.completed
    with pytest.raises(ApiError, match="has ended"):
        await batches.cancel(batch_id)


async def test_expired_batch_names_each_request_that_did_not_run(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    batches = await opened(tmp_path)
    batch_id = await started(batches, 3)
    never = Client(lambda _line: LineAnswer(429, b"{}", "r", 600.0))
    await run_until(batches, batch_id, never, "expired", step_s=600)
    batch = batches.get(batch_id)
    assert results(batches, batch.error_file_id) == ["c0", "c1", "c2"]
    assert batch.request_counts.failed == 3


async def test_invalid_file_fails_with_its_lines(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    batches = await opened(tmp_path)
    draft = batches.files.draft()
    batches.files.append(draft, b'{"custom_id": 1}\nhello\n')
    file_id = batches.files.keep(draft, "bad.jsonl", "batch").id
    batch_id = (await batches.create(NewBatch(input_file_id=file_id, endpoint=CHATS))).id
    await run_until(batches, batch_id, Client(), "failed")
    errors = batches.get(batch_id).errors
    assert errors
    assert [problem.line for problem in errors.data] == [1, 2]


async def test_batch_beyond_the_quota_fails_and_keeps_its_results(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    batches = await opened(tmp_path, quota=6000)
    batch_id = await started(batches, 40)
    await run_until(batches, batch_id, Client(), "failed")
    batch = batches.get(batch_id)
    assert batch.errors
    assert batch.errors.data[0].code == "quota_exceeded"
    assert len(results(batches, batch.output_file_id)) == batch.request_counts.completed > 0


async def test_input_of_a_waiting_batch_is_not_deleted(tmp_path: Path):
    batches = await opened(tmp_path)
    batch_id = await started(batches, 1)
    with pytest.raises(ApiError, match=batch_id):
        await batches.delete_file(batches.get(batch_id).input_file_id)


async def test_interrupted_upload_leaves_nothing(tmp_path: Path):
    batches = await opened(tmp_path)
    batches.files.append(batches.files.draft(), b"half")
    batches = await opened(tmp_path)
    assert (batches.files.used, os.listdir(tmp_path / "files")) == (0, [])


async def test_old_files_and_batches_are_erased(tmp_path: Path, autojump_clock: trio.testing.MockClock):
    batches = Batches(tmp_path, 1 << 20, keep_s=0)
    await batches.load()
    batch_id = await started(batches, 2)
    async with trio.open_nursery() as nursery:
        await nursery.start(batches.run, Client(), free)
        await until(lambda: not batches.newest_first() and not batches.files.newest_first(), step_s=1)
        nursery.cancel_scope.cancel()
    assert not [name for folder in ("files", "batches") for name in os.listdir(tmp_path / folder)], batch_id
