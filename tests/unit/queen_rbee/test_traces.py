"""The spans of requests to queen-rbee: one trace from the client's span to the engine's."""

from uuid import UUID

import pytest
import trio
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest, TaskState
from tests.unit.queen_rbee.queen_core import (
    add_vanishing_replicas,
    end_events,
    running_queen,
    wait_for_first_token,
    wait_for_free_slots,
)
from tests.unit.queen_rbee.v1_client import CHAT, chat_body, v1_server
from tests.unit.recorded_spans import CALLER, UNSAMPLED, Tree, attributes, recorded_spans, traceparent

SERVER = f"POST {CHAT}"
MODEL = "hf:org/repo/tiny.gguf"
CALL = f"chat {MODEL}"
SECRET = "the prompt is a secret"
STEPS: Tree = {"llama_orch.admission": {}, "llama_orch.queue": {}, "llama_orch.placement": {}}
DISPATCH: Tree = {"llama_orch.dispatch": {CALL: {}, "llama_orch.relay": {}}}


@pytest.mark.parametrize("streamed", [True, False])
async def test_chat_is_one_trace_below_the_clients_span(streamed: bool) -> None:
    async with recorded_spans() as spans, v1_server() as server:
        body = chat_body(model="tiny", stream=streamed)
        exchange = await server.ask(CHAT, body, traceparent=CALLER)
    assert exchange.status == 200
    assert spans.tree == {SERVER: STEPS | DISPATCH}
    assert {traceparent(span)[:35] for span in spans.all} == {CALLER[:35]}
    parent = spans.named(SERVER).parent
    assert parent
    assert format(parent.span_id, "016x") == CALLER.split("-")[2]
    assert exchange.headers["traceparent"] == CALLER


async def test_engine_gets_the_span_of_its_call() -> None:
    async with recorded_spans() as spans, v1_server() as server:
        await server.ask(CHAT, chat_body(model="tiny"), traceparent=CALLER, tracestate="vendor=1")
        request = server.engine.last_request.decode()
    assert f"traceparent: {traceparent(spans.named(CALL))}-01" in request
    assert "tracestate: vendor=1" in request


async def test_call_follows_the_conventions_for_generative_ai() -> None:
    async with recorded_spans() as spans, v1_server() as server:
        await server.ask(CHAT, chat_body(model="tiny", temperature=0.5, max_tokens=9, stop=[SECRET], stream=True))
    call = spans.named(CALL)
    found = attributes(call)
    assert call.kind.name == "CLIENT"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "llama_cpp"
    assert found["gen_ai.request.model"] == MODEL
    assert (found["gen_ai.request.temperature"], found["gen_ai.request.max_tokens"]) == (0.5, 9)
    assert found["gen_ai.usage.output_tokens"] > 0
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert found["server.address"] == "127.0.0.1"
    assert not [name for name in attributes(spans.named(SERVER)) if name.startswith("gen_ai")]


@pytest.mark.parametrize("prompt", [SECRET, f"refuse {SECRET}", f"break {SECRET}"])
async def test_no_span_has_prompt_or_answer(prompt: str) -> None:
    async with recorded_spans() as spans, v1_server() as server:
        await server.ask(CHAT, chat_body(prompt, model="tiny", stop=[SECRET]))
    assert spans.all
    text = "".join(span.to_json() for span in spans.all)
    assert SECRET not in text
    assert "hello" not in text


async def test_trace_begins_at_the_queen_without_a_client_span() -> None:
    async with recorded_spans() as spans, v1_server() as server:
        await server.ask(CHAT, chat_body(model="tiny"))
        request = server.engine.last_request.decode()
    assert spans.named(SERVER).parent is None
    assert traceparent(spans.named(CALL)) in request


@pytest.mark.parametrize(
    ("sampler", "header", "recorded"),
    [
        ("parentbased_always_on", UNSAMPLED, False),
        ("parentbased_always_off", CALLER, True),
        ("always_on", UNSAMPLED, True),
        ("always_off", CALLER, False),
    ],
)
async def test_sampler_decides_and_trace_id_passes(sampler: str, header: str, recorded: bool) -> None:
    async with recorded_spans(sampler=sampler) as spans, v1_server() as server:
        await server.ask(CHAT, chat_body(model="tiny"), traceparent=header)
        request = server.engine.last_request.decode()
    assert bool(spans.all) is recorded
    assert f"traceparent: {header[:36]}" in request
    assert header not in request
    assert f"-0{int(recorded)}\r\n" in request


async def test_refused_request_is_a_span_with_its_status() -> None:
    async with recorded_spans() as spans, v1_server() as server:
        await server.ask(CHAT, chat_body(model="unknown"))
    (span,) = spans.all
    assert attributes(span)["http.response.status_code"] == 404
    assert attributes(span)["http.route"] == CHAT


async def test_departed_client_leaves_failed_spans() -> None:
    async with recorded_spans() as spans, v1_server() as server:
        exchange = server.start(CHAT, chat_body("stall", model="tiny", stream=True))
        await exchange.wait_for(b"data: ")
        exchange.disconnect.set()
        with trio.fail_after(5):
            await exchange.finished.wait()
        await wait_for_free_slots(server.queen)
    assert attributes(spans.named(SERVER))["error.type"] == "incomplete_answer"
    assert attributes(spans.named(CALL))["error.type"] == ErrorCode.CANCELLED


