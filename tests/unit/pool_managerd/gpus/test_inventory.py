"""Indices of GPUs of several vendors, and GPUs that vanish and come back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.gpus.inventory import merged
from pool_managerd.gpus.reader import Reading
from pool_managerd.pools.devices import NOT_DISCOVERED, Gpu, Gpus, device_problem
from tests.unit.pool_managerd.values import gpu

OWN = frozenset({"nvidia"})
NVIDIA, SECOND = gpu(0), gpu(1)
RADEON = replace(gpu(0), uuid="AMD-0", vendor="amd")
FAILS = Reading(problem="NVML did not answer within 10 s")


def after(before: Gpus, nvidia: Reading | tuple[Gpu, ...] = (), amd: tuple[Gpu, ...] = ()) -> Gpus:
    reading = nvidia if isinstance(nvidia, Reading) else Reading(nvidia)
    return merged(before, {"nvidia": reading, "amd": Reading(amd)}, OWN)


def test_other_vendors_get_the_free_indices() -> None:
    gpus = after(NOT_DISCOVERED, (NVIDIA, SECOND), (RADEON,))
    assert [(each.uuid, each.index) for each in gpus.devices] == [("GPU-0", 0), ("GPU-1", 1), ("AMD-0", 2)]
    assert gpus.problem is None


def test_index_stays_while_another_driver_fails() -> None:
    before = after(NOT_DISCOVERED, (NVIDIA,), (RADEON,))
    gpus = after(before, FAILS, (RADEON,))
    assert [(each.uuid, each.index) for each in gpus.devices] == [("AMD-0", 1)]
    assert gpus.problem == FAILS.problem


def test_gpu_of_a_failing_driver_is_unknown_and_usable() -> None:
    gpus = after(after(NOT_DISCOVERED, (NVIDIA,)), FAILS)
    assert [(each.gpu, each.lost) for each in gpus.missing] == [(NVIDIA, False)]
    assert device_problem("0", gpus) is None
    assert device_problem("1", gpus) == f"device_mask 1 names GPU 1, but no GPU is visible: {FAILS.problem}"


def test_gpu_that_is_no_longer_listed_is_lost() -> None:
    gpus = after(after(NOT_DISCOVERED, (NVIDIA, SECOND)), (NVIDIA,))
    assert [(each.gpu, each.lost) for each in gpus.missing] == [(SECOND, True)]
    assert device_problem("0,1", gpus) == "GPU 1 (H100) is lost: its driver no longer finds it"
    assert device_problem("0", gpus) is None


def test_lost_gpu_stays_lost_while_the_driver_fails() -> None:
    gpus = after(after(after(NOT_DISCOVERED, (NVIDIA, SECOND)), (NVIDIA,)), FAILS)
    assert {each.gpu.index: each.lost for each in gpus.missing} == {0: False, 1: True}


def test_returned_gpu_is_present_again() -> None:
    gpus = after(after(after(NOT_DISCOVERED, (NVIDIA,)), ()), (NVIDIA,))
    assert gpus == Gpus((NVIDIA,))


def test_removed_mig_instance_is_not_lost() -> None:
    instance = replace(gpu(0), uuid="MIG-a", parent_uuid="GPU-0", mig_index=0)
    before = after(NOT_DISCOVERED, (NVIDIA, instance))
    assert after(before, (NVIDIA,)).missing == ()
    assert [each.gpu.uuid for each in after(before, ()).missing] == ["GPU-0", "MIG-a"]


def test_absent_driver_matters_only_without_any_gpu() -> None:
    absent = Reading(problem="the NVML library cannot be loaded", absent=True)
    assert after(NOT_DISCOVERED, absent, (RADEON,)).problem is None
    assert after(NOT_DISCOVERED, absent).problem == "the NVML library cannot be loaded"
    assert after(NOT_DISCOVERED, replace(absent, absent=False), (RADEON,)).problem


def test_machine_without_gpus_is_a_problem() -> None:
    assert after(NOT_DISCOVERED).problem == "the driver reports no GPU"


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4))), max_size=8))
def test_indices_are_unique_and_no_gpu_is_forgotten(steps: list[tuple[bool, set[int], set[int]]]) -> None:
    gpus, seen = NOT_DISCOVERED, set()
    for works, nvidia, amd in steps:
        cards = tuple(replace(gpu(number), uuid=f"AMD-{number}", vendor="amd") for number in amd)
        gpus = after(gpus, tuple(map(gpu, sorted(nvidia))) if works else FAILS, cards)
        seen |= {each.uuid for each in gpus.devices}
        assert {each.uuid for each in gpus.known} == seen
        assert len({each.index for each in gpus.devices}) == len(gpus.devices)
        assert [each.index for each in gpus.devices if each.vendor == "nvidia"] == sorted(nvidia if works else ())
