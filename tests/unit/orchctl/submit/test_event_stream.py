"""The event stream of a task: what is resumed, for how long, and what is not."""

from dataclasses import dataclass, field
from uuid import UUID

import pytest
import trio

from llama_orch.contracts.tasks import Preparation, Streams, TaskAccepted
from llama_orch.http.client.client import UpstreamError, UpstreamTimeout
from llama_orch.http.client.sse import ServerSentEvent
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.errors import CommandError
from orchctl.submit import event_stream
from orchctl.submit.event_stream import RESUME_LIMIT_S, IdleLimited, _ResumableStream, read_to_end
from tests.unit.orchctl import scripted_queen
from tests.unit.orchctl.scripted_queen import END, EVENTS, TASK_ID, error, serve, stream, tokens

ACCEPTED = TaskAccepted(
    task_id=TASK_ID,
    job_id=UUID(int=1),
    queue_position=0,
    predicted_start_ms=0,
    backoff_ms=0,
    streams=Streams(sse=EVENTS, sse_verbose=EVENTS),
    preparation=Preparation(),
)
BUSY = error(503, "POOL_UNREADY", "stopping", retriable=True, retry_after_ms=1000)
NOT_FOUND = error(404, "NOT_FOUND", "there is no such task")
STARTED = stream(*tokens("a"))
ENDED = stream(("end", END), first_id=2)


@dataclass
class Recorder:
    """Records event names, and `(lost)` for each lost connection."""

    names: list[str] = field(default_factory=list)

    def event(self, event: ServerSentEvent) -> None:
        self.names.append(event.name)

    def connection_lost(self) -> None:
        self.names.append("(lost)")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "RECONNECT_S", 0.0)


async def read(*answers: bytes) -> tuple[list[str], scripted_queen.ScriptedQueen]:
    recorder = Recorder()
    with serve({f"GET {EVENTS}": list(answers)}) as queen:
        await read_to_end(QueenClient(queen.url), ACCEPTED, recorder)
    return recorder.names, queen


async def refusal(*answers: bytes) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await read(*answers)
    return caught.value


async def test_losses_are_reported_and_reading_stops_at_end() -> None:
    names, _queen = await read(STARTED, b"", stream(*tokens("b"), first_id=2), stream(("end", END), *tokens("late")))
    assert names == ["token", "(lost)", "(lost)", "token", "(lost)", "end"]


async def test_temporary_refusal_is_retried() -> None:
    names, queen = await read(STARTED, BUSY, ENDED)
    assert names == ["token", "(lost)", "(lost)", "end"]
    assert [request.headers["last-event-id"] for request in queen.requests] == ["", "1", "1"]


async def test_persistent_refusal_is_reported_as_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "RESUME_LIMIT_S", 0.0)
    failure = await refusal(BUSY)
    assert (failure.status, failure.message) == (ExitStatus.TEMPORARY, "POOL_UNREADY: stopping")
    assert failure.hint == "Try again in 1 s."


async def test_missing_events_after_restart_name_the_task_command() -> None:
    failure = await refusal(STARTED, NOT_FOUND)
    assert failure.status is ExitStatus.UNAVAILABLE
    assert failure.message.startswith(f"the stream of task {TASK_ID} broke off: NOT_FOUND")
    assert failure.hint == f"See orchctl tasks {TASK_ID}."


async def test_unknown_task_is_not_retried() -> None:
    assert (await refusal(NOT_FOUND)).status is ExitStatus.NO_INPUT


async def test_permanent_refusal_is_not_retried() -> None:
    assert (await refusal(STARTED, error(401, "BAD_TOKEN", "no"), ENDED)).status is ExitStatus.NO_PERMISSION


async def test_retry_limit_restarts_with_each_event(mock_clock: trio.testing.MockClock) -> None:
    broken = UpstreamError("broke off")
    with serve({f"GET {EVENTS}": [stream(("end", END))]}) as queen:
        resumable = _ResumableStream(QueenClient(queen.url), EVENTS, Recorder())
        mock_clock.jump(10 * RESUME_LIMIT_S)
        assert resumable.should_retry(broken)
        mock_clock.jump(RESUME_LIMIT_S - 0.1)
        assert resumable.should_retry(broken)
        mock_clock.jump(0.1)
        assert not resumable.should_retry(broken)
        assert (await resumable.read()).name == "end"
        assert resumable.should_retry(broken)


async def test_idle_stream_times_out(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[bytes](1)
    limited = IdleLimited(receive)
    await send.send(b"x")
    assert await anext(limited) == b"x"
    with pytest.raises(UpstreamTimeout, match="no data for 45 s"):
        await anext(limited)
    await send.aclose()
    assert [chunk async for chunk in limited] == []
