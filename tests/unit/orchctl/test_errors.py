"""Errors: every parsed ends a command with a message and an exit status, never with a traceback."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from llama_orch.http.client.upstream import NoTls, Unanswered, Unreachable, UpstreamError, UpstreamTimeout
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path
from orchctl.error_responses import error_from_response
from orchctl.errors import CommandError, combine, exit_status
from tests.unit.orchctl.commands.test_tasks import QUEUED, page
from tests.unit.orchctl.running import LIMIT_S, Result, command, environment, run, run_process
from tests.unit.orchctl.scripted_queen import ANYTHING, error, reply, serve

COMMANDS = (
    ("status",),
    ("pools",),
    ("submit", "x"),
    ("chat", "--model", "m"),
    ("chat",),
    ("tasks",),
    ("tasks", "x", "--json"),
    ("cancel", "x"),
    ("sessions",),
    ("sessions", "x"),
    ("sessions", "x", "--delete"),
    ("sessions", "x", "--max-turns", "1"),
    ("models",),
    ("catalog",),
    ("catalog", "show", "x"),
    ("catalog", "add", "x", "y", "--wait"),
    ("catalog", "remove", "x"),
    ("catalog", "retire", "x"),
    ("catalog", "verify", "x", "--wait"),
    ("catalog", "availability"),
    ("artifacts", "--all"),
    ("artifacts", "show", "x"),
    ("artifacts", "put", "-"),
)
EVERY_COMMAND = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
REPRESENTATIVES = (("tasks",), ("sessions", "x", "--delete"), ("chat", "--model", "m"))
"""One command for each kind of request: with a JSON response, with an empty one, and with a stream below /v1."""
V1_ERROR = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "ADMISSION_REJECT"}}


def assert_failed(result: Result, status: int) -> None:
    assert (result.status, result.out) == (status, "")
    assert result.err
    assert all(line.startswith("orchctl: ") for line in result.err.splitlines())


@pytest.mark.parametrize("words", REPRESENTATIVES, ids=" ".join)
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"", 69, id="nothing"),
        pytest.param(b"220 smtp.example ESMTP\r\n", 69, id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", 69, id="cut off"),
        pytest.param(reply(200, "<html>welcome</html>"), 69, id="HTML"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe{", 69, id="invalid UTF-8"),
        pytest.param(reply(301, headers="Location: http://elsewhere/\r\n"), 69, id="redirection"),
        pytest.param(reply(502, "<h1>Bad  Gateway</h1>"), 69, id="error of a proxy"),
        pytest.param(error(404, "NOT_FOUND", "no such thing"), 66, id="404"),
        pytest.param(
            error(404, "NOT_FOUND", "pool-managerd has no path", reason="no_such_path"), 69, id="another daemon"
        ),
        pytest.param(error(429, "A_NEWER_CODE", "later", retriable=True, retry_after_ms=1500), 75, id="429"),
        pytest.param(error(500, "INTERNAL", "oops"), 69, id="500"),
        pytest.param(reply(429, V1_ERROR, "Retry-After: 7\r\nx-should-retry: true\r\n"), 75, id="429 of /v1"),
    ],
)
def test_unusable_response_has_message_and_status(words: tuple[str, ...], answer: bytes, status: int) -> None:
    with serve({ANYTHING: [answer]}) as queen:
        assert_failed(run(*words, "--url", queen.url, stdin="5"), status)


@EVERY_COMMAND
def test_every_command_refuses_foreign_json(words: tuple[str, ...]) -> None:
    with serve({ANYTHING: [reply(200, {"hello": "world"})]}) as queen:
        assert_failed(run(*words, "--url", queen.url, stdin="5"), 69)


@EVERY_COMMAND
def test_absent_queen_is_named_with_what_to_check(words: tuple[str, ...]) -> None:
    with serve({}) as queen:
        pass
    result = run(*words, "--url", queen.url, stdin="5")
    assert_failed(result, 69)
    assert f"queen-rbee at {queen.url} does not answer" in result.err
    assert "systemctl status queen-rbee" in result.err


@EVERY_COMMAND
def test_every_command_sends_token(words: tuple[str, ...]) -> None:
    with serve({ANYTHING: [error(401, "BAD_TOKEN", "the token is wrong")]}) as queen:
        assert_failed(run(*words, "--url", queen.url, stdin="5", LLORCH_API_TOKEN="t" * 20), 77)
        assert queen.requests
        assert {request.headers["authorization"] for request in queen.requests} == {f"Bearer {'t' * 20}"}


def test_v1_error_is_parsed() -> None:
    parsed = error_from_response(429, json.dumps(V1_ERROR).encode(), {"retry-after": "7", "x-should-retry": "true"})
    assert (parsed.message, parsed.hint) == ("ADMISSION_REJECT: slow down", "Try again in 7 s.")
    assert parsed.document == json.dumps(V1_ERROR)
    without_code = error_from_response(
        400, b'{"error": {"message": "m", "code": null, "type": "t"}}', {"retry-after": "soon"}
    )
    assert (without_code.message, without_code.hint, without_code.status) == ("t: m", "", ExitStatus.DATA)


@pytest.mark.parametrize("words", [("tasks",), ("chat",)])
def test_401_says_where_token_is_read_from(words: tuple[str, ...]) -> None:
    v1 = {"error": {"message": "a token is needed", "type": "authentication_error", "code": "MISSING_TOKEN"}}
    asked = (
        [error(401, "MISSING_TOKEN", "a token is needed", hint="Send it.")] if words == ("tasks",) else [reply(401, v1)]
    )
    with serve({ANYTHING: asked}) as queen:
        result = run(*words, "--url", queen.url)
    assert "MISSING_TOKEN: a token is needed" in result.err
    assert "LLORCH_API_TOKEN_FILE" in result.err


def test_v1_path_of_other_daemon_is_not_a_queen() -> None:
    body = {"error": {"message": "pool-managerd has no path /v1/models", "code": "NOT_FOUND", "type": "t"}}
    parsed = error_from_response(404, json.dumps(body).encode(), {})
    assert (parsed.status, parsed.message) == (ExitStatus.UNAVAILABLE, "pool-managerd has no path /v1/models")
    body["error"]["code"] = "model_not_found"
    assert error_from_response(404, json.dumps(body).encode(), {}).status is ExitStatus.NO_INPUT


@pytest.mark.parametrize("command", [("drain", "p\udcff"), ("tasks", "\udcff"), ("nodes", "remove", "\udc80")])
def test_invalid_utf8_id_is_usage_error(command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.status == 64
    assert "UTF-8" in result.err


@pytest.mark.parametrize(
    "command",
    [("submit", "p\udcff"), ("submit", "x", "--stop", "\udcff"), ("chat", "--model", "m", "--system", "\udcff")],
)
def test_invalid_utf8_prompt_is_not_sent(command: tuple[str, ...]) -> None:
    with serve({ANYTHING: [reply(500)]}) as queen:
        result = run(*command, "--url", queen.url, stdin="hello")
        assert queen.requests == []
    assert (result.status, result.out) == (65, "")
    assert "UTF-8" in result.err


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("http://x", Unanswered("closed", sent=True), "use an https:// URL"),
        ("https://x", Unanswered("closed", sent=True), "LLORCH_TLS_CERT_FILE"),
        ("https://x", NoTls("its certificate is not accepted"), "LLORCH_TLS_CA_FILE"),
        ("https://x", Unreachable("Connection refused"), "systemctl status queen-rbee"),
        ("http://x", UpstreamTimeout("no answer within 30 s"), "systemctl status queen-rbee"),
    ],
)
def test_unanswered_connection_has_tls_hint(url: str, error: UpstreamError, words: str) -> None:
    assert words in QueenClient(url).unreachable(error).hint


def test_missing_tls_variable_is_reported_without_value() -> None:
    result = run("status", LLORCH_TLS_CERT_FILE="/none")
    assert result.status == 78
    assert "LLORCH_TLS_KEY_FILE: is not set" in result.err
    assert "LLORCH_TLS_CERT_FILE=/none: cannot be read" in result.err


def test_no_error_status_maps_to_ok() -> None:
    assert ExitStatus.OK not in {exit_status(status, retriable=False) for status in range(300, 600)}


def test_combine_keeps_each_text_once_and_first_status() -> None:
    one, two = CommandError("a", "h", ExitStatus.NO_INPUT), CommandError("b", "h", ExitStatus.DATA)
    both = combine([one, two, one, CommandError("c", "", ExitStatus.DATA)])
    assert (both.message, both.hint, both.status) == ("a\nb\nc", "h", ExitStatus.NO_INPUT)


def test_path_and_query_are_quoted() -> None:
    assert build_path("/v2/x", "a/b c", "?", limit=None, tag="é&") == "/v2/x/a%2Fb%20c/%3F?tag=%C3%A9%26"
    assert build_path("/v2/x") == "/v2/x"


async def test_oversized_response_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchctl.client.MAX_RESPONSE_BYTES", 10)
    with serve({"GET /long": [reply(200, "x" * 100)]}) as queen, pytest.raises(CommandError) as caught:
        await QueenClient(queen.url).get("/long")
    assert "longer than 10 bytes" in caught.value.message
    assert isinstance(caught.value.__cause__, UpstreamError)


def test_early_closed_pipe_is_quiet() -> None:
    """As in `orchctl tasks | head -1`."""
    reader, writer = os.pipe()
    with serve({"GET /v2/tasks": [page(*[QUEUED] * 5000)]}) as queen:
        process = subprocess.Popen(
            command("tasks", "--url", queen.url), env=environment(), stdout=writer, stderr=subprocess.PIPE
        )
        os.close(writer)
        with process, open(reader, "rb") as output:
            assert output.readline().startswith(b"TASK")
            output.close()
            assert process.stderr
            assert process.stderr.read() == b""
            assert process.wait(LIMIT_S) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("closed", "words", "status"), [("<&-", "input is closed", 66), (">&-", "output is closed", 74)]
)
def test_closed_standard_stream_is_reported(closed: str, words: str, status: int) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command("submit", "--url", "http://127.0.0.1:9")]
    result = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert result.returncode == status
    assert result.stderr == f"orchctl: standard {words}\n"


def test_closed_stderr_does_not_leak_into_stdout() -> None:
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("pools", "--url", "http://127.0.0.1:9")]
    result = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (result.returncode, result.stdout) == (69, "")


def test_directory_as_stdin_is_no_traceback(tmp_path: Path) -> None:
    shell = ["sh", "-c", f'exec "$@" <{tmp_path}', "sh", *command("submit", "--url", "http://127.0.0.1:9")]
    result = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr


def test_process_and_in_process_run_agree() -> None:
    with serve({"GET /v2/tasks": [page(QUEUED)]}) as queen:
        process, inside = run_process("tasks", "--url", queen.url), run("tasks", "--url", queen.url)
    assert (process.returncode, process.stdout, process.stderr) == (inside.status, inside.out, inside.err)
