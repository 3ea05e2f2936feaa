"""orchctl models --disk, rm, pin and unpin."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from llama_orch.contracts.models import DiskModelList
from orchctl import provisioner
from orchctl.commands.disk_models import format_disk_models
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import ScriptedQueen, error, reply, serve

URL = "https://example.org/models/m.gguf"
MODEL = {
    "ref": URL,
    "files": [{"path": "/m.gguf", "size_bytes": 5 << 30, "role": "model"}],
    "size_bytes": 5 << 30,
    "quantization": "Q4_K_M",
    "architecture": "llama",
    "context": 8192,
    "fetched_at": "2026-01-01T00:00:00Z",
    "used_at": "2099-01-01T00:00:00Z",
    "pinned": True,
    "recorded": True,
    "owned": True,
    "pools": ["default", "other"],
}
BROKEN = {
    **MODEL,
    "ref": "file:/x.gguf",
    "quantization": None,
    "problem": "it is not\na GGUF file",
    "pinned": False,
    "pools": [],
}
LIST = {"models": [MODEL, BROKEN], "count": 2, "total_bytes": 10 << 30, "limit_bytes": 200 << 30}
TABLE = f"""\
MODEL         QUANT   SIZE     USED     PINNED  POOLS
{URL}  Q4_K_M  5.0 GiB  0 s ago  yes     default, other
file:/x.gguf  -       5.0 GiB  0 s ago  no      -
file:/x.gguf: it is not a GGUF file
10.0 GiB of 200.0 GiB downloaded
"""


@contextmanager
def provisioner_with(answers: dict[str, list[bytes]]) -> Iterator[ScriptedQueen]:
    """Serve `answers` on the socket that orchctl uses by default."""
    with serve(answers, provisioner.SOCKET) as served:
        yield served


@pytest.fixture(autouse=True)
def default_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "provisioner.sock"
    monkeypatch.setattr(provisioner, "SOCKET", path)
    return path


def test_models_on_disk_are_a_table_with_problems_and_total() -> None:
    with provisioner_with({"GET /v2/models": [reply(200, LIST)]}):
        result = run("models", "--disk")
    assert result.out.split() == TABLE.split()
    assert result.out.splitlines()[-2:] == TABLE.splitlines()[-2:]


def test_models_on_disk_as_json_are_those_of_daemon() -> None:
    with provisioner_with({"GET /v2/models": [reply(200, LIST)]}):
        assert DiskModelList.model_validate_json(run("models", "--disk", "--json").out).count == 2


def test_empty_disk_says_what_to_do() -> None:
    assert "orchctl pull" in format_disk_models(DiskModelList(models=[], count=0, total_bytes=0))


def test_model_is_removed_by_reference() -> None:
    path = f"DELETE /v2/models?ref={quote(URL, safe='')}"
    answers = {path: [reply(200, {"freed_bytes": 3 << 20})], f"{path}&force=true": [reply(200, {"freed_bytes": 0})]}
    with provisioner_with(answers):
        assert run("rm", URL).out == "3.0 MiB freed\n"
        assert run("rm", "--force", URL).out == "0 B freed\n"


def test_refusal_to_remove_has_hint_and_status() -> None:
    refused = error(409, "INVALID_PARAMS", "the model is used by pool default", hint="Remove the pool first.")
    with provisioner_with({f"DELETE /v2/models?ref={quote(URL, safe='')}": [refused]}):
        result = run("rm", URL)
    assert result.status == 65
    assert "used by pool default" in result.err
    assert "Remove the pool first." in result.err


def test_model_is_pinned_and_unpinned() -> None:
    with provisioner_with({"POST /v2/models/pin": [reply(204)]}) as served:
        assert (run("pin", URL).status, run("unpin", URL).status) == (0, 0)
        assert served.bodies("POST /v2/models/pin") == [{"ref": URL, "pinned": True}, {"ref": URL, "pinned": False}]


def test_daemon_that_does_not_run_is_named() -> None:
    result = run("models", "--disk")
    assert result.status == 69
    assert "systemctl status engine-provisioner" in result.err
    assert "queen" not in result.err


def test_missing_permission_names_group(default_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(default_socket))
        monkeypatch.setattr(os, "access", lambda *_args: False)
        result = run("models", "--disk")
    assert result.status == 77
    assert "group llama-orch" in result.err


def test_url_option_may_name_another_socket(tmp_path: Path) -> None:
    with serve({"GET /v2/models": [reply(200, LIST)]}, tmp_path / "other.sock") as served:
        assert run("models", "--disk", "--url", served.url).status == 0


def test_http_url_is_refused() -> None:
    result = run("rm", URL, "--url", "http://127.0.0.1:8080")
    assert result.status == 64
    assert "only a Unix socket" in result.err


def test_older_daemon_is_named_in_hint() -> None:
    missing = error(404, "NOT_FOUND", "engine-provisioner has no path /v2/models", reason="no_such_path")
    with provisioner_with({"GET /v2/models": [missing]}):
        result = run("models", "--disk")
    assert result.status == 69
    assert "engine-provisioner is of the same release" in result.err
