"""/v1/responses over a scripted engine: streams, documents, stored responses, and errors in OpenAI's format."""

import subprocess
import sys
from typing import Any

import pytest
import trio

from llama_orch.http.server.access import Access
from llama_orch.settings.types import Secret
from queen_rbee.api.v1 import answers
from queen_rbee.response_store import ResponseStore
from tests.unit.queen_rbee.api.v1.test_messages_api import DAEMONS, events
from tests.unit.queen_rbee.messages_examples import call
from tests.unit.queen_rbee.queen_core import wait_for_free_slots
from tests.unit.queen_rbee.response_events import check_events, check_response
from tests.unit.queen_rbee.scripted_openai import USAGE_CHUNK, delta
from tests.unit.queen_rbee.v1_client import V1Exchange, V1Server, build_gate, v1_server

RESPONSES = "/v1/responses"


def asks(words: str | list[Any] = "hello", **fields: object) -> dict[str, Any]:
    return {"model": "tiny", "input": words, **fields}


def checked(line: V1Exchange) -> dict[str, Any]:
    """Check the events of a stream; return the response of the last one."""
    found = events(line)
    assert all(name == data["type"] for name, data in found)
    return check_events([data for _name, data in found])


def store_responses(running: V1Server, size: int = 1 << 20) -> ResponseStore:
    store = ResponseStore(size, 3600)
    running.gate = build_gate(running.queen, store=store)
    return store


async def test_response_has_engine_token_counts():
    async with v1_server() as running:
        line = await running.ask(RESPONSES, asks(), x_correlation_id="mine")
    assert (line.status, line.headers["x-request-id"], line.headers["x-llama-orch-pool"]) == (200, "mine", "p")
    check_response(line.json)
    assert (line.json["status"], line.json["store"]) == ("completed", False)
    assert [part["text"] for part in line.json["output"][0]["content"]] == ["Hello"]
    assert line.json["usage"]["input_tokens_details"]["cached_tokens"] == 5
    assert [line.json["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens")] == [6, 2, 8]


async def test_engine_gets_openai_chat_stream():
    async with v1_server() as running:
        fields: dict[str, Any] = {"instructions": "Be kind.", "metadata": {"user_id": "secret"}, "store": True}
        await running.ask(RESPONSES, asks(max_output_tokens=8, prompt_cache_key="k", **fields))
        asked, body = running.engine.last_request, running.engine.body
    assert b"POST /v1/chat/completions" in asked
    assert b"secret" not in asked
    assert (body["max_tokens"], body["stream"], body["prompt_cache_key"]) == (8, True, "k")
    assert body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]


async def test_stream_ends_with_the_same_response():
    async with v1_server() as running:
        line = await running.ask(RESPONSES, asks(stream=True))
        whole = (await running.ask(RESPONSES, asks())).json
    assert line.headers["content-type"].startswith("text/event-stream")
    found = checked(line)
    changing = {"id", "created_at", "completed_at", "output"}
    assert {key: found[key] for key in found if key not in changing} == {
        key: whole[key] for key in whole if key not in changing
    }
    assert found["output"][0]["content"] == whole["output"][0]["content"]


async def test_calls_and_thoughts_become_items():
    async with v1_server() as running:
        running.engine.script = [
            delta(reasoning_content="hm"),
            delta(**call(0, id="c1", name="get_weather")),
            delta(**call(0, '{"place": "Bern"}')),
            delta("tool_calls"),
            USAGE_CHUNK,
        ]
        line = await running.ask(RESPONSES, asks(stream=True))
    assert [item["type"] for item in checked(line)["output"]] == ["reasoning", "function_call"]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("words", "status", "kind", "code"),
    [
        ("refuse", 400, "invalid_request_error", "context_length_exceeded"),
        ("break", 502, "server_error", "WORKER_RESET"),
        ("silence", 504, "server_error", "DECODE_TIMEOUT"),
    ],
)
async def test_early_failure_is_http_status(words: str, status: int, kind: str, code: str, streamed: bool):
    async with v1_server(short_limits=words == "silence") as running:
        line = await running.ask(RESPONSES, asks(words, stream=streamed))
        await wait_for_free_slots(running.queen)
    assert (line.status, line.error["type"], line.error["code"]) == (status, kind, code)
    assert line.error["param"] == ("input" if words == "refuse" else None)


