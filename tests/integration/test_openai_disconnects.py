"""Whoever leaves the queen's /v1, however it leaves, frees the engine at once; a full queue says when to come back."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.openai_home import LEAST, SOON_S, at_rest, busy, client_of, tasks, until

LONG = {**LEAST, "max_tokens": 900}
FREE_WITHIN_S = 1.0
"""Far more than is promised: tests share their machine. tests/bench says how long it takes."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    """A home with one slot, a place for one in the queue, and a model slow enough to be left."""
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
def patient(slow: Home) -> Iterator[OpenAI]:
    """A client of the slow home, which is at rest before and after."""
    at_rest(slow)
    with client_of(slow) as made:
        yield made
    at_rest(slow)


def test_full_queue_raises_rate_limit_with_retry_after(slow: Home, patient: OpenAI):
    with patient.chat.completions.create(**LONG, stream=True) as running:
        next(running)
        waiting = threading.Thread(target=lambda: patient.chat.completions.create(**LEAST))
        waiting.start()
        until(lambda: tasks(slow, "queued"))
        with pytest.raises(openai.RateLimitError) as refusal:
            patient.chat.completions.create(**LEAST)
        headers = refusal.value.response.headers
        assert int(headers["retry-after"]) >= 1
        assert int(headers["x-backoff-ms"]) >= 1
        assert headers["x-should-retry"] == "true"
    waiting.join(SOON_S)
    assert not waiting.is_alive()


def test_cancelled_stream_raises_error_with_reason(slow: Home, patient: OpenAI):
    stream = patient.chat.completions.create(**LONG, stream=True)
    next(stream)
    (task,) = tasks(slow, "running")
    slow.ask("POST", f"/v2/tasks/{task['task_id']}/cancel")
    with pytest.raises(openai.APIError, match="cancelled") as failure:
        list(stream)
    assert failure.value.code == "CANCELLED"


def free_within(running: Home) -> None:
    """The engine's slot is free at once."""
    begun = time.monotonic()
    until(lambda: not busy(running))
    assert time.monotonic() - begun < FREE_WITHIN_S


def test_closing_stream_frees_slot(slow: Home, patient: OpenAI):
    with patient.chat.completions.create(**LONG, stream=True) as stream:
        next(stream)
        assert busy(slow) == 1
    free_within(slow)
    assert [task["state"] for task in tasks(slow, "cancelled")][:1] == ["cancelled"]


def test_timeout_of_whole_answer_frees_slot(slow: Home, patient: OpenAI):
    with pytest.raises(openai.APITimeoutError):
        patient.with_options(timeout=0.5).chat.completions.create(**LONG)
    free_within(slow)


def test_timeout_of_queued_client_removes_its_task(slow: Home, patient: OpenAI):
    with patient.chat.completions.create(**LONG, stream=True) as running:
        next(running)
        with pytest.raises(openai.APITimeoutError):
            patient.with_options(timeout=0.3).chat.completions.create(**LEAST)
        until(lambda: not tasks(slow, "queued"))


def test_cancelled_async_client_frees_slot(slow: Home, patient: OpenAI):
    async def give_up() -> None:
        async with AsyncOpenAI(base_url=f"{slow.url}/v1", api_key="none", max_retries=0) as client:
            asking = asyncio.create_task(client.chat.completions.create(**LONG))
            while not await asyncio.to_thread(busy, slow):
                assert not asking.done()
            asking.cancel()

    asyncio.run(give_up())
    free_within(slow)


def test_disconnect_on_reused_connection_frees_slot(slow: Home, patient: OpenAI):
    patient.models.retrieve("default")  # not a hot path: the connection is another server's from here on
    with patient.chat.completions.create(**LONG, stream=True) as stream:
        next(stream)
    free_within(slow)
