"""All downloads together stay within the limit."""

import trio
from trio.testing import MockClock

from engine_provisioner.fetch.bandwidth import BURST_S, Bandwidth
from engine_provisioner.settings import ProvisionerSettings


async def test_downloads_share_the_limit(autojump_clock: MockClock) -> None:
    bandwidth = Bandwidth(1000)

    async def download() -> None:
        for _ in range(100):
            await bandwidth.spend(100)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(download)
        nursery.start_soon(download)
    assert 20 - BURST_S - 0.01 <= trio.current_time() - begun <= 20


async def test_idle_time_is_not_saved_up(autojump_clock: MockClock) -> None:
    bandwidth = Bandwidth(1000)
    await trio.sleep(100)
    begun = trio.current_time()
    await bandwidth.spend(10_000)
    assert trio.current_time() - begun >= 10 - BURST_S - 0.01


async def test_without_limit_nothing_waits(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    await Bandwidth().spend(1 << 40)
    assert trio.current_time() == begun


def test_limit_is_written_with_a_suffix() -> None:
    limits = {text: ProvisionerSettings.load({"ENGINE_PROVISIONER_DOWNLOAD_LIMIT": text}).download_limit for text in
              ("65536", "100K", "20M", "2G")}  # fmt: skip
    assert limits == {"65536": 65536, "100K": 102_400, "20M": 20 << 20, "2G": 2 << 30}
