"""Programs of a build, such as git, cmake and compilers: run as a tree that ends with the daemon, whatever ends it.

Owns the tree of each program until it has ended.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from engine_provisioner.build.build_log import BuildLog

GUARD = Path(__file__).with_name("guard.py")
END_S = 10.0
POLL_S = 0.02
CHUNK = 1 << 16
LINE_LIMIT = 1 << 16
BREAK = re.compile(rb"\r\n|\n|\r")
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

OnLine = Callable[[str], Awaitable[None]]


class TimedOut(Exception):
    """The program took too long and was killed; the message says how long."""


@dataclass(frozen=True)
class Job:
    """A program to run. `silence_s` limits how long it may print nothing, `limit_s` how long it may take."""

    argv: tuple[str, ...]
    directory: Path
    env: Mapping[str, str]
    silence_s: float
    limit_s: float


async def run(job: Job, log: BuildLog, on_line: OnLine) -> int:
    """Run `job` with its output in `log`; return its exit status.

    `on_line` gets each line, also those that end with a carriage return, as progress does. Raises TimedOut and OSError.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-IS", str(GUARD), *job.argv],
        cwd=job.directory,
        env=job.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        with trio.move_on_after(job.limit_s) as scope:
            await _read(process, job, log, on_line)
            return await process.wait()
        assert scope.cancelled_caught
        raise TimedOut(f"{Path(job.argv[0]).name} did not end within {job.limit_s:g} s")
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()  # the guard kills the tree
            with trio.move_on_after(END_S):
                await process.wait()
            if process.returncode is None:  # it was stopped, as by a debugger
                process.kill()
                await process.wait()
            if process.returncode is not None and process.returncode < 0:  # killed: it could not end the tree
                await trio.to_thread.run_sync(_kill_session, process.pid)
            if process.stdout is not None:
                await process.stdout.aclose()


def _kill_session(leader: int) -> None:
    """Kill the processes in the session of the ended process `leader`, for at most END_S seconds. Blocks.

    The session and not the group, because ninja gives each of its jobs a group.
    """
    deadline = time.monotonic() + END_S
    while (members := list(_session_of(leader))) and time.monotonic() < deadline:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _session_of(leader: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # the fields behind the name, which may contain anything: state, ppid, pgrp, session; see proc(5)
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            yield int(process.name)


async def _read(process: trio.Process, job: Job, log: BuildLog, on_line: OnLine) -> None:
    assert process.stdout is not None
    rest = b""
    while True:
        with trio.move_on_after(job.silence_s) as scope:
            chunk = await process.stdout.receive_some(CHUNK)
        if scope.cancelled_caught:
            raise TimedOut(f"{Path(job.argv[0]).name} printed nothing for {job.silence_s:g} s")
        *lines, rest = BREAK.split(rest + chunk)
        if rest and (not chunk or len(rest) > LINE_LIMIT):
            lines, rest = [*lines, rest], b""
        texts = [CONTROL.sub("", line.decode(errors="replace")) for line in lines]
        if texts:
            await trio.to_thread.run_sync(log.append, texts)
        for text in texts:
            await on_line(text)
        if not chunk:
            return
