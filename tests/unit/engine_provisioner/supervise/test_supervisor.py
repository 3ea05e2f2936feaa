"""A pool is tried again and again, ever less often, and at once when what was wrong has changed."""

import itertools
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.progress import Progress
from engine_provisioner.report.board import Board
from engine_provisioner.report.handoffs import Announcement, file_of
from engine_provisioner.report.pool_reporter import Voice
from engine_provisioner.supervise import retries
from engine_provisioner.supervise.supervisor import Supervisor
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from tests.unit.engine_provisioner.pools import MODEL, pool
from tests.unit.engine_provisioner.waiting import until

ENGINE = Announcement("default", "llamacpp", "1", "binary", "http://127.0.0.1:18080", 2, 512, "cpu", MODEL)


class Scripted:
    """A life that fails as it is told, and remembers when it was lived."""

    def __init__(
        self, voice: Voice, *failures: ProvisioningFailure | OSError, ready_for_s: float | None = None
    ) -> None:
        self._voice = voice
        self._failures = list(failures)
        self._ready_for_s = ready_for_s
        self.lived_at: list[float] = []

    async def live(self) -> NoReturn:
        """One try."""
        self.lived_at.append(trio.current_time())
        if self._ready_for_s is not None:
            await self._voice.ready(ENGINE, adopted=False)
            await trio.sleep(self._ready_for_s)
        if not self._failures:
            await trio.sleep_forever()
        raise self._failures.pop(0)


class Stage:
    """A voice with its board, and what they have written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "status").mkdir()
        self.board = Board(directory / "status", CollectorRegistry())
        self.voice = Voice(pool(), self.board, directory)
        self.file = directory / "status/default.json"

    @property
    def report(self) -> ProvisioningReport:
        """The pool's report, as pool-managerd reads it."""
        return ProvisioningReport.model_validate_json(self.file.read_bytes())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


class Unheard(Voice):
    """A voice that writes nothing, so that a test's clock need not wait for a disk."""

    async def failed(self, reason: str, next_step: str) -> None:
        """Say nothing."""
        self._ready_since = None

    async def ready(self, announced: Announcement, *, adopted: bool) -> None:
        """Be ready."""
        self._ready_since = trio.current_time()


async def lived(life: Scripted, times: int) -> None:
    await until(lambda: len(life.lived_at) >= times)


async def live_for(life: Scripted, voice: Voice, hours: float) -> None:
    """Supervise `life` for so many hours of a clock that jumps."""
    with trio.move_on_after(hours * 3600):
        await Supervisor(life, voice, Progress("default")).run()


def waits(life: Scripted) -> list[float]:
    return [round(later - earlier, 1) for earlier, later in itertools.pairwise(life.lived_at)]


async def test_an_engine_that_always_crashes_is_tried_ever_less_often(
    stage: Stage, autojump_clock: trio.testing.MockClock
) -> None:
    voice = Unheard(pool(), stage.board, stage.directory)
    life = Scripted(voice, *[ProvisioningFailure("it crashed") for _ in range(9)])
    await live_for(life, voice, hours=1)
    assert waits(life) == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_long_good_run_clears_the_record(stage: Stage, autojump_clock: trio.testing.MockClock) -> None:
    voice = Unheard(pool(), stage.board, stage.directory)
    life = Scripted(voice, *[ProvisioningFailure("it crashed") for _ in range(3)], ready_for_s=100)
    await live_for(life, voice, hours=1)
    assert waits(life) == [100.5, 100.5, 100.5]


async def test_a_failure_is_shown_with_its_reason_and_what_comes_next(stage: Stage) -> None:
    life = Scripted(stage.voice, ProvisioningFailure("no such model", "Mend it.", Retry.NEVER))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(life, stage.voice, Progress("default")).run)
        await until_failed(stage)
        nursery.cancel_scope.cancel()
    assert stage.report.last_error == "no such model. Mend it."
    assert stage.report.detail is not None
    assert stage.report.detail.startswith("not tried again")
    assert stage.board.waiting_for() == ["pool default is failed"]
    assert stage.board.summary() == "1 pool failed: default: no such model. Mend it."


async def until_failed(stage: Stage) -> None:
    await until(lambda: stage.file.exists() and stage.report.state is PoolState.FAILED)


async def test_a_change_of_the_file_is_a_reason_to_try_at_once(stage: Stage, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    life = Scripted(stage.voice, ProvisioningFailure("not there", retry=Retry.MENDING, watch=[model]))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(life, stage.voice, Progress("default")).run)
        await until_failed(stage)
        model.write_bytes(b"GGUF")
        await lived(life, 2)
        nursery.cancel_scope.cancel()


async def test_an_error_of_the_machine_fails_the_pool_and_not_the_daemon(
    stage: Stage,
) -> None:
    life = Scripted(stage.voice, OSError(5, "Input/output error", "/srv/model"))
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(life, stage.voice, Progress("default")).run)
        await lived(life, 2)
        nursery.cancel_scope.cancel()


async def test_a_lost_engines_handoff_is_withdrawn_and_a_new_one_is_written_again(stage: Stage) -> None:
    await stage.voice.ready(ENGINE, adopted=False)
    file = file_of(stage.directory, "default")
    written = Handoff.model_validate_json(file.read_bytes())
    assert (written.url, written.slots_total) == (ENGINE.url, 2)
    assert stage.report.state is PoolState.READY
    await stage.voice.failed("it crashed", "tried again in 1 s")
    assert not file.exists()
    await stage.voice.ready(ENGINE, adopted=False)
    assert file.exists()
    assert stage.report.last_error is None


async def test_each_reason_reaches_the_journal_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for reason in ("it crashed", "it crashed", "no memory", "no memory"):
        await stage.voice.failed(reason, "tried again in 1 s")
    failures = [message for message in caplog.messages if " failed: " in message]
    assert [message.split(": ")[1].partition(";")[0] for message in failures] == ["it crashed", "no memory"]


async def test_a_handoff_directory_that_cannot_be_written_is_a_failure_in_words(stage: Stage, tmp_path: Path) -> None:
    voice = Voice(pool(), stage.board, tmp_path / "absent")
    with pytest.raises(ProvisioningFailure, match="handoff file cannot be written"):
        await voice.ready(ENGINE, adopted=False)


async def test_while_a_failed_pool_is_tried_again_its_last_reason_stays_visible(stage: Stage) -> None:
    await stage.voice.failed("it crashed", "tried again in 1 s")
    await stage.voice.provisioning("getting the engine and the model")
    assert (stage.report.state, stage.report.last_error) == (PoolState.PROVISIONING, "it crashed")


async def test_a_reason_that_lasts_is_logged_ever_less_often(
    stage: Stage, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    for _minute in range(60):
        await stage.voice.failed("it crashed", "tried again in 60 s")
        await trio.sleep(60)
    assert len([message for message in caplog.messages if " failed: " in message]) == 6


def test_next_step_says_how_often_it_failed() -> None:
    assert retries.next_step(8.0, False, 5) == "tried again in 8 s (failed 5 times)"
