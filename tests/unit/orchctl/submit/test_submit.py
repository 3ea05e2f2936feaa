"""orchctl submit: output, resumption, cancel, and the exit status of each way to end."""

import json
import signal
import subprocess

import pytest

from orchctl.__main__ import main
from orchctl.submit import event_stream
from tests.unit.orchctl.running import LIMIT_S, command, environment, run, run_process
from tests.unit.orchctl.scripted_queen import (
    CANCEL,
    END,
    EVENTS,
    HOLD,
    TASK_ID,
    error,
    reply,
    serve,
    stream,
    submitting,
    tokens,
)

STARTED = ("started", {"queue_position": 2, "predicted_start_ms": 3400})
WHOLE = stream(STARTED, *tokens("Hel", "lo é"), ("metrics", {"queue_depth": 0}), ("end", END))


def test_stdout_has_only_the_answer() -> None:
    with serve(submitting(WHOLE)) as queen:
        result = run("submit", "--url", queen.url, "--max-tokens", "2", "--pool", "p1", "--stop", "x", "Say hello")
        assert (result.status, result.out, result.err) == (0, "Hello é\n", "")
        body = json.loads(queen.requests_for("POST /v2/tasks")[0].body)
        assert not queen.requests_for(f"POST {CANCEL}"), "an ended task is not cancelled"
    assert body == {
        "prompt": "Say hello",
        "max_tokens": 2,
        "priority": "interactive",
        "stop": ["x"],
        "placement": {"mode": "pin", "pin_pool_id": "p1"},
    }


def test_prompt_from_stdin_and_url_and_token_from_environment() -> None:
    with serve(submitting(WHOLE)) as queen:
        result = run("submit", stdin="Grüße".encode(), ORCHESTRATORD_URL=queen.url, LLORCH_API_TOKEN="t" * 16)
        assert result.status == 0
        assert json.loads(queen.requests[0].body)["prompt"] == "Grüße"
        assert {request.headers["authorization"] for request in queen.requests} == {f"Bearer {'t' * 16}"}


def test_json_is_one_line_per_event() -> None:
    with serve(submitting(WHOLE)) as queen:
        lines = run("submit", "--json", "--url", queen.url, "x").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "token", "token", "metrics", "end"]
    assert json.loads(lines[1]) == {"event": "token", "t": "Hel", "i": 0}


def test_detach_prints_id_without_reading_events() -> None:
    with serve(submitting(HOLD)) as queen:
        assert run("submit", "--detach", "--url", queen.url, "x").out == f"{TASK_ID}\n"
        accepted = json.loads(run("submit", "--detach", "--json", "--url", queen.url, "x").out)
        assert not queen.requests_for(f"GET {EVENTS}")
    assert accepted["streams"]["sse"] == EVENTS


def test_broken_stream_is_resumed_after_last_event() -> None:
    first, second = stream(STARTED, *tokens("Hel")), stream(*tokens("lo"), ("end", END), first_id=3)
    with serve(submitting(first, b"", second)) as queen:
        result = run("submit", "--url", queen.url, "x")
        ids = [request.headers.get("last-event-id") for request in queen.requests_for(f"GET {EVENTS}")]
    assert (result.status, result.out) == (0, "Hello\n")
    assert ids == ["", "2", "2"]


def test_event_without_id_does_not_restart_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "RECONNECT_S", 0.0)
    without = stream(*tokens("a")) + b'event: metrics\ndata: {"queue_depth":1}\n\n'
    with serve(submitting(without, stream(("end", END), first_id=2))) as queen:
        assert main(["submit", "--url", queen.url, "x"]) == 0
        assert queen.requests_for(f"GET {EVENTS}")[1].headers["last-event-id"] == "1"


def test_ended_stream_is_given_up_and_task_cancelled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(event_stream, "RECONNECT_S", 0.01)
    monkeypatch.setattr(event_stream, "RESUME_LIMIT_S", 0.1)
    with serve(submitting(stream())) as queen:
        assert main(["submit", "--url", queen.url, "x"]) == 69
        assert len(queen.requests_for(f"GET {EVENTS}")) > 1
        assert queen.requests_for(f"POST {CANCEL}")
    assert "the stream ended before the task did" in capsys.readouterr().err


