"""orchctl sessions."""

import json

import pytest

from llama_orch.contracts.sessions import SessionChange
from orchctl.commands.sessions import LIMITS
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve

ID = "5b1f2f0e-5f5c-4d1e-8f6b-9c2f6a1d3e77"
ONE = f"/v2/sessions/{ID}"
SESSION: dict[str, object] = {
    "session_id": ID,
    "ttl_ms_remaining": 412_000,
    "turns": 3,
    "turns_remaining": 5,
    "kv_bytes": None,
    "kv_warmth": True,
    "pool_id": "default",
    "replica_id": "r0",
    "tokens_budget_remaining": 900,
    "time_budget_remaining_ms": None,
    "cost_budget_remaining": 1.5,
}
SESSIONS = {"sessions": [SESSION], "count": 1, "next": None}
LIMITING: dict[str, tuple[str, int | float]] = {
    "--ttl-ms": ("60000", 60_000),
    "--max-turns": ("4", 4),
    "--tokens-budget": ("0", 0),
    "--time-budget-ms": ("5000", 5000),
    "--cost-budget": ("2.5", 2.5),
}
EVERY_LIMIT = {option[2:].replace("-", "_"): value for option, (_, value) in LIMITING.items()}


def test_row_shows_remaining_budgets() -> None:
    with serve({"GET /v2/sessions": [reply(200, SESSIONS)]}) as queen:
        result = run("sessions", "--url", queen.url)
        as_json = run("sessions", "--json", "--url", queen.url)
    cells = result.out.splitlines()[1].split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [ID, "7 min", "3/8", "default", "yes", "900", "-", "1.5"]
    assert json.loads(as_json.out) == SESSIONS


def test_one_session_is_shown_with_all_fields() -> None:
    with serve({f"GET {ONE}": [reply(200, SESSION)]}) as queen:
        fields = dict(line.split() for line in run("sessions", ID, "--url", queen.url).out.splitlines())
    assert (fields["ttl_ms_remaining"], fields["cost_budget_remaining"], fields["kv_warmth"]) == (
        "412000",
        "1.5",
        "yes",
    )
    assert "kv_bytes" not in fields


def test_only_given_limits_are_sent() -> None:
    with serve({f"PUT {ONE}": [reply(200, SESSION)]}) as queen:
        result = run("sessions", ID, "--tokens-budget", "0", "--url", queen.url)
        words = [word for option, (text, _) in LIMITING.items() for word in (option, text)]
        as_json = run("sessions", ID, "--json", *words, "--url", queen.url)
        assert queen.bodies(f"PUT {ONE}") == [{"tokens_budget": 0}, EVERY_LIMIT]
        for body in queen.bodies(f"PUT {ONE}"):
            SessionChange.model_validate(body)
    assert result.status == 0
    assert json.loads(as_json.out) == SESSION


def test_every_limit_of_contract_has_an_option() -> None:
    assert set(LIMITS) == set(SessionChange.model_fields)


def test_delete_prints_nothing_and_unknown_session_exits_66() -> None:
    not_found = error(404, "NOT_FOUND", "there is no session x")
    with serve({f"DELETE {ONE}": [reply(204)], "DELETE /v2/sessions/x": [not_found]}) as queen:
        result = run("sessions", ID, "--delete", "--url", queen.url)
        unknown = run("sessions", "x", "--delete", "--url", queen.url)
    assert (result.status, result.out, result.err) == (0, "", "")
    assert unknown.status == 66


@pytest.mark.parametrize(
    "words",
    [
        ("--delete",),
        ("--max-turns", "3"),
        (ID, "--delete", "--max-turns", "3"),
        (ID, "--cost-budget", "nan"),
        (ID, "--cost-budget", "inf"),
        (ID, "--cost-budget", "much"),
    ],
)
def test_misuse_sends_no_request(words: tuple[str, ...]) -> None:
    with serve({}) as queen:
        result = run("sessions", *words, "--url", queen.url)
        assert not queen.requests
    assert (result.status, result.out) == (64, "")
    assert result.err


def test_refused_limit_exits_65_with_message() -> None:
    with serve({f"PUT {ONE}": [error(400, "INVALID_PARAMS", "ttl_ms: must be 1000 or more")]}) as queen:
        result = run("sessions", ID, "--ttl-ms", "1", "--url", queen.url)
    assert result.status == 65
    assert "ttl_ms: must be 1000 or more" in result.err


def test_empty_list_is_said() -> None:
    with serve({"GET /v2/sessions": [reply(200, {"sessions": [], "count": 0})]}) as queen:
        assert run("sessions", "--url", queen.url).out == "there are no sessions\n"
