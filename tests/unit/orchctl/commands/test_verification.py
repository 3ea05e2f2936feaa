"""Waiting until it is known whether a model's digest is right."""

import argparse
import json
from unittest import mock

import pytest

from llama_orch.contracts.catalog import VerificationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.commands import catalog as verification
from orchctl.commands.catalog import OUTCOMES, show_verified
from orchctl.errors import CommandError
from tests.unit.orchctl.commands.test_catalog import MODEL, ONE, checked
from tests.unit.orchctl.scripted_queen import error, reply, serve
from tests.unit.orchctl.terminal import screen
from tests.unit.orchctl.test_output import Watched

PENDING = json.dumps({**MODEL, "verification": {"state": "pending"}}).encode()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "POLL_S", 0.0)


def options(wait: bool) -> argparse.Namespace:
    return argparse.Namespace(id="llama", wait=wait, json=False)


def test_every_state_but_the_good_one_has_its_status() -> None:
    ends = set(VerificationState) - {VerificationState.PENDING}
    assert set(OUTCOMES) == ends - {VerificationState.VERIFIED}
    assert ExitStatus.OK not in OUTCOMES.values()


async def test_who_waits_is_told_and_nothing_of_that_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with serve({f"GET {ONE}": [checked("pending"), checked("verified")]}) as queen:
        with mock.patch("sys.stderr", Watched()) as terminal:
            await show_verified(options(wait=True), QueenClient(queen.url), PENDING)
        assert len(queen.asked) == 2
    assert "orchctl: llama is being verified" in terminal.getvalue()
    assert screen(terminal.getvalue()) == [""]
    assert capsys.readouterr().out.endswith("verification.state  verified\n")


async def test_without_wait_nothing_more_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with serve({}) as queen:
        await show_verified(options(wait=False), QueenClient(queen.url), PENDING)
        assert not queen.asked
    assert capsys.readouterr().out.endswith("verification.state  pending\n")


@pytest.mark.parametrize("answer", [error(404, "NOT_FOUND", "there is no model llama"), reply(200, {"x": 1})])
async def test_a_model_that_is_gone_meanwhile_ends_it(answer: bytes) -> None:
    with (
        serve({f"GET {ONE}": [checked("pending"), answer]}) as queen,
        mock.patch("sys.stderr", Watched()) as terminal,
        pytest.raises(CommandError, match=r"NOT_FOUND|not understood"),
    ):
        await show_verified(options(wait=True), QueenClient(queen.url), PENDING)
    assert screen(terminal.getvalue()) == [""]
