"""The board: documents that change and go, a new stream, and what other releases send."""

import json
from datetime import timedelta

import pytest

from orchctl.top.board import ELEMENTS, Board
from tests.unit.orchctl.scripted_queen import TASK_ID
from tests.unit.orchctl.top.states import HELLO, NODE, NOW, TASK, board, events, situation


def test_board_has_every_section() -> None:
    known = situation()
    assert [node.node_id for node in known.nodes] == ["gpu-1", "gpu-2"]
    assert str(known.tasks[0].task_id) == str(TASK_ID)
    assert (len(known.gpus), len(known.pools)) == (1, 1)
    assert known.summary
    assert known.summary.capacity == 100


def test_time_is_the_queens_and_goes_on() -> None:
    assert board().situation(100.0).now == NOW
    assert board().situation(103.5).now == NOW + timedelta(seconds=3.5)


def test_time_stands_still_without_connection() -> None:
    filled = board()
    filled.problem = "gone"
    assert filled.situation(500.0).now == NOW


def test_changes_replace_and_remove_documents() -> None:
    filled = board()
    change = {"set": {"gpu-1": {**NODE, "status": "offline"}}, "gone": ["gpu-2"]}
    filled.apply("nodes", json.dumps(change), 101.0)
    assert [(node.node_id, node.status) for node in filled.situation(101.0).nodes] == [("gpu-1", "offline")]


def test_ended_tasks_are_not_shown() -> None:
    filled = board()
    filled.apply("tasks", json.dumps({"set": {str(TASK_ID): {**TASK, "state": "done"}}}), 101.0)
    assert [task.state for task in filled.situation(101.0).tasks] == ["queued"]


def test_new_stream_replaces_board_when_it_is_complete() -> None:
    filled = board()
    filled.problem = "gone"
    for name, data in events({"nodes": {"other": {**NODE, "node_id": "other"}}}):
        before = filled.situation(200.0)
        assert ([node.node_id for node in before.nodes], before.problem) == (["gpu-1", "gpu-2"], "gone")
        filled.apply(name, json.dumps(data), 200.0)
    after = filled.situation(200.0)
    assert ([node.node_id for node in after.nodes], after.tasks, after.problem) == (["other"], [], "")


def test_what_a_newer_queen_sends_is_skipped() -> None:
    filled = board({"nodes": {"gpu-1": NODE, "odd": {"node": 1}}, "inventions": {"x": {}}})
    assert [node.node_id for node in filled.situation(100.0).nodes] == ["gpu-1"]


def test_number_of_documents_is_limited() -> None:
    filled = Board("x")
    filled.apply("hello", json.dumps(HELLO), 0.0)
    filled.put("nodes", {str(number): {**NODE, "node_id": str(number)} for number in range(ELEMENTS + 5)})
    filled.apply("ready", "{}", 0.0)
    assert len(filled.situation(0.0).nodes) == ELEMENTS


def test_data_that_is_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        board().apply("nodes", "{", 0.0)
