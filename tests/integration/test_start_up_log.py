"""The log records at startup that the configuration reference tells operators to look for."""

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
FOR_EACH_DAEMON = pytest.mark.parametrize("daemon", ["queen-rbee", "pool-managerd"])


def environment(daemon: str, directory: Path) -> dict[str, str]:
    """Return variables with free ports and otherwise default settings, with all files in the working directory."""
    address = {"queen-rbee": "ORCHESTRATORD_BIND_ADDR", "pool-managerd": "POOL_MANAGERD_BIND_ADDR"}[daemon]
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HOME": str(directory),
        address: f"127.0.0.1:{free_port()}",
        "PROMETHEUS_METRICS_PORT": str(free_port()),
    }


@contextmanager
def log(daemon: str, directory: Path, **variables: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Run a daemon and yield its log records as they arrive. `timeout` kills it after WITHIN_S."""
    process = subprocess.Popen(
        ["timeout", "-s", "KILL", str(WITHIN_S), sys.executable, "-m", daemon.replace("-", "_")],
        cwd=directory,
        env=environment(daemon, directory) | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr
        try:
            yield (json.loads(line) for line in process.stderr)
        finally:
            process.send_signal(signal.SIGTERM)


def records_until(records: Iterator[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Return the records up to the first that contains `text`. Fails if the log ends without it."""
    logged = []
    for record in records:
        logged.append(record)
        if text in str(record):
            return logged
    raise AssertionError(f"no record contains {text}: {logged}")


@FOR_EACH_DAEMON
def test_token_fingerprint_is_logged_as_reference_says(daemon: str, tmp_path: Path) -> None:
    assert re.search(r"^journalctl -u queen-rbee \| grep token_fp6$", DOCUMENT.read_text(), re.MULTILINE)
    with log(daemon, tmp_path, LLORCH_API_TOKEN=TOKEN) as records:
        logged = records_until(records, READY)
    assert any(f"token_fp6={sha256(TOKEN.encode()).hexdigest()[:6]}" in record["message"] for record in logged)
    assert TOKEN not in str(logged)


@pytest.mark.parametrize(
    ("daemon", "levels", "target"),
    [
        ("queen-rbee", "info,queen-rbee=debug", "queen_rbee.sources.handoffs"),
        ("queen-rbee", "warn,queen_rbee::sources=debug", "queen_rbee.sources.handoffs"),
        ("pool-managerd", "info,pool_managerd=debug", "pool_managerd.handoffs.handoffs"),
        ("pool-managerd", "warn,pool-managerd::handoff=debug", "pool_managerd.handoffs.handoffs"),
    ],
)
def test_rust_log_examples_enable_debug_for_their_target(daemon: str, levels: str, target: str, tmp_path: Path) -> None:
    spool = tmp_path / ".runtime/engines"
    spool.mkdir(parents=True)
    publish(spool)
    with log(daemon, tmp_path, RUST_LOG=levels) as records:
        logged = records_until(records, target)
    assert (logged[-1]["target"], logged[-1]["level"]) == (target, "debug")
    if levels.startswith("warn"):
        assert {record["level"] for record in logged[:-1]} <= {"debug", "warning"}


def test_trace_logs_more_than_debug_for_its_target(tmp_path: Path) -> None:
    with log("pool-managerd", tmp_path, RUST_LOG="info,pool_managerd::handoff=trace") as records:
        logged = records_until(records, "looked for handoffs")
    assert (logged[-1]["target"], logged[-1]["level"]) == ("pool_managerd.handoffs.handoffs", "trace")
