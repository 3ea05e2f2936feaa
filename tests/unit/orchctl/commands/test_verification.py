"""Waiting for the verification of a model's digest."""

import argparse
import json
from unittest import mock

import pytest

from llama_orch.contracts.catalog import VerificationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.commands import verification
from orchctl.commands.verification import FAILURE_STATUS, print_verified
from orchctl.errors import CommandError
from tests.unit.orchctl.commands.test_catalog import MODEL, ONE, checked
from tests.unit.orchctl.scripted_queen import error, reply, serve
from tests.unit.orchctl.terminal import screen
from tests.unit.orchctl.test_output import FakeTerminal

PENDING = json.dumps({**MODEL, "verification": {"state": "pending"}}).encode()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "POLL_S", 0.0)


def options(wait: bool) -> argparse.Namespace:
    return argparse.Namespace(id="llama", wait=wait, json=False)


def test_every_failed_state_has_an_exit_status() -> None:
    ends = set(VerificationState) - {VerificationState.PENDING}
    assert set(FAILURE_STATUS) == ends - {VerificationState.VERIFIED}
    assert ExitStatus.OK not in FAILURE_STATUS.values()


async def test_progress_is_shown_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    with serve({f"GET {ONE}": [checked("pending"), checked("verified")]}) as queen:
        with mock.patch("sys.stderr", FakeTerminal()) as terminal:
            await print_verified(options(wait=True), QueenClient(queen.url), PENDING)
        assert len(queen.requests) == 2
    assert "orchctl: verifying llama" in terminal.getvalue()
    assert screen(terminal.getvalue()) == [""]
    assert capsys.readouterr().out.endswith("verification.state  verified\n")


async def test_without_wait_nothing_is_polled(capsys: pytest.CaptureFixture[str]) -> None:
    with serve({}) as queen:
        await print_verified(options(wait=False), QueenClient(queen.url), PENDING)
        assert not queen.requests
    assert capsys.readouterr().out.endswith("verification.state  pending\n")


@pytest.mark.parametrize("answer", [error(404, "NOT_FOUND", "there is no model llama"), reply(200, {"x": 1})])
async def test_model_removed_during_wait_is_an_error(answer: bytes) -> None:
    with (
        serve({f"GET {ONE}": [checked("pending"), answer]}) as queen,
        mock.patch("sys.stderr", FakeTerminal()) as terminal,
        pytest.raises(CommandError, match=r"NOT_FOUND|unexpected response"),
    ):
        await print_verified(options(wait=True), QueenClient(queen.url), PENDING)
    assert screen(terminal.getvalue()) == [""]
