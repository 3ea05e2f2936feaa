"""Files and batches with the openai package, on a queen that is killed in the middle."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.openai_home import CHAT, client_of, wait_until

LINES = 40
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    with home(tmp_path_factory.mktemp("batches"), llama_server_tar, tiny_model) as opened:
        yield opened


@pytest.fixture
def client(running: Home) -> Iterator[OpenAI]:
    with client_of(running) as opened:
        yield opened


def requests(*bodies: dict[str, Any]) -> bytes:
    return b"".join(
        json.dumps({"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
        + b"\n"
        for number, body in enumerate(bodies)
    )


def submit(client: OpenAI, content: bytes) -> str:
    uploaded = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert (uploaded.filename, uploaded.bytes) == ("requests.jsonl", len(content))
    return client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"who": "test"}
    ).id


def has_done(client: OpenAI, batch_id: str, number: int) -> bool:
    counts = client.batches.retrieve(batch_id).request_counts
    return counts is not None and counts.completed >= number


def results(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    by_id = {result["custom_id"]: result for result in found}
    assert len(by_id) == len(found), "each request is done once"
    return by_id


def test_batch_survives_kills_and_answers_each_request_once(running: Home, client: OpenAI):
    batch_id = submit(client, requests(*[CHAT] * LINES))
    for done in (LINES // 4, LINES // 2):
        wait_until(partial(has_done, client, batch_id, done))
        process = running.processes["queen-rbee"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        running.start("queen-rbee")
        running.until_ready()
    wait_until(lambda: client.batches.retrieve(batch_id).status in ENDED)
    batch = client.batches.retrieve(batch_id)
    assert batch.status == "completed", batch
    assert batch.metadata == {"who": "test"}
    found = results(client, batch.output_file_id)
    assert set(found) == {f"c{number}" for number in range(LINES)}
    direct = client.chat.completions.create(**CHAT).choices[0].message.content
    answers = {result["response"]["body"]["choices"][0]["message"]["content"] for result in found.values()}
    assert answers == {direct}


def test_each_bad_request_is_in_the_error_file(client: OpenAI):
    bad = [{**CHAT, "model": "none"}, {**CHAT, "stream": True}, {**CHAT, "messages": 1}]
    batch_id = submit(client, requests(CHAT, *bad))
    wait_until(lambda: client.batches.retrieve(batch_id).status in ENDED)
    batch = client.batches.retrieve(batch_id)
    assert (batch.status, set(results(client, batch.output_file_id))) == ("completed", {"c0"})
    failures = results(client, batch.error_file_id)
    assert {name: each["response"]["status_code"] for name, each in failures.items()} == {
        "c1": 404,
        "c2": 400,
        "c3": 400,
    }
    assert failures["c1"]["response"]["body"]["error"]["code"] == "model_not_found"


def test_line_that_is_not_json_fails_the_batch(client: OpenAI):
    batch_id = submit(client, requests(CHAT) + b"hello\n")
    wait_until(lambda: client.batches.retrieve(batch_id).status in ENDED)
    batch = client.batches.retrieve(batch_id)
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert [(problem.line, problem.code) for problem in batch.errors.data] == [(2, "invalid_line")]
    assert batch.output_file_id is None


def test_files_are_listed_read_and_deleted(client: OpenAI):
    content = os.urandom(3 << 20)
    file = client.files.create(file=("blob", content), purpose="batch")
    assert client.files.content(file.id).content == content
    assert file.id in {each.id for each in client.files.list(limit=2)}
    assert client.files.delete(file.id).deleted
    for refused in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            refused(file.id)


def test_requests_for_unknown_things_are_refused(client: OpenAI):
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.cancel("batch_1")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a", b"x"), purpose="assistants")
