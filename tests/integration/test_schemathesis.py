"""Check a real queen against its /openapi.json with schemathesis, with valid and invalid requests.

Every response must have a status, content type, headers and body that the document declares, including the events of
streams. Requests that the document forbids must be refused, and no response may be 500 or 502. Each run tests the same
cases. A failure prints curl commands that reproduce it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queen_rbee.api.parameters import EXAMPLE_SESSION_ID
from queen_rbee.api.routes import ROUTES
from tests.engines.llama_server import Archive
from tests.integration.home import Home, home

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
ROOT = Path(__file__).parents[2]
LIMIT_S = 900.0
"""Time limit, for a run that hangs. A loaded machine needs ten times as long as an idle one."""
SHORT_ANSWER_FLAGS = ("--predict", "4")
"""Limits answers of requests without max_tokens, which would otherwise fill the context."""
NOT_TESTED = {"GET /openapi.json", "GET /v2/events", "POST /v2/reload"}
"""Schemathesis does not test the path from which it reads the document, and cannot read a stream without end. A reload
is refused with 403 over TCP."""
ENDLESS = "/v2/events$"
NOT_SERVED = {
    "POST /v1/files",
    "GET /v1/files/{file_id}",
    "GET /v1/files/{file_id}/content",
    "DELETE /v1/files/{file_id}",
    "POST /v1/batches",
    "GET /v1/batches/{batch_id}",
    "POST /v1/batches/{batch_id}/cancel",
    "POST /v1/rerank",
    "POST /rerank",
    "POST /v2/rerank",
    "POST /v2/gpus/{gpu}/unfence",
    "GET /docs",
    "GET /v1/responses/{response_id}",
    "DELETE /v1/responses/{response_id}",
}
"""Operations of files, which come as forms, and of batches, which need one; operations that an engine with embeddings
does not support; that of GPUs, which this machine has none of; a redirect; and those of stored responses, since the
queen stores none."""
FLEET = "/v2/(nodes/|pools/[^/]+/(drain|resume|reload|purge)|operations/)"
"""Paths that a home does not have (nodes) or that would stop it (drain, reload, purge)."""
NODE_CHECKS = ("--exclude-checks", "use_after_free")
"""A deleted node that is still running registers again, so that it can exist at the next request."""


@pytest.fixture
def queen(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home whose pool serves completions, chats and embeddings, and whose queen serves the manual."""
    subprocess.run([sys.executable, "packaging/manual_html.py", "man", "build/html"], cwd=ROOT, check=True)
    flags = ("--pooling", "mean", *SHORT_ANSWER_FLAGS)
    with home(tmp_path, llama_server_tar, tiny_model, flags=flags, workloads=("completion", "embedding")) as running:
        yield running


def schemathesis(queen: Home, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run", *options]
    return subprocess.run(
        [*command, f"{queen.url}/openapi.json"],
        cwd=queen.directory,  # schemathesis writes files there
        env=queen.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def accepted(report: Any) -> dict[str, int]:
    """Return the number of valid requests that got 2xx, by operation."""
    rates = report["valid_rates"].items()
    return {operation: sum(phase["accepted"] for phase in phases.values()) for operation, phases in rates}


def operations_on(chosen: Callable[[str], object]) -> set[str]:
    """Return the tested operations whose path is `chosen`."""
    found = [route for route in ROUTES if chosen(route.plain_path)]
    return {f"{route.method} {route.plain_path}" for route in found} - NOT_TESTED


def test_queen_conforms_to_openapi_document(queen: Home):
    # most requests belong to the session of the examples in the document
    status, _view = queen.ask("PUT", f"/v2/sessions/{EXAMPLE_SESSION_ID}", {"max_turns": 1_000_000})
    assert status == 200
    file = queen.directory / "report.json"
    ended = schemathesis(
        queen, "--exclude-path-regex", f"{FLEET}|{ENDLESS}", "--report", "json", "--report-json-path", str(file)
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{queen.logs()}"
    counts = accepted(json.loads(file.read_text()))
    assert set(counts) == operations_on(lambda path: not re.search(FLEET, path))
    assert {operation for operation, count in counts.items() if not count} <= NOT_SERVED
    assert "Traceback" not in (queen.directory / "queen-rbee.log").read_text()


def test_queen_with_nodes_conforms_to_openapi_document(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path):
    with home(tmp_path, llama_server_tar, tiny_model, node_id="gpu-node-1") as queen:
        file = queen.directory / "report.json"
        report = ("--report", "json", "--report-json-path", str(file))
        ended = schemathesis(queen, "--include-path-regex", FLEET, *NODE_CHECKS, *report)
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{queen.logs()}"
        counts = accepted(json.loads(file.read_text()))
        assert set(counts) == operations_on(lambda path: re.search(FLEET, path))
        assert {operation for operation, count in counts.items() if not count} == set()
        assert "Traceback" not in (queen.directory / "queen-rbee.log").read_text()
