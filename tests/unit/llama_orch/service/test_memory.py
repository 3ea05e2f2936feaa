"""Returning free memory to the system, and garbage collection."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from llama_orch.service.memory import collect_young, release_after_start

MANY = 400_000


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_freed_memory_is_returned() -> None:
    # blocks above 512 bytes come from malloc, which keeps free memory below a block in use
    blocks: list[bytearray | None] = [bytearray(1000) for _ in range(MANY)]
    last = blocks[-1]
    blocks.clear()
    before, thresholds = resident_kib(), gc.get_threshold()
    release_after_start()
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    assert last is not None
    assert before - resident_kib() > MANY // 4


class Ring:
    """A reference cycle, which only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def no_automatic_collection() -> Iterator[None]:
    """Disable automatic garbage collection."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_automatic_collection")
async def test_young_garbage_is_collected_regularly(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_young, 1.0)
        for _second in range(3):
            ring = weakref.ref(Ring())
            assert ring() is not None
            await trio.sleep(1.5)
            assert ring() is None
        nursery.cancel_scope.cancel()
