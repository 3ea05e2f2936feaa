"""What the configuration reference has people look for in the log of a daemon that has just started."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.integration.home import free_port
from tests.unit.llama_orch.spool.samples import publish
from tests.unit.reference.parsing import DOCUMENT

TOKEN = "0123456789abcdef-secret"
WITHIN_S = 40.0
READY = "daemon_ready"
BOTH = pytest.mark.parametrize("daemon", ["queen-rbee", "pool-managerd"])


def environment(daemon: str, directory: Path) -> dict[str, str]:
    """Free ports, and all else as it is by default below the working directory."""
    address = {"queen-rbee": "ORCHESTRATORD_BIND_ADDR", "pool-managerd": "POOL_MANAGERD_BIND_ADDR"}[daemon]
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HOME": str(directory),
        address: f"127.0.0.1:{free_port()}",
        "PROMETHEUS_METRICS_PORT": str(free_port()),
    }


@contextmanager
def log(daemon: str, directory: Path, **given: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of a running daemon as they come; it is killed where it says nothing more for too long."""
    process = subprocess.Popen(
        ["timeout", "-s", "KILL", str(WITHIN_S), sys.executable, "-m", daemon.replace("-", "_")],
        cwd=directory,
        env=environment(daemon, directory) | given,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr
        try:
            yield (json.loads(line) for line in process.stderr)
        finally:
            process.send_signal(signal.SIGTERM)


def up_to(records: Iterator[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """The records up to the first that has `wanted` in it, which must come."""
    seen = []
    for record in records:
        seen.append(record)
        if wanted in str(record):
            return seen
    raise AssertionError(f"{wanted} is nowhere in {seen}")


@BOTH
def test_the_fingerprint_of_the_token_is_in_the_log_as_the_reference_greps_for_it(daemon: str, tmp_path: Path) -> None:
    assert re.search(r"^journalctl -u queen-rbee \| grep token_fp6$", DOCUMENT.read_text(), re.MULTILINE)
    with log(daemon, tmp_path, LLORCH_API_TOKEN=TOKEN) as records:
        seen = up_to(records, READY)
    assert any(f"token_fp6={sha256(TOKEN.encode()).hexdigest()[:6]}" in record["message"] for record in seen)
    assert TOKEN not in str(seen)


@pytest.mark.parametrize(
    ("daemon", "levels", "target"),
    [
        ("queen-rbee", "info,queen-rbee=debug", "queen_rbee.sources.handoffs"),
        ("queen-rbee", "warn,queen_rbee::sources=debug", "queen_rbee.sources.handoffs"),
        ("pool-managerd", "info,pool_managerd=debug", "pool_managerd.handoffs.handoffs"),
        ("pool-managerd", "warn,pool-managerd::handoff=debug", "pool_managerd.handoffs.handoffs"),
    ],
)
def test_rust_log_as_the_reference_writes_it_has_the_daemon_tell_more(
    daemon: str, levels: str, target: str, tmp_path: Path
) -> None:
    spool = tmp_path / ".runtime/engines"
    spool.mkdir(parents=True)
    publish(spool)
    with log(daemon, tmp_path, RUST_LOG=levels) as records:
        seen = up_to(records, target)
    assert (seen[-1]["target"], seen[-1]["level"]) == (target, "debug")
    if levels.startswith("warn"):
        assert {record["level"] for record in seen[:-1]} <= {"debug", "warning"}


def test_trace_is_more_than_debug_and_only_for_its_target(tmp_path: Path) -> None:
    with log("pool-managerd", tmp_path, RUST_LOG="info,pool_managerd::handoff=trace") as records:
        seen = up_to(records, "looked for handoffs")
    assert (seen[-1]["target"], seen[-1]["level"]) == ("pool_managerd.handoffs.handoffs", "trace")
