"""orchctl pull."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llama_orch.contracts.node_operations import NodeOperation
from orchctl.commands import operations, pull
from orchctl.commands.pull import format_bar, format_progress
from tests.unit.orchctl.running import LIMIT_S, Result, command, environment, run
from tests.unit.orchctl.scripted_queen import ScriptedQueen, error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, terminal

URL = "https://example.org/m.gguf"
START, GET, CANCEL = "POST /v2/models/pull", "GET /v2/operations/7", "DELETE /v2/operations/7"
ACCEPTED = reply(202, {"operation_id": "7"})


def operation(state: str, done: int = 0, total: int | None = None, **more: Any) -> dict[str, Any]:
    progress = {"bytes_done": done, "bytes_total": total, **more.pop("speed", {})}
    head = {"id": "7", "kind": "pull", "subject": URL, "created_at": "2026-01-01T00:00:00Z"}
    return {**head, "state": state, "progress": progress, **more}


DONE = operation("done", 5, 5, detail="4.1 GiB in /var/cache/llama-orch/models/m.gguf")


def script(*states: dict[str, Any]) -> dict[str, list[bytes]]:
    return {START: [ACCEPTED], GET: [reply(200, state) for state in states], CANCEL: [reply(202, operation("running"))]}


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "POLL_S", 0.001)
    monkeypatch.setattr(operations, "POLL_S", 0.001)


def pulled(answers: dict[str, list[bytes]], path: Path, *arguments: str) -> tuple[Result, ScriptedQueen]:
    with serve(answers, path / "p.sock") as served:
        return run("pull", URL, "--url", served.url, *arguments), served


def test_result_names_model_and_place(tmp_path: Path) -> None:
    result, served = pulled(script(operation("running"), DONE), tmp_path)
    assert (result.status, result.out) == (0, f"{URL}: {DONE['detail']}\n")
    assert served.bodies(START) == [{"ref": URL}]
    assert not served.requests_for(CANCEL)


def test_progress_is_a_line_for_each_tenth_in_pipes(tmp_path: Path) -> None:
    states = [operation("running", percent * 2**20, 100 * 2**20) for percent in (0, 1, 9, 10, 11, 35, 99)]
    result, _served = pulled(script(*states, DONE), tmp_path)
    shown = [line.removeprefix("orchctl: ") for line in result.err.splitlines()]
    assert shown == [f"{percent} % of 100.0 MiB" for percent in (0, 10, 35, 99)]


def test_json_is_final_operation(tmp_path: Path) -> None:
    result, _served = pulled(script(DONE), tmp_path, "--json")
    assert json.loads(result.out)["state"] == "done"


def test_failure_has_reason_hint_and_status(tmp_path: Path) -> None:
    failed = operation("failed", error="the server answered 404", hint="Correct the URL.")
    result, _served = pulled(script(failed), tmp_path)
    assert (result.status, result.out) == (70, "")
    assert result.err == "orchctl: the pull failed: the server answered 404\norchctl: Correct the URL.\n"


def test_pull_cancelled_by_others_is_temporary_failure(tmp_path: Path) -> None:
    result, _served = pulled(script(operation("cancelled")), tmp_path)
    assert result.status == 75


def test_refused_reference_has_status_of_data(tmp_path: Path) -> None:
    result, _served = pulled({START: [error(400, "INVALID_PARAMS", "ref: must begin with file:/")]}, tmp_path)
    assert result.status == 65


def test_restarted_daemon_is_a_temporary_failure(tmp_path: Path) -> None:
    answers = script(operation("running"))
    answers[GET].append(error(404, "NOT_FOUND", "there is no operation 7"))
    result, _served = pulled(answers, tmp_path)
    assert result.status == 75
    assert "restarted" in result.err


def test_interrupt_cancels_pull(tmp_path: Path) -> None:
    with serve(script(operation("running", 1, 100)), tmp_path / "p.sock") as served:
        with terminal("pull", URL, "--url", served.url) as shown:
            shown.wait_for("1 % of 100 B")
            shown.type(CTRL_C)
            assert shown.end() == 130
        assert len(served.requests_for(CANCEL)) == 1
    assert "the next pull continues from there" in shown.output.decode()


def test_termination_cancels_pull(tmp_path: Path) -> None:
    with serve(script(operation("running", 1, 100)), tmp_path / "p.sock") as served:
        process = subprocess.Popen(
            command("pull", URL, "--url", served.url), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        served.wait_for(GET)
        os.kill(process.pid, signal.SIGTERM)
        _out, _err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == -signal.SIGTERM
        assert len(served.requests_for(CANCEL)) == 1


def test_progress_shows_what_is_known() -> None:
    def shown(state: str, *progress: Any, **more: Any) -> str:
        return format_progress(NodeOperation.model_validate(operation(state, *progress, **more)))

    assert shown("queued") == "waiting for other pulls"
    assert shown("running", detail="looking for the model") == "looking for the model"
    assert shown("running", 3 << 20) == "3.0 MiB"
    speed = {"rate_bytes_s": 85.25 * 2**20, "eta_s": 32.4}
    assert shown("running", 1 << 30, 4 << 30, speed=speed) == "25 % of 4.0 GiB, 85.2 MiB/s, 32 s left"
    assert shown("running", 9, 4) == "100 % of 4 B"


@pytest.mark.parametrize(("done", "filled"), [(0, 0), (1, 0), (50, 12), (100, 24), (150, 24)])
def test_bar_has_constant_width(done: int, filled: int) -> None:
    assert format_bar(done, 100) == f"[{'#' * filled}{'-' * (24 - filled)}]"
