"""The page gets the last events of the journal catalog, with the catalog's advice."""

import json
import logging
from collections.abc import Iterator

import pytest

from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.live.journal import ENTRY_LIMIT, RecentEvents


@pytest.fixture
def journal() -> Iterator[RecentEvents]:
    handler, root = RecentEvents(), logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


def entries(journal: RecentEvents) -> list[dict[str, str]]:
    return [json.loads(text) for text in journal.documents().values()]


def test_event_is_kept_with_the_advice_for_its_fields(journal: RecentEvents) -> None:
    emit(events.MODEL_MISMATCH, model_id="chat", reason="another file")
    (entry,) = entries(journal)
    assert (entry["event"], entry["level"]) == ("model_mismatch", "error")
    assert entry["text"] == "model chat does not match the catalog and is no longer served: another file"
    assert entry["advice"].endswith("POST /v2/catalog/models/chat/verify.")


def test_log_lines_and_ends_of_tasks_are_left_out(journal: RecentEvents) -> None:
    logging.getLogger("queen_rbee").warning("a line")
    emit(events.TASK_ENDED, job_id="j", state="done")
    assert entries(journal) == []


def test_only_the_last_events_are_kept(journal: RecentEvents) -> None:
    for number in range(ENTRY_LIMIT + 5):
        emit(events.TASKS_DROPPED, count=number)
    assert next(iter(journal.documents())) == "6"
    assert len(entries(journal)) == ENTRY_LIMIT
    before = journal.documents()
    assert journal.documents() is before, "nothing is rendered again without a new event"
