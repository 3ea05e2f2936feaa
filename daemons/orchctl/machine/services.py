"""The services of this machine: started by the first command that needs them, if root gives it."""

import argparse
import os
import subprocess
from pathlib import Path

import trio

from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.destination import client_for
from orchctl.errors import CommandError
from orchctl.locations import DEFAULT_URL
from orchctl.output import print_note
from orchctl.provisioner import find_socket

TARGET = "llama-orch.target"
UNIT = Path("/usr/lib/systemd/system") / TARGET
BOOTED = Path("/run/systemd/system")
"""Exists where systemd is the init process; see sd_booted(3)."""


async def started(options: argparse.Namespace, queen: QueenClient) -> QueenClient:
    """Return a client for the queen of this machine, whose services are started if they are stopped.

    They are started for root only, and not if the target is active or another queen is named. Raises CommandError if
    they do not start.
    """
    if queen.url != DEFAULT_URL or find_socket() or not _may_start():
        return queen
    if (await _systemctl("is-active", "--quiet", TARGET)).returncode == 0:
        return queen
    print_note(f"starting {TARGET}")
    done = await _systemctl("start", TARGET)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CommandError(f"{TARGET} does not start: {said}", "See orchctl check.", ExitStatus.UNAVAILABLE)
    return client_for(options.url)


def _may_start() -> bool:
    return os.geteuid() == 0 and UNIT.exists() and BOOTED.exists()


async def _systemctl(*words: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(["systemctl", *words], check=False, capture_stdout=True, capture_stderr=True)
