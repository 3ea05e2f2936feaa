"""Which queen orchctl asks: the order of --url, ORCHESTRATORD_URL, the Unix socket and the default port."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl import destination
from orchctl.destination import DEFAULT_URL, socket_advice, url_of, usable
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve

FROM_VARIABLE = {"ORCHESTRATORD_URL": "http://variable:1"}
TASKS = {"GET /v2/tasks": [reply(200, {"tasks": [], "count": 0})]}
UNAUTHORIZED = {"GET /v2/tasks": [error(401, "MISSING_TOKEN", "a token is needed")]}


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """A Unix socket that exists."""
    path = tmp_path / "queen.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        yield path


@pytest.fixture
def denied(listening: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket whose mode keeps this process out; root would be let in whatever its mode is."""
    monkeypatch.setattr(os, "access", lambda *_args: False)
    return listening


def test_url_option_wins_over_variable_and_socket(listening: Path) -> None:
    assert url_of("http://option:1", FROM_VARIABLE, listening) == "http://option:1"


def test_url_variable_wins_over_socket(listening: Path) -> None:
    assert url_of(None, FROM_VARIABLE, listening) == "http://variable:1"


def test_socket_wins_over_default_port(listening: Path) -> None:
    assert url_of(None, {"ORCHESTRATORD_URL": ""}, listening) == f"unix:{listening}"


def test_default_port_is_asked_without_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert url_of(None, {}, tmp_path / "none") == url_of(None, {}, tmp_path / "file") == DEFAULT_URL


def test_socket_that_may_not_be_opened_is_not_used(denied: Path) -> None:
    assert url_of(None, {}, denied) == DEFAULT_URL


def test_request_over_the_socket_reaches_the_queen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "A queen%2f.sock"
    monkeypatch.setattr(destination, "SOCKET", path)
    with serve(TASKS, path) as queen:
        assert run("tasks").status == 0
        assert queen.asked[0].headers["host"] == "localhost"
        assert run("tasks", "--url", f"unix:{path}").status == 0


def test_error_names_the_socket_that_nobody_listens_on(listening: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "SOCKET", listening)
    result = run("tasks")
    assert result.status == 69
    assert f"cannot connect to {listening}: Connection refused" in result.err
    assert "ORCHESTRATORD_URL" not in result.err


@pytest.mark.parametrize("url", ["unix:", "unix:/a\nb"])
def test_unix_url_without_a_path_is_a_wrong_command_line(url: str) -> None:
    assert run("tasks", "--url", url).status == 64


def test_missing_token_advice_names_the_socket(listening: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "SOCKET", listening)
    with serve(UNAUTHORIZED) as queen:
        assert f"--url unix:{listening}" in run("tasks", "--url", queen.url).err


def test_missing_token_advice_names_the_group(denied: Path) -> None:
    assert "group llama-orch" in socket_advice(denied)
    assert str(denied) in socket_advice(denied)


def test_no_socket_no_advice(tmp_path: Path) -> None:
    assert socket_advice(tmp_path / "none") == ""
    assert usable(tmp_path / "none") is None
