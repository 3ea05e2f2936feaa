"""orchctl run starts the services of a machine where they are stopped, and only there."""

import argparse
import os
from pathlib import Path

import pytest

from orchctl.client import QueenClient
from orchctl.errors import CommandError
from orchctl.locations import DEFAULT_URL
from orchctl.machine import services

OPTIONS = argparse.Namespace(url=None)
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>{log}
case $1 in
is-active) exit {inactive} ;;
start) echo "$2 is broken" >&2; exit {failure} ;;
esac
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the package and stopped services, used by root; the file lists the calls of systemctl."""
    monkeypatch.setattr(services, "UNIT", tmp_path)
    monkeypatch.setattr(services, "BOOTED", tmp_path)
    monkeypatch.setattr(services, "find_socket", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    provide_systemctl(tmp_path)
    return tmp_path / "log"


def provide_systemctl(directory: Path, *, inactive: int = 3, failure: int = 0) -> None:
    program = directory / "systemctl"
    program.write_text(SYSTEMCTL.format(log=directory / "log", inactive=inactive, failure=failure))
    program.chmod(0o755)


def calls(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def test_stopped_services_are_started(log: Path) -> None:
    await services.started(OPTIONS, QueenClient(DEFAULT_URL))
    assert calls(log)[-1] == "start llama-orch.target"


async def test_active_target_is_left_alone(log: Path) -> None:
    provide_systemctl(log.parent, inactive=0)
    await services.started(OPTIONS, QueenClient(DEFAULT_URL))
    assert calls(log) == ["is-active --quiet llama-orch.target"]


async def test_named_queen_starts_nothing_here(log: Path) -> None:
    queen = QueenClient("http://queen.lan:8080")
    assert await services.started(OPTIONS, queen) is queen
    assert calls(log) == []


async def test_only_root_starts_services(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    await services.started(OPTIONS, QueenClient(DEFAULT_URL))
    assert calls(log) == []


async def test_failed_start_is_reported(log: Path) -> None:
    provide_systemctl(log.parent, failure=1)
    with pytest.raises(CommandError, match=r"does not start: llama-orch\.target is broken"):
        await services.started(OPTIONS, QueenClient(DEFAULT_URL))
