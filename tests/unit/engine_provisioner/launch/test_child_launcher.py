"""Engines as child processes: their output is logged, and they always end with the daemon."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from engine_provisioner.engine import EngineCommand
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch import child_launcher
from engine_provisioner.launch.child_launcher import ChildLauncher
from engine_provisioner.launch.launcher import wait_for_exit
from tests.unit.engine_provisioner.waiting import WAIT_S, until


def shell(script: str, **env: str) -> EngineCommand:
    return EngineCommand(("/bin/sh", "-c", script), env)


async def never(_command: EngineCommand) -> bool:
    return False


async def test_output_is_logged_and_its_last_line_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with trio.open_nursery() as nursery:
        command = shell('echo "hello $WHO"; echo "error: no such model" >&2; exit 3', WHO="you")
        async with ChildLauncher(nursery).run("default", command, never) as engine:
            await engine.wait()
            assert await engine.exit_message() == "the engine ended with status 3: error: no such model"
    assert "default: hello you" in caplog.text


async def test_engine_that_ignores_sigterm_is_killed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_launcher, "GRACE_S", 0.1)
    caplog.set_level(logging.DEBUG)
    async with trio.open_nursery() as nursery:
        script = "trap 'echo got SIGTERM' TERM; echo trapped; while :; do sleep 0.05; done"
        async with ChildLauncher(nursery).run("default", shell(script), never) as engine:
            await until(lambda: "trapped" in caplog.text)
        assert "killed by SIGKILL" in await engine.exit_message()
    assert "got SIGTERM" in caplog.text


async def test_cancellation_stops_the_engine() -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with ChildLauncher(nursery).run("default", shell("exec sleep 600"), never) as engine:
                scope.cancel()
                await trio.sleep_forever()
        assert not await trio.Path(f"/proc/{engine.pid}").exists()


async def test_engine_does_not_inherit_the_daemons_variables(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLORCH_API_TOKEN", "secret-of-the-daemon")
    caplog.set_level(logging.DEBUG)
    async with (
        trio.open_nursery() as nursery,
        ChildLauncher(nursery).run("default", shell("env", MINE="1"), never) as engine,
    ):
        await engine.wait()
    assert "MINE=1" in caplog.text
    assert "secret-of-the-daemon" not in caplog.text


async def test_endless_line_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with trio.open_nursery() as nursery:
        script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo after"
        async with ChildLauncher(nursery).run("default", shell(script), never) as engine:
            await engine.wait()
            assert (await engine.exit_message()).endswith("its last line: after")
    assert max(map(len, caplog.messages)) < 2000


async def test_failed_fork_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    async with trio.open_nursery() as nursery:
        with pytest.raises(ProvisioningFailure, match="cannot start the engine: Resource temporarily unavailable"):
            async with ChildLauncher(nursery).run("default", shell("true"), never):
                pass


DAEMON = """
import sys, trio
from engine_provisioner.launch.child_launcher import ChildLauncher
from engine_provisioner.engine import EngineCommand

async def main():
    async with trio.open_nursery() as nursery:
        async with ChildLauncher(nursery).run("x", EngineCommand(("/bin/sleep", "600"), {}), None) as engine:
            print(engine.pid, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


def command_name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_killed_daemon_leaves_no_engine_behind() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = await trio.lowlevel.open_process([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, env=env)
    assert daemon.stdout is not None
    engine = int(await daemon.stdout.receive_some())
    await until(lambda: command_name(engine) == "sleep")
    daemon.send_signal(signal.SIGKILL)
    with trio.fail_after(WAIT_S):
        await wait_for_exit(engine)
        await daemon.wait()
    await daemon.stdout.aclose()


async def test_waiting_for_an_absent_process_returns_at_once() -> None:
    with trio.fail_after(WAIT_S):
        await wait_for_exit(2**22 - 1)


async def test_only_warnings_and_errors_are_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = ("0.00.001.000 I srv: listening", "0.00.002.000 W srv: no API key", "0.00.003.000 E srv: no memory")
    async with trio.open_nursery() as nursery:
        command = shell(f"printf '%s\\n' {' '.join(repr(line) for line in lines)}")
        async with ChildLauncher(nursery).run("default", command, never) as engine:
            await engine.wait()
            await engine.exit_message()
    logged = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert logged == [("WARNING", f"default: {lines[1]}"), ("ERROR", f"default: {lines[2]}")]
