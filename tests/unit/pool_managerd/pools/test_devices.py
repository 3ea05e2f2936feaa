"""Device masks on this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.pools.devices import NOT_DISCOVERED, Gpus, device_problem, devices_of, named_devices
from tests.unit.pool_managerd.values import TWO_GPUS

NO_GPUS = Gpus(problem="NVML reports: not found")


@pytest.mark.parametrize("mask", [None, "", "cpu", "CPU", " cpu "])
@pytest.mark.parametrize("gpus", [TWO_GPUS, NO_GPUS, NOT_DISCOVERED])
def test_cpu_engine_needs_no_gpu(mask: str | None, gpus: Gpus) -> None:
    assert device_problem(mask, gpus) is None
    assert devices_of(mask, gpus) == ()


def test_gpus_are_named_by_index_or_uuid() -> None:
    assert [gpu.index for gpu in devices_of("1, GPU-0", TWO_GPUS)] == [1, 0]
    assert device_problem("1,GPU-0", TWO_GPUS) is None


@given(st.lists(st.sampled_from(["0", "1", "GPU-0", "GPU-1", "2"])))
def test_gpu_named_twice_counts_once(names: list[str]) -> None:
    indices = [gpu.index for gpu in devices_of(",".join(names), TWO_GPUS)]
    assert sorted(indices) == sorted({int(name[-1]) for name in names} - {2})


def test_missing_gpu_is_named_with_those_present() -> None:
    assert device_problem("0,3", TWO_GPUS) == (
        "device_mask 0,3 names GPU 3, which this machine does not have (it has: 0, 1)"
    )


def test_discovery_problem_is_part_of_the_reason() -> None:
    assert device_problem("0", NO_GPUS) == ("device_mask 0 names GPU 0, but no GPU is visible: NVML reports: not found")


@given(st.text(max_size=20))
def test_any_mask_is_complete_or_a_problem(mask: str) -> None:
    there = all(devices_of(name, TWO_GPUS) for name in named_devices(mask))
    assert there == (device_problem(mask, TWO_GPUS) is None)
