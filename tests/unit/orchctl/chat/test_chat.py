"""orchctl chat with piped input: turns, options, and the exit status of each way to end."""

import json
import signal
import subprocess

import pytest

from orchctl.submit import event_stream
from tests.unit.orchctl.running import LIMIT_S, command, environment, run, run_process
from tests.unit.orchctl.scripted_queen import (
    CHAT,
    CHAT_HEAD,
    HOLD,
    MODELS,
    USAGE,
    chat,
    chat_begun,
    chatting,
    chunk,
    error,
    reply,
    serve,
)

FAILED = {"error": {"message": "the engine broke off", "type": "server_error", "param": None, "code": "WORKER_RESET"}}
REFUSED = {"error": {"message": "m: does not exist", "type": "invalid_request_error", "param": "model", "code": "x"}}

OPTIONS = "--model m --system Short. --max-tokens 5 --temperature 0 --top-p 0.5 --seed 3 --stop a --stop b"
SENT = {"model": "m", "max_tokens": 5, "temperature": 0.0, "top_p": 0.5, "seed": 3, "stop": ["a", "b"]}
MORE = "--session 5b1f2f0e-5f5c-4d1e-8f6b-9c2f6a1d3e77 --priority batch --deadline-ms 900"
SENT_BESIDE = {
    "x-session-id": "5b1f2f0e-5f5c-4d1e-8f6b-9c2f6a1d3e77",
    "x-priority": "batch",
    "x-deadline-ms": "900",
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_each_line_is_a_turn_with_history_sent() -> None:
    with serve(chatting(chat("Hel", "lo"), chat("Béa"))) as queen:
        result = run("chat", "--url", queen.url, stdin="hi\n\n  my name?  \n")
        first, second = queen.bodies(CHAT)
    assert (result.status, result.out, result.err) == (0, "Hello\nBéa\n", "")
    assert first["messages"] == [user("hi")]
    assert second["messages"] == [user("hi"), assistant("Hello"), user("my name?")]
    assert first == {
        "model": "tiny",
        "messages": [user("hi")],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_options_are_sent_with_every_turn() -> None:
    with serve(chatting(chat("x"))) as queen:
        run("chat", *f"{OPTIONS} {MORE}".split(), "--url", queen.url, stdin="1\n2\n")
        for request, body in zip(queen.requests_for(CHAT), queen.bodies(CHAT), strict=True):
            assert body["messages"][0] == {"role": "system", "content": "Short."}
            assert {name: body[name] for name in SENT} == SENT
            assert {name: request.headers[name] for name in SENT_BESIDE} == SENT_BESIDE
        assert len(queen.requests_for(CHAT)) == 2
        assert not queen.requests_for("GET /v1/models")


def test_json_is_one_openai_document_per_answer() -> None:
    with serve(chatting(chat("Hel", "lo"))) as queen:
        lines = run("chat", "--json", "--url", queen.url, stdin="a\nb\n").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "id": "chatcmpl-x",
            "object": "chat.completion",
            "created": 1795000001,
            "model": "tiny",
            "choices": [{"index": 0, "message": assistant("Hello"), "finish_reason": "stop"}],
            "usage": USAGE,
        }
    ] * 2


def test_slash_commands_work_in_pipe() -> None:
    with serve(chatting(chat("x"))) as queen:
        result = run("chat", "--url", queen.url, stdin="a\n/clear\n/model other\nb\n/help\n/model\n/exit\nc\n")
        first, second = queen.bodies(CHAT)
    assert (result.status, result.out, result.err) == (0, "x\nx\n", "")
    assert (first["model"], second["model"]) == ("tiny", "other")
    assert second["messages"] == [user("b")]


def test_blank_input_sends_no_request() -> None:
    with serve(chatting(chat("x"))) as queen:
        assert run("chat", "--url", queen.url) == run("chat", "--url", queen.url, stdin="\n \n")
        assert not queen.requests_for(CHAT)


def test_last_line_needs_no_newline() -> None:
    with serve(chatting(chat("x"))) as queen:
        assert run("chat", "--url", queen.url, stdin="last").out == "x\n"


def test_reasoning_is_not_printed() -> None:
    thinking = CHAT_HEAD + chunk({"reasoning_content": "hmm"}) + chat("42")[len(CHAT_HEAD) :]
    with serve(chatting(thinking)) as queen:
        assert run("chat", "--url", queen.url, stdin="a\n").out == "42\n"


