"""Reloads of a daemon's configuration: log levels, refused variables, and those that need a restart."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from llama_orch.service.notify import Notifier
from llama_orch.service.reload import Outcome, Part, Reloader
from llama_orch.service.run import Service
from llama_orch.service.watchdog import Watchdog
from llama_orch.telemetry import records
from queen_rbee.settings import QueenSettings


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, configured as at a start; restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    records.configure("queen-rbee", QueenSettings().log_levels, "json")
    root.handlers += handlers
    yield root
    root.handlers[:], root.level = handlers, level


@asynccontextmanager
async def running(environ: Mapping[str, str], *parts: Part, sent: list[str] | None = None) -> AsyncIterator[Reloader]:
    notifier = Notifier({}, (sent if sent is not None else []).append)
    service = Service("queen-rbee", notifier, Watchdog(notifier), trio.Event(), environ)
    reloader = Reloader(QueenSettings.load(environ), service, lambda: "idle", *parts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        with trio.fail_after(20):
            yield reloader
        nursery.cancel_scope.cancel()


def is_logged(level: int) -> bool:
    record = logging.LogRecord("queen_rbee.intake", level, "", 0, "", None, None)
    root = logging.getLogger()
    return root.isEnabledFor(level) and bool(root.handlers[0].filter(record))


async def test_log_level_of_new_environment_is_applied() -> None:
    async with running({}) as reloader:
        assert not is_logged(logging.DEBUG)
        outcome = await reloader.reload({"RUST_LOG": "warn,queen-rbee=debug"})
        assert outcome == Outcome(("RUST_LOG: info is now warn,queen-rbee=debug",))
        assert is_logged(logging.DEBUG)
        assert await reloader.reload({"RUST_LOG": "error"})
        assert not is_logged(logging.WARNING)


async def test_sighup_keeps_level_of_last_environment() -> None:
    async with running({}) as reloader:
        await reloader.reload({"RUST_LOG": "debug"})
        assert await reloader.reload() == Outcome()
        assert is_logged(logging.DEBUG)


async def test_invalid_variable_is_refused_and_level_stays(caplog: pytest.LogCaptureFixture) -> None:
    async with running({}) as reloader:
        outcome = await reloader.reload({"RUST_LOG": "debug", "ORCHD_ADMISSION_CAPACITY": "0"})
        assert not is_logged(logging.DEBUG)
    [problem] = outcome.refused
    assert problem.startswith("ORCHD_ADMISSION_CAPACITY=0: ")
    assert "Allowed: " in problem
    assert f"the former one stays: {problem}" in caplog.text


async def test_variables_that_need_restart_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    changed = {"ORCHESTRATORD_BIND_ADDR": "127.0.0.1:8099", "ORCHD_ADMISSION_CAPACITY": "7", "RUST_LOG": "debug"}
    async with running({}) as reloader:
        outcome = await reloader.reload(changed)
    assert set(outcome.needs_restart) == {"ORCHESTRATORD_BIND_ADDR", "ORCHD_ADMISSION_CAPACITY"}
    said = [record for record in caplog.records if "before queen-rbee is restarted" in record.getMessage()]
    assert [all(name in record.getMessage() for name in outcome.needs_restart) for record in said] == [True]


async def test_new_token_is_named_but_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = tmp_path / "token"
    token.write_text("the-first-token-of-this-machine")
    async with running({"LLORCH_API_TOKEN_FILE": str(token)}) as reloader:
        token.write_text("the-second-token-of-this-machine")
        outcome = await reloader.reload()
    assert outcome.needs_restart == ("LLORCH_API_TOKEN",)
    assert "-token-of-this-machine" not in caplog.text


async def test_credentials_are_those_of_the_start(tmp_path: Path) -> None:
    """systemd gives the process of ExecReload= no credentials."""
    (tmp_path / "api-token").write_text("a-token-from-a-credential")
    async with running({"CREDENTIALS_DIRECTORY": str(tmp_path)}) as reloader:
        assert await reloader.reload({"PATH": "/usr/bin"}) == Outcome()


async def test_each_reload_is_one_event_with_what_was_applied(caplog: pytest.LogCaptureFixture) -> None:
    async def renew() -> Outcome:
        return Outcome(("a certificate",))

    caplog.set_level(logging.INFO)
    async with running({}, renew) as reloader:
        await reloader.reload({"RUST_LOG": "debug"})
    said = [record.getMessage() for record in caplog.records if "has reloaded" in record.getMessage()]
    assert said == ["queen-rbee has reloaded its configuration: RUST_LOG: info is now debug; a certificate"]


async def test_service_manager_sees_reload_begin_and_end() -> None:
    sent: list[str] = []
    async with running({}, sent=sent) as reloader:
        await reloader.reload()
    begin, end = sent
    assert begin.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert end == "READY=1\nSTATUS=idle"


async def test_reloads_run_one_at_a_time() -> None:
    at_once: list[int] = []
    now = 0

    async def count() -> Outcome:
        nonlocal now
        now += 1
        await trio.lowlevel.checkpoint()
        at_once.append(now)
        now -= 1
        return Outcome()

    async with running({}, count) as reloader, trio.open_nursery() as nursery:
        for _caller in range(5):
            nursery.start_soon(reloader.reload)
    assert at_once == [1] * 5
