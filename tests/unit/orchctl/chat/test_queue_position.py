"""The queue position of a chat request, polled beside it."""

import io
from unittest import mock

import pytest

from orchctl.chat import queue_position
from orchctl.chat.queue_position import PATH, show_queue_position
from orchctl.client import QueenClient
from orchctl.output import StatusLine
from tests.unit.orchctl.commands.test_tasks import QUEUED, page
from tests.unit.orchctl.scripted_queen import error, serve
from tests.unit.orchctl.terminal import screen
from tests.unit.orchctl.test_output import FakeTerminal

OWN = {**QUEUED, "correlation_id": "own", "predicted_start_ms": 4000}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_position, "FIRST_POLL_S", 0.0)
    monkeypatch.setattr(queue_position, "POLL_S", 0.0)


async def test_line_follows_position_until_answer_starts() -> None:
    pages = [page(QUEUED, OWN), error(500, "INTERNAL", "oops"), page({**OWN, "queue_position": 0}), page(QUEUED)]
    with serve({f"GET {PATH}": pages}) as queen, mock.patch("sys.stderr", FakeTerminal()) as terminal:
        await show_queue_position(QueenClient(queen.url), "own", StatusLine(), lambda: len(queen.requests) < 5)
        updates = terminal.getvalue().split("\r")
    assert [text.strip() for text in updates if text.strip()] == [
        "orchctl: 3rd in the queue, about 4 s",
        "orchctl: 1st in the queue, about 4 s",
        "orchctl: waiting for the answer",
    ]


async def test_late_poll_does_not_overwrite_started_answer() -> None:
    with serve({f"GET {PATH}": [page(OWN)]}) as queen, mock.patch("sys.stderr", FakeTerminal()) as terminal:
        await show_queue_position(QueenClient(queen.url), "own", StatusLine(), lambda: not queen.requests)
        assert queen.requests
    assert screen(terminal.getvalue()) == [""]


async def test_without_terminal_nothing_is_polled() -> None:
    with serve({}) as queen, mock.patch("sys.stderr", io.StringIO()):
        await show_queue_position(QueenClient(queen.url), "own", StatusLine(), lambda: True)
        assert not queen.requests
