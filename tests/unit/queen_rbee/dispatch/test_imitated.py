"""Every adapter against a fake engine with its wire format: each behaviour of the engine has a defined outcome.

Runs through the real dispatcher and relay over real sockets. Each time the slot is freed and the connection closed.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest, TaskState
from llama_orch.engines.wire.passage import Endpoint, Passage
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.imitations.openai import MODEL, OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Imitation, listening
from tests.unit.queen_rbee.imitations.tgi import TgiImitation
from tests.unit.queen_rbee.imitations.triton import MODEL as ENSEMBLE
from tests.unit.queen_rbee.imitations.triton import TritonImitation
from tests.unit.queen_rbee.imitations.vllm import VllmImitation
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen, end_events, wait_for_free_slots

Make = Callable[[], Imitation]
ENGINES: dict[str, Make] = {
    "openai-http": OpenAiImitation,
    "vllm": VllmImitation,
    "vllm before 0.10": lambda: VllmImitation(old=True),
    "tgi": TgiImitation,
    "triton with vllm": lambda: TritonImitation(backend="vllm"),
    "triton with tensorrt-llm": lambda: TritonImitation(backend="tensorrtllm"),
    "triton with the llm api": lambda: TritonImitation(backend="llmapi"),
}
EVERY = pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
CHATTING = pytest.mark.parametrize("make", list(ENGINES.values())[:4], ids=list(ENGINES)[:4])
HASTE = StallLimits(connect_s=5.0, first_token_s=0.1, per_prompt_kb_s=0.0, idle_s=0.1)
SPOKEN = ["started", "metrics", "token", "token", "end"]


@asynccontextmanager
async def queen_with(make: Make, limits: StallLimits | None = None) -> AsyncIterator[QueenCore]:
    """A queen with one pool of two slots on the imitation that `make` makes."""
    async with listening(make()) as imitation, trio.open_nursery() as nursery:
        queen = build_queen(imitation)
        queen.runs.limits = limits or StallLimits()
        model = ENSEMBLE if imitation.engine == "triton" else MODEL
        queen.pool(engine=imitation.engine, models_available=[model])
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield queen
        nursery.cancel_scope.cancel()


def pass_on(queen: QueenCore, endpoint: Endpoint, **body) -> Task:
    return queen.intake.admit(TaskRequest(), "c", None, Passage(endpoint, {"model": "mine", **body}, 100))


def chat(queen: QueenCore, words: str = "hello", **body) -> Task:
    return pass_on(queen, "chat", messages=[{"role": "user", "content": words}], **body)


def texts(task: Task) -> str:
    """The answer as its readers get it."""
    return "".join(frame.payload.decode() for frame in task.log.frames(0) if frame.event in ("token", "chunk"))


@EVERY
async def test_prompt_is_answered_token_by_token_and_counted(make: Make) -> None:
    async with queen_with(make) as queen:
        task = queen.submit()
        assert await end_events(task) == SPOKEN
        assert task.state is TaskState.DONE
        assert '"t":"hello "' in texts(task)
        assert '"t":"world"' in texts(task)
        assert task.measurements.tokens_out in (2, 3)  # the end of the sequence is a token of TGI's
        assert task.measurements.tokens_in in (5, 0)  # not every back end of Triton tells
        await wait_for_free_slots(queen)


FAILURES = [
    ("break", ErrorCode.WORKER_RESET),
    ("close", ErrorCode.WORKER_RESET),
    ("garbage", ErrorCode.WORKER_RESET),
    ("nothing", ErrorCode.WORKER_RESET),
    ("midway", ErrorCode.WORKER_RESET),
    ("hang up", ErrorCode.WORKER_RESET),
    ("silence", ErrorCode.DECODE_TIMEOUT),
    ("stall", ErrorCode.DECODE_TIMEOUT),
    ("comments", ErrorCode.DECODE_TIMEOUT),
    ("signs", ErrorCode.DECODE_TIMEOUT),
]


@EVERY
@pytest.mark.parametrize(("mood", "code"), FAILURES)
async def test_failure_is_typed_retriable_and_frees_the_slot(make: Make, mood: str, code: ErrorCode) -> None:
    async with queen_with(make, HASTE if code is ErrorCode.DECODE_TIMEOUT else None) as queen:
        task = queen.submit(mood)
        assert (await end_events(task))[-1] == "error"
        assert task.error
        assert (task.error.code, task.error.retriable) == (code, True)
        await wait_for_free_slots(queen)


@EVERY
async def test_bad_request_gets_the_engines_message(make: Make) -> None:
    async with queen_with(make) as queen:
        task = queen.submit("refuse")
        await end_events(task)
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.INVALID_PARAMS, False)
        assert any(word in task.error.message for word in ("length", "inputs"))
        assert "{" not in task.error.message
        await wait_for_free_slots(queen)


@EVERY
async def test_engine_that_exceeds_max_tokens_is_disconnected(make: Make) -> None:
    async with queen_with(make) as queen:
        task = queen.submit("endless", max_tokens=3)
        await end_events(task)
        assert task.error
        assert task.error.code == ErrorCode.WORKER_RESET
        assert "max_tokens is 3, and it has sent" in task.error.message
        await wait_for_free_slots(queen)


@EVERY
async def test_cancelling_closes_the_connection(make: Make) -> None:
    async with queen_with(make) as queen:
        task = queen.submit("stall")
        with trio.fail_after(5):
            while not task.answer_started:
                await task.log.wait_beyond(task.log.last_id)
        queen.dispatcher.cancel(task)
        await end_events(task)
        assert task.state is TaskState.CANCELLED
        await wait_for_free_slots(queen)


@CHATTING
async def test_chat_is_passed_on_by_chunk_with_its_counts(make: Make) -> None:
    async with queen_with(make) as queen:
        task = chat(queen, stream=False, stream_options={"include_usage": False})
        events = await end_events(task)
        assert (events[2:4], events[-1]) == (["chunk", "chunk"], "end")
        assert (task.measurements.tokens_in, task.measurements.tokens_out) == (5, 2)
        assert '"content": "hello "' in texts(task)
        await wait_for_free_slots(queen)


@CHATTING
@pytest.mark.parametrize(("mood", "code"), FAILURES)
async def test_failed_chat_is_typed_and_frees_the_slot(make: Make, mood: str, code: ErrorCode) -> None:
    async with queen_with(make, HASTE if code is ErrorCode.DECODE_TIMEOUT else None) as queen:
        task = chat(queen, mood)
        assert (await end_events(task))[-1] == "error"
        assert task.error
        assert (task.error.code, task.error.retriable) == (code, True)
        await wait_for_free_slots(queen)


@CHATTING
async def test_text_completion_is_passed_on(make: Make) -> None:
    async with queen_with(make) as queen:
        task = pass_on(queen, "completions", prompt="hello", max_tokens=2)
        events = await end_events(task)
        assert (events[2], events[-1]) == ("chunk", "end")
        assert '"text": "world"' in texts(task)
        await wait_for_free_slots(queen)


@pytest.mark.parametrize("make", [OpenAiImitation, VllmImitation])
async def test_embeddings_are_one_document(make: Make) -> None:
    async with queen_with(make) as queen:
        task = pass_on(queen, "embeddings", input=["a", "b"])
        assert await end_events(task) == ["started", "metrics", "result", "end"]
        assert (task.measurements.tokens_in, task.measurements.tokens_out) == (4, 0)
        await wait_for_free_slots(queen)


async def test_rerank_total_counts_as_input_tokens() -> None:
    async with queen_with(VllmImitation) as queen:
        task = pass_on(queen, "rerank", query="a", documents=["b"])
        assert (await end_events(task))[-2:] == ["result", "end"]
        assert task.measurements.tokens_in == 9


@pytest.mark.parametrize(("mood", "code"), [("break", ErrorCode.WORKER_RESET), ("silence", ErrorCode.DECODE_TIMEOUT)])
async def test_failed_embeddings_are_typed_and_free_the_slot(mood: str, code: ErrorCode) -> None:
    async with queen_with(VllmImitation, HASTE if code is ErrorCode.DECODE_TIMEOUT else None) as queen:
        task = pass_on(queen, "embeddings", input=[mood])
        await end_events(task)
        assert task.error
        assert task.error.code == code
        await wait_for_free_slots(queen)


@pytest.mark.parametrize("make", [TgiImitation, *list(ENGINES.values())[4:]], ids=["tgi", *list(ENGINES)[4:]])
async def test_stop_texts_end_the_answer_if_the_engine_does_not(make: Make) -> None:
    async with queen_with(make) as queen:
        task = queen.submit(stop=["wor", "never", "a, b"])
        assert (await end_events(task))[-1] == "end"
        assert '"t":"hello "' in texts(task)
        assert "wor" not in texts(task)
        await wait_for_free_slots(queen)


async def test_triton_pool_with_several_models_requires_model_ref() -> None:
    async with queen_with(TritonImitation) as queen:
        queen.pool(engine="triton", models_available=[ENSEMBLE, "other"])
        task = queen.submit()
        await end_events(task)
        assert task.error
        assert task.error.code == ErrorCode.INVALID_PARAMS
        assert "set model_ref to one of them" in task.error.message
        assert (await end_events(queen.submit(model_ref=ENSEMBLE)))[-1] == "end"
        await wait_for_free_slots(queen)


@EVERY
async def test_task_parameters_are_translated_for_the_engine(make: Make) -> None:
    async with queen_with(make) as queen:
        plain: dict[str, Any] = {"seed": 7, "max_tokens": 9, "stop": ["x"], "determinism": "strict", "kv_hint": "reuse"}
        extremes: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 0.0}
        for sampling in (extremes, {"temperature": 0.7, "top_p": 0.0, "top_k": 4, "min_p": 0.1, "repeat_penalty": 1.1}):
            task = queen.submit(**plain, **sampling)
            assert (await end_events(task))[-1] == "end", task.error
