"""A task's stream to its end: what is resumed, for how long, and what is not."""

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
from orchctl.submit.event_stream import RESUME_S, Timely, _Reading, read_to_end
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
GONE = error(404, "NOT_FOUND", "there is no such task")
BEGUN = stream(*tokens("a"))
ENDED = stream(("end", END), first_id=2)


@dataclass
class Seen:
    """What a reader is shown; the loss of a connection stands among the events."""

    names: list[str] = field(default_factory=list)

    def event(self, event: ServerSentEvent) -> None:
        self.names.append(event.name)

    def lost(self) -> None:
        self.names.append("(lost)")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "RECONNECT_S", 0.0)


async def read(*answers: bytes) -> tuple[list[str], scripted_queen.ScriptedQueen]:
    seen = Seen()
    with serve({f"GET {EVENTS}": list(answers)}) as queen:
        await read_to_end(QueenClient(queen.url), ACCEPTED, seen)
    return seen.names, queen


async def refusal(*answers: bytes) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await read(*answers)
    return caught.value


async def test_each_loss_is_told_and_the_terminal_event_is_the_last_thing_read() -> None:
    names, _her = await read(BEGUN, b"", stream(*tokens("b"), first_id=2), stream(("end", END), *tokens("late")))
    assert names == ["token", "(lost)", "(lost)", "token", "(lost)", "end"]


async def test_a_queen_that_cannot_answer_yet_is_asked_again() -> None:
    names, queen = await read(BEGUN, BUSY, ENDED)
    assert names == ["token", "(lost)", "(lost)", "end"]
    assert [request.headers["last-event-id"] for request in queen.asked] == ["", "1", "1"]


async def test_where_that_lasts_her_own_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "RESUME_S", 0.0)
    failure = await refusal(BUSY)
    assert (failure.status, failure.message) == (ExitStatus.TEMPORARY, "POOL_UNREADY: stopping")
    assert failure.hint == "Try again in 1 s."


async def test_events_that_are_gone_with_an_earlier_queen_are_told_with_where_to_look() -> None:
    failure = await refusal(BEGUN, GONE)
    assert failure.status is ExitStatus.UNAVAILABLE
    assert failure.message.startswith(f"the stream of task {TASK_ID} broke off: NOT_FOUND")
    assert failure.hint == f"See orchctl tasks {TASK_ID}."


async def test_a_task_that_was_never_there_is_not_looked_for_again() -> None:
    assert (await refusal(GONE)).status is ExitStatus.NO_INPUT


async def test_a_refusal_that_lasts_is_told_at_once() -> None:
    assert (await refusal(BEGUN, error(401, "BAD_TOKEN", "no"), ENDED)).status is ExitStatus.NO_PERMISSION


async def test_patience_begins_with_the_first_loss_and_anew_with_an_event(mock_clock: trio.testing.MockClock) -> None:
    broken = UpstreamError("broke off")
    with serve({f"GET {EVENTS}": [stream(("end", END))]}) as queen:
        reading = _Reading(QueenClient(queen.url), EVENTS, Seen())
        mock_clock.jump(10 * RESUME_S)
        assert not reading.hopeless(broken)
        mock_clock.jump(RESUME_S - 0.1)
        assert not reading.hopeless(broken)
        mock_clock.jump(0.1)
        assert reading.hopeless(broken)
        assert (await reading.on()).name == "end"
        assert not reading.hopeless(broken)


async def test_chunks_come_through_until_one_is_missing_for_too_long(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[bytes](1)
    timely = Timely(receive)
    await send.send(b"x")
    assert await anext(timely) == b"x"
    with pytest.raises(UpstreamTimeout, match="nothing came for 45 s"):
        await anext(timely)
    await send.aclose()
    assert [chunk async for chunk in timely] == []
