"""Whatever answers instead of the queen, every command ends with words and a status, never with a traceback."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from llama_orch.http.client.upstream import NoTls, Unanswered, Unreachable, UpstreamError, UpstreamTimeout
from llama_orch.service.exit import ExitStatus
from orchctl.failure import Failure, exit_status, refused, together
from orchctl.queen import Queen, below
from tests.unit.orchctl.commands.test_tasks import QUEUED, page
from tests.unit.orchctl.running import LIMIT_S, command, environment, here, orchctl
from tests.unit.orchctl.scripted_queen import ANYTHING, error, queen, reply

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
V1_ERROR = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "ADMISSION_REJECT"}}


@EVERY_COMMAND
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"", 69, id="nothing"),
        pytest.param(b"220 smtp.example ESMTP\r\n", 69, id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", 69, id="cut off"),
        pytest.param(reply(200, "<html>welcome</html>"), 69, id="some page"),
        pytest.param(reply(200, {"hello": "world"}), 69, id="other JSON"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe{", 69, id="bytes"),
        pytest.param(reply(301, headers="Location: http://elsewhere/\r\n"), 69, id="redirection"),
        pytest.param(reply(502, "<h1>Bad  Gateway</h1>"), 69, id="a proxy's error"),
        pytest.param(error(401, "BAD_TOKEN", "the token is wrong"), 77, id="401"),
        pytest.param(error(404, "NOT_FOUND", "no such thing"), 66, id="404"),
        pytest.param(
            error(404, "NOT_FOUND", "pool-managerd has no path", reason="no_such_path"), 69, id="another daemon"
        ),
        pytest.param(error(429, "A_NEWER_CODE", "later", retriable=True, retry_after_ms=1500), 75, id="429"),
        pytest.param(error(500, "INTERNAL", "oops"), 69, id="500"),
        pytest.param(reply(429, V1_ERROR, "Retry-After: 7\r\nx-should-retry: true\r\n"), 75, id="429 of /v1"),
    ],
)
def test_an_answer_that_does_not_help_has_words_and_a_status(
    words: tuple[str, ...], answer: bytes, status: int
) -> None:
    with queen({ANYTHING: [answer]}) as her:
        ended = here(*words, "--url", her.url, stdin="5")
    assert (ended.status, ended.out) == (status, "")
    assert ended.err
    assert all(line.startswith("orchctl: ") for line in ended.err.splitlines())


@EVERY_COMMAND
def test_a_queen_that_is_not_there_is_named_with_what_to_look_at(words: tuple[str, ...]) -> None:
    with queen({}) as her:
        pass
    ended = here(*words, "--url", her.url, stdin="5")
    assert (ended.status, ended.out) == (69, "")
    assert f"queen-rbee at {her.url} does not answer" in ended.err
    assert "systemctl status queen-rbee" in ended.err


@EVERY_COMMAND
def test_every_command_sends_the_token(words: tuple[str, ...]) -> None:
    with queen({ANYTHING: [error(401, "BAD_TOKEN", "no")]}) as her:
        here(*words, "--url", her.url, stdin="5", LLORCH_API_TOKEN="t" * 20)
        assert [request.headers["authorization"] for request in her.asked] == [f"Bearer {'t' * 20}"] * len(her.asked)
        assert her.asked


def test_an_error_of_v1_is_read_as_its_clients_read_it() -> None:
    failure = refused(429, json.dumps(V1_ERROR).encode(), {"retry-after": "7", "x-should-retry": "true"})
    assert (failure.message, failure.hint) == ("ADMISSION_REJECT: slow down", "Try again in 7 s.")
    assert failure.document == json.dumps(V1_ERROR)
    wordless = refused(400, b'{"error": {"message": "m", "code": null, "type": "t"}}', {"retry-after": "soon"})
    assert (wordless.message, wordless.hint, wordless.status) == ("t: m", "", ExitStatus.DATA)


@pytest.mark.parametrize("words", [("tasks",), ("chat",)])
def test_who_lacks_the_token_is_told_where_to_put_it(words: tuple[str, ...]) -> None:
    v1 = {"error": {"message": "a token is needed", "type": "authentication_error", "code": "MISSING_TOKEN"}}
    asked = (
        [error(401, "MISSING_TOKEN", "a token is needed", hint="Send it.")] if words == ("tasks",) else [reply(401, v1)]
    )
    with queen({ANYTHING: asked}) as her:
        ended = here(*words, "--url", her.url)
    assert "MISSING_TOKEN: a token is needed" in ended.err
    assert "LLORCH_API_TOKEN_FILE" in ended.err


def test_another_daemon_of_ours_is_no_queen_under_v1_either() -> None:
    told = {"error": {"message": "pool-managerd has no path /v1/models", "code": "NOT_FOUND", "type": "t"}}
    failure = refused(404, json.dumps(told).encode(), {})
    assert (failure.status, failure.message) == (ExitStatus.UNAVAILABLE, "pool-managerd has no path /v1/models")
    told["error"]["code"] = "model_not_found"
    assert refused(404, json.dumps(told).encode(), {}).status is ExitStatus.NO_INPUT


@pytest.mark.parametrize("command", [("drain", "p\udcff"), ("tasks", "\udcff"), ("nodes", "remove", "\udc80")])
def test_an_id_that_is_no_text_is_a_wrong_command_line(command: tuple[str, ...]) -> None:
    ended = here(*command)
    assert ended.status == 64
    assert "UTF-8" in ended.err


@pytest.mark.parametrize(
    "command",
    [("submit", "p\udcff"), ("submit", "x", "--stop", "\udcff"), ("chat", "--model", "m", "--system", "\udcff")],
)
def test_a_prompt_that_is_no_text_is_not_sent(command: tuple[str, ...]) -> None:
    with queen({ANYTHING: [reply(500)]}) as her:
        ended = here(*command, "--url", her.url, stdin="hello")
        assert her.asked == []
    assert (ended.status, ended.out) == (65, "")
    assert "UTF-8" in ended.err


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("http://x", Unanswered("closed", sent=True), "begins with https://"),
        ("https://x", Unanswered("closed", sent=True), "LLORCH_TLS_CERT_FILE"),
        ("https://x", NoTls("its certificate was not accepted"), "LLORCH_TLS_CA_FILE"),
        ("https://x", Unreachable("Connection refused"), "systemctl status queen-rbee"),
        ("http://x", UpstreamTimeout("no answer within 30 s"), "systemctl status queen-rbee"),
    ],
)
def test_who_gets_no_answer_is_told_what_may_be_amiss_with_tls(url: str, error: UpstreamError, words: str) -> None:
    assert words in Queen(url).unreachable(error).hint


def test_a_file_of_tls_that_is_not_set_is_told_without_a_value() -> None:
    ended = here("status", LLORCH_TLS_CERT_FILE="/none")
    assert ended.status == 78
    assert "LLORCH_TLS_KEY_FILE: is not set" in ended.err
    assert "LLORCH_TLS_CERT_FILE=/none: cannot be read" in ended.err


def test_every_status_that_is_no_success_is_a_failure() -> None:
    assert ExitStatus.OK not in {exit_status(status, retriable=False) for status in range(300, 600)}


def test_several_failures_say_each_thing_once_and_the_first_ones_status_counts() -> None:
    one, two = Failure("a", "h", ExitStatus.NO_INPUT), Failure("b", "h", ExitStatus.DATA)
    both = together([one, two, one, Failure("c", "", ExitStatus.DATA)])
    assert (both.message, both.hint, both.status) == ("a\nb\nc", "h", ExitStatus.NO_INPUT)


def test_paths_and_queries_are_written_as_urls_have_them() -> None:
    assert below("/v2/x", "a/b c", "?", limit=None, tag="é&") == "/v2/x/a%2Fb%20c/%3F?tag=%C3%A9%26"
    assert below("/v2/x") == "/v2/x"


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchctl.queen.ANSWER_LIMIT", 10)
    with queen({"GET /long": [reply(200, "x" * 100)]}) as her, pytest.raises(Failure) as caught:
        await Queen(her.url).get("/long")
    assert "longer than 10 bytes" in caught.value.message
    assert isinstance(caught.value.__cause__, UpstreamError)


def test_a_pipe_that_closes_early_is_quiet() -> None:
    """As in `orchctl tasks | head -1`."""
    reader, writer = os.pipe()
    with queen({"GET /v2/tasks": [page(*[QUEUED] * 5000)]}) as her:
        process = subprocess.Popen(
            command("tasks", "--url", her.url), env=environment(), stdout=writer, stderr=subprocess.PIPE
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
def test_a_closed_stream_is_told(closed: str, words: str, status: int) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command("submit", "--url", "http://127.0.0.1:9")]
    ended = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert ended.returncode == status
    assert ended.stderr == f"orchctl: standard {words}\n"


def test_without_standard_error_nothing_goes_into_the_output() -> None:
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("pools", "--url", "http://127.0.0.1:9")]
    ended = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (ended.returncode, ended.stdout) == (69, "")


def test_a_directory_as_standard_input_is_no_traceback(tmp_path: Path) -> None:
    shell = ["sh", "-c", f'exec "$@" <{tmp_path}', "sh", *command("submit", "--url", "http://127.0.0.1:9")]
    ended = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr


def test_the_process_ends_as_the_tests_in_this_one_do() -> None:
    with queen({"GET /v2/tasks": [page(QUEUED)]}) as her:
        process, inside = orchctl("tasks", "--url", her.url), here("tasks", "--url", her.url)
    assert (process.returncode, process.stdout, process.stderr) == (inside.status, inside.out, inside.err)
