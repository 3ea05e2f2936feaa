"""A configured GPU that is absent is an error with a hint; the CPU is used only when configured."""

import pytest

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.devices import check_present, check_visible, mask_text, select
from llama_orch.settings.types import GpuMask
from tests.unit.engine_provisioner.pools import engine, pool

CPU = GpuMask(())


def test_pool_without_devices_gets_the_whole_mask() -> None:
    assert select(pool(), GpuMask((1, 3))) == (1, 3)


def test_pool_gets_its_devices_within_the_mask() -> None:
    assert select(pool(devices=[3]), GpuMask((1, 3))) == (3,)


def test_device_outside_the_mask_is_an_error() -> None:
    with pytest.raises(ProvisioningFailure, match="GPU 2 is not in ENGINE_PROVISIONER_GPU_MASK=0,1") as caught:
        select(pool(devices=[1, 2]), GpuMask((0, 1)))
    assert caught.value.retry is Retry.NEVER


def test_cpu_mask_contradicts_a_pool_with_devices() -> None:
    assert select(pool(), CPU) == ()
    with pytest.raises(ProvisioningFailure, match="which runs engines on the CPU"):
        select(pool(devices=[0]), CPU)


def test_pool_on_the_cpu_needs_no_cpu_mask() -> None:
    assert select(pool(devices="cpu"), GpuMask((0,))) == select(pool(devices="cpu"), CPU) == ()


def test_absent_gpu_is_an_error_with_present_gpus_and_hint() -> None:
    check_present((0,), {0: "H100"})
    with pytest.raises(ProvisioningFailure, match=r"GPU 1 is configured but absent \(present: 0 \(H100\)\).*=cpu"):
        check_present((0, 1), {0: "H100"})


def test_engine_that_would_fall_back_to_the_cpu_is_an_error() -> None:
    check_visible(engine(), (0,), "Available devices:\n  CUDA0: H100 (1 MiB, 1 MiB free)\n")
    with pytest.raises(ProvisioningFailure, match=r"only 0 of 1 configured GPUs \(0\) and would run on the CPU"):
        check_visible(engine(), (0,), "Available devices:\n")


def test_device_mask_of_handoff_files() -> None:
    assert (mask_text((0, 2)), mask_text(())) == ("0,2", "cpu")
