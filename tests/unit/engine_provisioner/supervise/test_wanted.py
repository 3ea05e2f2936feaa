"""The wanted state: waiting for it, and work that ends when the pool is no longer wanted."""

import pytest
import trio
import trio.testing

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.supervise.wanted import Wanted


async def test_waiter_returns_when_the_pool_is_wanted(autojump_clock: trio.testing.MockClock) -> None:
    wanted = Wanted(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wanted.until, True)
        await trio.testing.wait_all_tasks_blocked()
        wanted.unload()
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        wanted.load()
    assert wanted.loaded


async def test_every_request_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    wanted = Wanted(True)
    before = wanted.requests
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wanted.requested, before)
        await trio.testing.wait_all_tasks_blocked()
        wanted.load()
    await wanted.requested(before)


async def test_work_is_cancelled_when_the_pool_is_unwanted(autojump_clock: trio.testing.MockClock) -> None:
    wanted = Wanted(True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wanted.while_loaded, trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        wanted.unload()


async def test_failure_of_wanted_work_is_raised() -> None:
    async def fail() -> None:
        raise ProvisioningFailure("it crashed")

    with pytest.raises(ProvisioningFailure, match="it crashed"):
        await Wanted(True).while_loaded(fail)


async def test_failure_of_unwanted_work_is_ignored() -> None:
    wanted = Wanted(True)

    async def fail() -> None:
        wanted.unload()
        raise ProvisioningFailure("it crashed")

    await wanted.while_loaded(fail)
