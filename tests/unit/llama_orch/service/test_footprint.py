"""Modules that daemons must not load, to save memory."""

import subprocess
import sys

import pytest

HEAVY = ("pdb", "readline", "click.testing.pdb", "opentelemetry", "pynvml", "httpx2")


@pytest.mark.parametrize("daemon", ["queen_rbee", "pool_managerd"])
def test_daemon_loads_no_unneeded_modules(daemon: str) -> None:
    program = f"import sys, {daemon}.daemon; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
