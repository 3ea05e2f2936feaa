"""Finding GPUs by NVML: what is there, what is absent, what is lost, and how often it is said."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pynvml
import pytest
import trio
import trio.testing

from pool_managerd.gpus import Discovery, announce, real_nvml, watch_gpus
from pool_managerd.pools.devices import NOT_LOOKED, Gpu, Gpus
from pool_managerd.pools.registry import Registry
from tests.unit.pool_managerd.imitation_nvml import ImitationNvml

INTERVAL_S = 0.01


def look(nvml: ImitationNvml) -> Gpus:
    return Discovery(lambda: nvml).look()


def test_gpus_are_told_with_their_memory_and_load() -> None:
    first, second = look(ImitationNvml()).devices
    assert first == Gpu(0, "GPU-0", "NVIDIA H100", 80 << 30, 60 << 30, 50, "9.0")
    assert second.index == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "NVML says: NVML Shared Library Not Found"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "NVML says: Driver Not Loaded"),
    ],
)
def test_an_absent_library_or_driver_is_a_reason_in_words(code: int, words: str) -> None:
    assert look(ImitationNvml(init_error=code)) == Gpus(problem=words)


def test_a_machine_without_a_gpu_is_said_to_have_none() -> None:
    assert look(ImitationNvml(devices=0)) == Gpus(problem="the driver reports no GPU")


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    assert [gpu.index for gpu in look(ImitationNvml(lost={0})).devices] == [1]


def test_a_device_that_does_not_tell_its_load_is_told_without() -> None:
    nvml = ImitationNvml(utilization_error=pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert [gpu.utilization for gpu in look(nvml).devices] == [None, None]


def test_a_driver_that_failed_is_initialised_again() -> None:
    nvml = ImitationNvml(count_error=pynvml.NVML_ERROR_UNKNOWN)
    discovery = Discovery(lambda: nvml)
    assert discovery.look().problem == "NVML says: Unknown Error"
    nvml.count_error = None
    assert len(discovery.look().devices) == 2
    assert nvml.calls == ["init", "shutdown", "init"]


def test_the_real_module_has_what_is_used_and_never_raises() -> None:
    discovery = Discovery(real_nvml)
    gpus = discovery.look()
    discovery.close()
    assert bool(gpus.devices) != bool(gpus.problem)


@asynccontextmanager
async def watched(nvml: ImitationNvml) -> AsyncIterator[Registry]:
    registry = Registry()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_gpus, Discovery(lambda: nvml), registry, INTERVAL_S)
        yield registry
        nursery.cancel_scope.cancel()


async def until(registry: Registry, problem: str | None, count: int) -> None:
    with trio.fail_after(5):
        while (registry.gpus.problem, len(registry.gpus.devices)) != (problem, count):  # noqa: ASYNC110 -- a condition
            await trio.sleep(INTERVAL_S)


async def test_nvml_is_shut_down_at_the_end() -> None:
    nvml = ImitationNvml()
    async with watched(nvml) as registry:
        await until(registry, None, 2)
    assert nvml.calls == ["init", "shutdown"]


async def test_an_absent_library_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    nvml = ImitationNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    async with watched(nvml):
        with trio.fail_after(5):
            while len(nvml.calls) < 3:  # noqa: ASYNC110 -- a condition
                await trio.sleep(INTERVAL_S)
    assert caplog.text.count("no NVIDIA GPUs found") == 1


async def test_a_gpu_that_falls_off_the_bus_is_said_and_gone(caplog: pytest.LogCaptureFixture) -> None:
    nvml = ImitationNvml()
    async with watched(nvml) as registry:
        await until(registry, None, 2)
        nvml.lost.add(1)
        await until(registry, None, 1)
    assert caplog.text.count("GPU 1 (NVIDIA H100) is no longer usable") == 1


async def test_nvml_that_hangs_is_a_reason_and_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_managerd.gpus.ANSWER_LIMIT_S", 0.05)
    nvml, stuck = ImitationNvml(), threading.Event()
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", stuck.wait)
    try:
        async with watched(nvml) as registry:
            await until(registry, "NVML has not answered for 0.05 s", 0)
    finally:
        stuck.set()


def test_nothing_is_said_where_nothing_has_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gpus = look(ImitationNvml())
    announce(NOT_LOOKED, gpus)
    announce(gpus, gpus)
    assert [record.getMessage() for record in caplog.records] == ["GPUs found: 0 NVIDIA H100, 1 NVIDIA H100"]