@pytest.mark.parametrize(("words", "code"), [("midway", "WORKER_RESET"), ("stall", "DECODE_TIMEOUT")])
async def test_late_failure_ends_stream_with_failed_response(words: str, code: str):
    async with v1_server(short_limits=words == "stall") as running:
        store = store_responses(running)
        line = await running.ask(RESPONSES, asks(words, stream=True))
        await wait_for_free_slots(running.queen)
    failed = checked(line)
    assert (failed["status"], failed["store"], store.get(failed["id"])) == ("failed", False, None)
    assert (events(line)[-2][0], events(line)[-2][1]["code"]) == ("error", code)


@pytest.mark.parametrize("streamed", [True, False])
async def test_unreadable_answer_is_an_error(streamed: bool):
    async with v1_server() as running:
        running.engine.script = [delta(content="Hel"), delta(content={"not": "text"}), delta("stop"), USAGE_CHUNK]
        line = await running.ask(RESPONSES, asks(stream=streamed))
    message = checked(line)["error"]["message"] if streamed else line.error["message"]
    assert "not an OpenAI chat chunk" in message
    assert line.status == (200 if streamed else 502)


async def test_invalid_and_unknown_things_have_openai_format():
    async with v1_server() as running:
        wrong = await running.ask(RESPONSES, {"model": "tiny"})
        model = await running.ask(RESPONSES, asks(model="gpt-7"))
        method = await running.ask(RESPONSES, method="GET")
        header = await running.ask(RESPONSES, asks(), x_deadline_ms="soon")
        running.gate = build_gate(running.queen, Access(Secret("0123456789abcdef")))
        token = await running.ask(f"{RESPONSES}/resp_1", method="GET")
    assert (wrong.status, wrong.error["param"], wrong.error["message"]) == (400, "input", "input: is required")
    assert (model.status, model.error["code"]) == (404, "model_not_found")
    assert (method.status, method.error["type"]) == (405, "invalid_request_error")
    assert (header.status, header.error["param"]) == (400, "X-Deadline-Ms")
    assert (token.status, token.error["type"]) == (401, "authentication_error")


async def test_disconnect_cancels_the_task():
    async with v1_server() as running:
        line = running.start(RESPONSES, asks("stall", stream=True))
        await line.wait_for(b"output_text.delta")
        line.disconnect.set()
        await wait_for_free_slots(running.queen)
        (task,) = running.queen.book.newest_first()
    assert task.state == "cancelled"


async def test_waiting_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "KEEP_ALIVE_S", 0.001)
    async with v1_server() as running:
        running.queen.pool(models_available=["tiny"], slots=0)
        line = running.start(RESPONSES, asks(stream=True))
        await line.wait_for(b": keep-alive\n")
        running.queen.pool(models_available=["tiny"])
        with trio.fail_after(5):
            await line.finished.wait()
    assert checked(without_comments(line))["status"] == "completed"


def without_comments(line: V1Exchange) -> V1Exchange:
    line.body = b"\n\n".join(frame for frame in line.body.split(b"\n\n") if not frame.startswith(b":"))
    return line


