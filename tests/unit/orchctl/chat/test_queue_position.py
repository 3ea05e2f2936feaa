"""Where a chat stands while it waits: asked of the queen beside the request, and never in its way."""

import io
from unittest import mock

import pytest
import trio

from orchctl import waiting
from orchctl.client import QueenClient
from orchctl.output import StatusLine
from orchctl.waiting import PATH, meanwhile, tell_place
from tests.unit.orchctl.commands.test_tasks import QUEUED, page
from tests.unit.orchctl.scripted_queen import error, serve
from tests.unit.orchctl.terminal import screen
from tests.unit.orchctl.test_output import Watched

MINE = {**QUEUED, "correlation_id": "mine", "predicted_start_ms": 4000}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_S", 0.0)
    monkeypatch.setattr(waiting, "POLL_S", 0.0)


async def test_the_line_follows_the_task_of_the_request_until_the_answer_begins() -> None:
    pages = [page(QUEUED, MINE), error(500, "INTERNAL", "oops"), page({**MINE, "queue_position": 0}), page(QUEUED)]
    with serve({f"GET {PATH}": pages}) as queen, mock.patch("sys.stderr", Watched()) as terminal:
        await tell_place(QueenClient(queen.url), "mine", StatusLine(), lambda: len(queen.asked) < 5)
        seen = terminal.getvalue().split("\r")
    assert [text.strip() for text in seen if text.strip()] == [
        "orchctl: 3rd in the queue, about 4 s",
        "orchctl: 1st in the queue, about 4 s",
        "orchctl: waiting for the answer",
    ]


async def test_an_answer_that_began_while_the_queen_was_asked_is_not_written_over() -> None:
    with serve({f"GET {PATH}": [page(MINE)]}) as queen, mock.patch("sys.stderr", Watched()) as terminal:
        await tell_place(QueenClient(queen.url), "mine", StatusLine(), lambda: not queen.asked)
        assert queen.asked
    assert screen(terminal.getvalue()) == [""]


async def test_where_nobody_watches_nothing_is_asked() -> None:
    with serve({}) as queen, mock.patch("sys.stderr", io.StringIO()):
        await tell_place(QueenClient(queen.url), "mine", StatusLine(), lambda: True)
        assert not queen.asked


async def test_what_runs_meanwhile_ends_with_the_block() -> None:
    result = trio.Event()

    async def run(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            assert name == "x"
            result.set()

    async with meanwhile(run, "x"):
        await trio.testing.wait_all_tasks_blocked()
    assert result.is_set()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
async def test_what_the_block_raises_comes_as_it_is(kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="as it is"):
        async with meanwhile(trio.sleep_forever):
            raise kind("as it is")