async def test_stored_task_stays_below_the_request_that_brought_it() -> None:
    async with recorded_spans() as spans, v1_server() as server:
        exchange = await server.ask("/v2/tasks", {"workload": "embedding", "prompt": "hello"}, traceparent=CALLER)
        task = server.queen.book.get(UUID(exchange.json["task_id"]))
        assert task
        await end_events(task)
    call: Tree = {f"embeddings {MODEL}": {}, "llama_orch.relay": {}}
    assert spans.tree == {"POST /v2/tasks": {**STEPS, "llama_orch.dispatch": call}}


async def test_task_restored_after_a_restart_continues_its_trace() -> None:
    async with recorded_spans() as spans, running_queen() as queen:
        task = queen.intake.admit(TaskRequest(prompt="hello"), "c", CALLER)
        await end_events(task)
    assert {traceparent(span)[:35] for span in spans.all} == {CALLER[:35]}
    assert list(spans.tree) == ["llama_orch.queue", "llama_orch.placement", "llama_orch.dispatch"]


async def test_each_attempt_has_a_dispatch_of_its_own() -> None:
    async with recorded_spans() as spans, running_queen(pool_wait_s=0.2) as queen:
        add_vanishing_replicas(queen)
        await end_events(queen.submit())
    dispatches = [span for span in spans.all if span.name == "llama_orch.dispatch"]
    assert len(dispatches) >= 2
    assert [attributes(span)["llama_orch.attempt"] for span in dispatches] == [*range(1, len(dispatches) + 1)]
    assert all("error.type" in attributes(span) for span in dispatches)
    assert len([span for span in spans.all if span.name == "text_completion unknown"]) == len(dispatches)


async def test_cancelled_task_ends_its_spans() -> None:
    async with recorded_spans() as spans, running_queen() as queen:
        running = queen.submit("stall")
        await wait_for_first_token(running)
        queen.dispatcher.cancel(running)
        await wait_for_free_slots(queen)
    assert running.state is TaskState.CANCELLED
    assert running.trace is None
    dispatch = spans.named("llama_orch.dispatch")
    assert attributes(dispatch)["error.type"] == ErrorCode.CANCELLED
    assert {span.name for span in spans.children(dispatch)} == {"text_completion unknown", "llama_orch.relay"}


async def test_task_cancelled_in_the_queue_ends_its_span() -> None:
    async with recorded_spans() as spans, running_queen() as queen:
        running = [queen.submit("stall") for _ in range(2)]
        waiting = queen.submit()
        for task in running:
            await wait_for_first_token(task)
        queen.dispatcher.cancel(waiting)
        for task in running:
            queen.dispatcher.cancel(task)
        await wait_for_free_slots(queen)
    cancelled = [span for span in spans.all if attributes(span).get("llama_orch.task.id") == str(waiting.task_id)]
    assert [attributes(span)["error.type"] for span in cancelled] == [ErrorCode.CANCELLED]


async def test_load_of_the_model_is_part_of_the_wait() -> None:
    async with recorded_spans() as spans, running_queen() as queen:
        task = queen.submit()
        assert task.trace
        submitted_at = task.measurements.submitted_at
        task.trace.loaded(submitted_at - 1, submitted_at + 1, submitted_at=submitted_at)
        task.trace.loaded(submitted_at - 2, submitted_at - 1, submitted_at=submitted_at)
        await end_events(task)
    load = spans.named("llama_orch.load")
    assert load in spans.children(spans.named("llama_orch.queue"))
    assert load.end_time
    assert load.start_time
    assert load.end_time - load.start_time == pytest.approx(2e9, rel=0.01)


async def test_task_that_waits_for_a_restart_ends_its_span() -> None:
    async with recorded_spans() as spans, running_queen() as queen:
        running = [queen.submit("stall") for _ in range(2)]
        for task in running:
            await wait_for_first_token(task)
        waiting = await queen.accept()
        for task in running:
            queen.dispatcher.cancel(task)
        await queen.dispatcher.finish()
    (span,) = [span for span in spans.all if attributes(span).get("llama_orch.task.id") == str(waiting.task_id)]
    assert attributes(span)["error.type"] == "suspended"


async def test_clients_trace_passes_unchanged_without_a_collector() -> None:
    async with v1_server() as server:
        await server.ask(CHAT, chat_body(model="tiny"), traceparent=CALLER)
        assert f"traceparent: {CALLER}" in server.engine.last_request.decode()


@pytest.mark.parametrize(("caller", "traces"), [(CALLER, {CALLER.split("-")[1]}), (UNSAMPLED, set())])
async def test_measurements_lead_to_their_trace(caller: str, traces: set[str]) -> None:
    async with recorded_spans(), v1_server() as server:
        await server.ask(CHAT, chat_body(model="tiny"), traceparent=caller)
        text = generate_openmetrics(server.queen.metrics.registry).decode()
    families = text_string_to_metric_families(text)
    found = {
        (family.name, sample.exemplar.labels["trace_id"])
        for family in families
        for sample in family.samples
        if sample.exemplar
    }
    measured = ("orchd_dispatch_latency_ms", "latency_first_token_ms", "latency_decode_ms")
    assert found == {(name, trace) for name in measured for trace in traces}
