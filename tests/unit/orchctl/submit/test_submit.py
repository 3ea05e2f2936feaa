"""orchctl submit: tokens as they come, resumption, cancel, and an exit status for each way to end."""

import json
import signal
import subprocess

import pytest

from orchctl.__main__ import main
from orchctl.submit import events
from tests.unit.orchctl.running import LIMIT_S, command, environment, here, orchctl
from tests.unit.orchctl.scripted_queen import (
    CANCEL,
    END,
    EVENTS,
    HOLD,
    TASK_ID,
    error,
    queen,
    reply,
    stream,
    submitting,
    tokens,
)

STARTED = ("started", {"queue_position": 2, "predicted_start_ms": 3400})
WHOLE = stream(STARTED, *tokens("Hel", "lo é"), ("metrics", {"queue_depth": 0}), ("end", END))


def test_the_answer_is_on_stdout_and_nothing_else() -> None:
    with queen(submitting(WHOLE)) as her:
        ended = here("submit", "--url", her.url, "--max-tokens", "2", "--pool", "p1", "--stop", "x", "Say hello")
        assert (ended.status, ended.out, ended.err) == (0, "Hello é\n", "")
        body = json.loads(her.of("POST /v2/tasks")[0].body)
        assert not her.of(f"POST {CANCEL}"), "a task that has ended is not cancelled"
    assert body == {
        "prompt": "Say hello",
        "max_tokens": 2,
        "priority": "interactive",
        "stop": ["x"],
        "placement": {"mode": "pin", "pin_pool_id": "p1"},
    }


def test_the_prompt_may_come_from_standard_input_and_the_queen_and_token_from_the_environment() -> None:
    with queen(submitting(WHOLE)) as her:
        ended = here("submit", stdin="Grüße".encode(), ORCHESTRATORD_URL=her.url, LLORCH_API_TOKEN="t" * 16)
        assert ended.status == 0
        assert json.loads(her.asked[0].body)["prompt"] == "Grüße"
        assert {request.headers["authorization"] for request in her.asked} == {f"Bearer {'t' * 16}"}


def test_json_is_one_line_an_event() -> None:
    with queen(submitting(WHOLE)) as her:
        lines = here("submit", "--json", "--url", her.url, "x").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "token", "token", "metrics", "end"]
    assert json.loads(lines[1]) == {"event": "token", "t": "Hel", "i": 0}


def test_detach_prints_the_id_and_does_not_wait() -> None:
    with queen(submitting(HOLD)) as her:
        assert here("submit", "--detach", "--url", her.url, "x").out == f"{TASK_ID}\n"
        accepted = json.loads(here("submit", "--detach", "--json", "--url", her.url, "x").out)
        assert not her.of(f"GET {EVENTS}")
    assert accepted["streams"]["sse"] == EVENTS


def test_a_broken_stream_is_resumed_behind_the_last_event() -> None:
    first, second = stream(STARTED, *tokens("Hel")), stream(*tokens("lo"), ("end", END), first_id=3)
    with queen(submitting(first, b"", second)) as her:
        ended = here("submit", "--url", her.url, "x")
        ids = [request.headers.get("last-event-id") for request in her.of(f"GET {EVENTS}")]
    assert (ended.status, ended.out) == (0, "Hello\n")
    assert ids == ["", "2", "2"]


def test_an_event_without_an_id_does_not_start_the_stream_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECONNECT_S", 0.0)
    without = stream(*tokens("a")) + b'event: metrics\ndata: {"queue_depth":1}\n\n'
    with queen(submitting(without, stream(("end", END), first_id=2))) as her:
        assert main(["submit", "--url", her.url, "x"]) == 0
        assert her.of(f"GET {EVENTS}")[1].headers["last-event-id"] == "1"


def test_a_stream_that_only_ends_is_given_up_and_its_task_cancelled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "RECONNECT_S", 0.01)
    monkeypatch.setattr(events, "RESUME_S", 0.1)
    with queen(submitting(stream())) as her:
        assert main(["submit", "--url", her.url, "x"]) == 69
        assert len(her.of(f"GET {EVENTS}")) > 1
        assert her.of(f"POST {CANCEL}")
    assert "it ended before the task did" in capsys.readouterr().err


