"""The relay loses nothing, bounds every wait, and classifies each failure."""

import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import trio
import trio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest, TaskState
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.client.answer import receive_head
from llama_orch.http.client.client import Response
from llama_orch.http.client.sse import EVENT_LIMIT
from queen_rbee.dispatch import relay
from queen_rbee.dispatch.failures import FailureKind, RelayFailure
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.pools.candidates import Candidate
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.imitations.server import listening
from tests.unit.queen_rbee.imitations.tgi import TgiImitation
from tests.unit.queen_rbee.imitations.vllm import VllmImitation
from tests.unit.queen_rbee.scripted_engine import HEAD, chunk

LIMITS = StallLimits(connect_s=5.0, first_token_s=100.0, per_prompt_kb_s=1.0, idle_s=10.0)
LAST = b'data: {"content":"","stop":true,"tokens_evaluated":3,"tokens_predicted":2}\n\n'
END = b"0\r\n\r\n"


def piece(text: str) -> bytes:
    return f"data: {json.dumps({'content': text, 'stop': False})}\n\n".encode()


def candidate(url: str = "http://127.0.0.1:1", engine: str = "llamacpp") -> Candidate:
    return Candidate("p", "r0", url, PoolState.READY, True, False, 1, 0, engine, models=("org/served",))


def running(request: TaskRequest | None = None, passage: Passage | None = None) -> Task:
    task = Task(request or TaskRequest(prompt="hello"), "c", trio.current_time(), passage)
    task.start("p", "r0", trio.current_time())
    return task


async def failure(task: Task, target: Candidate, limits: StallLimits = LIMITS) -> RelayFailure:
    """Return how relaying fails."""
    with pytest.raises(RelayFailure) as failed:
        await relay.run(task, target, adapters()[target.engine], limits)
    return failed.value


def texts(task: Task) -> list[str]:
    return [json.loads(frame.payload)["t"] for frame in task.log.frames(0) if frame.event == "token"]


