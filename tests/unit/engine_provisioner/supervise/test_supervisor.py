"""Failed pools are retried at growing intervals, and at once when a watched file changes."""

import itertools
import random
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.report.handoffs import Announcement, path_of
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise.supervisor import Supervisor
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from tests.unit.engine_provisioner.pools import MODEL, pool
from tests.unit.engine_provisioner.waiting import until

ENGINE = Announcement("default", "llamacpp", "1", "binary", "http://127.0.0.1:18080", 2, 512, "cpu", MODEL)


class ScriptedRunner:
    """Fails with each of `failures` in turn, and records the time of each attempt."""

    def __init__(
        self, reporter: PoolReporter, *failures: ProvisioningFailure | OSError, ready_for_s: float | None = None
    ) -> None:
        self._voice = reporter
        self._failures = list(failures)
        self._ready_for_s = ready_for_s
        self.attempt_times: list[float] = []

    async def run(self) -> NoReturn:
        self.attempt_times.append(trio.current_time())
        if self._ready_for_s is not None:
            await self._voice.ready(ENGINE, adopted=False)
            await trio.sleep(self._ready_for_s)
        if not self._failures:
            await trio.sleep_forever()
        raise self._failures.pop(0)


class Stage:
    """A reporter, all reports, and their directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "status").mkdir()
        self.reports = PoolReports(directory / "status", CollectorRegistry())
        self.reporter = PoolReporter(pool(), self.reports, directory)
        self.file = directory / "status/default.json"

    @property
    def report(self) -> ProvisioningReport:
        """The pool's status file."""
        return ProvisioningReport.model_validate_json(self.file.read_bytes())


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


class SilentReporter(PoolReporter):
    """A reporter that writes nothing, so that the mock clock need not wait for the disk."""

    async def failed(self, reason: str, next_step: str) -> None:
        self._ready_since = None

    async def ready(self, announced: Announcement, *, adopted: bool) -> None:
        self._ready_since = trio.current_time()


async def until_attempts(runner: ScriptedRunner, times: int) -> None:
    await until(lambda: len(runner.attempt_times) >= times)


async def supervise_for(runner: ScriptedRunner, reporter: PoolReporter, hours: float) -> None:
    """Supervise `runner` for some hours of the mock clock."""
    with trio.move_on_after(hours * 3600):
        await Supervisor(runner, reporter, StepDeadline("default"), Wanted(True)).run()


def waits(runner: ScriptedRunner) -> list[float]:
    return [round(later - earlier, 1) for earlier, later in itertools.pairwise(runner.attempt_times)]


async def test_crashing_engine_is_retried_at_growing_intervals(
    stage: Stage, autojump_clock: trio.testing.MockClock
) -> None:
    reporter = SilentReporter(pool(), stage.reports, stage.directory)
    runner = ScriptedRunner(reporter, *[ProvisioningFailure("it crashed") for _ in range(9)])
    await supervise_for(runner, reporter, hours=1)
    assert waits(runner) == [1, 2, 4, 8, 16, 32, 48, 48, 48]


async def test_long_run_resets_the_count_of_failures(stage: Stage, autojump_clock: trio.testing.MockClock) -> None:
    reporter = SilentReporter(pool(), stage.reports, stage.directory)
    runner = ScriptedRunner(reporter, *[ProvisioningFailure("it crashed") for _ in range(3)], ready_for_s=300)
    await supervise_for(runner, reporter, hours=1)
    assert waits(runner) == [301, 301, 301]


async def test_failure_is_reported_with_reason_and_next_step(stage: Stage) -> None:
    runner = ScriptedRunner(stage.reporter, ProvisioningFailure("no such model", "Fix it.", Retry.NEVER))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(runner, stage.reporter, StepDeadline("default"), Wanted(True)).run)
        await until_failed(stage)
        nursery.cancel_scope.cancel()
    assert stage.report.last_error == "no such model. Fix it."
    assert stage.report.detail is not None
    assert stage.report.detail.startswith("not tried again")
    assert stage.reports.unready_pools() == ["pool default is failed"]
    assert stage.reports.summary() == "1 pool failed: default: no such model. Fix it."