def test_without_models_exit_status_is_75() -> None:
    with serve({"GET /v1/models": [reply(200, {**MODELS, "data": []})]}) as queen:
        result = run("chat", "--url", queen.url, stdin="a\n")
    assert result.status == 75
    assert "orchctl pools" in result.err


@pytest.mark.parametrize(
    ("answer", "status", "message", "code"),
    [
        (reply(404, REFUSED), 66, "does not exist", "x"),
        (reply(400, REFUSED), 65, "does not exist", "x"),
        (error(401, "BAD_TOKEN", "no"), 77, "BAD_TOKEN", None),
        (chat_begun("half") + b"data: " + json.dumps(FAILED).encode() + b"\n\n", 75, "WORKER_RESET", "WORKER_RESET"),
        (chat_begun("half") + b'data: {"error": {"message": "odd"}}\n\n', 70, "the answer failed: odd", None),
        (chat_begun("half"), 69, "broke off", None),
        (chat_begun("half") + b"data: nonsense\n\n", 69, "unexpected response", None),
        (chat_begun("half") + b"data: \xff\n\n", 69, "broke off", None),
    ],
)
def test_failed_answer_ends_chat_and_is_json_error(answer: bytes, status: int, message: str, code: str | None) -> None:
    with serve(chatting(answer)) as queen:
        result = run("chat", "--url", queen.url, stdin="a\nb\n")
        as_json = run("chat", "--json", "--url", queen.url, stdin="a\nb\n")
        assert len(queen.requests_for(CHAT)) == 2, "a later turn would lack the answer to this one"
    assert result.status == as_json.status == status
    assert result.out == ("half\n" if b"half" in answer else "")
    assert message in result.err
    (line,) = as_json.out.splitlines()
    assert json.loads(line)["error"].get("code") == code


def test_unknown_slash_command_in_pipe_exits_65() -> None:
    with serve(chatting(chat("x"))) as queen:
        result = run("chat", "--url", queen.url, stdin="/fly\na\n")
        assert not queen.requests_for(CHAT)
    assert (result.status, result.out) == (65, "")


def test_invalid_utf8_exits_65() -> None:
    with serve(chatting(chat("x"))) as queen:
        result = run("chat", "--url", queen.url, stdin=b"a\n\xff\n")
    assert result.status == 65
    assert "(0xff" in result.err


def test_idle_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "IDLE_LIMIT_S", 0.02)
    with serve(chatting(chat_begun("half") + HOLD)) as queen:
        result = run("chat", "--url", queen.url, stdin="a\n")
        queen.wait_until_closed(CHAT)
    assert (result.status, result.out) == (69, "half\n")
    assert "no data for 0.02 s" in result.err


def test_ctrl_c_in_pipe_cancels_answer_and_exits() -> None:
    with serve(chatting(chat_begun("half") + HOLD)) as queen:
        process = subprocess.Popen(
            command("chat", "--url", queen.url),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"a\n")
            process.stdin.flush()
            assert process.stdout.read(4) == b"half"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT_S)
        queen.wait_until_closed(CHAT)
    assert (process.returncode, out, err) == (130, b"\n", b"")


def test_ctrl_c_while_waiting_for_pipe_exits() -> None:
    with serve(chatting(chat("x"))) as queen:
        process = subprocess.Popen(
            command("chat", "--url", queen.url), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"a\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"x\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 130


def test_answer_is_flushed_before_next_line_is_read() -> None:
    """A program can hold a conversation through two pipes."""
    with serve(chatting(chat("1"), chat("2"))) as queen:
        process = subprocess.Popen(
            command("chat", "--url", queen.url), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdin
            assert process.stdout
            for answer in (b"1\n", b"2\n"):
                process.stdin.write(b"a\n")
                process.stdin.flush()
                assert process.stdout.readline() == answer
            process.stdin.close()
            assert process.wait(LIMIT_S) == 0


def test_closed_pipe_cancels_answer_quietly() -> None:
    """As in `orchctl chat … | head -1`."""
    with serve(chatting(chat_begun("x" * 10), chat(*"y" * 500) + HOLD)) as queen:
        del queen.answers[CHAT][0]
        shell = ["sh", "-c", '"$@" | head -c 1', "sh", *command("chat", "--url", queen.url)]
        result = subprocess.run(
            shell, input=b"a\nb\nc\n", env=environment(), capture_output=True, timeout=LIMIT_S, check=False
        )
    assert (result.stdout, result.stderr) == (b"y", b"")


def test_process_and_in_process_run_agree() -> None:
    with serve(chatting(chat("Hel", "lo"))) as queen:
        result = run_process("chat", "--url", queen.url, stdin=b"a\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Hello\n", "")
