"""orchctl drain, resume and operations: requests, progress and outcome."""

import argparse
import json
from datetime import UTC, datetime
from unittest import mock

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.operations import Operation, OperationList, OperationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.command import milliseconds
from orchctl.commands import operations
from orchctl.commands.operations import FAILURE_STATUS, describe, format_operations, format_progress, wait_for_end
from orchctl.errors import CommandError
from tests.unit.orchctl.cluster import OPERATION
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, screen, terminal
from tests.unit.orchctl.test_output import FakeTerminal

DONE = {**OPERATION, "state": "done", "leases_left": 0}
POLL = "GET /v2/operations/op-1"
TARGETS = [
    (["default"], "/v2/pools/default", ""),
    (["default", "--node", "gpu-1"], "/v2/pools/default", "?node_id=gpu-1"),
    (["--node", "gpu-1"], "/v2/nodes/gpu-1", ""),
]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "POLL_S", 0.0)


@pytest.mark.parametrize(("words", "path", "query"), TARGETS)
@pytest.mark.parametrize("verb", ["drain", "resume"])
def test_pool_pool_on_node_and_node_have_their_paths(verb: str, words: list[str], path: str, query: str) -> None:
    line = f"POST {path}/{verb}{query}"
    with serve({line: [reply(202, DONE)]}) as queen:
        result = run(verb, *words, "--url", queen.url)
        assert [request.line for request in queen.requests] == [line]
    assert (result.status, result.out, result.err) == (0, "drain default on gpu-1: done\n", "")


@pytest.mark.parametrize(("words", "body"), [([], {}), (["--deadline", "5m"], {"deadline_ms": 300_000})])
def test_deadline_is_sent_if_given(words: list[str], body: object) -> None:
    with serve({"POST /v2/pools/default/drain": [reply(202, DONE)]}) as queen:
        assert run("drain", "default", *words, "--url", queen.url).status == 0
        assert queen.bodies("POST /v2/pools/default/drain") == [body]


@pytest.mark.parametrize("verb", ["drain", "resume"])
def test_drain_without_target_sends_no_request(verb: str) -> None:
    with serve({}) as queen:
        result = run(verb, "--url", queen.url)
        assert not queen.requests
    assert result.status == 64
    assert f"orchctl {verb} --node NODE" in result.err


