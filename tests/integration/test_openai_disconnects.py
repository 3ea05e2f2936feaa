"""The openai package against a single slot: disconnects free it at once, a full queue answers with Retry-After."""

import asyncio
import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.openai_home import (
    CHAT,
    TIMEOUT_S,
    busy_slots,
    client_of,
    engine_url,
    tasks_in_state,
    wait_until,
    wait_until_idle,
)

LONG = {**CHAT, "max_tokens": 900}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    """A home with one slot, room for one queued task, and a slow model."""
    directory = tmp_path_factory.mktemp("slow")
    with home(
        directory,
        llama_server_tar,
        slow_model,
        slots=1,
        ORCHD_ADMISSION_CAPACITY="1",
        ORCHD_ADMISSION_POLICY="reject-new",
    ) as running:
        yield running


@pytest.fixture
def client(slow: Home) -> Iterator[OpenAI]:
    """A client of the slow home, which is idle before and after the test."""
    wait_until_idle(slow)
    with client_of(slow) as opened:
        yield opened
    wait_until_idle(slow)


def test_full_queue_raises_rate_limit_with_retry_after(slow: Home, client: OpenAI):
    with client.chat.completions.create(**LONG, stream=True) as running:
        next(running)
        waiting = threading.Thread(target=lambda: client.chat.completions.create(**CHAT))
        waiting.start()
        wait_until(lambda: tasks_in_state(slow, "queued"))
        with pytest.raises(openai.RateLimitError) as refusal:
            client.chat.completions.create(**CHAT)
        headers = refusal.value.response.headers
        assert int(headers["retry-after"]) >= 1
        assert int(headers["x-backoff-ms"]) >= 1
        assert headers["x-should-retry"] == "true"
    waiting.join(TIMEOUT_S)
    assert not waiting.is_alive()


def test_cancelled_stream_raises_error_with_reason(slow: Home, client: OpenAI):
    stream = client.chat.completions.create(**LONG, stream=True)
    next(stream)
    (task,) = tasks_in_state(slow, "running")
    slow.ask("POST", f"/v2/tasks/{task['task_id']}/cancel")
    with pytest.raises(openai.APIError, match="cancelled") as failure:
        list(stream)
    assert failure.value.code == "CANCELLED"


def generated_tokens(running: Home) -> float:
    """Return the engine's counter of generated tokens. A request that is not cancelled adds LONG's 900."""
    with urllib.request.urlopen(f"{engine_url(running)}/metrics", timeout=10) as answer:
        found = re.search(r"^llamacpp:tokens_predicted_total ([\d.e+]+)$", answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


@contextmanager
def generation_cut_short(running: Home) -> Iterator[None]:
    """Assert that the slot becomes free after the block, before the engine has generated a whole answer."""
    before = generated_tokens(running)
    yield
    wait_until(lambda: not busy_slots(running))
    assert generated_tokens(running) - before < LONG["max_tokens"]


def test_closing_stream_frees_slot(slow: Home, client: OpenAI):
    with generation_cut_short(slow), client.chat.completions.create(**LONG, stream=True) as stream:
        next(stream)
        assert busy_slots(slow) == 1
    assert [task["state"] for task in tasks_in_state(slow, "cancelled")][:1] == ["cancelled"]


def test_timeout_of_whole_answer_frees_slot(slow: Home, client: OpenAI):
    with generation_cut_short(slow), pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**LONG)


def test_timeout_of_queued_client_removes_its_task(slow: Home, client: OpenAI):
    with client.chat.completions.create(**LONG, stream=True) as running:
        next(running)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(**CHAT)
        wait_until(lambda: not tasks_in_state(slow, "queued"))


def test_cancelled_async_client_frees_slot(slow: Home, client: OpenAI):
    async def cancel_request() -> None:
        async with AsyncOpenAI(base_url=f"{slow.url}/v1", api_key="none", max_retries=0) as async_client:
            request = asyncio.create_task(async_client.chat.completions.create(**LONG))
            while not await asyncio.to_thread(busy_slots, slow):
                assert not request.done()
            request.cancel()

    with generation_cut_short(slow):
        asyncio.run(cancel_request())


def test_disconnect_on_reused_connection_frees_slot(slow: Home, client: OpenAI):
    client.models.retrieve("default")  # not on the hot path: from here on, hypercorn serves the connection
    with generation_cut_short(slow), client.chat.completions.create(**LONG, stream=True) as stream:
        next(stream)