def test_idle_stream_is_given_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(event_stream, "IDLE_LIMIT_S", 0.02)
    monkeypatch.setattr(event_stream, "RECONNECT_S", 0.0)
    monkeypatch.setattr(event_stream, "RESUME_LIMIT_S", 0.01)
    with serve(submitting(stream() + HOLD)) as queen:
        assert main(["submit", "--url", queen.url, "x"]) == 69
    assert "no data for 0.02 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "status", "hint"),
    [
        ({"code": "DECODE_TIMEOUT", "message": "stalled", "retriable": True}, 75, "can be submitted again"),
        (
            {"code": "QUEUE_FULL_DROP_LRU", "message": "m", "retriable": True, "retry_after_ms": 2600},
            75,
            "Try again in 3 s",
        ),
        ({"code": "WORKER_RESET", "message": "died", "retriable": False}, 70, ""),
        ({"code": "A_NEWER_CODE", "message": "new", "retriable": False, "engine": "llamacpp"}, 70, ""),
    ],
)
def test_failed_task_has_status_message_and_retry_hint(failure: dict[str, object], status: int, hint: str) -> None:
    with serve(submitting(stream(*tokens("half"), ("error", failure)))) as queen:
        result = run("submit", "--url", queen.url, "x")
    assert (result.status, result.out) == (status, "half\n")
    assert f"the task failed: {failure['code']}: {failure['message']}" in result.err
    assert hint in result.err


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (error(401, "MISSING_TOKEN", "a token is needed", hint="Send it"), 77, ["MISSING_TOKEN", "Send it"]),
        (error(403, "NON_LOOPBACK_WITHOUT_TOKEN", "no"), 77, ["NON_LOOPBACK"]),
        (error(400, "INVALID_PARAMS", "max_tokens: must be 1 or more"), 65, ["max_tokens"]),
        (error(409, "POOL_UNAVAILABLE", "no pool p1"), 65, ["no pool p1"]),
        (
            error(429, "ADMISSION_REJECT", "full", retriable=True, retry_after_ms=1600),
            75,
            ["full", "Try again in 2 s."],
        ),
        (error(503, "POOL_UNREADY", "loading", retriable=True), 75, ["loading"]),
        (error(500, "INTERNAL", "oops"), 69, ["INTERNAL"]),
        (reply(502, "<html>\nBad  gateway"), 69, ["unexpected HTTP status 502", "this is the address of queen-rbee"]),
        (reply(202, {"id": 1}), 69, ["unexpected response"]),
        (reply(202, ["x"]), 69, ["unexpected response"]),
        (b"220 smtp.example ESMTP\r\n\r\n", 69, ["does not answer", "not HTTP"]),
        (b"", 69, ["does not answer"]),
        (reply(202, {})[:-2], 69, ["does not answer"]),
    ],
)
def test_refusal_has_status_message_and_hint(answer: bytes, status: int, words: list[str]) -> None:
    with serve(submitting(WHOLE, accepted=answer)) as queen:
        result = run("submit", "--url", queen.url, "x")
    assert (result.status, result.out) == (status, "")
    assert all(word in result.err for word in words)
    assert all(line.startswith("orchctl: ") for line in result.err.splitlines())


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b'{"t": 5}', b"5", b'{"i": 0}'])
@pytest.mark.parametrize("name", [b"token", b"started", b"error"])
def test_invalid_events_fail_and_cancel_the_task(name: bytes, data: bytes) -> None:
    if name == b"started" and data.startswith(b"{"):
        data = b'{"queue_position": "first"}'
    odd = stream() + b"event: " + name + b"\ndata: " + data + b"\n\n"
    with serve(submitting(odd)) as queen:
        result = run("submit", "--url", queen.url, "x")
        assert result.status == 69
        assert "unexpected response" in result.err
        assert bool(queen.requests_for(f"POST {CANCEL}")) is (name != b"error")


def test_ctrl_c_cancels_task() -> None:
    with serve(submitting(stream(*tokens("first ")) + HOLD)) as queen:
        process = subprocess.Popen(
            command("submit", "--url", queen.url, "x"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout
            assert process.stdout.read(6) == b"first "
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT_S)
        assert queen.requests_for(f"POST {CANCEL}")
    assert (process.returncode, out, err) == (130, b"\n", b"")


def test_closed_pipe_cancels_task_quietly() -> None:
    """As in `orchctl submit … | head -c 1`."""
    first, more = stream(*tokens("x" * 10)), stream(*tokens(*"y" * 200), ("end", END), first_id=2)
    with serve(submitting(first, more)) as queen:
        process = subprocess.Popen(
            command("submit", "--url", queen.url, "x"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.read(1) == b"x"
            process.stdout.close()
            err = process.stderr.read()
            assert process.wait(LIMIT_S) == 128 + signal.SIGPIPE
        queen.wait_for(f"POST {CANCEL}")
    assert err == b""


def test_full_disk_is_reported_and_cancels_task() -> None:
    with serve(submitting(WHOLE)) as queen, open("/dev/full", "wb") as full:
        process = subprocess.run(
            command("submit", "--url", queen.url, "x"),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
        assert queen.requests_for(f"POST {CANCEL}")
    assert process.returncode == 74
    assert process.stderr == b"orchctl: cannot write to standard output: No space left on device\n"


def test_unencodable_output_is_replaced() -> None:
    with serve(submitting(stream(*tokens("\N{SNOWMAN}"), ("end", END)))) as queen:
        result = run_process("submit", "--url", queen.url, "x", PYTHONIOENCODING="latin-1")
    assert (result.returncode, result.stdout) == (0, "?\n")


def test_invalid_prompt_on_stdin_is_refused() -> None:
    result = run("submit", stdin=b"\xff\xfe", PYTHONIOENCODING="utf-8:strict")
    assert result.status == 65
    assert "byte 0 (0xff" in result.err
