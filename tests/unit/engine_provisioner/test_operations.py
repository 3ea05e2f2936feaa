"""The owner of long-running operations."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from engine_provisioner import operations as limits
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.operations import Operation, Operations, TooManyOperations
from llama_orch.contracts.node_operations import NodeOperationState as State


@asynccontextmanager
async def running() -> AsyncIterator[Operations]:
    operations = Operations()
    async with trio.open_nursery() as nursery:
        await nursery.start(operations.run)
        yield operations
        nursery.cancel_scope.cancel()


async def nothing(_operation: Operation) -> None:
    pass


async def forever(_operation: Operation) -> None:
    await trio.sleep_forever()


async def ended(operation: Operation) -> State:
    await trio.testing.wait_all_tasks_blocked()
    return operation.state


async def test_operation_ends_as_done() -> None:
    async with running() as operations:
        operation = operations.start("pull", "m", nothing)
        assert operation.view.state is State.QUEUED
        assert await ended(operation) is State.DONE
        assert operation.view.ended_at is not None


async def test_failure_has_error_and_hint() -> None:
    async def fail(_operation: Operation) -> None:
        raise ProvisioningFailure("no such model", "Correct it.")

    async def fail_on_disk(_operation: Operation) -> None:
        raise OSError(28, "No space left on device")

    async with running() as operations:
        first, second = operations.start("pull", "a", fail), operations.start("pull", "b", fail_on_disk)
        assert await ended(first) is await ended(second) is State.FAILED
        assert (first.view.error, first.view.hint) == ("no such model", "Correct it.")
        assert (second.view.error, second.view.hint) == ("No space left on device", None)


async def test_cancelled_operation_ends_as_cancelled() -> None:
    async with running() as operations:
        operation = operations.start("pull", "m", forever)
        assert await ended(operation) is State.RUNNING
        operations.cancel(operation)
        assert await ended(operation) is State.CANCELLED
        operations.cancel(operation)
        assert await ended(operation) is State.CANCELLED


async def test_queued_operation_can_be_cancelled() -> None:
    async with running() as operations:
        first = [operations.start("pull", str(number), forever) for number in range(limits.AT_ONCE)]
        await trio.testing.wait_all_tasks_blocked()
        queued = operations.start("pull", "later", forever)
        other_kind = operations.start("load", "pool", forever)
        assert await ended(queued) is State.QUEUED
        assert other_kind.state is State.RUNNING
        operations.cancel(queued)
        assert await ended(queued) is State.CANCELLED
        operations.cancel(first[0])
        assert await ended(operations.start("pull", "next", forever)) is State.RUNNING


async def test_same_work_is_joined_until_it_ends() -> None:
    async with running() as operations:
        first = operations.start("pull", "m", forever, key="m?token=1")
        assert operations.start("pull", "m", forever, key="m?token=1") is first
        assert operations.start("pull", "m", forever, key="m?token=2") is not first
        operations.cancel(first)
        await ended(first)
        assert operations.start("pull", "m", nothing, key="m?token=1") is not first


async def test_number_of_operations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACTIVE_LIMIT", 3)
    monkeypatch.setattr(limits, "KEPT", 2)
    async with running() as operations:
        active = [operations.start("pull", str(number), forever) for number in range(3)]
        with pytest.raises(TooManyOperations):
            operations.start("pull", "more", forever)
        for operation in active:
            operations.cancel(operation)
        await ended(active[-1])
        last = operations.start("pull", "last", nothing)
        assert operations.newest_first() == [last, active[2], active[1]]
        assert operations.get(active[0].id) is None


async def test_rate_and_eta_follow_last_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async def download(operation: Operation) -> None:
        for done in range(0, 1000, 10):  # slow at first, then 100 bytes a second
            operation.advance(done, 2000)
            await trio.sleep(10 if done < 500 else 0.1)
        await trio.sleep_forever()

    async with running() as operations:
        operation = operations.start("pull", "m", download)
        await trio.sleep(50 * 10 + 49.5 * 0.1)
        progress = operation.view.progress
        assert (progress.bytes_done, progress.bytes_total) == (990, 2000)
        assert progress.rate_bytes_s == pytest.approx(100, rel=0.05)
        assert progress.eta_s == pytest.approx(10.1, rel=0.05)


async def test_restarted_download_has_no_negative_rate(autojump_clock: trio.testing.MockClock) -> None:
    async def download(operation: Operation) -> None:
        operation.advance(500)
        await trio.sleep(1)
        operation.advance(0)
        await trio.sleep(1)
        operation.advance(100)
        await trio.sleep_forever()

    async with running() as operations:
        operation = operations.start("pull", "m", download)
        await trio.sleep(2)
        await trio.testing.wait_all_tasks_blocked()
        progress = operation.view.progress
        assert (progress.rate_bytes_s, progress.eta_s) == (100, None)


async def test_daemon_stop_cancels_operations() -> None:
    seen = []

    async def work(_operation: Operation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("left")

    async with running() as operations:
        operations.start("pull", "m", work)
        await trio.testing.wait_all_tasks_blocked()
    assert seen == ["left"]
