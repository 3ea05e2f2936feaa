"""GPU discovery by NVML: present, missing and lost GPUs, and the log."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pynvml
import pytest
import trio
import trio.testing

from pool_managerd.gpus import Discovery, log_changes, real_nvml, watch_gpus
from pool_managerd.pools.devices import NOT_DISCOVERED, Gpu, Gpus
from pool_managerd.pools.node_pools import NodePools
from tests.unit.pool_managerd.imitation_nvml import ImitationNvml

INTERVAL_S = 0.01


def look(nvml: ImitationNvml) -> Gpus:
    return Discovery(lambda: nvml).read()


def test_gpus_have_memory_and_load() -> None:
    first, second = look(ImitationNvml()).devices
    assert first == Gpu(0, "GPU-0", "NVIDIA H100", 80 << 30, 60 << 30, 50, "9.0")
    assert second.index == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "NVML reports: NVML Shared Library Not Found"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "NVML reports: Driver Not Loaded"),
    ],
)
def test_missing_library_or_driver_is_a_problem(code: int, words: str) -> None:
    assert look(ImitationNvml(init_error=code)) == Gpus(problem=words)


def test_machine_without_gpus_is_a_problem() -> None:
    assert look(ImitationNvml(devices=0)) == Gpus(problem="the driver reports no GPU")


def test_lost_gpu_does_not_hide_the_others() -> None:
    assert [gpu.index for gpu in look(ImitationNvml(lost={0})).devices] == [1]


def test_device_without_load_is_reported() -> None:
    nvml = ImitationNvml(utilization_error=pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert [gpu.utilization for gpu in look(nvml).devices] == [None, None]


def test_failed_driver_is_initialised_again() -> None:
    nvml = ImitationNvml(count_error=pynvml.NVML_ERROR_UNKNOWN)
    discovery = Discovery(lambda: nvml)
    assert discovery.read().problem == "NVML reports: Unknown Error"
    nvml.count_error = None
    assert len(discovery.read().devices) == 2
    assert nvml.calls == ["init", "shutdown", "init"]


def test_real_pynvml_has_the_used_functions() -> None:
    discovery = Discovery(real_nvml)
    gpus = discovery.read()
    discovery.close()
    assert bool(gpus.devices) != bool(gpus.problem)


@asynccontextmanager
async def watched(nvml: ImitationNvml) -> AsyncIterator[NodePools]:
    registry = NodePools()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_gpus, Discovery(lambda: nvml), registry, INTERVAL_S)
        yield registry
        nursery.cancel_scope.cancel()


async def until(registry: NodePools, problem: str | None, count: int) -> None:
    with trio.fail_after(5):
        while (registry.gpus.problem, len(registry.gpus.devices)) != (problem, count):  # noqa: ASYNC110 -- a condition
            await trio.sleep(INTERVAL_S)


async def test_gpus_are_read_again_when_a_pool_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.INTERVAL_S", 3600)
    async with watched(ImitationNvml()) as registry:
        with trio.fail_after(5):
            await registry.gpus_discovered.wait()
            before = registry.revision
            registry.loads_changed.ring()
            await registry.changed(before)
    assert registry.memory_readings == 1
    assert [budget.device for budget in registry.memory] == ["0", "1", "cpu"]


async def test_nvml_is_shut_down_at_the_end() -> None:
    nvml = ImitationNvml()
    async with watched(nvml) as registry:
        await until(registry, None, 2)
    assert nvml.calls == ["init", "shutdown"]


async def test_missing_library_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    nvml = ImitationNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    async with watched(nvml):
        with trio.fail_after(5):
            while len(nvml.calls) < 3:  # noqa: ASYNC110 -- a condition
                await trio.sleep(INTERVAL_S)
    assert caplog.text.count("no NVIDIA GPUs found") == 1


async def test_lost_gpu_is_logged_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    nvml = ImitationNvml()
    async with watched(nvml) as registry:
        await until(registry, None, 2)
        nvml.lost.add(1)
        await until(registry, None, 1)
    assert caplog.text.count("GPU 1 (NVIDIA H100) is no longer usable") == 1


async def test_hanging_nvml_is_a_problem_and_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_managerd.gpus.NVML_LIMIT_S", 0.05)
    nvml, stuck = ImitationNvml(), threading.Event()
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", stuck.wait)
    try:
        async with watched(nvml) as registry:
            await until(registry, "NVML did not answer within 0.05 s", 0)
    finally:
        stuck.set()


def test_unchanged_gpus_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gpus = look(ImitationNvml())
    log_changes(NOT_DISCOVERED, gpus)
    log_changes(gpus, gpus)
    assert [record.getMessage() for record in caplog.records] == ["GPUs found: 0 NVIDIA H100, 1 NVIDIA H100"]