@given(st.integers(0, 999_999_999), st.sampled_from([("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]))
def test_duration_has_a_unit(count: int, unit: tuple[str, int]) -> None:
    assert milliseconds(f"{count}{unit[0]}") == count * unit[1]


@pytest.mark.parametrize("text", ["5", "m", "-5m", "5 m", "1.5h", "5d", "", "9999999999s", "\u0665m"])
def test_invalid_duration_is_usage_error(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="90s, 5m or 1h"):
        milliseconds(text)
    assert run("drain", "default", "--deadline", text).status == 64


@pytest.mark.usefixtures("at_once")
def test_drain_is_polled_until_it_ends() -> None:
    states = [{**OPERATION, "leases_left": left} for left in (2, 1)]
    script = {"POST /v2/pools/default/drain": [reply(202, OPERATION)], POLL: [*(reply(200, s) for s in states)]}
    script[POLL].append(reply(200, DONE))
    with serve(script) as queen:
        result = run("drain", "default", "--json", "--url", queen.url)
        assert len(queen.requests_for(POLL)) == 3
    assert (result.status, json.loads(result.out)) == (0, DONE)


@pytest.mark.usefixtures("at_once")
async def test_progress_is_shown_and_cleared() -> None:
    begun = json.dumps(OPERATION).encode()
    answers = [reply(200, {**OPERATION, "leases_left": 1}), reply(200, DONE)]
    with serve({POLL: answers}) as queen, mock.patch("sys.stderr", FakeTerminal()) as stderr:
        assert json.loads(await wait_for_end(QueenClient(queen.url), begun)) == DONE
    assert "drain default on gpu-1: 3 of 5 tasks left" in stderr.getvalue()
    assert "1 of 5 tasks left" in stderr.getvalue()
    assert screen(stderr.getvalue()) == [""]


def test_no_wait_prints_id_and_polls_nothing() -> None:
    with serve({"POST /v2/nodes/gpu-1/drain": [reply(202, OPERATION)]}) as queen:
        result = run("drain", "--node", "gpu-1", "--no-wait", "--url", queen.url)
        assert len(queen.requests) == 1
    assert (result.status, result.out) == (0, "op-1\n")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("state", "status"), [("failed", 70), ("cancelled", 75)])
def test_failed_drain_has_status_and_reason(state: str, status: int) -> None:
    end = {**OPERATION, "state": state, "message": "gpu-1 does not answer"}
    with serve({"POST /v2/pools/default/drain": [reply(202, OPERATION)], POLL: [reply(200, end)]}) as queen:
        result = run("drain", "default", "--url", queen.url)
    assert (result.status, result.out) == (status, f"drain default on gpu-1: {state}: gpu-1 does not answer\n")
    assert "did not complete" in result.err


def test_every_failed_state_has_an_exit_status() -> None:
    assert set(FAILURE_STATUS) == set(OperationState) - {OperationState.DONE, OperationState.RUNNING}
    assert ExitStatus.OK not in FAILURE_STATUS.values()


@pytest.mark.usefixtures("at_once")
def test_poll_is_retried_while_queen_is_away() -> None:
    script = {"POST /v2/pools/default/drain": [reply(202, OPERATION)], POLL: [b"", b"", reply(200, DONE)]}
    with serve(script) as queen:
        assert run("drain", "default", "--url", queen.url).status == 0
        assert len(queen.requests_for(POLL)) == 3


async def test_absent_queen_is_given_up_after_limit(autojump_clock: trio.testing.MockClock) -> None:
    with serve({}) as queen:
        pass
    with pytest.raises(CommandError, match="does not answer"):
        await wait_for_end(QueenClient(queen.url), json.dumps(OPERATION).encode())
    assert operations.RETRY_LIMIT_S <= autojump_clock.current_time() < operations.RETRY_LIMIT_S + 2


@pytest.mark.usefixtures("at_once")
def test_unknown_operation_is_not_retried() -> None:
    not_found = error(404, "NOT_FOUND", "there is no operation op-1")
    with serve({"POST /v2/pools/default/drain": [reply(202, OPERATION)], POLL: [not_found]}) as queen:
        assert run("drain", "default", "--url", queen.url).status == 66
        assert len(queen.requests_for(POLL)) == 1


def test_ctrl_c_says_how_to_undo_the_drain() -> None:
    with serve(
        {"POST /v2/pools/default/drain?node_id=g": [reply(202, OPERATION)], POLL: [reply(200, OPERATION)]}
    ) as queen:
        with terminal("drain", "default", "--node", "g", "--url", queen.url) as tty:
            tty.wait_for("3 of 5 tasks left")
            tty.type(CTRL_C)
            assert tty.end() == 130
        assert (
            "the drain continues (operation op-1); to undo it: orchctl resume default --node g" in tty.output.decode()
        )
        assert "Traceback" not in tty.output.decode()
        assert {request.line.split()[0] for request in queen.requests[1:]} <= {"GET"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "drain default on gpu-1"),
        ({"node_id": None}, "drain default"),
        ({"pool_id": None}, "drain node gpu-1"),
        ({"pool_id": None, "node_id": None}, "drain"),
    ],
)
def test_operation_names_kind_and_target(changed: dict[str, object], words: str) -> None:
    assert describe(Operation.model_validate({**OPERATION, **changed})) == words


def test_deadline_is_counted_down() -> None:
    operation = Operation.model_validate({**OPERATION, "deadline_at": "2026-11-25T09:05:00Z"})
    at = datetime(2026, 11, 25, 9, 1, tzinfo=UTC)
    assert format_progress(operation, at) == "drain default on gpu-1: 3 of 5 tasks left, deadline in 4 min"
    late = datetime(2026, 11, 25, 10, 1, tzinfo=UTC)
    assert format_progress(operation, late).endswith("deadline in 0 s")


def test_operations_are_a_table_or_one_record() -> None:
    listed = {"operations": [OPERATION, DONE], "count": 2}
    with serve({"GET /v2/operations": [reply(200, listed)], POLL: [reply(200, OPERATION)]}) as queen:
        table, one = (run("operations", *words, "--url", queen.url) for words in ((), ("op-1",)))
        assert json.loads(run("operations", "--json", "--url", queen.url).out) == listed
    rows = [line.split()[:6] for line in table.out.splitlines()]
    assert rows[1:] == [
        ["op-1", "drain", "default", "gpu-1", state, left] for state, left in (("running", "3/5"), ("done", "0/5"))
    ]
    assert "leases_left" in one.out
    assert format_operations(OperationList(operations=[], count=0).operations) == "there are no operations"
