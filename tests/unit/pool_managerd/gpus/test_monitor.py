"""The loop that reads GPUs: drivers that fail or hang, faults from the sources, fences, and what is logged."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from llama_orch.contracts.pools import PoolState
from pool_managerd.gpus.faults import Fault, Reset
from pool_managerd.gpus.monitor import GpuMonitor
from pool_managerd.gpus.nvml import real_nvml
from pool_managerd.gpus.nvml_events import NvmlEvents
from pool_managerd.gpus.nvml_reader import NvmlReader
from pool_managerd.gpus.reader import Reading
from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.pools.devices import Gpu
from pool_managerd.pools.node_pools import NodePools
from tests.gpus.imitation import ImitatedDriver
from tests.unit.pool_managerd.gpus.driver import nvml_reader
from tests.unit.pool_managerd.values import READY, found, gpu

INTERVAL_S = 0.01


@dataclass
class ScriptedReader:
    """A reader that returns `reading`, or hangs while `stuck` is set."""

    vendor: str = "nvidia"
    own_indices: bool = True
    reading: Reading = field(default_factory=lambda: Reading((gpu(0), gpu(1))))
    stuck: threading.Event | None = None
    reads: int = 0
    closed: int = 0

    def read(self, *, discover: bool) -> Reading:
        self.reads += 1
        if self.stuck:
            self.stuck.wait()
        return self.reading

    def close(self) -> None:
        self.closed += 1


def monitor_of(directory: Path, *readers: ScriptedReader | NvmlReader) -> tuple[GpuMonitor, NodePools]:
    pools = NodePools()
    by_vendor = {reader.vendor: reader for reader in readers}
    return GpuMonitor(pools, by_vendor, GpuTotals(), directory, interval_s=INTERVAL_S, discovery_s=1.0), pools


@asynccontextmanager
async def running(
    directory: Path, *readers: ScriptedReader | NvmlReader
) -> AsyncIterator[tuple[GpuMonitor, NodePools]]:
    monitor, pools = monitor_of(directory, *readers)
    await monitor.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(monitor.run)
        with trio.fail_after(10):
            await pools.gpus_discovered.wait()
        yield monitor, pools
        nursery.cancel_scope.cancel()


async def until(condition: object) -> None:
    with trio.fail_after(10):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 -- a condition
            await trio.sleep(INTERVAL_S)


async def test_gpus_are_read_again_when_a_pool_was_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.INTERVAL_S", 3600)
    async with running(tmp_path, ScriptedReader()) as (_monitor, pools):
        before = pools.revision
        pools.loads_changed.ring()
        with trio.fail_after(10):
            await pools.changed(before)
    assert pools.memory_readings == 1
    assert [budget.device for budget in pools.memory] == ["0", "1", "cpu"]


def shown(pools: NodePools) -> tuple[list[int], list[tuple[int, bool]], str | None]:
    gpus = pools.gpus
    return (
        [each.index for each in gpus.devices],
        [(each.gpu.index, each.lost) for each in gpus.missing],
        gpus.problem,
    )


@contextmanager
def pool_on_gpu_0(pools: NodePools) -> Iterator[None]:
    pools.take(found(device_mask="0"), READY)
    yield


async def test_lost_gpu_is_logged_once_and_its_return(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    reader = ScriptedReader()
    async with running(tmp_path, reader) as (_monitor, pools):
        reader.reading = Reading((gpu(0),))
        await until(lambda: shown(pools) == ([0], [(1, True)], None))
        reads = reader.reads
        await until(lambda: reader.reads > reads + 2)
        reader.reading = Reading((gpu(0), gpu(1)))
        await until(lambda: shown(pools) == ([0, 1], [], None))
    assert [record.getMessage() for record in caplog.records] == [
        "GPUs found: 0 H100, 1 H100",
        "GPU 1 (H100) is no longer usable: its driver no longer finds it",
        "GPU 1 (H100) can be read again",
    ]


async def test_hanging_driver_makes_gpus_unknown_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pool_managerd.gpus.monitor.LIMIT_S", 0.3)
    radeon = replace(gpu(0), uuid="AMD-0", vendor="amd")
    reader, other = ScriptedReader(), ScriptedReader("amd", False, Reading((radeon,)))
    problem = "NVML did not answer within 0.3 s"
    async with running(tmp_path, reader, other) as (_monitor, pools):
        with pool_on_gpu_0(pools):
            stuck = reader.stuck = threading.Event()
            try:
                await until(lambda: shown(pools) == ([2], [(0, False), (1, False)], problem))
                pool = pools.pool("default")
                assert pool
                assert pool.ready
                reads = reader.reads
                others = other.reads
                await until(lambda: other.reads > others + 3)
                assert reader.reads == reads  # no second thread waits for the driver
            finally:
                reader.stuck = None
                stuck.set()
            await until(lambda: shown(pools)[0] == [0, 1, 2])
    assert caplog.text.count(problem) == 1
    assert (reader.closed, other.closed) == (1, 1)


async def test_hardware_fault_fails_pools_and_reset_serves_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monitor, pools = monitor_of(tmp_path)
    monitor.apply(replace(pools.gpus, devices=(gpu(0), gpu(1)), problem=None))
    with pool_on_gpu_0(pools):
        monitor.take([Fault("nvml", 79, 1e9, uuid="GPU-0"), Fault("kernel", 79, 1e9, uuid="GPU-0")])
        pool = pools.pool("default")
        assert pool
        assert (pool.ready, pool.state, pools.fenced) == (False, PoolState.FAILED, frozenset({"default"}))
        assert (pool.last_error or "").startswith("GPU 0 (H100) is fenced: Xid 79, the GPU has fallen off the bus.")
        monitor.take([Reset(2e9, "the log reports a reset of it", uuid="GPU-0")])
        pool = pools.pool("default")
        assert pool
        assert (pool.ready, pool.last_error, pools.fenced) == (True, None, frozenset())
    assert monitor.totals.faults.total["GPU-0", 79] == 1
    assert caplog.text.count("GPU 0 (H100), GPU-0, is fenced: Xid 79") == 1
    assert "GPU 0 (H100) is no longer fenced: the log reports a reset of it" in caplog.text


async def test_application_faults_are_counted_and_rarely_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, pools = monitor_of(tmp_path)
    monitor.apply(replace(pools.gpus, devices=(gpu(0),), problem=None))
    monitor.take([Fault("nvml", 31, float(second), uuid="GPU-0") for second in range(500)])
    assert monitor.totals.faults.total["GPU-0", 31] == 500
    assert not monitor.fencing.fences
    assert caplog.text.count("Xid 31, memory page fault") == 1


async def test_unknown_fault_is_logged_and_not_fenced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor, pools = monitor_of(tmp_path)
    monitor.apply(replace(pools.gpus, devices=(gpu(0),), problem=None))
    monitor.take([Fault("kernel", 999, 1.0, uuid="GPU-0"), Fault("kernel", 79, 1.0, pci="0000:99:00")])
    assert not monitor.fencing.fences
    assert "GPU 0 (H100): Xid 999, an error that this release does not know" in caplog.text
    assert "GPU 0000:99:00: Xid 79" in caplog.text


async def test_fault_in_the_kernel_log_is_found_by_address(tmp_path: Path) -> None:
    monitor, pools = monitor_of(tmp_path)
    device = replace(gpu(0), pci="0000:10:1c.0")
    monitor.apply(replace(pools.gpus, devices=(device,), problem=None))
    monitor.take([Fault("kernel", 79, 1.0, pci="0000:10:1c")])
    assert set(monitor.fencing.fences) == {"GPU-0"}


@pytest.mark.parametrize("name", ["0", "GPU-0"])
async def test_operator_ends_a_fence_by_index_or_uuid(tmp_path: Path, name: str) -> None:
    monitor, pools = monitor_of(tmp_path)
    monitor.apply(replace(pools.gpus, devices=(gpu(0),), problem=None))
    assert not monitor.unfence(name)
    monitor.take([Fault("kernel", 79, 1.0, uuid="GPU-0")])
    assert monitor.unfence(name)
    assert not pools.gpus.fences


async def test_fence_survives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedReader()) as (monitor, _pools):
        monitor.take([Fault("nvml", 48, 1.0, uuid="GPU-1")])
    async with running(tmp_path, ScriptedReader()) as (monitor, pools):
        assert set(pools.gpus.fences) == {"GPU-1"}
        assert monitor.read_until_s


async def test_damaged_fence_file_is_logged_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "gpu-fences.json").write_text("{")
    async with running(tmp_path, ScriptedReader()) as (monitor, _pools):
        assert not monitor.fencing.fences
    assert "the file with fenced GPUs cannot be used" in caplog.text


async def test_overheated_gpu_is_logged_once_and_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monitor, pools = monitor_of(tmp_path)
    hot = replace(gpu(0), temperature_c=92, slowdown_c=90)
    with pool_on_gpu_0(pools):
        for _reading in range(3):
            monitor.apply(replace(pools.gpus, devices=(hot,), problem=None))
        pool = pools.pool("default")
        assert pool
        assert pool.ready
    assert caplog.text.count("GPU 0 (H100) is slowed down: 92 °C, at or above its slowdown temperature of 90 °C") == 1


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (gpu(0), None),
        (replace(gpu(0), throttle=("sw_power_cap",), temperature_c=70), None),
        (replace(gpu(0), throttle=("hw_thermal_slowdown",), temperature_c=88),
         "clocks are reduced at 88 °C (hw thermal slowdown)"),
        (replace(gpu(0), throttle=("hw_power_brake",)), "clocks are reduced (hw power brake)"),
    ],
)  # fmt: skip
def test_power_cap_is_no_slowdown(device: Gpu, reason: str | None) -> None:
    assert device.overheated == reason


async def test_events_of_nvml_fence_the_gpu(tmp_path: Path, driver: ImitatedDriver) -> None:
    reader = nvml_reader()
    uuid = driver.gpus[0].uuid
    async with running(tmp_path, reader) as (monitor, pools), trio.open_nursery() as nursery:
        nursery.start_soon(monitor.follow, NvmlEvents(real_nvml))
        driver.inject(31)
        driver.inject(0, kind=1)
        await until(lambda: monitor.totals.faults.total[uuid, 0] == 1)
        assert not pools.gpus.fences
        driver.inject(0, kind=2)
        await until(lambda: uuid in pools.gpus.fences)
        assert monitor.fencing.fences[uuid].codes == (48,)
        driver.change(joules=1.0)
        await until(lambda: not pools.gpus.fences)
        nursery.cancel_scope.cancel()


async def test_fence_that_begins_during_a_reading_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, told = ScriptedReader(), threading.Event()

    def read_memory() -> None:
        if reader.reads == 2 and not told.is_set():
            told.set()
            trio.from_thread.run_sync(lambda: monitor.take([Fault("nvml", 79, 1e9, uuid="GPU-0")]))

    monkeypatch.setattr("pool_managerd.gpus.monitor.read_machine_memory", read_memory)
    async with running(tmp_path, reader) as (monitor, pools):
        await until(lambda: reader.reads > 3)
        assert set(pools.gpus.fences) == {"GPU-0"}