async def until_failed(stage: Stage) -> None:
    await until(lambda: stage.file.exists() and stage.report.state is PoolState.FAILED)


async def test_change_of_a_watched_file_triggers_a_retry(stage: Stage, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    runner = ScriptedRunner(stage.reporter, ProvisioningFailure("not there", retry=Retry.AFTER_FIX, watch=[model]))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(runner, stage.reporter, StepDeadline("default"), Wanted(True)).run)
        await until_failed(stage)
        model.write_bytes(b"GGUF")
        await until_attempts(runner, 2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_request_ends_the_wait_at_once(stage: Stage, verb: str) -> None:
    wanted = Wanted(True)
    runner = ScriptedRunner(stage.reporter, ProvisioningFailure("no such model", "Fix it.", Retry.NEVER))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(runner, stage.reporter, StepDeadline("default"), wanted).run)
        await until_failed(stage)
        getattr(wanted, verb)()
        await until_attempts(runner, 2)
        nursery.cancel_scope.cancel()


async def test_restart_storm_ends_until_somebody_asks(stage: Stage, autojump_clock: trio.testing.MockClock) -> None:
    reporter, wanted = SilentReporter(pool(), stage.reports, stage.directory), Wanted(True)
    crashes = [ProvisioningFailure("it crashed", retry=Retry.RESTART) for _ in range(30)]
    runner = ScriptedRunner(reporter, *crashes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Supervisor(runner, reporter, StepDeadline("default"), wanted).run)
        await trio.sleep(550)
        assert len(runner.attempt_times) == 10
        wanted.load()
        await trio.sleep(5)
        assert len(runner.attempt_times) == 11
        await trio.sleep(3600)
        assert len(runner.attempt_times) == 11
        nursery.cancel_scope.cancel()


async def test_os_error_fails_the_pool_not_the_daemon(
    stage: Stage,
) -> None:
    runner = ScriptedRunner(stage.reporter, OSError(5, "Input/output error", "/srv/model"))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(runner, stage.reporter, StepDeadline("default"), Wanted(True)).run)
        await until_attempts(runner, 2)
        nursery.cancel_scope.cancel()


async def test_handoff_is_removed_on_failure_and_written_again(stage: Stage) -> None:
    await stage.reporter.ready(ENGINE, adopted=False)
    file = path_of(stage.directory, "default")
    written = Handoff.model_validate_json(file.read_bytes())
    assert (written.url, written.slots_total) == (ENGINE.url, 2)
    assert stage.report.state is PoolState.READY
    await stage.reporter.failed("it crashed", "tried again in 1 s")
    assert not file.exists()
    await stage.reporter.ready(ENGINE, adopted=False)
    assert file.exists()
    assert stage.report.last_error is None


async def test_each_reason_is_logged_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for reason in ("it crashed", "it crashed", "no memory", "no memory"):
        await stage.reporter.failed(reason, "tried again in 1 s")
    failures = [message for message in caplog.messages if " failed: " in message]
    assert [message.split(": ")[1].partition(";")[0] for message in failures] == ["it crashed", "no memory"]


async def test_unwritable_handoff_directory_is_reported(stage: Stage, tmp_path: Path) -> None:
    reporter = PoolReporter(pool(), stage.reports, tmp_path / "absent")
    with pytest.raises(ProvisioningFailure, match="cannot write the handoff file"):
        await reporter.ready(ENGINE, adopted=False)


async def test_last_error_stays_visible_during_a_retry(stage: Stage) -> None:
    await stage.reporter.failed("it crashed", "tried again in 1 s")
    await stage.reporter.provisioning("fetching the engine and the model")
    assert (stage.report.state, stage.report.last_error) == (PoolState.PROVISIONING, "it crashed")


async def test_persistent_reason_is_logged_at_growing_intervals(
    stage: Stage, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    for _minute in range(60):
        await stage.reporter.failed("it crashed", "tried again in 60 s")
        await trio.sleep(60)
    assert len([message for message in caplog.messages if " failed: " in message]) == 6