@dataclass
class ScriptedConnection:
    """A connection that delivers `script`: bytes, and pauses in seconds."""

    script: Iterable[bytes | float]

    def __post_init__(self) -> None:
        self._script = iter(self.script)

    async def receive_some(self, _most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        for item in self._script:
            if isinstance(item, bytes):
                return item
            await trio.sleep(item)
        return b""


def engine_in_memory(monkeypatch: pytest.MonkeyPatch, *script: bytes | float, head_after_s: float = 0.0) -> None:
    """Answer the relay's next request with a 200 head and the body `script`."""

    @asynccontextmanager
    async def request(*_args: object, **_options: object) -> AsyncIterator[Response]:
        await trio.sleep(head_after_s)
        yield await receive_head(HEAD, ScriptedConnection(script), "POST")  # type: ignore[arg-type]

    monkeypatch.setattr(relay, "request", request)


# completeness


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Generate pieces of text, and a stream that encodes them in one of the ways that the SSE standard allows."""
    pieces = draw(st.lists(st.text(min_size=1, max_size=8), max_size=6))
    newline = draw(st.sampled_from([b"\n", b"\r\n"]))
    events = []
    for event in [*map(piece, pieces), LAST]:
        data = event.removeprefix(b"data: ").strip()
        noise = draw(st.sampled_from([b"", b": ping\n", b": ping\n\n", b"event: message\n", b"id: 1\nretry: 9\n"]))
        blank = draw(st.sampled_from([b"", b" "]))
        several = data.replace(b'", "', b'",\ndata:' + blank + b'"') if draw(st.booleans()) else data
        events.append((noise + b"data:" + blank + several + b"\n\n").replace(b"\n", newline))
    return pieces, b"".join(events)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({at % (len(data) + 1) for at in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams(), st.lists(st.integers(0, 10_000), max_size=8), st.lists(st.integers(0, 10_000), max_size=8))
def test_answer_is_complete_however_its_bytes_are_split(
    monkeypatch: pytest.MonkeyPatch, stream: tuple[list[str], bytes], chunks: list[int], segments: list[int]
) -> None:
    async def play() -> None:
        body = b"".join(map(chunk, cut(stream[1], chunks))) + END
        engine_in_memory(monkeypatch, *cut(body, segments))
        task = running()
        await relay.run(task, candidate(), adapters()["llamacpp"], LIMITS)
        assert texts(task) == stream[0]
        assert (task.state, task.measurements.tokens_in, task.measurements.tokens_out) == (TaskState.DONE, 3, 2)

    trio.run(play)


async def test_long_event_is_relayed_up_to_the_event_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine_in_memory(monkeypatch, chunk(piece("x" * (1 << 20))), chunk(LAST), END)
    task = running()
    await relay.run(task, candidate(), adapters()["llamacpp"], LIMITS)
    assert texts(task) == ["x" * (1 << 20)]
    engine_in_memory(monkeypatch, chunk(piece("hello")), chunk(piece("x" * EVENT_LIMIT)), chunk(LAST), END)
    task = running()
    failed = await failure(task, candidate())
    assert (failed.code, failed.retriable) == (ErrorCode.WORKER_RESET, True)
    assert texts(task) == ["hello"]


async def test_invalid_utf8_keeps_the_earlier_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_in_memory(monkeypatch, chunk(piece("hello") + b'data: {"content":"\xff"}\n\n'), END)
    task = running()
    failed = await failure(task, candidate())
    assert failed.code is ErrorCode.WORKER_RESET
    assert "UTF-8" in str(failed)
    assert texts(task) == ["hello"]


@pytest.mark.parametrize("broken", [b"zz\r\n", b"", chunk(piece("b"))[:-3]])
async def test_broken_body_keeps_the_earlier_tokens(monkeypatch: pytest.MonkeyPatch, broken: bytes) -> None:
    engine_in_memory(monkeypatch, chunk(piece("a")), broken)
    task = running()
    failed = await failure(task, candidate())
    assert (failed.code, failed.retriable, failed.next_step) == (ErrorCode.WORKER_RESET, True, "retry")
    assert texts(task) == ["a"]


async def test_events_without_data_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_in_memory(monkeypatch, chunk(b"data:\n\nevent: ping\n\n" + piece("a") + b"data: \n\n" + LAST), END)
    task = running()
    await relay.run(task, candidate(), adapters()["llamacpp"], LIMITS)
    assert texts(task) == ["a"]


# limits


def elapsed_is(limit_s: float, started: float) -> bool:
    """Return whether `limit_s` has passed; a short prompt adds milliseconds."""
    return limit_s <= trio.current_time() - started < limit_s + 0.1


async def test_engine_without_head_stalls_at_first_token_limit(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    engine_in_memory(monkeypatch, head_after_s=1000.0)
    started = trio.current_time()
    failed = await failure(running(), candidate())
    assert failed.code is ErrorCode.DECODE_TIMEOUT
    assert str(failed) == "the engine stalled: no output for 100 s"
    assert elapsed_is(100.0, started)


async def test_long_prompt_extends_the_limit_for_head_and_token(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    engine_in_memory(monkeypatch, 1000.0, head_after_s=60.0)
    started = trio.current_time()
    await failure(running(TaskRequest(prompt="x" * 20480)), candidate())
    assert elapsed_is(120.0, started)


async def test_comments_do_not_extend_the_first_token_limit(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    signs: list[bytes | float] = [chunk(b": ping\n\n"), 1.0, chunk(piece("")), 1.0]
    engine_in_memory(monkeypatch, *signs * 1000)
    started = trio.current_time()
    assert (await failure(running(), candidate())).code is ErrorCode.DECODE_TIMEOUT
    assert elapsed_is(100.0, started)


async def test_chat_role_is_not_a_token(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    role = chunk(b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n')
    rest = chunk(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    engine_in_memory(monkeypatch, role, 90.0, rest, END)
    task = running(passage=Passage("chat", {}, 10))
    await relay.run(task, candidate(), adapters()["llamacpp"], LIMITS)
    assert task.state is TaskState.DONE


async def test_idle_limit_applies_between_tokens(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    engine_in_memory(monkeypatch, 90.0, chunk(piece("a")), 9.0, chunk(piece("b")), 1000.0)
    task, started = running(), trio.current_time()
    assert (await failure(task, candidate())).code is ErrorCode.DECODE_TIMEOUT
    assert texts(task) == ["a", "b"]
    assert 109.0 <= trio.current_time() - started <= 111.0


async def test_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "ANSWER_LIMIT", 1000)
    engine_in_memory(monkeypatch, *[chunk(piece("word"))] * 100)
    task = running()
    failed = await failure(task, candidate())
    assert (failed.code, failed.retriable) == (ErrorCode.WORKER_RESET, True)
    assert "its answer is longer than 1000 characters" in str(failed)
    assert 0 < len(texts(task)) < 100


async def test_few_tokens_beyond_max_tokens_are_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_in_memory(monkeypatch, *[chunk(piece("a"))] * (3 + relay.MAX_EXTRA_TOKENS), chunk(LAST), END)
    task = running(TaskRequest(prompt="x", max_tokens=3))
    await relay.run(task, candidate(), adapters()["llamacpp"], LIMITS)
    assert task.state is TaskState.DONE
    engine_in_memory(monkeypatch, *[chunk(piece("a"))] * (4 + relay.MAX_EXTRA_TOKENS), chunk(LAST), END)
    assert "max_tokens is 3" in str(await failure(running(TaskRequest(prompt="x", max_tokens=3)), candidate()))


DOCUMENT = json.dumps({"data": [{"embedding": [0.25] * 50}], "usage": {"prompt_tokens": 4}}).encode()


@pytest.mark.parametrize("in_thread", [1, 1 << 20])
async def test_document_is_complete_parsed_here_or_in_a_thread(monkeypatch: pytest.MonkeyPatch, in_thread: int) -> None:
    monkeypatch.setattr(relay, "PARSE_IN_THREAD_BYTES", in_thread)
    engine_in_memory(monkeypatch, chunk(DOCUMENT[:70]), chunk(DOCUMENT[70:]), END)
    task = running(passage=Passage("embeddings", {"input": "x"}, 10))
    await relay.run(task, candidate(), adapters()["llamacpp"], LIMITS)
    assert [frame.payload for frame in task.log.frames(0) if frame.event == "result"] == [DOCUMENT]
    assert (task.state, task.measurements.tokens_in) == (TaskState.DONE, 4)


async def test_too_long_or_invalid_document_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    passage = Passage("embeddings", {"input": "x"}, 10)
    monkeypatch.setattr(relay, "ANSWER_LIMIT", 100)
    engine_in_memory(monkeypatch, chunk(DOCUMENT), END)
    assert "longer than 100 bytes" in str(await failure(running(passage=passage), candidate()))
    engine_in_memory(monkeypatch, chunk(b"<html>"), END)
    assert "cannot be parsed" in str(await failure(running(passage=passage), candidate()))


async def test_trickling_document_stalls_at_its_limit(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    trickle: list[bytes | float] = [chunk(b" "), 1.0]
    engine_in_memory(monkeypatch, *trickle * 1000)
    started = trio.current_time()
    failed = await failure(running(passage=Passage("embeddings", {"input": "x"}, 0)), candidate())
    assert failed.code is ErrorCode.DECODE_TIMEOUT
    assert elapsed_is(100.0, started)


# blame and next step


@pytest.mark.parametrize(
    ("mood", "kind"),
    [
        ("busy", FailureKind.UNAVAILABLE),
        ("refuse", FailureKind.BAD_REQUEST),
        ("break", FailureKind.ENGINE_ERROR),
        ("close", FailureKind.CONNECTION_LOST),
        ("nothing", FailureKind.CONNECTION_LOST),
        ("hang up", FailureKind.CONNECTION_LOST),
        ("midway", FailureKind.ENGINE_ERROR),
    ],
)
async def test_engine_failure_has_kind(mood: str, kind: FailureKind) -> None:
    async with listening(VllmImitation()) as engine:
        failed = await failure(running(TaskRequest(prompt=mood)), candidate(engine.url, "vllm"))
    assert failed.kind is kind


async def test_unreachable_engine_is_unavailable() -> None:
    async with listening(VllmImitation()) as engine:
        url = engine.url
    failed = await failure(running(), candidate(url, "vllm"))
    assert (failed.code, failed.retriable, failed.next_step) == (ErrorCode.WORKER_RESET, True, "elsewhere")
    assert str(failed).startswith("the engine is unreachable: cannot connect to 127.0.0.1:")


async def test_engine_that_accepts_no_connection_is_unavailable() -> None:
    with socket.socket() as server, ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _client in range(3):  # fills the backlog: the next client gets no answer
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        limits = StallLimits(connect_s=0.05)
        failed = await failure(running(), candidate(f"http://127.0.0.1:{server.getsockname()[1]}"), limits)
    assert (failed.code, failed.next_step) == (ErrorCode.WORKER_RESET, "elsewhere")
    assert "no connection" in str(failed)


async def test_stall_ends_the_task(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    engine_in_memory(monkeypatch, head_after_s=1000.0)
    assert (await failure(running(), candidate())).kind is FailureKind.STALLED


async def test_busy_error_in_a_stream_is_not_an_answer() -> None:
    async with listening(TgiImitation()) as engine:
        task = running(TaskRequest(prompt="busy"))
        failed = await failure(task, candidate(engine.url, "tgi"))
        assert (failed.kind, task.answer_started) == (FailureKind.UNAVAILABLE, False)
        task.request = TaskRequest(prompt="well")
        await relay.run(task, candidate(engine.url, "tgi"), adapters()["tgi"], LIMITS)
    assert texts(task) == ["hello ", "world"]


async def test_known_request_error_in_a_stream_is_bad_request(monkeypatch: pytest.MonkeyPatch) -> None:
    words = b"input (902 tokens) is too large to process"
    engine_in_memory(monkeypatch, chunk(b'data: {"error":{"code":500,"message":"%s"}}\n\n' % words))
    failed = await failure(running(), candidate())
    assert (failed.code, failed.blame, failed.reason) == (
        ErrorCode.INVALID_PARAMS,
        "nobody",
        "context_length_exceeded",
    )


async def test_busy_error_after_a_token_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = b'data: {"error":{"code":503,"message":"busy"}}\n\n'
    engine_in_memory(monkeypatch, chunk(piece("a") + busy))
    assert (await failure(running(), candidate())).kind is FailureKind.BUSY_MIDWAY


@pytest.mark.parametrize("body", [b"x" * (1 << 20), b""])
async def test_refusal_counts_even_if_its_body_breaks_off(body: bytes) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        head = b"HTTP/1.1 400 X\r\ncontent-length: %d\r\n\r\n" % (len(body) + 1)  # the body is incomplete
        await stream.send_all(head + body)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        failed = await failure(running(), candidate(f"http://127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()
    assert (failed.code, failed.retriable, failed.blame) == (ErrorCode.INVALID_PARAMS, False, "nobody")
    assert 0 < len(str(failed)) < 5000


async def test_request_that_the_adapter_rejects_is_bad_request() -> None:
    target = Candidate("p", "r0", "http://127.0.0.1:1", PoolState.READY, True, False, 1, 0, "triton", models=("a", "b"))
    failed = await failure(running(), target)
    assert (failed.code, failed.blame) == (ErrorCode.INVALID_PARAMS, "nobody")