async def test_store_is_off_by_default_and_errors_say_how_to_turn_it_on():
    async with v1_server() as running:
        made = (await running.ask(RESPONSES, asks(store=True))).json
        read = await running.ask(f"{RESPONSES}/{made['id']}", method="GET")
        continued = await running.ask(RESPONSES, asks(previous_response_id=made["id"]))
    assert made["store"] is False
    assert (read.status, continued.status) == (404, 400)
    assert (continued.error["code"], continued.error["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    for line in (read, continued):
        assert "ORCHD_RESPONSE_STORE_BYTES" in line.error["message"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_stored_response_is_continued_read_and_deleted(streamed: bool):
    async with v1_server() as running:
        store_responses(running)
        line = await running.ask(RESPONSES, asks("one", stream=streamed, instructions="Be kind."))
        first = checked(line) if streamed else line.json
        second = (await running.ask(RESPONSES, asks("two", previous_response_id=first["id"]))).json
        await running.ask(RESPONSES, asks("three", previous_response_id=second["id"]))
        sent: Any = running.engine.body["messages"]
        read = await running.ask(f"{RESPONSES}/{first['id']}", method="GET")
        deleted = await running.ask(f"{RESPONSES}/{first['id']}", method="DELETE")
        again = await running.ask(f"{RESPONSES}/{first['id']}", method="DELETE")
        broken = await running.ask(RESPONSES, asks("four", previous_response_id=second["id"]))
    assert [message["content"] for message in sent] == ["one", "Hello", "two", "Hello", "three"]
    assert (first["store"], second["previous_response_id"], read.json) == (True, first["id"], first)
    assert (deleted.status, deleted.json["deleted"], again.status) == (200, True, 404)
    assert (broken.status, broken.error["code"]) == (400, "previous_response_not_found")
    assert first["id"] in broken.error["message"]


async def test_items_of_stored_responses_are_found_by_their_ids():
    async with v1_server() as running:
        store_responses(running)
        first = (await running.ask(RESPONSES, asks("one"))).json
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        given = [{"role": "user", "content": "one"}, reference, {"role": "user", "content": "two"}]
        second = (await running.ask(RESPONSES, asks(given))).json
        await running.ask(RESPONSES, asks("three", previous_response_id=second["id"]))
        sent: Any = running.engine.body["messages"]
        unknown = await running.ask(RESPONSES, asks([{"id": "msg_1"}, {"role": "user", "content": "two"}]))
    assert [message["content"] for message in sent] == ["one", "Hello", "two", "Hello", "three"]
    assert (unknown.status, unknown.error["param"]) == (400, "input[0].id")
    assert "store: false" in unknown.error["message"]


async def test_client_may_refuse_to_be_stored():
    async with v1_server() as running:
        store_responses(running)
        made = (await running.ask(RESPONSES, asks(store=False))).json
        read = await running.ask(f"{RESPONSES}/{made['id']}", method="GET")
    assert (made["store"], read.status) == (False, 404)


async def test_response_larger_than_the_store_says_so():
    async with v1_server() as running:
        store_responses(running, size=100)
        made = await running.ask(RESPONSES, asks())
    assert (made.status, made.json["store"]) == (200, False)


async def test_stored_response_is_not_streamed_again():
    async with v1_server() as running:
        store_responses(running)
        made = (await running.ask(RESPONSES, asks())).json
        line = await running.ask(f"{RESPONSES}/{made['id']}?stream=true", method="GET")
    assert (line.status, line.error["param"]) == (400, "stream")


async def test_conversation_is_bounded_like_a_body():
    async with v1_server() as running:
        store_responses(running)
        first = (await running.ask(RESPONSES, asks("x" * 600))).json
        running.gate._hot.body_limit = 1000
        line = await running.ask(RESPONSES, asks("y" * 600, previous_response_id=first["id"]))
    assert (line.status, line.error["param"]) == (400, "previous_response_id")
    assert "LLORCH_BODY_LIMIT" in line.error["message"]


async def test_prompts_are_routed_and_counted_as_chats():
    async with v1_server() as running:
        await running.ask(RESPONSES, asks(), x_session_id="4f0c6f6e-7d8b-4a52-9a53-0d1f3c1b7a10")
        (task,) = running.queen.book.newest_first()
    assert (task.demand.endpoint, task.measurements.tokens_in, task.measurements.tokens_out) == ("chat", 6, 2)
    assert str(task.request.session_id).startswith("4f0c6f6e")


def test_translation_is_not_imported_at_start():
    rooms = ("v1.responses.", "v1.chat")
    lazy = f"[name for name in sys.modules if any(room in name for room in {rooms})]"
    program = f"import sys, queen_rbee.api.v1.openai_responses; print(*{lazy})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=DAEMONS)
    assert loaded.stdout.split() == []
