"""NVIDIA GPUs by the real pynvml on an imitation of its library."""

import inspect
import re

import pynvml
import pytest

from pool_managerd.gpus import nvml_events, nvml_reader
from pool_managerd.gpus.nvml_reader import NvmlReader
from pool_managerd.gpus.reader import PROCESSES_MAX, Reading
from pool_managerd.pools.devices import Gpu, GpuProcess
from tests.gpus.imitation import ImitatedDriver, ImitatedGpu

MIB = 1 << 20
SECOND = ImitatedGpu(1, "GPU-00000000-0000-0000-0000-00000000000b", "NVIDIA A100")


def test_all_values_are_read(driver: ImitatedDriver, reader: NvmlReader) -> None:
    driver.change(procs=((4711, 18_000), (4712, 400)), reasons=0x44, recovery=1)
    assert reader.read(discover=True) == Reading(
        (
            Gpu(
                index=0,
                uuid=driver.gpus[0].uuid,
                name="NVIDIA H100",
                vram_total_bytes=81_920 * MIB,
                vram_free_bytes=61_440 * MIB,
                utilization=50,
                compute_capability="9.0",
                vendor="nvidia",
                pci="0000:10:1c.0",
                temperature_c=60,
                slowdown_c=87,
                power_w=300.0,
                power_limit_w=700.0,
                energy_j=1000.0,
                clock_mhz=1980,
                throttle=("sw_power_cap", "hw_thermal_slowdown"),
                recovery="gpu_reset",
                processes=(GpuProcess(4711, 18_000 * MIB), GpuProcess(4712, 400 * MIB)),
                process_count=2,
            ),
        )
    )


def test_processes_are_bounded_and_all_counted(driver: ImitatedDriver, reader: NvmlReader) -> None:
    driver.change(procs=tuple((pid, 1) for pid in range(1000, 1050)))
    (gpu,) = reader.read(discover=True).devices
    assert (len(gpu.processes), gpu.process_count) == (PROCESSES_MAX, 50)


def test_values_that_a_gpu_does_not_have_are_none(driver: ImitatedDriver, reader: NvmlReader) -> None:
    lacking = ("cc", "util", "temp", "slowdown", "watts", "limit", "joules", "mhz", "reasons", "recovery")
    driver.change(0, **dict.fromkeys(lacking))
    for discover in (True, False):
        (gpu,) = reader.read(discover=discover).devices
        assert (gpu.utilization, gpu.temperature_c, gpu.power_w, gpu.energy_j, gpu.recovery) == (None,) * 5
        assert (gpu.compute_capability, gpu.throttle, gpu.overheated) == (None, (), None)
        assert gpu.vram_total_bytes == 81_920 * MIB


def test_memory_of_the_machine_counts_as_unified(driver: ImitatedDriver, reader: NvmlReader) -> None:
    driver.change(total=None)
    (gpu,) = reader.read(discover=True).devices
    assert gpu.unified_memory
    assert 0 < gpu.vram_free_bytes <= gpu.vram_total_bytes


def test_mig_instances_are_devices_of_their_own(driver: ImitatedDriver, reader: NvmlReader) -> None:
    driver.change(mig=(("MIG-a", 9_856), ("MIG-b", 20_096)))
    whole, first, second = reader.read(discover=True).devices
    assert (whole.label, first.label, second.label) == ("0", "0:0", "0:1")
    assert (first.uuid, first.parent_uuid, first.vram_total_bytes) == ("MIG-a", whole.uuid, 9_856 * MIB)
    assert (second.name, second.power_w) == ("NVIDIA H100 MIG", None)


def test_lost_gpu_does_not_hide_the_others(driver: ImitatedDriver, reader: NvmlReader) -> None:
    driver.gpus.append(SECOND)
    driver.show()
    assert [gpu.index for gpu in reader.read(discover=True).devices] == [0, 1]
    driver.change(lost=1)
    assert [gpu.index for gpu in reader.read(discover=False).devices] == [1]
    driver.change(lost=0)
    assert [gpu.index for gpu in reader.read(discover=True).devices] == [0, 1]


def test_new_gpu_is_found_by_a_discovery(driver: ImitatedDriver, reader: NvmlReader) -> None:
    reader.read(discover=True)
    driver.gpus.append(SECOND)
    driver.show()
    assert len(reader.read(discover=False).devices) == 1
    assert len(reader.read(discover=True).devices) == 2


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (999, "NVML reports: Unknown Error"),
        (9, "NVML reports: Driver Not Loaded (load it with modprobe nvidia, and see journalctl -k)"),
    ],
)
def test_failing_driver_is_a_problem_until_it_works(
    driver: ImitatedDriver, reader: NvmlReader, code: int, problem: str
) -> None:
    assert reader.read(discover=True).devices
    driver.show(f"fail {code}")
    assert reader.read(discover=True) == Reading(problem=problem)
    driver.show()
    assert reader.read(discover=False).devices


def test_missing_library_is_absent_without_hardware() -> None:
    def missing() -> None:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    for has_hardware in (True, False):
        without = NvmlReader(missing, lambda has=has_hardware: has)  # type: ignore[arg-type,misc]
        reading = without.read(discover=True)
        assert (reading.problem or "").startswith("the NVML library cannot be loaded: libnvidia-ml.so.1")
        assert reading.absent is not has_hardware


def test_absent_driver_is_looked_for_at_discoveries_only() -> None:
    loads = []

    def missing() -> None:
        loads.append(1)
        raise OSError("none")

    without = NvmlReader(missing, lambda: False)  # type: ignore[arg-type]
    assert without.read(discover=True) == without.read(discover=False)
    assert len(loads) == 1


def test_machine_without_gpus_has_none(driver: ImitatedDriver, reader: NvmlReader) -> None:
    driver.gpus.clear()
    driver.show()
    assert reader.read(discover=True) == Reading()


def test_pynvml_has_all_functions_that_are_used() -> None:
    """They are looked up only when a GPU is read, so that a misspelt one would look like one that is not supported."""
    sources = (inspect.getsource(module) for module in (nvml_reader, nvml_events))
    used = {name for source in sources for name in re.findall(r"\.(nvml\w+)\(|\"(nvmlDevice\w+)\"", source)}
    names = {first or second for first, second in used} | {
        f"nvmlDeviceGet{name}" for name in ("PowerUsage", "EnforcedPowerLimit", "TotalEnergyConsumption")
    }
    assert len(names) > 20
    assert {name for name in names if not hasattr(pynvml, name)} == set()
