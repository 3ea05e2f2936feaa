"""The destination: precedence of --url, ORCHESTRATORD_URL, Unix socket and default port; URL, token and TLS errors."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl import destination
from orchctl.destination import select_url, socket_advice, usable_socket_url
from orchctl.locations import DEFAULT_URL
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve

FROM_VARIABLE = {"ORCHESTRATORD_URL": "http://variable:1"}
TASKS = {"GET /v2/tasks": [reply(200, {"tasks": [], "count": 0})]}
UNAUTHORIZED = {"GET /v2/tasks": [error(401, "MISSING_TOKEN", "a token is needed")]}


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "queen.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        yield path


@pytest.fixture
def denied(listening: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket that this process may not open; root could open it whatever its mode."""
    monkeypatch.setattr(os, "access", lambda *_args: False)
    return listening


def test_url_option_wins_over_variable_and_socket(listening: Path) -> None:
    assert select_url("http://option:1", FROM_VARIABLE, listening) == "http://option:1"


def test_url_variable_wins_over_socket(listening: Path) -> None:
    assert select_url(None, FROM_VARIABLE, listening) == "http://variable:1"


def test_socket_wins_over_default_port(listening: Path) -> None:
    assert select_url(None, {"ORCHESTRATORD_URL": ""}, listening) == f"unix:{listening}"


def test_default_url_is_used_without_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert select_url(None, {}, tmp_path / "none") == select_url(None, {}, tmp_path / "file") == DEFAULT_URL


def test_inaccessible_socket_is_not_used(denied: Path) -> None:
    assert select_url(None, {}, denied) == DEFAULT_URL


def test_request_over_the_socket_reaches_the_queen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "A queen%2f.sock"
    monkeypatch.setattr(destination, "QUEEN_SOCKET", path)
    with serve(TASKS, path) as queen:
        assert run("tasks").status == 0
        assert queen.requests[0].headers["host"] == "localhost"
        assert run("tasks", "--url", f"unix:{path}").status == 0


def test_error_names_the_socket_that_nobody_listens_on(listening: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "QUEEN_SOCKET", listening)
    result = run("tasks")
    assert result.status == 69
    assert f"cannot connect to {listening}: Connection refused" in result.err
    assert "ORCHESTRATORD_URL" not in result.err


@pytest.mark.parametrize("url", ["unix:", "unix:/a\nb"])
def test_unix_url_without_a_path_is_usage_error(url: str) -> None:
    assert run("tasks", "--url", url).status == 64


def test_missing_token_advice_names_the_socket(listening: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "QUEEN_SOCKET", listening)
    with serve(UNAUTHORIZED) as queen:
        assert f"--url unix:{listening}" in run("tasks", "--url", queen.url).err


def test_missing_token_advice_names_the_group(denied: Path) -> None:
    assert "group llama-orch" in socket_advice(denied)
    assert str(denied) in socket_advice(denied)


def test_no_socket_no_advice(tmp_path: Path) -> None:
    assert socket_advice(tmp_path / "none") == ""
    assert usable_socket_url(tmp_path / "none") is None


@pytest.mark.parametrize(
    "url",
    [
        "queen:8080",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://a b/",
        "http://ü/",
        "http://[::1",
        "http://h/?a=b",
        "http://h#f",
        "http://user:pass@h",
    ],
)
def test_invalid_url_is_usage_error(url: str) -> None:
    result = run("pools", "--url", url)
    assert result.status == 64
    assert url in result.err
    assert "http://127.0.0.1:8080" in result.err


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_impossible_host_is_no_traceback(host: str) -> None:
    assert run("pools", "--url", f"http://{host}:1").status == 69


def test_unusable_token_is_reported_but_not_shown(tmp_path: Path) -> None:
    missing = run("pools", LLORCH_API_TOKEN_FILE=str(tmp_path / "none"))
    assert missing.status == 66
    assert "No such file" in missing.err
    (tmp_path / "empty").write_text("")
    assert run("pools", LLORCH_API_TOKEN_FILE=str(tmp_path / "empty")).status == 78
    malformed = run("pools", LLORCH_API_TOKEN="sécret two lines")
    assert malformed.status == 78
    assert "cret" not in malformed.err
