"""What /openapi.json says is so: schemathesis asks a real queen all that it allows and much that it forbids.

Every answer must have a status, a content type, headers and a body that the document has for it, the events of streams
included; what the document forbids must be refused, and nothing may be answered by 500 or 502. The cases are the same
each time. What it found can be asked again by the curl commands that a failure shows.
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
LIMIT_S = 300.0
"""The backstop; on two cores that nothing else uses it takes half a minute."""
SHORT_ANSWERS = ("--predict", "4")
"""Where a request does not say how long its answer may be: else it is as long as the context."""
NOT_ASKED = {"GET /openapi.json"}
"""Where the document comes from: schemathesis leaves that out."""
NOT_SERVED = {"POST /v1/rerank", "POST /rerank", "POST /v2/rerank"}
"""What an engine that embeds does not do as well."""
FLEET = "/v2/(nodes/|pools/[^/]+/(drain|resume)|operations/)"
"""Paths of what a home has none of, or would miss: nodes, and a pool that is not drained."""
COMES_BACK = ("--exclude-checks", "use_after_free")
"""A node that is deleted while it runs registers again by itself: it may be there when it is asked for next."""


@pytest.fixture
def queen(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home whose pool completes, chats and embeds."""
    flags = ("--pooling", "mean", *SHORT_ANSWERS)
    with home(tmp_path, llama_server_tar, tiny_model, flags=flags, workloads=("completion", "embedding")) as running:
        yield running


def schemathesis(queen: Home, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run", *options]
    return subprocess.run(
        [*command, f"{queen.url}/openapi.json"],
        cwd=queen.directory,  # it leaves files behind
        env=queen.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def accepted(report: Any) -> dict[str, int]:
    """How many of the requests that the document allows were answered by 2xx, by operation."""
    rates = report["valid_rates"].items()
    return {operation: sum(phase["accepted"] for phase in phases.values()) for operation, phases in rates}


def asked(chosen: Callable[[str], object]) -> set[str]:
    """The operations that are asked on paths that are `chosen`."""
    found = [route for route in ROUTES if chosen(route.plain_path)]
    return {f"{route.method} {route.plain_path}" for route in found} - NOT_ASKED


def test_the_queen_does_what_her_description_says(queen: Home):
    # most requests are a turn of the session that the document has as its example
    status, _view = queen.ask("PUT", f"/v2/sessions/{EXAMPLE_SESSION_ID}", {"max_turns": 1_000_000})
    assert status == 200
    file = queen.directory / "report.json"
    ended = schemathesis(queen, "--exclude-path-regex", FLEET, "--report", "json", "--report-json-path", str(file))
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{queen.logs()}"
    counts = accepted(json.loads(file.read_text()))
    assert set(counts) == asked(lambda path: not re.search(FLEET, path))
    assert {operation for operation, count in counts.items() if not count} <= NOT_SERVED
    assert "Traceback" not in (queen.directory / "queen-rbee.log").read_text()


def test_a_queen_of_nodes_does_what_her_description_says_of_them(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
):
    with home(tmp_path, llama_server_tar, tiny_model, node_id="gpu-node-1") as queen:
        file = queen.directory / "report.json"
        report = ("--report", "json", "--report-json-path", str(file))
        ended = schemathesis(queen, "--include-path-regex", FLEET, *COMES_BACK, *report)
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{queen.logs()}"
        counts = accepted(json.loads(file.read_text()))
        assert set(counts) == asked(lambda path: re.search(FLEET, path))
        assert {operation for operation, count in counts.items() if not count} == set()
        assert "Traceback" not in (queen.directory / "queen-rbee.log").read_text()
