"""Notifications over a real datagram socket, and the watchdog."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from llama_orch.service import notify
from llama_orch.service.notify import Notifier, watchdog_seconds
from llama_orch.service.watchdog import Pulse, Watchdog
from tests.systemd_module import systemd_module


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The receiving end of NOTIFY_SOCKET."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def receive(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


@pytest.mark.parametrize("library", ["systemd", "sdnotify"])
def test_messages_match_sd_notify(manager: socket.socket, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    if library == "systemd":
        systemd_module("daemon")
    else:
        monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    notifier = Notifier()
    notifier.ready("2 pools ready,\n7 queued")
    assert receive(manager) == "READY=1\nSTATUS=2 pools ready, 7 queued"
    notifier.status("one\nREADY=1")
    assert receive(manager) == "STATUS=one READY=1", "a status text cannot smuggle in another assignment"
    notifier.reloading("reading\nfiles")
    state, clock, status = receive(manager).splitlines()
    assert (state, status) == ("RELOADING=1", "STATUS=reading files")
    assert 0 <= time.monotonic() - int(clock.removeprefix("MONOTONIC_USEC=")) / 1e6 < 3600
    notifier.stopping("draining")
    assert receive(manager) == "STOPPING=1\nSTATUS=draining"
    notifier.extend(2.5)
    assert receive(manager) == "EXTEND_TIMEOUT_USEC=2500000"
    notifier.watchdog()
    assert receive(manager) == "WATCHDOG=1"
    if library == "sdnotify":  # sdnotify never closes its socket
        notifier._deliver.__self__.socket.close()  # type: ignore[attr-defined]


def test_without_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    notifier.ready("ready")
    assert notifier.watchdog_s is None


def test_unreachable_manager_does_not_stop_daemon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    systemd_module("daemon")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    Notifier().ready("ready")
    assert "cannot notify the service manager" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_watchdog_limit_matches_sd_watchdog_enabled(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environ, 42) == seconds


class Manager:
    """Counts the pings for a watchdog of 9 seconds."""

    def __init__(self) -> None:
        self.pings: list[float] = []
        self.watchdog = Watchdog(Notifier({"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid())}, self.hear))

    def hear(self, message: str) -> None:
        assert message == "WATCHDOG=1"
        self.pings.append(trio.current_time())


async def test_pings_come_at_a_third_of_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    manager = Manager()
    never = trio.Event()
    async with trio.open_nursery() as nursery:
        for name in ("dispatcher", "health"):
            nursery.start_soon(turn, manager.watchdog.pulse(name), never)
        nursery.start_soon(manager.watchdog.run)
        await trio.sleep(30.5)
        nursery.cancel_scope.cancel()
    gaps = [round(after - before, 6) for before, after in zip(manager.pings, manager.pings[1:], strict=False)]
    assert gaps == [3.0] * 10


async def turn(pulse: Pulse, event: trio.Event) -> None:
    while True:
        await pulse.wait(event)


async def test_stalled_loop_stops_pings_and_is_named(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager()
    never = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn, manager.watchdog.pulse("health"), never)
        wedged = manager.watchdog.pulse("dispatcher")
        nursery.start_soon(manager.watchdog.run)
        await trio.sleep(30)
        assert manager.pings[-1] - manager.pings[0] < 9, "the manager restarts the daemon"
        assert "no progress in dispatcher" in caplog.text
        assert "health" not in caplog.text
        count = len(manager.pings)
        wedged.beat()
        await trio.sleep(3.5)
        assert len(manager.pings) > count, "a loop that moves again is forgiven"
        nursery.cancel_scope.cancel()


async def test_without_watchdog_pulses_still_work() -> None:
    watchdog = Watchdog(Notifier({}))
    await watchdog.run()
    event = trio.Event()
    event.set()
    pulse = watchdog.pulse("loop")
    await pulse.wait(event)
    assert pulse.count == 1


def test_sender_is_loaded_only_with_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> notify.Send:
        raise AssertionError("no library is loaded where nobody listens")

    monkeypatch.setattr(notify, "_sender", fail)
    Notifier({}).status("quiet")