def test_a_queen_that_says_nothing_more_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "IDLE_S", 0.02)
    monkeypatch.setattr(events, "RECONNECT_S", 0.0)
    monkeypatch.setattr(events, "RESUME_S", 0.01)
    with queen(submitting(stream() + HOLD)) as her:
        assert main(["submit", "--url", her.url, "x"]) == 69
    assert "nothing came for 0.02 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "status", "hint"),
    [
        ({"code": "DECODE_TIMEOUT", "message": "stalled", "retriable": True}, 75, "may be submitted again"),
        (
            {"code": "QUEUE_FULL_DROP_LRU", "message": "m", "retriable": True, "retry_after_ms": 2600},
            75,
            "Try again in 3 s",
        ),
        ({"code": "WORKER_RESET", "message": "died", "retriable": False}, 70, ""),
        ({"code": "A_NEWER_CODE", "message": "new", "retriable": False, "engine": "llamacpp"}, 70, ""),
    ],
)
def test_a_task_that_fails_says_how_and_whether_to_try_again(
    failure: dict[str, object], status: int, hint: str
) -> None:
    with queen(submitting(stream(*tokens("half"), ("error", failure)))) as her:
        ended = here("submit", "--url", her.url, "x")
    assert (ended.status, ended.out) == (status, "half\n")
    assert f"the task failed: {failure['code']}: {failure['message']}" in ended.err
    assert hint in ended.err


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
        (reply(502, "<html>\nBad  gateway"), 69, ["the answer is 502", "Is this the address of queen-rbee?"]),
        (reply(202, {"id": 1}), 69, ["not understood"]),
        (reply(202, ["x"]), 69, ["not understood"]),
        (b"220 smtp.example ESMTP\r\n\r\n", 69, ["does not answer", "not HTTP"]),
        (b"", 69, ["does not answer"]),
        (reply(202, {})[:-2], 69, ["does not answer"]),
    ],
)
def test_a_refusal_has_its_status_its_words_and_a_hint(answer: bytes, status: int, words: list[str]) -> None:
    with queen(submitting(WHOLE, accepted=answer)) as her:
        ended = here("submit", "--url", her.url, "x")
    assert (ended.status, ended.out) == (status, "")
    assert all(word in ended.err for word in words)
    assert all(line.startswith("orchctl: ") for line in ended.err.splitlines())


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b'{"t": 5}', b"5", b'{"i": 0}'])
@pytest.mark.parametrize("name", [b"token", b"started", b"error"])
def test_events_that_are_nonsense_end_in_words_and_cancel_the_task(name: bytes, data: bytes) -> None:
    if name == b"started" and data.startswith(b"{"):
        data = b'{"queue_position": "first"}'
    odd = stream() + b"event: " + name + b"\ndata: " + data + b"\n\n"
    with queen(submitting(odd)) as her:
        ended = here("submit", "--url", her.url, "x")
        assert ended.status == 69
        assert "not understood" in ended.err
        assert bool(her.of(f"POST {CANCEL}")) is (name != b"error")


def test_ctrl_c_cancels_the_task() -> None:
    with queen(submitting(stream(*tokens("first ")) + HOLD)) as her:
        process = subprocess.Popen(
            command("submit", "--url", her.url, "x"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout
            assert process.stdout.read(6) == b"first "
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT_S)
        assert her.of(f"POST {CANCEL}")
    assert (process.returncode, out, err) == (130, b"\n", b"")


def test_a_reader_that_leaves_cancels_the_task_quietly() -> None:
    """As in `orchctl submit … | head -c 1`."""
    first, more = stream(*tokens("x" * 10)), stream(*tokens(*"y" * 200), ("end", END), first_id=2)
    with queen(submitting(first, more)) as her:
        process = subprocess.Popen(
            command("submit", "--url", her.url, "x"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.read(1) == b"x"
            process.stdout.close()
            err = process.stderr.read()
            assert process.wait(LIMIT_S) == 128 + signal.SIGPIPE
        her.wait_for(f"POST {CANCEL}")
    assert err == b""


def test_a_full_disk_is_told_and_cancels_the_task() -> None:
    with queen(submitting(WHOLE)) as her, open("/dev/full", "wb") as full:
        process = subprocess.run(
            command("submit", "--url", her.url, "x"),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
        assert her.of(f"POST {CANCEL}")
    assert process.returncode == 74
    assert process.stderr == b"orchctl: cannot write to standard output: No space left on device\n"


def test_what_the_terminal_cannot_show_is_replaced() -> None:
    with queen(submitting(stream(*tokens("\N{SNOWMAN}"), ("end", END)))) as her:
        ended = orchctl("submit", "--url", her.url, "x", PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stdout) == (0, "?\n")


def test_a_prompt_that_is_no_text_is_refused() -> None:
    ended = here("submit", stdin=b"\xff\xfe", PYTHONIOENCODING="utf-8:strict")
    assert ended.status == 65
    assert "not text" in ended.err
